"""Reading and writing picture files as people have them: any mode and depth, alpha, orientation, colour profile, EXIF.

(What BasicSR's datasets read, 8-bit BGR, is in `drct.images.image_files`.)
"""

import os
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from drct.errors import DRCTError
from drct.files import write_atomically
from drct.images.deep_pictures import (
    as_float32,
    convert_depth,
    decode_png,
    decode_tiff,
    encode_png,
    encode_tiff,
    quiet_terminal,
)

WRITABLE = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}

# Of the files of a folder that are taken for pictures; a file that is named is read whatever its name ends in
SUFFIXES = {*WRITABLE, ".gif", ".ppm", ".pgm", ".tga", ".jp2", ".avif", ".jfif"}

Image.init()
# Not all that Pillow knows: for some (EPS) it starts other programs, others are nobody's pictures
READABLE: list[str] = [
    name
    for name in ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
    if name in Image.OPEN
]
_TIFF = (b"II*\0", b"MM\0*")  # how such files begin
_BIG_TIFF = (b"II+\0", b"MM\0+")
_LONGEST_SIDE = {"JPEG": 65500, "WEBP": 16383}
_LONGEST_EXIF = 65533  # of a JPEG's segment

# What EXIF says of the scene, the camera and the author. The rest of a file's main directory describes the layout of
# its pixels, which a result does not share.
_DESCRIPTIVE = {
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.XResolution,
    ExifTags.Base.YResolution,
    ExifTags.Base.ResolutionUnit,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.HostComputer,
    ExifTags.Base.Rating,
    ExifTags.Base.RatingPercent,
    ExifTags.Base.Copyright,
    ExifTags.Base.XPTitle,
    ExifTags.Base.XPComment,
    ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords,
    ExifTags.Base.XPSubject,
}
# Sizes that would be wrong for a result, and the place in the file of a directory that is not kept
_NOT_KEPT = {
    ExifTags.Base.ExifImageWidth,
    ExifTags.Base.ExifImageHeight,
    ExifTags.Base.ExifInteroperabilityOffset,
}


@dataclass
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; uint8, uint16, or float32 in [0, 1].
            Upright. Alpha is straight, not premultiplied.
        format: Pillow's name of the file's format.
        icc_profile: Colour profile, of gray for 1 or 2 channels, of RGB for 3 or 4. None means sRGB.
        exif: As Pillow's `Exif.tobytes()`: what describes the scene, the camera and the author, without orientation
            (it is applied), sizes in pixels and thumbnail.
        note: Something the user should know, such as "animated: only the first of its 12 frames is taken", or "".
    """

    pixels: np.ndarray
    format: str = "PNG"
    icc_profile: bytes | None = None
    exif: bytes | None = None
    note: str = ""


def read_picture(path: str | os.PathLike) -> Picture:
    """Read a picture file of any format in `READABLE`, whatever its name ends in.

    * 16 bits per channel of PNG and TIFF are kept, and TIFF's floats if they are in [0, 1]. Other formats' deeper
      channels are read with the 8 bits that Pillow gives, but for PGM's 16.
    * Gray stays gray, 1 bit becomes 8; palettes become RGB, or RGBA if an entry or a key colour is transparent.
    * CMYK becomes sRGB by its profile, or RGB by plain inversion if it has none; LAB and YCbCr become RGB.
    * Of animations and of files of several pages, the first picture is taken; a note says so.
    * Pillow's limit for decompression bombs holds: `2 * PIL.Image.MAX_IMAGE_PIXELS` pixels, 179 million.

    Raises:
        DRCTError: in one line that names the file, if it is not a whole picture of these kinds.
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
        reason = f"it is no picture, or not a whole one, of a known format ({', '.join(READABLE)}). Convert it to PNG."
        cause = error
    except Image.DecompressionBombError as error:
        reason, cause = str(error), error
    except OSError as error:
        reason, cause = error.strerror or f"it is damaged ({error})", error
    except MemoryError as error:
        reason, cause = "it does not fit in memory", error
    except Exception as error:  # decoders raise whatever a broken file makes them raise
        reason, cause = f"it is damaged ({type(error).__name__}: {error})", error
    raise DRCTError(" ".join(f"cannot read image {path}: {reason}".splitlines())) from cause


def from_pil(image: Image.Image) -> Picture:
    """Make a picture of Pillow's, by the rules of `read_picture`.

    Raises:
        DRCTError: if it holds integers of 32 bits, or numbers outside of [0, 1]. Does not name the file.
        Exception: Pillow's own, if its file, of which it had read only the beginning, is damaged.
    """
    image.load()
    pixels, profile, note = _pixels(image)
    orientation, exif, damage = _exif(image.getexif)
    pixels = _upright(pixels, orientation)
    return Picture(pixels, image.format or "PNG", _fitting(profile, pixels), exif, _join(note, damage))


