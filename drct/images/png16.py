"""PNG files of 16 bits per channel, which Pillow reads with 8 bits and writes in gray only."""

import struct
import zlib
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL.PngImagePlugin import putchunk

from drct.images.native import decode_with_opencv, quiet_stderr

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's colour types by the number of channels
_PIXEL_CHUNKS = (b"IHDR", b"IDAT", b"IEND")
_ROWS_AT_ONCE = 64


def decode_png16(file: BinaryIO, transparent: int | tuple[int, ...] | None) -> np.ndarray | None:
    """Decode a PNG file of 16 bits that Pillow has found complete, given the colour that it reports as transparent.

    Returns:
        (H, W, C) uint16, or None if the file has fewer bits.

    Raises:
        DRCTError: if it is damaged.
    """
    file.seek(0)
    data = file.read(26)
    depth, colour_type = data[24:]
    if depth != 16:
        return None
    with quiet_stderr():
        pixels = decode_with_opencv(_pixel_chunks(data + file.read()))
    if colour_type == _COLOUR_TYPES[2]:  # OpenCV repeats gray
        pixels = pixels[..., [0, 3]]
    if transparent is not None:
        alpha = np.where((pixels == transparent).all(-1, keepdims=True), 0, 65535)
        pixels = np.concatenate([pixels, alpha.astype(np.uint16)], -1)
    return pixels


def _pixel_chunks(data: bytes) -> bytes:
    """Leave out other chunks: OpenCV prints warnings about some profiles, and may apply EXIF's orientation."""
    kept, start = [data[:8]], 8
    while start + 8 <= len(data):
        end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
        if data[start + 4 : start + 8] in _PIXEL_CHUNKS and end <= len(data):
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def encode_png16(pixels: np.ndarray, icc_profile: bytes | None, exif: bytes | None) -> bytes:
    """Encode (H, W, C) uint16 as PNG. OpenCV could write neither gray with alpha nor a profile and EXIF."""
    height, width, channels = pixels.shape
    file = BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    putchunk(file, b"IHDR", struct.pack(">2I5B", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0))
    if icc_profile:
        putchunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
    if exif:
        putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    compressor = zlib.compressobj()
    for row in range(0, height, _ROWS_AT_ONCE):
        band = pixels[row : row + _ROWS_AT_ONCE].astype(">u2", order="C").view(np.uint8)  # (rows, W, bytes of a pixel)
        left = np.diff(band, axis=1, prepend=np.uint8(0))  # filter 1: difference to the pixel on the left, modulo 256
        putchunk(file, b"IDAT", compressor.compress(np.insert(left.reshape(len(band), -1), 0, 1, axis=1).tobytes()))
    putchunk(file, b"IDAT", compressor.flush())
    putchunk(file, b"IEND", b"")
    return file.getvalue()
