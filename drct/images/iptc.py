"""IPTC records, and the blocks of Photoshop ("image resources") that contain them in JPEG and TIFF."""

import struct

_RECORDS = 0x0404
_PATHS = range(2000, 2999)


def read_resources(data: bytes) -> dict[int, bytes]:
    """Read Photoshop's blocks by number, up to the first that is damaged."""
    blocks: dict[int, bytes] = {}
    start = 0
    while data[start : start + 4] == b"8BIM" and start + 12 <= len(data):
        number, length = struct.unpack_from(">HB", data, start + 4)
        start += 6 + (length + 2) // 2 * 2  # the name and its length, padded to an even number of bytes
        if start + 4 > len(data):
            break
        (size,) = struct.unpack_from(">I", data, start)
        content = data[start + 4 : start + 4 + size]
        if len(content) < size:
            break
        blocks[number] = content
        start += 4 + size + size % 2
    return blocks


def records_of(blocks: dict[int, bytes]) -> tuple[bytes | None, list[str]]:
    """Return the IPTC records among Photoshop's blocks, and the names of what else is of interest but not kept."""
    return blocks.get(_RECORDS) or None, ["Photoshop's paths"] if any(number in _PATHS for number in blocks) else []


def resources_with(records: bytes) -> bytes:
    """Return IPTC records in a block of Photoshop's."""
    return b"8BIM" + struct.pack(">HxxI", _RECORDS, len(records)) + records + b"\0" * (len(records) % 2)


def in_order(records: bytes) -> bytes:
    """Undo the exchange of bytes in records that a TIFF file holds as 32-bit numbers; each record begins with 28."""
    if records[:1] != b"\x1c" and records[3:4] == b"\x1c" and len(records) % 4 == 0:
        return b"".join(records[start : start + 4][::-1] for start in range(0, len(records), 4))
    return records
