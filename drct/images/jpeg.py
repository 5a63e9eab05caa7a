"""What JPEG files hold for which Pillow has no words: segments of metadata, and the quality they were saved with."""

import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache

from drct.images.iptc import resources_with
from drct.images.metadata import Density, Metadata

XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
ICC = b"ICC_PROFILE\0"
PHOTOSHOP = b"Photoshop 3.0\0"
# Beginnings of segments about how the file is stored, or which are read elsewhere
KNOWN = (b"JFIF\0", b"JFXX\0", b"Exif\0\0", XMP, b"MPF\0", b"Adobe", b"Ducky", PHOTOSHOP, ICC)

# The standard's example table for brightness (ITU-T T.81, table K.1), which nearly all programs scale
STANDARD = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)


def quality_of(tables: Mapping[int, Sequence[int]]) -> int | None:
    """Estimate the quality that a JPEG file was saved with, 1 to 100 as in libjpeg, from its quantization tables.

    It is the quality whose table of brightness has the nearest sum, which also compares tables of other programs.
    Returns None if there is no table of brightness.
    """
    table = tables.get(0)
    if not table:
        return None
    return min(range(100, 0, -1), key=lambda quality: abs(_sum_at(quality) - sum(table)))


@lru_cache(100)
def _sum_at(quality: int) -> int:
    """Return the sum of the table of brightness that libjpeg writes at a quality."""
    return sum(scaled_step(step, quality) for step in STANDARD)


def scaled_step(step: int, quality: int) -> int:
    """Scale a step of a table to a quality, as libjpeg does."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return min(255, max(1, (step * percent + 50) // 100))


def metadata_segments(metadata: Metadata) -> bytes:
    """Encode XMP, IPTC and comments, each of which must fit in a segment, as `fit_metadata` ensures."""
    segments = [(0xFE, text.text.encode("utf-8")) for text in metadata.texts]
    if metadata.xmp:
        segments.append((0xE1, XMP + metadata.xmp))
    if metadata.iptc:
        segments.append((0xED, PHOTOSHOP + resources_with(metadata.iptc)))
    return b"".join(struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data for marker, data in segments)


def with_jfif_density(data: bytes, density: Density | None) -> bytes:
    """Set the resolution in the header of a JPEG file, which Pillow begins with JFIF."""
    if density is None or data[2:4] != b"\xff\xe0":
        return data
    return data[:13] + struct.pack(">B2H", density.is_absolute, *density.rounded()) + data[18:]
