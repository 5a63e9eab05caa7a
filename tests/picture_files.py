"""Picture files as bytes, encoded from arrays by other libraries, or by hand where no library writes that kind."""

import struct
import zlib
from collections.abc import Iterable
from io import BytesIO

import cv2
import numpy as np
import tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

SHORT, LONG = 3, 4  # types of TIFF tags
_D50 = struct.pack(">3i", 63190, 65536, 54061)  # white of ICC profiles, XYZ


def scene(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth gradients with a block, (H, W, C) uint8, which every flip and every exchange of channels changes."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x / max(8, width), y / max(8, height)
    planes = [128 + 100 * np.sin((1 + k + seed) * x + (2 + k) * y + k) for k in range(channels)]
    image = np.stack(planes, -1)
    image[: height // 3, : width // 4] = np.linspace(20, 230, channels)
    return np.rint(image).astype(np.uint8)


def deep_scene(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A `scene` of uint16 whose low bytes are noise, so that all 16 bits matter."""
    low = np.random.default_rng(seed).integers(0, 256, (height, width, channels))
    return (scene(height, width, channels, seed).astype(np.uint16) << 8) | low.astype(np.uint16)


def turned(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an upright picture as it is stored with an EXIF orientation (by the standard's table of the 0th row)."""
    return {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)


def exif_bytes(orientation: int = 1) -> bytes:
    """EXIF with a camera, a date, a size in pixels, a place and an orientation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Müller & 山田".encode()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.DateTimeOriginal: "2024:02:29 12:00:00",
        ExifTags.Base.ExposureTime: 0.008,
        ExifTags.Base.ExifImageWidth: 4000,
        ExifTags.Base.ExifImageHeight: 3000,
    }
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (25.0, 2.0, 30.5)}
    return exif.tobytes()


def png_bytes(pixels: np.ndarray, chunks: Iterable[tuple[bytes, bytes]] = (), interlaced: bool = False) -> bytes:
    """Encode (H, W, C) uint8 or uint16 as an unfiltered PNG file."""
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">2I5B", width, height, 8 * pixels.itemsize, colour, 0, 0, interlaced)
    adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = [pixels[y::rows, x::columns] for y, x, rows, columns in (adam7 if interlaced else [(0, 0, 1, 1)])]
    big_endian = pixels.dtype.newbyteorder(">")
    lines = b"".join(b"\0" + row.astype(big_endian).tobytes() for part in passes if part.size for row in part)
    return png_file([(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")])


def png_file(chunks: Iterable[tuple[bytes, bytes]]) -> bytes:
    file = BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    for name, content in chunks:
        PngImagePlugin.putchunk(file, name, content)
    return file.getvalue()


def tiff_bytes(entries: dict[int, tuple[int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """Encode tags {tag: (type, value)} and one strip as a TIFF file; `following` is the offset of the next page."""
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries = {**entries, 273: (LONG, start), 279: (LONG, len(data))}
    lines = [struct.pack("<2H2I", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items())]
    return b"II*\0" + struct.pack("<IH", 8, len(lines)) + b"".join(lines) + struct.pack("<I", following) + data


def lzw(data: bytes) -> bytes:
    """Encode data by TIFF's LZW without compressing it: 9-bit codes, with the table cleared before they grow."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    bits = "".join(format(code, "09b") for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def tifffile_bytes(pixels: np.ndarray, **options) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, pixels, metadata=None, **options)
    return file.getvalue()


def cv2_bytes(pixels: np.ndarray) -> bytes:
    """Encode uint16, (H, W) gray or (H, W, C) RGB or RGBA, as an LZW TIFF file."""
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    ok, data = cv2.imencode(".tif", pixels, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert ok
    return data.tobytes()


def pillow_bytes(image: np.ndarray | Image.Image, format: str, **options) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gray_profile() -> bytes:
    """A minimal gray profile with a gamma of 1.8."""
    curve = b"curv" + struct.pack(">2IH", 0, 1, round(1.8 * 256)) + b"\0\0"
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve, b"wtpt": b"XYZ \0\0\0\0" + _D50})


# Lightness (255 is white) that `cmyk_profile` gives the 16 overprints of full inks: cyan counts 8, magenta 4, yellow 2
# and black 1. All are gray, unlike the colours of plain inversion.
INK_LIGHTNESS = [255, 60, 240, 50, 150, 40, 130, 30, 180, 35, 120, 25, 90, 20, 70, 0]


def cmyk_profile() -> bytes:
    """A CMYK profile that maps each overprint of full inks to the gray of `INK_LIGHTNESS`."""
    matrix = struct.pack(">9i", *(65536 * int(row == column) for row in range(3) for column in range(3)))
    identity = bytes(range(256))
    grid = b"".join(bytes((lightness, 128, 128)) for lightness in INK_LIGHTNESS)
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + identity * 4 + grid + identity * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table, b"wtpt": b"XYZ \0\0\0\0" + _D50})


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += name + struct.pack(">2I", start + len(data), len(content))
        data += content
    header = struct.pack(">I4xI4s4s4s12x4s28x", start + len(data), 0x02400000, kind, space, connection, b"acsp")
    return (header + _D50).ljust(128, b"\0") + table + data


def cmyk_scene() -> tuple[np.ndarray, np.ndarray]:
    """Blocks of all overprints of full inks and their sRGB colours by `cmyk_profile`, both (H, W, C) uint8."""
    number = np.arange(16).reshape(2, 8).repeat(16, 0).repeat(16, 1)
    inks = np.stack([number >> bit & 1 for bit in (3, 2, 1, 0)], -1).astype(np.uint8) * 255
    lightness = np.array(INK_LIGHTNESS)[number] / 255 * 100
    luminance = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    return inks, np.repeat(srgb_curve(luminance)[..., None], 3, -1)


def srgb_curve(luminance: np.ndarray) -> np.ndarray:
    """Convert linear light in [0, 1] to sRGB, uint8 (IEC 61966-2-1)."""
    value = np.where(luminance <= 0.0031308, 12.92 * luminance, 1.055 * luminance ** (1 / 2.4) - 0.055)
    return np.rint(value * 255).astype(np.uint8)


def plain_inversion(inks: np.ndarray) -> np.ndarray:
    paper = 1 - inks.astype(np.float64) / 255
    return np.rint(paper[..., :3] * paper[..., 3:] * 255).astype(np.uint8)
