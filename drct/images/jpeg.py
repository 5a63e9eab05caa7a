"""Segments of JPEG files that hold metadata for which Pillow has no words."""

import struct

from drct.images.iptc import resources_with
from drct.images.metadata import Density, Metadata

XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
ICC = b"ICC_PROFILE\0"
PHOTOSHOP = b"Photoshop 3.0\0"
# Beginnings of segments about how the file is stored, or which are read elsewhere
KNOWN = (b"JFIF\0", b"JFXX\0", b"Exif\0\0", XMP, b"MPF\0", b"Adobe", b"Ducky", PHOTOSHOP, ICC)


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
