"""PNG files of 16 bits per channel, which Pillow reads with 8 bits and writes in gray only."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL.PngImagePlugin import putchunk

from drct.images.native import decode_with_opencv, quiet_stderr

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's colour types by the number of channels
_PIXEL_CHUNKS = (b"IHDR", b"IDAT", b"IEND")
_ROWS_AT_ONCE = 64


def decode_png16(data: bytes, transparent: int | tuple[int, ...] | None) -> np.ndarray | None:
    """Decode a PNG file of 16 bits that Pillow has found complete, given the colour that it reports as transparent.

    Returns:
        (H, W, C) uint16, or None if the file has fewer bits.

    Raises:
        DRCTError: if it is damaged.
    """
    depth, colour_type = data[24:26]
    if depth != 16:
        return None
    with quiet_stderr():
        pixels = decode_with_opencv(_pixel_chunks(data))
    if colour_type == _COLOUR_TYPES[2]:  # OpenCV repeats gray
        pixels = pixels[..., [0, 3]]
    if transparent is not None:
        alpha = np.where((pixels == transparent).all(-1, keepdims=True), 0, 65535)
        pixels = np.concatenate([pixels, alpha.astype(np.uint16)], -1)
    return pixels


def walk_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, start and end of each chunk of a PNG file; a truncated chunk ends behind the data."""
    start, name = 8, b""
    while start + 8 <= len(data) and name != b"IEND":
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        name = data[start + 4 : start + 8]
        yield name, start, end
        start = end


def _pixel_chunks(data: bytes) -> bytes:
    """Leave out other chunks: OpenCV prints warnings about some, and applies transparent colours in its own way."""
    chunks = [data[start:end] for name, start, end in walk_chunks(data) if name in _PIXEL_CHUNKS and end <= len(data)]
    return b"".join([data[:8], *chunks])


def encode_png16(pixels: np.ndarray) -> bytes:
    """Encode (H, W, C) uint16 as PNG. OpenCV could not write gray with alpha."""
    height, width, channels = pixels.shape
    file = BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    putchunk(file, b"IHDR", struct.pack(">2I5B", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0))
    compressor = zlib.compressobj()
    for row in range(0, height, _ROWS_AT_ONCE):
        band = pixels[row : row + _ROWS_AT_ONCE].astype(">u2", order="C").view(np.uint8)  # (rows, W, bytes of a pixel)
        left = np.diff(band, axis=1, prepend=np.uint8(0))  # filter 1: difference to the pixel on the left, modulo 256
        putchunk(file, b"IDAT", compressor.compress(np.insert(left.reshape(len(band), -1), 0, 1, axis=1).tobytes()))
    putchunk(file, b"IDAT", compressor.flush())
    putchunk(file, b"IEND", b"")
    return file.getvalue()
