"""Picture files as people have them, read and written with their depth, transparency, colours and metadata."""

import os
import stat
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from drct.errors import DRCTError
from drct.files import write_bytes
from drct.images.depth import convert_depth, to_float32
from drct.images.exif import apply_orientation, with_density
from drct.images.found import Found, found_by_pillow
from drct.images.headers import HEADER, avif_colour, is_lossy, stored_bits, unread_info
from drct.images.jpeg import metadata_segments, quality_of, with_jfif_density
from drct.images.metadata import Metadata, fit_metadata
from drct.images.native import quiet_stderr
from drct.images.png16 import decode_png16, encode_png16
from drct.images.png_chunks import SIGNATURE, count_frames, find_metadata, split_chunks, with_chunks
from drct.images.tiff import TIFF_SIGNATURES, encode_tiff, read_tiff

# Formats that can be written, by suffix
WRITABLE = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
# The files of a folder that are taken for pictures. A file that the user names is read whatever its suffix.
PICTURE_SUFFIXES = {*WRITABLE, ".gif", ".ppm", ".pgm", ".tga", ".jp2", ".avif", ".jfif"}

Image.init()
# Formats that can be read: not all of Pillow's, which starts other programs for some (EPS); others are not for pictures
_SAFE = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
READABLE: list[str] = [name for name in _SAFE if name in Image.OPEN]
# What a note says about a file of several pictures; of other formats it is animated
_SEVERAL = {
    "TIFF": ("several pages", "first", "pages"),
    "MPO": ("several pictures", "first", "pictures"),
    "ICO": ("several sizes", "largest", "sizes"),
}
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}


@dataclass
class Picture:
    """A decoded picture, upright.

    Its pixels are (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; uint8, uint16, or float32 in [0, 1].
    Alpha is straight, not premultiplied.
    """

    pixels: np.ndarray
    format: str = "PNG"  # Pillow's name of the file format
    metadata: Metadata = Metadata()
    note: str = ""  # for the user, such as "animated: only the first of its 12 frames is taken"
    lossy: bool = False  # whether its file is of a kind that leaves out what the eye hardly sees
    quality: int | None = None  # that a JPEG was saved with, 1 to 100, estimated


