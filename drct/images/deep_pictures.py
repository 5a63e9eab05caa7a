"""PNG and TIFF files of more than 8 bits per channel, which Pillow reads with 8 bits or not at all.

Arrays are (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha (straight, not premultiplied); uint8, uint16,
or float32 in [0, 1].
"""

import logging
import math
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image
from PIL.PngImagePlugin import putchunk

from drct.errors import DRCTError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what is odd in a file: that is our errors' task

# TIFF's photometric interpretations that are gray or RGB, and the number of their channels
_COLOURS: dict[int, int] = {
    tifffile.PHOTOMETRIC.MINISWHITE: 1,
    tifffile.PHOTOMETRIC.MINISBLACK: 1,
    tifffile.PHOTOMETRIC.RGB: 3,
}
_PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's colour types by the number of channels
_FROM_OPENCV = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}  # the order of its channels, by their number
_TERMINAL = threading.Lock()


class DeepTiff(NamedTuple):
    """The first page of a TIFF file.

    Attributes:
        pixels: (H, W, C), uint16 or float32.
        orientation: EXIF's, 1 to 8, still to be applied.
        icc_profile: Colour profile, if there is one.
        pages: Number of pages in the file.
    """

    pixels: np.ndarray
    orientation: int
    icc_profile: bytes | None
    pages: int


