"""TIFF files of 16-bit or float channels, which Pillow reads with 8 bits or not at all."""

import logging
import math
import os
import struct
import zlib
from io import BytesIO
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import ExifTags, Image
from tifffile import EXTRASAMPLE, PHOTOMETRIC

from drct.errors import DRCTError
from drct.images.depth import to_float32, white_level
from drct.images.exif import with_density
from drct.images.found import Found
from drct.images.iptc import in_order, read_resources, records_of
from drct.images.metadata import Metadata
from drct.images.native import decode_with_opencv

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors raised here say what is wrong with a file

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are of BigTIFF
# Number of colour channels, by photometric interpretation
_COLOURS: dict[int, int] = {PHOTOMETRIC.MINISWHITE: 1, PHOTOMETRIC.MINISBLACK: 1, PHOTOMETRIC.RGB: 3}
_RAW = (PHOTOMETRIC.CFA, PHOTOMETRIC.LINEAR_RAW)
_SIGNED_COLOURS = (PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB)
_PAGES_LOOKED_AT = 64
# Tags
_SUB_DIRECTORIES, _SAMPLE_FORMAT, _XMP, _IPTC, _PHOTOSHOP = 330, 339, 700, 33723, 34377
# Sample formats that are not read
_SIGNED = 2
_SAMPLES = {_SIGNED: "signed integers", 5: "complex integers", 6: "complex numbers"}


class TiffPicture(NamedTuple):
    """The first page of full resolution of a TIFF file."""

    pixels: np.ndarray | None  # (H, W, C), uint16, or float32 in [0, 1]; None if Pillow decodes it
    bits: int  # per channel
    kind: str  # colours and bits, in words
    file: BinaryIO  # whose first page it is
    pages: int  # of full resolution in the file
    found: Found


def read_tiff(file: BinaryIO) -> TiffPicture:
    """Read the first page of full resolution, and decode it if it has 16-bit or float channels, gray or RGB.

    Raises:
        DRCTError: if the file is truncated, damaged or too large, its channels are of a type without a known white, or
            it has only thumbnails.
    """
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        number, pages = _choose_page(tiff)
        page = tiff.pages[number]
        if not isinstance(page, tifffile.TiffPage):  # frames, which share the tags of another page, are made on demand
            raise DRCTError("its first page of full resolution has no tags of its own")
        size = file.seek(0, os.SEEK_END)
        parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if len(parts) < math.prod(page.chunked) or any(count == 0 or start + count > size for start, count in parts):
            raise DRCTError("it is truncated")  # tifffile would fill in zeros
        _check_samples(page)
        found = _find_metadata(page, file)
        if isinstance(page.bitspersample, tuple):
            raise DRCTError(f"its channels have {page.bitspersample} bits. Convert it to 8 or 16 bits in all.")
        bits = page.bitspersample
        kind = f"{getattr(page.photometric, 'name', 'unknown colours')} and {bits} bits"
        if page.photometric not in _COLOURS or page.bitspersample <= 8:
            first = BytesIO(_beginning_with(page, file)) if number else file
            return TiffPicture(None, bits, kind, first, pages, found)
        _check_page(page)
        pixels, found.is_turned = _decode_page(page, file)
        return TiffPicture(_straight_alpha(pixels, page), bits, kind, file, pages, found)


def _choose_page(tiff: tifffile.TiffFile) -> tuple[int, int]:
    """Return the number of the first page that is neither a thumbnail nor a mask, and how many such pages there are."""
    count = len(tiff.pages)
    if not count:
        raise DRCTError("it is truncated")
    looked = min(count, _PAGES_LOOKED_AT)
    pages = [page for page in (tiff.pages[number] for number in range(looked)) if isinstance(page, tifffile.TiffPage)]
    full = [number for number, page in enumerate(pages) if not (page.is_reduced or page.is_mask)]
    if any(pages[number].photometric in _RAW for number in full) or (
        not full and any(_SUB_DIRECTORIES in page.tags for page in pages)
    ):
        raise DRCTError("of a camera's raw file only a thumbnail could be read. Develop it to TIFF or PNG.")
    return (full[0], len(full) + count - looked) if full else (0, count)


