"""EXIF metadata: which of it a result keeps, and the orientation, which is applied to the pixels."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

# Tags about the scene, the camera and the author. The other tags of a file's main directory describe how its pixels
# are stored, which does not hold for a result.
_SCENE = ("ImageDescription", "XResolution", "YResolution", "ResolutionUnit", "DateTime", "Rating", "RatingPercent")
_CAMERA = ("Make", "Model", "Software", "HostComputer")
_AUTHOR = ("Artist", "Copyright", "XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject")
_DESCRIPTIVE = {ExifTags.Base[name] for name in (*_SCENE, *_CAMERA, *_AUTHOR)}
# Sizes that would be wrong for a result, and the offset in the file of a directory that is not kept
_DROPPED = {ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.Base.ExifInteroperabilityOffset}


class Metadata(NamedTuple):
    """EXIF metadata of a picture file."""

    orientation: int = 1  # 1 (upright) to 8, still to be applied to the pixels
    exif: bytes | None = None  # what a result keeps, as `PIL.Image.Exif.tobytes` returns it
    note: str = ""  # for the user, if the metadata is damaged


def read_metadata(get_tags: Callable[[], Image.Exif]) -> Metadata:
    """Read EXIF metadata from the tags that `get_tags` returns, or drop it with a note if they are damaged."""
    try:
        tags = get_tags()
        kept = descriptive_tags(tags)
        return Metadata(tags.get(ExifTags.Base.Orientation, 1), kept.tobytes() if len(kept) else None)
    except Exception:  # Pillow raises errors of any type for broken tags
        return Metadata(note="its EXIF cannot be read: dropped")


def descriptive_tags(tags: Image.Exif) -> Image.Exif:
    """Select the tags that hold for a result too: no orientation, sizes or thumbnail."""
    kept = Image.Exif()
    kept.endian = "<"
    for tag, value in tags.items():
        if tag in _DESCRIPTIVE:
            kept[tag] = _as_stored(value)
    for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        directory = tags.get_ifd(tag)
        if directory := {key: _as_stored(value) for key, value in directory.items() if key not in _DROPPED}:
            kept[tag] = directory
    return kept


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