def to_pil(picture: Picture) -> Image.Image:
    """Make an image of Pillow's with 8 bits per channel, whatever the picture has: Pillow has no deeper colour.

    Its mode is L, LA, RGB or RGBA; `info` has the colour profile and EXIF.
    """
    pixels = convert_depth(picture.pixels, np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if picture.icc_profile:
        image.info["icc_profile"] = picture.icc_profile
    if picture.exif:
        image.info["exif"] = picture.exif
    return image


def write_picture(path: str | os.PathLike, picture: Picture, quality: int = 95) -> str:
    """Write a picture in the format that the path's suffix says; the file appears whole or not at all.

    PNG has 8 or 16 bits, TIFF also floats; both, WebP and JPEG keep the colour profile and EXIF.

    Args:
        path: Name ending in one of `WRITABLE`. An older file of that name is replaced.
        picture: What to write.
        quality: Of JPEG and lossy WebP, 1 to 100. WebP of 100 is lossless.

    Returns:
        What the format could not hold, such as "JPEG has no transparency: flattened on white", or "".

    Raises:
        DRCTError: if the suffix is another, the format cannot hold the size, or the file cannot be written.
    """
    format = format_of(path)
    check_size(path, *picture.pixels.shape[:2])
    picture, note = _fit(picture, format)
    try:
        data = _encode(picture, format, quality)
    except Exception as error:  # encoders raise whatever a picture too large or EXIF too odd makes them raise
        raise DRCTError(f"cannot write {path} as {format}: {error}. Choose another format.") from error
    write_atomically(path, lambda file: file.write(data))
    return note


def check_size(path: str | os.PathLike, height: int, width: int) -> None:
    """Raise `DRCTError` if the format of a path cannot hold pictures of a size."""
    format = format_of(path)
    if max(height, width) > _LONGEST_SIDE.get(format, max(height, width)):
        raise DRCTError(
            f"cannot write {path}: it is {width}x{height} pixels and {format} has at most {_LONGEST_SIDE[format]} "
            f"a side. Choose another format, such as PNG."
        )


def format_of(path: str | os.PathLike) -> str:
    """Pillow's name of the format that `write_picture` writes to `path`. Raises `DRCTError` if it is none."""
    try:
        return WRITABLE[Path(path).suffix.lower()]
    except KeyError:
        raise DRCTError(f"cannot write {path}: its name must end in one of {', '.join(WRITABLE)}") from None


def _read(file: BinaryIO) -> Picture:
    start = file.read(4)
    if not start:
        raise DRCTError("the file is empty")
    if start in _TIFF + _BIG_TIFF:
        with quiet_terminal():
            return _read_tiff(file)
    return _read_by_pillow(file)


def _read_by_pillow(file: BinaryIO) -> Picture:
    file.seek(0)
    with Image.open(file, formats=READABLE) as image:
        count = getattr(image, "n_frames", 1)
        picture = from_pil(image)
        if image.format == "MPO":  # a JPEG that is followed by others, which many telephones write
            picture.format = "JPEG"
        elif count > 1:
            picture.note = _join(_first_of(count, "pages" if image.format == "TIFF" else "frames"), picture.note)
        if image.format == "PNG" and (pixels := decode_png(file, image.info.get("transparency"))) is not None:
            picture.pixels = _upright(pixels, _exif(image.getexif)[0])
            picture.icc_profile = _fitting(image.info.get("icc_profile"), pixels)
    return picture


def _read_tiff(file: BinaryIO) -> Picture:
    deep = decode_tiff(file)
    if deep is None:
        return _read_by_pillow(file)
    _, exif, note = _exif(lambda: _tiff_tags(file))
    if deep.pages > 1:
        note = _join(_first_of(deep.pages, "pages"), note)
    pixels = _upright(deep.pixels, deep.orientation)
    return Picture(pixels, "TIFF", _fitting(deep.icc_profile, pixels), exif, note)


def _tiff_tags(file: BinaryIO) -> Image.Exif:
    tags = Image.Exif()
    file.seek(0)
    if file.read(4) in _TIFF:  # of a BigTIFF Pillow reads the tags only with the pixels
        file.seek(0)
        tags.load_from_fp(file)
    return tags


def _exif(get_tags: Callable[[], Image.Exif]) -> tuple[int, bytes | None, str]:
    """Orientation (1 to 8), the EXIF that is kept, and a note if it is damaged, which is no reason to refuse a picture.

    `get_tags` is called here because reading the tags is what fails.
    """
    try:
        tags = get_tags()
        kept = _descriptive(tags)
        return tags.get(ExifTags.Base.Orientation, 1), kept.tobytes() if len(kept) else None, ""
    except Exception:  # Pillow raises whatever broken tags make it raise
        return 1, None, "its EXIF cannot be read: dropped"


def _descriptive(tags: Image.Exif) -> Image.Exif:
    """What of EXIF holds for a result too."""
    kept = Image.Exif()
    kept.endian = "<"
    for tag, value in tags.items():
        if tag in _DESCRIPTIVE:
            kept[tag] = _as_stored(value)
    for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        directory = tags.get_ifd(tag)
        if directory := {key: _as_stored(value) for key, value in directory.items() if key not in _NOT_KEPT}:
            kept[tag] = directory
    return kept


def _as_stored(value: object) -> object:
    """A value for Pillow to write as it was: it reads the bytes of text as Latin-1 and would write them as ASCII."""
    return value.encode("latin-1") if isinstance(value, str) and not value.isascii() else value


def _fitting(profile: bytes | None, pixels: np.ndarray) -> bytes | None:
    """A colour profile if it is of the pixels' colour model, gray or RGB, else None."""
    model = b"GRAY" if pixels.shape[2] < 3 else b"RGB "
    return profile if profile and profile[16:20] == model else None


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply EXIF's orientation, 1 to 8, to (H, W, C)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _pixels(image: Image.Image) -> tuple[np.ndarray, bytes | None, str]:
    """An image of Pillow's as an array (H, W, C), with the colour profile that it has then, and a note."""
    profile, note = image.info.get("icc_profile"), ""
    if image.mode == "F":
        return as_float32(np.asarray(image)[..., None]), profile, note
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return np.asarray(image)[..., None].astype(np.uint16), profile, note
    if image.mode == "I":
        raise DRCTError("its integers have 32 bits. Convert it to 8 or 16 bits, which are known to end at white.")
    if image.mode == "CMYK":
        image, note = _cmyk_to_rgb(image, profile)
        profile = None
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    pixels = np.asarray(image.convert(mode + "A" if image.has_transparency_data else mode))
    return pixels.reshape(*pixels.shape[:2], -1), profile, note


def _cmyk_to_rgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    if profile:
        try:
            transform = ImageCms.buildTransform(BytesIO(profile), ImageCms.createProfile("sRGB"), "CMYK", "RGB")
            return transform.apply(image), "CMYK: made sRGB by its profile"
        except (ImageCms.PyCMSError, OSError):  # no profile, or not of CMYK
            pass
    return image.convert("RGB"), "CMYK without a usable profile: made RGB by plain inversion, colours may differ"


def _fit(picture: Picture, format: str) -> tuple[Picture, str]:
    """The picture as a format can hold it, and a note of what that lost."""
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
        profile, exif = None, None
        note = _join(note, "BMP has no colour profile and EXIF: dropped")
    if format == "WEBP" and profile and pixels.shape[2] < 3:
        profile = None
        note = _join(note, "WEBP has no gray: its colour profile dropped")
    if format == "JPEG" and exif and len(exif) > _LONGEST_EXIF:
        exif = None
        note = _join(note, f"JPEG has no room for {len(picture.exif or b'')} bytes of EXIF: dropped")
    return Picture(convert_depth(pixels, dtype), format, profile, exif), note


def _encode(picture: Picture, format: str, quality: int) -> bytes:
    if format == "TIFF":
        tags = Image.Exif()
        tags.load(picture.exif or b"")
        return encode_tiff(picture.pixels, picture.icc_profile, _descriptive(tags))
    if picture.pixels.dtype == np.uint16:
        return encode_png(picture.pixels, picture.icc_profile, picture.exif)
    options: dict[str, object] = {}
    if format in ("JPEG", "WEBP"):
        options["quality"] = quality
    if format == "JPEG":
        options["subsampling"] = "4:4:4"  # 4:2:0 would halve the resolution of the colours
    if format == "WEBP":
        options |= {"lossless": quality == 100, "exact": True}  # exact: colours stay where it is transparent
    file = BytesIO()
    to_pil(picture).save(file, format, icc_profile=picture.icc_profile, exif=picture.exif or b"", **options)
    return file.getvalue()


def _first_of(count: int, what: str) -> str:
    return f"{'several pages' if what == 'pages' else 'animated'}: only the first of its {count} {what} is taken"


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
