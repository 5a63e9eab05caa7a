"""What files say about depth, colour and metadata that Pillow does not report."""

import re
import struct
from typing import BinaryIO

from drct.images.metadata import TRANSFERS

HEADER = 100_000  # bytes in which to look
_XMP_BOX = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")


def unread_info(file: BinaryIO, format: str | None) -> dict[str, bytes]:
    """Return the colour profile and XMP, as in `PIL.Image.Image.info`, of JPEG 2000 and BMP files."""
    position, info = file.tell(), {}
    file.seek(0)
    if format == "JPEG2000":
        data = file.read()
        colour, packet = data.find(b"colr\2", 0, HEADER), data.find(b"uuid" + _XMP_BOX)
        if colour >= 4:
            info["icc_profile"] = data[colour + 7 : _end_of_box(data, colour)]  # after its method and precedence
        if packet >= 4:
            info["xmp"] = data[packet + 20 : _end_of_box(data, packet)]
    elif format == "BMP":
        header = file.read(138)
        if header[14:18] == b"\x7c\0\0\0" and header[70:74] == b"DEBM" and len(header) == 138:  # "MBED": embedded
            offset, size = struct.unpack_from("<2I", header, 126)
            file.seek(14 + offset)
            info["icc_profile"] = file.read(size)
    file.seek(position)  # which Pillow may count on
    return info


def _end_of_box(data: bytes, name: int) -> int:
    """Return where a box of JPEG 2000 ends, given the position of its name; its length stands before that."""
    length = int.from_bytes(data[name - 4 : name], "big")
    return name - 4 + length if length else len(data)


def stored_bits(start: bytes, format: str | None) -> int:
    """Return the bits per channel of a file of AVIF, JPEG 2000 or PPM, of which Pillow takes 8; 0 if unknown."""
    if format == "AVIF":
        box = start.find(b"pixi")  # then its version, the number of channels, and the bits of each
        return max(start[box + 9 : box + 9 + start[box + 8]], default=0) if 0 <= box < len(start) - 12 else 0
    if format == "JPEG2000":
        box = start.find(b"ihdr")  # then height, width, the number of channels, and bits - 1 with a sign on top
        coded = start[box + 14] if 0 <= box < len(start) - 14 else 255
        return 0 if coded == 255 else (coded & 127) + 1
    if format == "PPM":
        numbers = re.sub(rb"#[^\n]*", b"", start[:1000]).split()[1:4]
        return int(numbers[2]).bit_length() if len(numbers) == 3 and numbers[2].isdigit() else 0
    return 0


def is_lossy(start: bytes, format: str | None) -> bool:
    """Return whether a format, or for WebP the file that starts so, leaves out what the eye hardly sees."""
    if format == "WEBP":
        return b"VP8 " in start and b"VP8L" not in start  # a picture in a chunk of this name
    return format in ("JPEG", "MPO", "AVIF")


def avif_colour(start: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the colour that an AVIF file declares by codes (nclx), as PNG's cICP, if it is not sRGB."""
    position = start.find(b"colrnclx") + 8
    codes = start[position : position + 6]
    if position < 8 or len(codes) < 6:
        return ()
    primaries, transfer = codes[1], codes[3]
    is_srgb = primaries in (1, 2) and transfer not in TRANSFERS
    return () if is_srgb else ((b"cICP", bytes((primaries, transfer, 0, 1))),)
