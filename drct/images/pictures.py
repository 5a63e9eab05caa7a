"""Picture files as people have them, read and written with their depth, transparency, colour profile and EXIF."""

import os
import stat
import warnings
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from drct.errors import DRCTError
from drct.files import write_bytes
from drct.images.depth import convert_depth, to_float32
from drct.images.exif import apply_orientation, descriptive_tags, read_metadata
from drct.images.native import quiet_stderr
from drct.images.png16 import decode_png16, encode_png16
from drct.images.tiff import TIFF_SIGNATURES, decode_tiff, encode_tiff, read_tags

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
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}


@dataclass
class Picture:
    """A decoded picture, upright.

    Its pixels are (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; uint8, uint16, or float32 in [0, 1].
    Alpha is straight, not premultiplied.
    """

    pixels: np.ndarray
    format: str = "PNG"  # Pillow's name of the file format
    icc_profile: bytes | None = None  # of gray if C is 1 or 2, else of RGB; None means sRGB
    exif: bytes | None = None  # as `PIL.Image.Exif.tobytes` returns the tags that `descriptive_tags` selects
    note: str = ""  # for the user, such as "animated: only the first of its 12 frames is taken"


def read_picture(path: str | os.PathLike) -> Picture:
    """Read a picture file of any format in `READABLE`, whatever its suffix.

    * PNG and TIFF keep 16 bits per channel, TIFF also floats in [0, 1], and PGM 16-bit gray. Other files of more than
      8 bits are reduced to 8 by Pillow.
    * Gray stays gray and 1 bit becomes 8. Palettes become RGB, or RGBA if a colour is transparent.
    * CMYK is converted to sRGB by its profile, or by plain inversion if it has none; LAB and YCbCr become RGB.
    * Of animations and files of several pages only the first picture is read, and a note says so.
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
    metadata = read_metadata(image.getexif)
    pixels = apply_orientation(pixels, metadata.orientation)
    profile = _matching_profile(profile, pixels)
    return Picture(pixels, image.format or "PNG", profile, metadata.exif, _join(note, metadata.note))


def to_pil(picture: Picture) -> Image.Image:
    """Convert a picture to a Pillow image of mode L, LA, RGB or RGBA, with colour profile and EXIF in its `info`.

    Deeper channels are reduced to 8 bits, because Pillow has no deeper colour.
    """
    pixels = convert_depth(picture.pixels, np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if picture.icc_profile:
        image.info["icc_profile"] = picture.icc_profile
    if picture.exif:
        image.info["exif"] = picture.exif
    return image


def write_picture(path: str | os.PathLike, picture: Picture, quality: int = 95, replace: bool = True) -> str:
    """Write a picture in the format of the path's suffix; the file appears whole or not at all.

    PNG holds 8 or 16 bits, TIFF also floats, the others 8 bits. All but BMP hold the colour profile and EXIF. `quality`
    is that of JPEG and WebP, 1 to 100; WebP of quality 100 is lossless.

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
    start = file.read(4)
    if not start:
        raise DRCTError("the file is empty")
    if start in TIFF_SIGNATURES:
        with quiet_stderr():
            return _read_tiff(file)
    return _read_by_pillow(file)


def _read_by_pillow(file: BinaryIO) -> Picture:
    file.seek(0)
    with Image.open(file, formats=READABLE) as image:
        count = getattr(image, "n_frames", 1)
        picture = from_pil(image)
        if image.format == "MPO":  # a JPEG followed by others, as many phones write it
            picture.format = "JPEG"
        else:
            picture.note = _join(_first_of(count, image.format), picture.note)
        if image.format == "PNG" and (pixels := decode_png16(file, image.info.get("transparency"))) is not None:
            picture.pixels = apply_orientation(pixels, read_metadata(image.getexif).orientation)
            picture.icc_profile = _matching_profile(image.info.get("icc_profile"), pixels)
    return picture


def _read_tiff(file: BinaryIO) -> Picture:
    deep = decode_tiff(file)
    if deep is None:
        return _read_by_pillow(file)
    metadata = read_metadata(lambda: read_tags(file))
    note = _join(_first_of(deep.pages, "TIFF"), metadata.note)
    pixels = apply_orientation(deep.pixels, deep.orientation)
    return Picture(pixels, "TIFF", _matching_profile(deep.icc_profile, pixels), metadata.exif, note)


def _matching_profile(profile: bytes | None, pixels: np.ndarray) -> bytes | None:
    """Return a colour profile if its colour model, gray or RGB, is that of the pixels, else None."""
    model = b"GRAY" if pixels.shape[2] < 3 else b"RGB "
    return profile if profile and profile[16:20] == model else None


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
    profile, exif = picture.icc_profile, picture.exif
    if format == "BMP" and (profile or exif):
        profile = exif = None
        note = _join(note, "BMP has neither colour profile nor EXIF: dropped")
    if format == "WEBP" and profile and pixels.shape[2] < 3:
        profile = None
        note = _join(note, "WEBP has no gray: colour profile dropped")
    if format == "JPEG" and exif and len(exif) > 65533:  # bytes, the limit of a segment
        note = _join(note, f"JPEG has no room for {len(exif)} bytes of EXIF: dropped")
        exif = None
    return Picture(convert_depth(pixels, dtype), format, profile, exif), note


def _encode(picture: Picture, format: str, quality: int) -> bytes:
    if format == "TIFF":
        tags = Image.Exif()
        tags.load(picture.exif or b"")
        return encode_tiff(picture.pixels, picture.icc_profile, descriptive_tags(tags))
    if picture.pixels.dtype == np.uint16:
        return encode_png16(picture.pixels, picture.icc_profile, picture.exif)
    options: dict[str, object] = {}
    if format in ("JPEG", "WEBP"):
        options["quality"] = quality
    if format == "JPEG":
        options["subsampling"] = "4:4:4"  # 4:2:0 would halve the resolution of colour
    if format == "WEBP":
        options |= {"lossless": quality == 100, "exact": True}  # exact: keep colours where it is transparent
    file = BytesIO()
    to_pil(picture).save(file, format, icc_profile=picture.icc_profile, exif=picture.exif or b"", **options)
    return file.getvalue()


def _first_of(count: int, format: str | None) -> str:
    """Return a note about a file of several pages or frames."""
    kind, parts = ("several pages", "pages") if format == "TIFF" else ("animated", "frames")
    return f"{kind}: only the first of its {count} {parts} is taken" if count > 1 else ""


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