def read_picture(path: str | os.PathLike) -> Picture:
    """Read a picture file of any format in `READABLE`, whatever its suffix.

    * PNG and TIFF keep 16 bits per channel, TIFF also floats in [0, 1], and PGM 16-bit gray. Other files of more than
      8 bits are reduced to 8, and a note says so.
    * Gray stays gray and 1 bit becomes 8. Palettes become RGB, or RGBA if a colour is transparent.
    * CMYK is converted to sRGB by its profile, or by plain inversion if it has none; LAB and YCbCr become RGB.
    * Of animations and files of several pages only the first picture is read, and a note says so. Thumbnails and masks
      of TIFF are no pages.
    * Metadata that describes the file or is damaged is left out, the latter with a note.
    * Pillow's limit against decompression bombs holds: `2 * PIL.Image.MAX_IMAGE_PIXELS`, 179 million pixels.

    Raises:
        DRCTError: if the file is not a complete picture of these kinds. The message names the file.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # opening a pipe would wait for a writer
            raise DRCTError("it is not a file")
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(file)
    except DRCTError as error:
        reason, cause = str(error), error.__cause__
    except UnidentifiedImageError as error:
        known, cause = ", ".join(READABLE), error
        reason = f"it is not a picture, or not a complete one, of a known format ({known}). Convert it to PNG."
    except Image.DecompressionBombError as error:
        reason, cause = str(error), error
    except OSError as error:
        reason, cause = error.strerror or f"it is damaged ({error})", error
    except MemoryError as error:
        reason, cause = "it does not fit in memory", error
    except Exception as error:  # decoders raise errors of any type for broken files
        reason, cause = f"it is damaged ({type(error).__name__}: {error})", error
    raise DRCTError(" ".join(f"cannot read image {path}: {reason}".splitlines())) from cause


def from_pil(image: Image.Image) -> Picture:
    """Convert a Pillow image to a picture, by the rules of `read_picture`.

    Raises:
        DRCTError: if its values are 32-bit integers, or floats not in [0, 1]. The message does not name the file.
        Exception: of any type, from Pillow, which decodes the image's file only now, if that is damaged.
    """
    image.load()
    pixels, profile, note = _pixels(image)
    found = found_by_pillow(image)
    found.icc_profile = profile
    picture = _picture(pixels, image.format or "PNG", found, note)
    picture.quality = quality_of(getattr(image, "quantization", {}))  # of JPEG only
    picture.lossy = picture.quality is not None
    return picture


def _picture(pixels: np.ndarray, format: str, found: Found, *notes: str) -> Picture:
    metadata, orientation, complaint = found.settle(pixels.shape[2])
    return Picture(apply_orientation(pixels, orientation), format, metadata, _join(*notes, complaint))


def to_pil(picture: Picture) -> Image.Image:
    """Convert a picture to a Pillow image of mode L, LA, RGB or RGBA.

    Its `info` contains the colour profile, EXIF, XMP and resolution (dpi).

    Deeper channels are reduced to 8 bits, because Pillow has no deeper colour.
    """
    pixels = convert_depth(picture.pixels, np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    metadata = picture.metadata
    if metadata.density and metadata.density.is_absolute:
        image.info["dpi"] = metadata.density[:2]
    for name in ("icc_profile", "exif", "xmp"):
        if content := getattr(metadata, name):
            image.info[name] = content
    return image


def write_picture(path: str | os.PathLike, picture: Picture, quality: int = 95, replace: bool = True) -> str:
    """Write a picture in the format of the path's suffix; the file appears whole or not at all.

    PNG holds 8 or 16 bits, TIFF also floats, the others 8 bits. `drct.images.metadata.HELD` says which metadata each
    holds. `quality` is that of JPEG and WebP, 1 to 100; WebP of quality 100 is lossless.

    Returns:
        A note of what the format could not hold, such as "JPEG has no transparency: flattened on white", or "".

    Raises:
        AlreadyExistsError: if the file exists, unless it is to be replaced.
        DRCTError: if the suffix is not in `WRITABLE`, the picture is too large for the format, or the file cannot be
            written.
    """
    format = format_of(path)
    check_size(path, *picture.pixels.shape[:2])
    picture, note = _fit(picture, format)
    try:
        data = _encode(picture, format, quality)
    except Exception as error:  # encoders raise errors of any type, for example for odd EXIF
        raise DRCTError(f"cannot write {path} as {format}: {error}. Choose another format.") from error
    write_bytes(path, data, replace)
    return note


def check_size(path: str | os.PathLike, height: int, width: int) -> None:
    """Raise `DRCTError` if a picture of this size is too large for the format of the path."""
    format = format_of(path)
    if max(height, width) > _LONGEST_SIDE.get(format, max(height, width)):
        raise DRCTError(
            f"cannot write {path}: it would have {width}x{height} pixels, but {format} has at most "
            f"{_LONGEST_SIDE[format]} a side. Choose another format, such as PNG."
        )


def format_of(path: str | os.PathLike) -> str:
    """Return Pillow's name of the format of a file to write. Raises `DRCTError` if its suffix is not in `WRITABLE`."""
    suffix = Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise DRCTError(f"cannot write {path}: its name must end in one of {', '.join(WRITABLE)}")
    return WRITABLE[suffix]


def _read(file: BinaryIO) -> Picture:
    start = file.read(8)
    if not start:
        raise DRCTError("the file is empty")
    if start == SIGNATURE:
        return _read_png(start + file.read())
    if start[:4] not in TIFF_SIGNATURES:
        return _read_by_pillow(file)
    with quiet_stderr():
        return _read_tiff(file)


def _read_by_pillow(file: BinaryIO) -> Picture:
    file.seek(0)
    with Image.open(file, formats=READABLE) as image:
        image.info.update(unread_info(file, image.format))
        picture = from_pil(image)
        count = getattr(image, "n_frames", 1)
        if image.format == "MPO":  # a JPEG followed by others, as many phones write it
            picture.format = "JPEG"
        if image.format == "ICO":
            count = len(image.info.get("sizes", ()))
        file.seek(0)
        start = file.read(HEADER)
        if image.format == "AVIF" and not picture.metadata.icc_profile:
            picture.metadata = replace(picture.metadata, colour=avif_colour(start))
        picture.lossy = is_lossy(start, image.format)
        reduced = _reduced(stored_bits(start, image.format), picture.pixels)
        picture.note = _join(_first_of(count, image.format), reduced, picture.note)
    return picture


def _read_png(data: bytes) -> Picture:
    pixel_data, chunks = split_chunks(data)
    with Image.open(BytesIO(pixel_data), formats=["PNG"]) as image:
        image.load()
        pixels = decode_png16(pixel_data, image.info.get("transparency"))
        if pixels is None:
            pixels, _, _ = _pixels(image)
    return _picture(pixels, "PNG", find_metadata(chunks), _first_of(count_frames(chunks), "PNG"))


def _read_tiff(file: BinaryIO) -> Picture:
    read = read_tiff(file)
    note = _first_of(read.pages, "TIFF")
    if read.pixels is not None:
        return _picture(read.pixels, "TIFF", read.found, note)
    read.file.seek(0)
    try:
        image = Image.open(read.file, formats=["TIFF"])
    except UnidentifiedImageError as error:
        raise DRCTError(f"TIFF of {read.kind} is not read. Convert it to RGB of 8 or 16 bits.") from error
    with image:
        image.info.pop("xmp", None)  # else its orientation counts for Pillow if the tags have none
        image.load()
        pixels, profile, conversion = _pixels(image)
        found = replace(read.found, icc_profile=profile, is_turned=True)  # by Pillow
        return _picture(pixels, "TIFF", found, note, _reduced(read.bits, pixels), conversion)


