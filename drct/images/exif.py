"""EXIF metadata: which of it a result keeps, and the orientation, which is applied to the pixels."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from drct.images.metadata import Density, valid_density

# Tags about the scene, the camera and the author. The other tags of a file's main directory describe how its pixels
# are stored, which does not hold for a result.
_SCENE = ("ImageDescription", "DocumentName", "PageName", "DateTime", "Rating", "RatingPercent")
_CAMERA = ("Make", "Model", "Software", "HostComputer")
_AUTHOR = ("Artist", "Copyright", "XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject")
_DESCRIPTIVE = {ExifTags.Base[name] for name in (*_SCENE, *_CAMERA, *_AUTHOR)}
# Sizes that would be wrong for a result, and the offset in the file of a directory that is not kept
_DROPPED = {ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.Base.ExifInteroperabilityOffset}
# Tags of value that describe these very pixels
_LOST = dict.fromkeys((33550, 33922, 34264, 34735, 34736, 34737), "georeferencing") | {37724: "Photoshop's layers"}
# Beginnings of descriptions by which programs find their way in the pixels of a file; the last says no more than that
_OF_PIXELS = ("ImageJ=", "<?xml", '{"shape":')


class Tags(NamedTuple):
    """EXIF metadata of a picture file."""

    orientation: int = 0  # 1 (upright) to 8, still to be applied to the pixels; 0 if it is not given
    exif: bytes | None = None  # what a result keeps, as `PIL.Image.Exif.tobytes` returns it
    density: Density | None = None
    lost: tuple[str, ...] = ()  # names of what no result keeps
    is_damaged: bool = False


def read_tags(get_tags: Callable[[], Image.Exif]) -> Tags:
    """Read EXIF metadata from the tags that `get_tags` returns."""
    try:
        tags = get_tags()
        lost = {name for tag, name in _LOST.items() if tag in tags}
        if _describes_pixels(tags.get(ExifTags.Base.ImageDescription), _OF_PIXELS[:2]):
            lost.add("description of the pixels")
        kept = descriptive_tags(tags)
        exif = kept.tobytes() if len(kept) else None
        orientation = tags.get(ExifTags.Base.Orientation, 0)
        return Tags(orientation if orientation in range(1, 9) else 0, exif, _density(tags), tuple(sorted(lost)))
    except Exception:  # Pillow raises errors of any type for broken tags
        return Tags(is_damaged=True)


def descriptive_tags(tags: Image.Exif) -> Image.Exif:
    """Select the tags that hold for a result too: no orientation, sizes, resolution or thumbnail."""
    kept = Image.Exif()
    kept.endian = "<"
    for tag, value in tags.items():
        if tag in _DESCRIPTIVE and not (tag == ExifTags.Base.ImageDescription and _describes_pixels(value)):
            kept[tag] = _as_stored(value)
    for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        directory = tags.get_ifd(tag)
        if directory := {key: _as_stored(value) for key, value in directory.items() if key not in _DROPPED}:
            kept[tag] = directory
    return kept


def with_density(exif: bytes | None, density: Density | None) -> Image.Exif:
    """Load EXIF, little-endian, and add the resolution to it."""
    tags = Image.Exif()
    tags.load(exif or b"")
    tags = descriptive_tags(tags)
    if density:
        tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution] = density.x, density.y
        tags[ExifTags.Base.ResolutionUnit] = 2 if density.is_absolute else 1  # inches
    return tags


def _density(tags: Image.Exif) -> Density | None:
    x, y = tags.get(ExifTags.Base.XResolution, 0), tags.get(ExifTags.Base.YResolution, 0)
    unit = tags.get(ExifTags.Base.ResolutionUnit, 2)
    factor = 2.54 if unit == 3 else 1  # centimetres
    x, y = float(x) * factor, float(y) * factor
    return valid_density(x, y, unit in (2, 3)) if math.isfinite(x + y) else None


def _describes_pixels(value: object, beginnings: tuple[str, ...] = _OF_PIXELS) -> bool:
    return isinstance(value, str) and value.startswith(beginnings)


def _as_stored(value: object) -> object:
    """Encode text so that Pillow writes the bytes it read: it decodes them as Latin-1, but would encode as ASCII."""
    return value.encode("latin-1") if isinstance(value, str) and not value.isascii() else value


def apply_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror (H, W, C) pixels upright, from EXIF's orientation 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