def decode_png(file: BinaryIO, transparent: int | tuple[int, ...] | None) -> np.ndarray | None:
    """Read a PNG file of 16 bits that Pillow found whole, (H, W, C) uint16; None if it has fewer.

    Args:
        file: Opened at any place.
        transparent: The colour that is, according to Pillow.

    Raises:
        DRCTError: if OpenCV finds it damaged.
    """
    file.seek(0)
    data = file.read(26)
    depth, colour_type = data[24:]
    if depth != 16:
        return None
    data += file.read()
    # OpenCV complains on the terminal about some profiles, and may take EXIF's orientation into account
    kept, start = [data[:8]], 8
    while start + 8 <= len(data):
        end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
        if end > len(data):
            break
        if data[start + 4 : start + 8] in (b"IHDR", b"IDAT", b"IEND"):
            kept.append(data[start:end])
        start = end
    with quiet_terminal():
        pixels = cv2.imdecode(np.frombuffer(b"".join(kept), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DRCTError("it is damaged (OpenCV cannot decode it)")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = pixels[..., [0, 3] if colour_type == _PNG_COLOURS[2] else _FROM_OPENCV[pixels.shape[2]]]
    if transparent is not None:
        alpha = np.where((pixels == transparent).all(-1, keepdims=True), 0, 65535)
        pixels = np.concatenate([pixels, alpha.astype(np.uint16)], -1)
    return pixels


def decode_tiff(file: BinaryIO) -> DeepTiff | None:
    """Read a TIFF file of 16-bit or float channels, gray or RGB; None if it is of another kind (but not truncated).

    Raises:
        DRCTError: if it is truncated, its numbers are of a kind that no white is known for, or it is too large.
    """
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        try:
            page = tiff.pages.first
        except IndexError:
            raise DRCTError("it is truncated") from None
        size = file.seek(0, os.SEEK_END)
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if len(parts) < math.prod(page.chunked) or any(count == 0 or start + count > size for start, count in parts):
            raise DRCTError("it is truncated")  # tifffile would fill in zeros
        if page.photometric not in _COLOURS or page.bitspersample <= 8:
            return None
        _check_page(page)
        pixels, upright = _decode_page(page, file)
        return DeepTiff(
            pixels=_straight_alpha(pixels, page),
            orientation=1 if upright else page.tags.valueof(ExifTags.Base.Orientation, 1),
            icc_profile=page.tags.valueof(ExifTags.Base.InterColorProfile),
            pages=len(tiff.pages),
        )


def _check_page(page: tifffile.TiffPage) -> None:
    if page.sampleformat != 3 and (page.sampleformat, page.bitspersample) != (1, 16):
        sign = "signed " if page.sampleformat == 2 else ""
        raise DRCTError(f"its channels are {sign}integers of {page.bitspersample} bits. Convert it to 8 or 16 bits.")
    if page.samplesperpixel > 6:  # as in Pillow
        raise DRCTError(f"it has {page.samplesperpixel} channels")
    size = page.imagewidth * page.imagelength * page.imagedepth
    if Image.MAX_IMAGE_PIXELS and size > 2 * Image.MAX_IMAGE_PIXELS:
        raise DRCTError(f"its size ({size} pixels) exceeds the limit of {2 * Image.MAX_IMAGE_PIXELS} pixels")


def _decode_page(page: tifffile.TiffPage, file: BinaryIO) -> tuple[np.ndarray, bool]:
    """All channels of a page as they are stored, (H, W, C), and whether orientation was applied."""
    if page.compression == tifffile.COMPRESSION.LZW and page.planarconfig == 1 and page.samplesperpixel != 2:
        # The only common compression for which tifffile needs another library
        file.seek(0)
        pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint16:
            raise DRCTError("it is damaged (OpenCV cannot decode it)")
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        return pixels[..., _FROM_OPENCV[pixels.shape[2]]], True
    try:
        pixels = page.asarray(squeeze=False)[:, 0]  # (planes, H, W, channels of a plane), one of the two being 1
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        name = tifffile.COMPRESSION(page.compression).name
        raise DRCTError(f"its compression {name} needs another library: pip install imagecodecs") from error
    planes, height, width, channels = pixels.shape
    return np.moveaxis(pixels, 0, -1).reshape(height, width, planes * channels), False


def _straight_alpha(pixels: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Channels of a TIFF page as gray or RGB, with alpha if the page has it: uint16, or float32 in [0, 1]."""
    pixels = as_float32(pixels) if pixels.dtype.kind == "f" else pixels.astype(np.uint16)  # in this machine's order
    top = white(pixels.dtype)
    colours = _COLOURS[page.photometric]
    colour, alpha = pixels[..., :colours], pixels[..., colours : colours + 1]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        colour = pixels.dtype.type(top) - colour
    kind = page.extrasamples[0] if page.extrasamples else tifffile.EXTRASAMPLE.UNASSALPHA
    if alpha.shape[2] == 0 or kind == tifffile.EXTRASAMPLE.UNSPECIFIED:  # such as a stored selection
        return colour
    if kind == tifffile.EXTRASAMPLE.ASSOCALPHA:
        ratio = np.divide(colour, alpha, out=np.zeros(colour.shape), where=alpha > 0)
        colour = np.clip(ratio * top, 0, top)
        colour = (np.rint(colour) if pixels.dtype.kind == "u" else colour).astype(pixels.dtype)
    return np.concatenate([colour, alpha], -1)


def encode_png(pixels: np.ndarray, icc_profile: bytes | None, exif: bytes | None) -> bytes:
    """A PNG file of 16 bits. Pillow writes them of gray only, OpenCV neither gray with alpha nor profile and EXIF."""
    height, width, channels = pixels.shape
    file = BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    putchunk(file, b"IHDR", struct.pack(">2I5B", width, height, 16, _PNG_COLOURS[channels], 0, 0, 0))
    if icc_profile:
        putchunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
    if exif:
        putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    compressor, rows = zlib.compressobj(), 64  # at once
    for row in range(0, height, rows):
        band = pixels[row : row + rows].astype(">u2", order="C").view(np.uint8)  # (rows, W, bytes of a pixel)
        left = np.diff(band, axis=1, prepend=np.uint8(0))  # filter 1: difference to the pixel on the left, modulo 256
        putchunk(file, b"IDAT", compressor.compress(np.insert(left.reshape(len(band), -1), 0, 1, axis=1).tobytes()))
    putchunk(file, b"IDAT", compressor.flush())
    putchunk(file, b"IEND", b"")
    return file.getvalue()


def encode_tiff(pixels: np.ndarray, icc_profile: bytes | None, tags: Image.Exif) -> bytes:
    """A TIFF file, compressed by deflate. Its tags join those of EXIF (little-endian), a TIFF file without pixels."""
    height, width, channels = pixels.shape
    if pixels.dtype.kind == "u":
        pixels = np.diff(pixels, axis=1, prepend=pixels.dtype.type(0))  # predictor 2: difference to the left
    strip = zlib.compress(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    tag = ExifTags.Base
    tags[tag.ImageWidth] = width
    tags[tag.ImageLength] = height
    tags[tag.BitsPerSample] = (8 * pixels.itemsize,) * channels
    tags[tag.Compression] = 8  # deflate
    tags[tag.PhotometricInterpretation] = 2 if channels > 2 else 1  # RGB, or black is zero
    tags[tag.StripOffsets] = 0  # from the tags' end on
    tags[tag.SamplesPerPixel] = channels
    tags[tag.RowsPerStrip] = height
    tags[tag.StripByteCounts] = len(strip)
    tags[tag.Predictor] = 2 if pixels.dtype.kind == "u" else 1
    tags[tag.SampleFormat] = (1 if pixels.dtype.kind == "u" else 3,) * channels  # unsigned, float
    if channels in (2, 4):
        tags[tag.ExtraSamples] = (2,)  # straight alpha
    if icc_profile:
        tags[tag.InterColorProfile] = icc_profile
    return tags.tobytes().removeprefix(b"Exif\0\0") + strip


def convert_depth(pixels: np.ndarray, dtype: type[np.generic] | np.dtype) -> np.ndarray:
    """Convert between uint8, uint16, and float32 in [0, 1]; integers are rounded to the nearest, within their range."""
    dtype = np.dtype(dtype)
    if pixels.dtype == dtype:
        return pixels
    values = pixels.astype(np.float32) * np.float32(white(dtype) / white(pixels.dtype))
    return values if dtype.kind == "f" else np.rint(values).clip(0, white(dtype)).astype(dtype)


def as_float32(pixels: np.ndarray) -> np.ndarray:
    """Floats of any size as float32. Raises `DRCTError` if one is not in [0, 1]."""
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # so that NaN is refused too
        raise DRCTError(
            f"its floats are from {pixels.min():g} to {pixels.max():g}, not in 0 to 1: where white is cannot be "
            f"known. Scale them."
        )
    return pixels.astype(np.float32)


def white(dtype: np.dtype) -> int:
    """The number that is white: 255, 65535, or 1 for floats."""
    return 1 if dtype.kind == "f" else int(np.iinfo(dtype).max)


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """Keep off standard error what libtiff and OpenCV print there of odd files; what matters of it they report too."""
    with _TERMINAL:
        try:
            kept = os.dup(2)
        except OSError:  # a program without one
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