def _find_metadata(page: tifffile.TiffPage, file: BinaryIO) -> Found:
    """Collect a page's metadata, of which the tags of EXIF are read only later."""

    def stored(tag: int) -> bytes | None:
        """Return a tag's bytes, whatever type it pretends to be."""
        entry = page.tags.get(tag)
        if entry is None:
            return None
        file.seek(entry.valueoffset)
        return file.read(entry.valuebytecount)

    def get_tags() -> Image.Exif:
        tags = Image.Exif()
        tags.endian = page.parent.byteorder
        tags.bigtiff = page.parent.is_bigtiff
        tags.load_from_fp(file, page.offset)
        return tags

    found = Found(get_tags, stored(ExifTags.Base.InterColorProfile), stored(_XMP), only_tags_turn=True)
    found.iptc, found.lost = records_of(read_resources(stored(_PHOTOSHOP) or b""))
    if records := stored(_IPTC):
        found.iptc = in_order(records)
    return found


def _check_samples(page: tifffile.TiffPage) -> None:
    """Raise `DRCTError` if a channel is of another type than unsigned integers or floats."""
    value = page.tags.valueof(_SAMPLE_FORMAT, 1)
    for kind in value if isinstance(value, tuple) else (value,):
        if kind in _SAMPLES and not (kind == _SIGNED and page.photometric in _SIGNED_COLOURS):
            raise DRCTError(
                f"its channels are {_SAMPLES[kind]}, of which white is unknown. Convert it to 8 or 16 bits."
            )


def _check_page(page: tifffile.TiffPage) -> None:
    if page.sampleformat != 3 and (page.sampleformat, page.bitspersample) != (1, 16):
        raise DRCTError(f"its channels are integers of {page.bitspersample} bits. Convert it to 8 or 16 bits.")
    if page.samplesperpixel > 6:  # Pillow's limit
        raise DRCTError(f"it has {page.samplesperpixel} channels")
    size = page.imagewidth * page.imagelength * page.imagedepth
    if Image.MAX_IMAGE_PIXELS and size > 2 * Image.MAX_IMAGE_PIXELS:
        raise DRCTError(f"its size ({size} pixels) exceeds the limit of {2 * Image.MAX_IMAGE_PIXELS} pixels")


def _decode_page(page: tifffile.TiffPage, file: BinaryIO) -> tuple[np.ndarray, bool]:
    """Decode all channels of a page as they are stored, (H, W, C); also return whether orientation was applied."""
    if page.compression == tifffile.COMPRESSION.LZW and page.planarconfig == 1 and page.samplesperpixel != 2:
        # LZW is the only common compression for which tifffile needs another library
        pixels = decode_with_opencv(_beginning_with(page, file))
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


def _beginning_with(page: tifffile.TiffPage, file: BinaryIO) -> bytes:
    """Return the file with this page as its first, which is the one that OpenCV and Pillow decode."""
    file.seek(0)
    data = bytearray(file.read())
    place, kind = (8, "Q") if page.parent.is_bigtiff else (4, "I")
    struct.pack_into(page.parent.byteorder + kind, data, place, page.offset)
    return bytes(data)


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


def encode_tiff(pixels: np.ndarray, metadata: Metadata) -> bytes:
    """Encode (H, W, C) pixels, uint8, uint16 or float32 in [0, 1], as a TIFF file compressed by deflate.

    EXIF is itself a TIFF file without pixels: the tags that describe the pixels are added to it.
    """
    tags = with_density(metadata.exif, metadata.density)
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
    stored = ((_XMP, metadata.xmp), (_IPTC, metadata.iptc), (tag.InterColorProfile, metadata.icc_profile))
    for number, content in stored:
        if content:
            tags[number] = content
    return tags.tobytes().removeprefix(b"Exif\0\0") + strip