def _pixels(image: Image.Image) -> tuple[np.ndarray, bytes | None, str]:
    """Convert a Pillow image to (H, W, C); also return its colour profile if that still holds, and a note."""
    profile, note = image.info.get("icc_profile"), ""
    if image.mode == "F":
        return to_float32(np.asarray(image)[..., None]), profile, note
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return np.asarray(image)[..., None].astype(np.uint16), profile, note
    if image.mode == "I":
        raise DRCTError("its channels are integers of 32 bits, of which white is unknown. Convert it to 8 or 16 bits.")
    if image.mode == "CMYK":
        image, note = _cmyk_to_rgb(image, profile)
        profile = None
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    pixels = np.asarray(image.convert(mode + "A" if image.has_transparency_data else mode))
    return pixels.reshape(*pixels.shape[:2], -1), profile, note


def _cmyk_to_rgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):  # not a profile, or not of CMYK
            transform = ImageCms.buildTransform(BytesIO(profile), ImageCms.createProfile("sRGB"), "CMYK", "RGB")
            return transform.apply(image), "CMYK: converted to sRGB by its profile"
    return image.convert("RGB"), "CMYK without a usable profile: converted to RGB by inversion, colours may differ"


def _fit(picture: Picture, format: str) -> tuple[Picture, str]:
    """Reduce a picture to what a format can hold; also return a note of what is lost."""
    pixels, note = picture.pixels, ""
    depth = {"TIFF": pixels.dtype, "PNG": np.dtype(np.uint8 if pixels.dtype == np.uint8 else np.uint16)}
    dtype = depth.get(format, np.dtype(np.uint8))
    if dtype != pixels.dtype:
        held = "floats" if pixels.dtype.kind == "f" else "16 bits"
        note = f"{format} has no {held}: rounded to {dtype.itemsize * 8} bits"
    if format in ("JPEG", "BMP") and pixels.shape[2] in (2, 4):
        opacity = convert_depth(pixels[..., -1:], np.float32)
        pixels = convert_depth(pixels[..., :-1], np.float32)
        if opacity.min() < 1:
            pixels = pixels * opacity + (1 - opacity)
            note = _join(note, f"{format} has no transparency: flattened on white")
    metadata, lost = fit_metadata(picture.metadata, format)
    if format == "WEBP" and metadata.icc_profile and pixels.shape[2] < 3:
        metadata = replace(metadata, icc_profile=None)
        lost.append("WEBP has no gray: colour profile dropped")
    return Picture(convert_depth(pixels, dtype), format, metadata), _join(note, *lost)


def _encode(picture: Picture, format: str, quality: int) -> bytes:
    metadata = picture.metadata
    if format == "TIFF":
        return encode_tiff(picture.pixels, metadata)
    if format == "PNG":
        is_deep = picture.pixels.dtype == np.uint16
        return with_chunks(encode_png16(picture.pixels) if is_deep else _encoded(picture, format), metadata)
    exif = b""
    if metadata.exif or (metadata.density and format == "WEBP"):
        exif = with_density(metadata.exif, metadata.density).tobytes()
    if format == "BMP":
        density = metadata.density
        return _encoded(picture, format, dpi=density[:2] if density else (0, 0))
    options = {"quality": quality, "exif": exif, "icc_profile": metadata.icc_profile}
    if format == "WEBP":  # exact: keep colours where it is transparent
        return _encoded(picture, format, lossless=quality == 100, exact=True, xmp=metadata.xmp or b"", **options)
    # 4:2:0 would halve the resolution of colour
    data = _encoded(picture, format, subsampling="4:4:4", extra=metadata_segments(metadata), **options)
    return with_jfif_density(data, metadata.density)


def _encoded(picture: Picture, format: str, **options: object) -> bytes:
    image = to_pil(replace(picture, metadata=Metadata()))
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _reduced(bits: int, pixels: np.ndarray) -> str:
    """Return a note if a file has more bits per channel than the pixels that were read from it."""
    return f"its {bits} bits are reduced to 8" if bits > 8 and pixels.dtype == np.uint8 else ""


def _first_of(count: int, format: str | None) -> str:
    """Return a note about a file of several pages or frames."""
    if count < 2:
        return ""
    kind, taken, parts = _SEVERAL.get(format or "", ("animated", "first", "frames"))
    return f"{kind}: only the {taken} of its {count} {parts} is taken"


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
