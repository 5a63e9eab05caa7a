"""TIFF files of 16-bit or float channels, which Pillow reads with 8 bits or not at all."""

import logging
import math
import os
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import ExifTags, Image
from tifffile import EXTRASAMPLE, PHOTOMETRIC

from drct.errors import DRCTError
from drct.images.depth import to_float32, white_level
from drct.images.native import decode_with_opencv

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors raised here say what is wrong with a file

_CLASSIC_TIFF = (b"II*\0", b"MM\0*")  # the first bytes, by byte order
TIFF_SIGNATURES = (*_CLASSIC_TIFF, b"II+\0", b"MM\0+")  # the last two are of BigTIFF
# Number of colour channels, by photometric interpretation
_COLOURS: dict[int, int] = {PHOTOMETRIC.MINISWHITE: 1, PHOTOMETRIC.MINISBLACK: 1, PHOTOMETRIC.RGB: 3}


class DeepTiff(NamedTuple):
    """The first page of a TIFF file of more than 8 bits per channel."""

    pixels: np.ndarray  # (H, W, C), uint16, or float32 in [0, 1]
    orientation: int  # of EXIF, 1 to 8, still to be applied
    icc_profile: bytes | None
    pages: int  # in the file


def read_tags(file: BinaryIO) -> Image.Exif:
    """Read the tags of a TIFF file, EXIF's among them; none of a BigTIFF, whose tags Pillow reads with the pixels."""
    tags = Image.Exif()
    file.seek(0)
    if file.read(4) in _CLASSIC_TIFF:
        file.seek(0)
        tags.load_from_fp(file)
    return tags


def decode_tiff(file: BinaryIO) -> DeepTiff | None:
    """Decode a TIFF file of 16-bit or float channels, gray or RGB.

    Returns:
        The first page, or None if the file is complete but of another kind.

    Raises:
        DRCTError: if the file is truncated, damaged or too large, or its channels are of a type without a known white.
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
        pixels, is_upright = _decode_page(page, file)
        return DeepTiff(
            pixels=_straight_alpha(pixels, page),
            orientation=1 if is_upright else page.tags.valueof(ExifTags.Base.Orientation, 1),
            icc_profile=page.tags.valueof(ExifTags.Base.InterColorProfile),
            pages=len(tiff.pages),
        )


def _check_page(page: tifffile.TiffPage) -> None:
    if page.sampleformat != 3 and (page.sampleformat, page.bitspersample) != (1, 16):
        sign = "signed " if page.sampleformat == 2 else ""
        raise DRCTError(f"its channels are {sign}integers of {page.bitspersample} bits. Convert it to 8 or 16 bits.")
    if page.samplesperpixel > 6:  # Pillow's limit
        raise DRCTError(f"it has {page.samplesperpixel} channels")
    size = page.imagewidth * page.imagelength * page.imagedepth
    if Image.MAX_IMAGE_PIXELS and size > 2 * Image.MAX_IMAGE_PIXELS:
        raise DRCTError(f"its size ({size} pixels) exceeds the limit of {2 * Image.MAX_IMAGE_PIXELS} pixels")


def _decode_page(page: tifffile.TiffPage, file: BinaryIO) -> tuple[np.ndarray, bool]:
    """Decode all channels of a page as they are stored, (H, W, C); also return whether orientation was applied."""
    if page.compression == tifffile.COMPRESSION.LZW and page.planarconfig == 1 and page.samplesperpixel != 2:
        # LZW is the only common compression for which tifffile needs another library
        file.seek(0)
        pixels = decode_with_opencv(file.read())
        if pixels.dtype != np.uint16:
            raise DRCTError("it is damaged (OpenCV cannot decode it)")
        return pixels, True
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
    """Convert stored channels to gray or RGB, with straight alpha if the page has it: uint16, or float32 in [0, 1]."""
    pixels = to_float32(pixels) if pixels.dtype.kind == "f" else pixels.astype(np.uint16)  # in native byte order
    white = white_level(pixels.dtype)
    colours = _COLOURS[page.photometric]
    colour, alpha = pixels[..., :colours], pixels[..., colours : colours + 1]
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        colour = pixels.dtype.type(white) - colour
    kind = page.extrasamples[0] if page.extrasamples else EXTRASAMPLE.UNASSALPHA
    if alpha.shape[2] == 0 or kind == EXTRASAMPLE.UNSPECIFIED:  # such as a stored selection
        return colour
    if kind == EXTRASAMPLE.ASSOCALPHA:
        ratio = np.divide(colour, alpha, out=np.zeros(colour.shape), where=alpha > 0)
        colour = np.clip(ratio * white, 0, white)
        colour = (np.rint(colour) if pixels.dtype.kind == "u" else colour).astype(pixels.dtype)
    return np.concatenate([colour, alpha], -1)


def encode_tiff(pixels: np.ndarray, icc_profile: bytes | None, tags: Image.Exif) -> bytes:
    """Encode (H, W, C) pixels, uint8, uint16 or float32 in [0, 1], as a TIFF file compressed by deflate.

    EXIF is itself a TIFF file without pixels: the tags that describe the pixels are added to those passed, which must
    be little-endian.
    """
    height, width, channels = pixels.shape
    is_integer = pixels.dtype.kind == "u"
    if is_integer:
        pixels = np.diff(pixels, axis=1, prepend=pixels.dtype.type(0))  # predictor 2: difference to the left
    strip = zlib.compress(pixels.astype(pixels.dtype.newbyteorder("<")).tobytes())
    tag = ExifTags.Base
    tags[tag.ImageWidth] = width
    tags[tag.ImageLength] = height
    tags[tag.BitsPerSample] = (8 * pixels.itemsize,) * channels
    tags[tag.Compression] = 8  # deflate
    tags[tag.PhotometricInterpretation] = 2 if channels > 2 else 1  # RGB, or black is zero
    tags[tag.StripOffsets] = 0  # from the end of the tags
    tags[tag.SamplesPerPixel] = channels
    tags[tag.RowsPerStrip] = height
    tags[tag.StripByteCounts] = len(strip)
    tags[tag.Predictor] = 2 if is_integer else 1
    tags[tag.SampleFormat] = (1 if is_integer else 3,) * channels  # unsigned, float
    if channels in (2, 4):
        tags[tag.ExtraSamples] = (2,)  # straight alpha
    if icc_profile:
        tags[tag.InterColorProfile] = icc_profile
    return tags.tobytes().removeprefix(b"Exif\0\0") + strip
