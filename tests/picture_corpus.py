"""Odd picture files, made from arrays: what each must read as, or what its error must say.

The references are the arrays that the files were made from; of files that no library writes, the bytes are put together
here.
"""

import os
import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import PIL
import tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, features

BYTE, SHORT, LONG = 1, 3, 4  # types of TIFF's tags


@dataclass(frozen=True)
class Case:
    """A file, and what reading it must give.

    Attributes:
        path: The file (or what is there instead).
        pixels: (H, W, C) in [0, 1], upright; C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha. None: it must fail.
        dtype: Of the pixels that are read: uint8, uint16 or float32.
        tolerance: Largest difference to `pixels`.
        note: What the picture's note must contain; "" if there must be none.
        error: What the error must contain, if it must fail.
    """

    path: Path
    pixels: np.ndarray | None = None
    dtype: str = "uint8"
    tolerance: float = 0.0
    note: str = ""
    error: str = ""

    def __str__(self) -> str:
        return self.path.name


def scene(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth gradients with a block, that no flip or exchange of channels leaves as it was: (H, W, C), uint8."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x / max(8, width), y / max(8, height)
    planes = [128 + 100 * np.sin((1 + k + seed) * x + (2 + k) * y + k) for k in range(channels)]
    image = np.stack(planes, -1)
    image[: height // 3, : width // 4] = np.linspace(20, 230, channels)
    return np.rint(image).astype(np.uint8)


def deep_scene(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A `scene` whose 16 bits all matter, uint16."""
    low = np.random.default_rng(seed).integers(0, 256, (height, width, channels))
    return (scene(height, width, channels, seed).astype(np.uint16) << 8) | low.astype(np.uint16)


def turned(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How an upright picture is stored under EXIF's orientation (from the standard's table of the stored 0th row)."""
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


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gray_profile() -> bytes:
    """A minimal profile of gray with a gamma of 1.8."""
    curve = b"curv" + struct.pack(">2IH", 0, 1, round(1.8 * 256)) + b"\0\0"
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve, b"wtpt": b"XYZ \0\0\0\0" + _D50})


# Lightness, 0 to 255 for 0 to 100, of the 16 overprints of full inks by `cmyk_profile`: cyan counts 8, magenta 4,
# yellow 2, black 1. All are gray, unlike those of plain inversion.
INK_LIGHTNESS = [255, 60, 240, 50, 150, 40, 130, 30, 180, 35, 120, 25, 90, 20, 70, 0]


def cmyk_profile() -> bytes:
    """A profile of CMYK that makes each overprint of full inks the gray of `INK_LIGHTNESS`."""
    matrix = struct.pack(">9i", *(65536 * int(row == column) for row in range(3) for column in range(3)))
    identity = bytes(range(256))
    grid = b"".join(bytes((lightness, 128, 128)) for lightness in INK_LIGHTNESS)
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + identity * 4 + grid + identity * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table, b"wtpt": b"XYZ \0\0\0\0" + _D50})


_D50 = struct.pack(">3i", 63190, 65536, 54061)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += name + struct.pack(">2I", start + len(data), len(content))
        data += content
    header = struct.pack(">I4xI4s4s4s12x4s28x", start + len(data), 0x02400000, kind, space, connection, b"acsp")
    return (header + _D50).ljust(128, b"\0") + table + data


def png_bytes(pixels: np.ndarray, chunks: Iterable[tuple[bytes, bytes]] = (), interlaced: bool = False) -> bytes:
    """A PNG file of (H, W, C), uint8 or uint16, unfiltered."""
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
    """A TIFF file of tags with one short value each, {tag: (type, value)}; its one strip is `data`, 8 to a channel."""
    start = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries = {**entries, 273: (LONG, start), 279: (LONG, len(data))}
    lines = [struct.pack("<2H2I", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items())]
    return b"II*\0" + struct.pack("<IH", 8, len(lines)) + b"".join(lines) + struct.pack("<I", following) + data


def lzw(data: bytes) -> bytes:
    """TIFF's LZW without any compression: codes of 9 bits, the table cleared before they would grow."""
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


def pillow_bytes(image: np.ndarray | Image.Image, format: str, **options) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    file = BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


class _Corpus:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases: list[Case] = []
        folder.mkdir(parents=True, exist_ok=True)

    def good(self, name: str, data: bytes, pixels: np.ndarray, tolerance: float = 0, note: str = "") -> None:
        """Add a file that must read as the integers, of 8 or 16 bits, or floats `pixels`."""
        path = self.folder / name
        path.write_bytes(data)
        white = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
        reference = (pixels / np.float32(white)).astype(np.float32)
        self.cases.append(Case(path, reference, str(pixels.dtype), tolerance, note))

    def bad(self, name: str, data: bytes | None, error: str) -> None:
        """Add a file that must fail; if `data` is None, what is there (or not) stays."""
        path = self.folder / name
        if data is not None:
            path.write_bytes(data)
        self.cases.append(Case(path, error=error))


def make_corpus(folder: Path) -> list[Case]:
    """Fill a folder with more than two hundred small files (in a second or so)."""
    corpus = _Corpus(Path(folder))
    _add_png(corpus)
    _add_jpeg(corpus)
    _add_tiff(corpus)
    _add_others(corpus)
    _add_sizes_and_names(corpus)
    _add_broken(corpus)
    _add_bombs(corpus)
    _add_no_files(corpus)
    return corpus.cases


def _add_png(corpus: _Corpus) -> None:
    for channels, kind in ((1, "gray"), (2, "gray_alpha"), (3, "rgb"), (4, "rgba")):
        for depth, make in ((8, scene), (16, deep_scene)):
            pixels = make(20, 27, channels)
            corpus.good(f"{kind}{depth}.png", png_bytes(pixels), pixels)
            corpus.good(f"{kind}{depth}_interlaced.png", png_bytes(pixels, interlaced=True), pixels)

    bits = scene(20, 27, 1) > 128
    corpus.good("1bit.png", pillow_bytes(Image.fromarray(bits[..., 0]), "PNG"), bits * np.uint8(255))

    index = (scene(20, 27, 1) // 64).astype(np.uint8)
    colours = np.array([[250, 10, 20], [30, 240, 50], [60, 70, 230], [80, 80, 80]], np.uint8)
    palette = Image.fromarray(index[..., 0]).convert("P")
    palette.putpalette(colours.tobytes())
    rgb = colours[index[..., 0]]
    corpus.good("palette.png", pillow_bytes(palette, "PNG"), rgb)
    corpus.good("palette_8bit.png", pillow_bytes(palette, "PNG", bits=8), rgb)
    opacity = np.array([0, 100, 255, 255], np.uint8)
    rgba = np.concatenate([rgb, opacity[index]], -1)
    corpus.good("palette_alpha.png", pillow_bytes(palette, "PNG", transparency=opacity.tobytes()), rgba)

    for depth, make in ((8, scene), (16, deep_scene)):  # one colour of which is transparent
        for channels, kind in ((1, "gray"), (3, "rgb")):
            pixels = make(20, 27, channels)
            key = pixels[15, 20]
            alpha = np.where((pixels == key).all(-1, keepdims=True), 0, np.iinfo(pixels.dtype).max)
            data = png_bytes(pixels, [(b"tRNS", key.astype(">u2").tobytes())])
            corpus.good(f"{kind}{depth}_key.png", data, np.concatenate([pixels, alpha.astype(pixels.dtype)], -1))

    for depth, make in ((8, scene), (16, deep_scene)):
        pixels = make(20, 27)
        profile = (b"iCCP", b"a profile\0\0" + zlib.compress(srgb_profile()))
        corpus.good(f"profile{depth}.png", png_bytes(pixels, [profile]), pixels)
        turn = (b"eXIf", exif_bytes(8).removeprefix(b"Exif\0\0"))
        corpus.good(f"turned{depth}.png", png_bytes(np.ascontiguousarray(turned(pixels, 8)), [turn]), pixels)
    pixels = scene(20, 27)
    corpus.good("damaged_exif.png", png_bytes(pixels, [(b"eXIf", b"nonsense instead of tags")]), pixels, note="EXIF")
    corpus.good("damaged_profile.png", png_bytes(pixels, [(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))]), pixels)
    corpus.good("gamma_and_text.png", png_bytes(pixels, [(b"gAMA", b"\0\0\xb1\x8f"), (b"tEXt", b"Title\0x")]), pixels)
    corpus.good("garbage_after.png", png_bytes(pixels) + b"PK\3\4 and so on" * 99, pixels)
    frames = [Image.fromarray(scene(20, 27, seed=seed)) for seed in range(5)]
    data = pillow_bytes(frames[0], "PNG", save_all=True, append_images=frames[1:])
    corpus.good("animated.png", data, pixels, note="first of its 5 frames")


def _add_jpeg(corpus: _Corpus) -> None:
    options = {"quality": 95, "subsampling": "4:4:4"}
    pixels, gray = scene(24, 40), scene(24, 40, 1)
    lossy = 0.05
    corpus.good("rgb.jpg", pillow_bytes(pixels, "JPEG", **options), pixels, lossy)
    corpus.good("gray.jpg", pillow_bytes(gray, "JPEG", **options), gray, lossy)
    corpus.good("progressive.jpeg", pillow_bytes(pixels, "JPEG", progressive=True, **options), pixels, lossy)
    corpus.good("profile.jpg", pillow_bytes(pixels, "JPEG", icc_profile=srgb_profile(), **options), pixels, lossy)
    for orientation in range(1, 9):
        stored = np.ascontiguousarray(turned(pixels, orientation))
        data = pillow_bytes(stored, "JPEG", exif=exif_bytes(orientation), **options)
        corpus.good(f"orientation{orientation}.jpg", data, pixels, lossy)
    broken = b"Exif\0\0nonsense instead of tags"
    corpus.good("damaged_exif.jpg", pillow_bytes(pixels, "JPEG", exif=broken, **options), pixels, lossy)
    second = Image.fromarray(scene(24, 40, seed=3))
    data = pillow_bytes(pixels, "MPO", save_all=True, append_images=[second], **options)
    corpus.good("telephone.jpg", data, pixels, lossy)

    inks, printed = cmyk_scene()
    profile = cmyk_profile()
    data = tifffile_bytes(inks, photometric="separated", extratags=[(34675, "B", len(profile), profile, True)])
    corpus.good("cmyk_profile.tif", data, printed, 0.01, "CMYK")
    cmyk = Image.fromarray(inks, "CMYK")
    data = pillow_bytes(cmyk, "JPEG", icc_profile=profile, **options)
    corpus.good("cmyk_profile.jpg", data, printed, 0.03, "CMYK")
    inverted = plain_inversion(inks)
    corpus.good("cmyk.jpg", pillow_bytes(cmyk, "JPEG", **options), inverted, 0.03, "CMYK")
    corpus.good("cmyk.tif", tifffile_bytes(inks, photometric="separated"), inverted, 0.01, "CMYK")
    data = pillow_bytes(cmyk, "JPEG", icc_profile=srgb_profile(), **options)
    corpus.good("cmyk_wrong_profile.jpg", data, inverted, 0.03, "CMYK")


def cmyk_scene() -> tuple[np.ndarray, np.ndarray]:
    """Blocks of all overprints of full inks, and their sRGB colours by `cmyk_profile`: both (H, W, C), uint8."""
    number = np.arange(16).reshape(2, 8).repeat(16, 0).repeat(16, 1)
    inks = np.stack([number >> bit & 1 for bit in (3, 2, 1, 0)], -1).astype(np.uint8) * 255
    lightness = np.array(INK_LIGHTNESS)[number] / 255 * 100
    luminance = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    return inks, np.repeat(srgb_curve(luminance)[..., None], 3, -1)


def srgb_curve(luminance: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] as sRGB, uint8 (IEC 61966-2-1)."""
    value = np.where(luminance <= 0.0031308, 12.92 * luminance, 1.055 * luminance ** (1 / 2.4) - 0.055)
    return np.rint(value * 255).astype(np.uint8)


def plain_inversion(inks: np.ndarray) -> np.ndarray:
    paper = 1 - inks.astype(np.float64) / 255
    return np.rint(paper[..., :3] * paper[..., 3:] * 255).astype(np.uint8)


def _add_tiff(corpus: _Corpus) -> None:
    pixels, deep = scene(20, 27), deep_scene(20, 27)
    rgb = {"photometric": "rgb"}
    gray = {"photometric": "minisblack"}
    corpus.good("rgb8.tif", tifffile_bytes(pixels, **rgb), pixels)
    corpus.good("rgb8_lzw.tif", pillow_bytes(pixels, "TIFF", compression="tiff_lzw"), pixels)
    corpus.good("rgb8_jpeg.tif", pillow_bytes(pixels, "TIFF", compression="jpeg", quality=95), pixels, 0.1)
    corpus.good("rgba8.tiff", tifffile_bytes(scene(20, 27, 4), extrasamples=["unassalpha"], **rgb), scene(20, 27, 4))
    corpus.good("gray8.tif", tifffile_bytes(pixels[..., 0], **gray), pixels[..., :1])
    bits = scene(20, 27, 1) > 128
    fax = pillow_bytes(Image.fromarray(bits[..., 0]), "TIFF", compression="group4")
    corpus.good("1bit_fax.tif", fax, bits * np.uint8(255))
    ycbcr = Image.fromarray(pixels).convert("YCbCr")
    if int(PIL.__version__.split(".")[0]) >= 13:
        corpus.good("ycbcr.tif", pillow_bytes(ycbcr, "TIFF"), pixels, 0.02)
    else:  # which does not read what it wrote
        corpus.bad("ycbcr.tif", pillow_bytes(ycbcr, "TIFF"), "damaged")
    lightness = scene(20, 27, 1)[..., 0]
    lab = np.stack([lightness, np.zeros_like(lightness), np.zeros_like(lightness)], -1)
    shine = np.where(lightness > 20, ((lightness / 2.55 + 16) / 116) ** 3, lightness / 2.55 / 903.3)
    data = tifffile_bytes(lab, photometric="cielab")
    corpus.good("lab.tif", data, np.repeat(srgb_curve(shine)[..., None], 3, -1), 0.02)

    corpus.good("gray16.tif", tifffile_bytes(deep[..., 0], **gray), deep[..., :1])
    data = tifffile_bytes(deep[..., 0], compression="zlib", predictor=True, **gray)
    corpus.good("gray16_zip.tif", data, deep[..., :1])
    corpus.good("gray16_lzw.tif", cv2_bytes(deep[..., 0]), deep[..., :1])
    data = tifffile_bytes(65535 - deep[..., 0], photometric="miniswhite")
    corpus.good("gray16_white_is_zero.tif", data, deep[..., :1])
    two = deep_scene(20, 27, 2)
    data = tifffile_bytes(two, extrasamples=["unassalpha"], planarconfig="contig", **gray)
    corpus.good("gray_alpha16.tif", data, two)
    corpus.good("rgb16.tif", tifffile_bytes(deep, **rgb), deep)
    corpus.good("rgb16_big_endian.tif", tifffile_bytes(deep, byteorder=">", **rgb), deep)
    corpus.good("rgb16_bigtiff.tif", tifffile_bytes(deep, bigtiff=True, **rgb), deep)
    corpus.good("rgb16_lzw.tif", cv2_bytes(deep), deep)
    corpus.good("rgb16_tiles.tif", tifffile_bytes(deep, tile=(16, 16), compression="zlib", **rgb), deep)
    planes = np.ascontiguousarray(deep.transpose(2, 0, 1))
    corpus.good("rgb16_planes.tif", tifffile_bytes(planes, planarconfig="separate", **rgb), deep)
    four = deep_scene(20, 27, 4)
    corpus.good("rgba16.tif", tifffile_bytes(four, extrasamples=["unassalpha"], compression="zlib", **rgb), four)
    corpus.good("rgba16_lzw.tif", cv2_bytes(four), four)
    corpus.good("rgb16_selection.tif", tifffile_bytes(four, extrasamples=["unspecified"], **rgb), four[..., :3])
    opacity = four[..., 3:].astype(np.float64) / 65535
    stored = np.concatenate([np.rint(four[..., :3] * opacity), four[..., 3:]], -1).astype(np.uint16)
    # Rounding to premultiplied integers costs up to half a step divided by the opacity, which is above 0.07
    corpus.good("rgba16_premultiplied.tif", tifffile_bytes(stored, extrasamples=["assocalpha"], **rgb), four, 2e-4)
    for orientation in range(1, 9):
        stored = np.ascontiguousarray(turned(deep, orientation))
        data = tifffile_bytes(stored, extratags=[(274, "H", 1, orientation, True)], **rgb)
        corpus.good(f"orientation{orientation}_16.tif", data, deep)
        stored = np.ascontiguousarray(turned(deep[..., :1], orientation))
        height, width = stored.shape[:2]
        tags = {256: width, 257: height, 258: 16, 259: 5, 262: 1, 274: orientation, 277: 1, 278: height}
        data = tiff_bytes({tag: (SHORT, value) for tag, value in tags.items()}, lzw(stored.astype("<u2").tobytes()))
        corpus.good(f"orientation{orientation}_16_lzw.tif", data, deep[..., :1])
    stored = np.ascontiguousarray(turned(pixels, 6))
    corpus.good("orientation6_8.tif", pillow_bytes(stored, "TIFF", tiffinfo={274: 6}), pixels)
    pages = BytesIO()
    with tifffile.TiffWriter(pages) as writer:
        for page in (deep, deep_scene(9, 9), deep_scene(5, 5)):
            writer.write(page, photometric="rgb", metadata=None)
    corpus.good("pages16.tif", pages.getvalue(), deep, note="first of its 3 pages")
    other = Image.fromarray(scene(9, 9))
    data = pillow_bytes(pixels, "TIFF", save_all=True, append_images=[other, other])
    corpus.good("pages8.tif", data, pixels, note="first of its 3 pages")
    tags = {256: (SHORT, 4), 257: (SHORT, 2), 258: (SHORT, 8), 262: (SHORT, 1)}
    small = scene(2, 4, 1)
    corpus.good("circle_of_pages.tif", tiff_bytes(tags, small.tobytes(), following=8), small)

    floats = deep.astype(np.float32) / 65535
    corpus.good("gray_float32.tif", tifffile_bytes(floats[..., 0], **gray), floats[..., :1])
    corpus.good("rgb_float32.tif", tifffile_bytes(floats, compression="zlib", **rgb), floats)
    corpus.good("rgb_float64.tif", tifffile_bytes(floats.astype(np.float64), **rgb), floats)
    corpus.good("rgb_float16.tif", tifffile_bytes(floats.astype(np.float16), **rgb), floats, 1e-3)
    corpus.bad("hdr_float32.tif", tifffile_bytes(floats * 5, **rgb), "not from 0 to 1")
    corpus.bad("nan_float32.tif", tifffile_bytes(np.full((4, 4), np.nan, np.float32), **gray), "not from 0 to 1")
    corpus.bad("gray_uint32.tif", tifffile_bytes(deep[..., 0].astype(np.uint32), **gray), "32 bits")
    corpus.bad("rgb_uint32.tif", tifffile_bytes(deep.astype(np.uint32), **rgb), "32 bits")
    corpus.bad("gray_int16.tif", tifffile_bytes(np.zeros((4, 4), np.int16), **gray), "signed")


def cv2_bytes(pixels: np.ndarray) -> bytes:
    """An LZW TIFF file of uint16, (H, W) gray, or (H, W, C) RGB or RGBA."""
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    ok, data = cv2.imencode(".tif", pixels, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert ok
    return data.tobytes()


def _add_others(corpus: _Corpus) -> None:
    pixels, four = scene(20, 27), scene(20, 27, 4)
    gray = np.repeat(scene(20, 27, 1), 3, -1)  # lossy WebP halves the resolution of colours
    corpus.good("rgb.webp", pillow_bytes(gray, "WEBP", quality=95), gray, 0.05)
    corpus.good("rgb_lossless.webp", pillow_bytes(pixels, "WEBP", lossless=True), pixels)
    corpus.good("rgba_lossless.webp", pillow_bytes(four, "WEBP", lossless=True, exact=True), four)
    stored = np.ascontiguousarray(turned(pixels, 5))
    data = pillow_bytes(stored, "WEBP", lossless=True, exif=exif_bytes(5), icc_profile=srgb_profile())
    corpus.good("turned.webp", data, pixels)
    frames = [Image.fromarray(scene(20, 27, seed=seed)) for seed in range(4)]
    data = pillow_bytes(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, kmax=1)
    corpus.good("animated.webp", data, pixels, note="first of its 4 frames")

    corpus.good("rgb.bmp", pillow_bytes(pixels, "BMP"), pixels)
    corpus.good("gray.bmp", pillow_bytes(pixels[..., :1], "BMP"), pixels[..., :1])
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<I2i2H6I", 108, 27, -20, 1, 32, 3, four.size, 0, 0, 0, 0) + masks + b"\0" * 52
    data = b"BM" + struct.pack("<3I", 14 + len(header) + four.size, 0, 14 + len(header)) + header
    corpus.good("rgba.bmp", data + four[..., [2, 1, 0, 3]].tobytes(), four)

    index = (scene(20, 27, 1) // 64)[..., 0]
    colours = np.array([[250, 10, 20], [30, 240, 50], [60, 70, 230], [80, 80, 80]], np.uint8)
    frames = []
    for shift in range(12):
        frame = Image.fromarray((index + shift) % 4).convert("P")
        frame.putpalette(colours.tobytes())
        frames.append(frame)
    corpus.good("still.gif", pillow_bytes(frames[0], "GIF"), colours[index])
    data = pillow_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    corpus.good("animated.gif", data, colours[index], note="animated: only the first of its 12 frames is taken")
    rgba = np.concatenate([colours[index], np.where(index == 2, 0, 255)[..., None]], -1).astype(np.uint8)
    corpus.good("transparent.gif", pillow_bytes(frames[0], "GIF", transparency=2), rgba)

    corpus.good("rgb.tga", pillow_bytes(pixels, "TGA"), pixels)
    corpus.good("rgba_rle.tga", pillow_bytes(four, "TGA", compression="tga_rle"), four)
    corpus.good("rgba.ico", pillow_bytes(scene(32, 32, 4), "ICO", sizes=[(32, 32)]), scene(32, 32, 4))
    corpus.good("rgb.ppm", b"P6 27 20 255\n" + pixels.tobytes(), pixels)
    corpus.good("text.ppm", b"P3 27 20 255\n" + b" ".join(b"%d" % value for value in pixels.flat), pixels)
    deep = deep_scene(20, 27, 1)
    corpus.good("gray16.pgm", b"P5 27 20 65535\n" + deep.astype(">u2").tobytes(), deep)
    floats = deep[..., 0].astype(np.float32) / 65535
    corpus.good("gray.pfm", b"Pf 27 20 -1.0\n" + floats[::-1].astype("<f4").tobytes(), floats[..., None])
    if features.check("jpg_2000"):
        corpus.good("rgb.jp2", pillow_bytes(pixels, "JPEG2000"), pixels)
    if "AVIF" in Image.SAVE:
        corpus.good("rgb.avif", pillow_bytes(pixels, "AVIF", quality=95, subsampling="4:4:4"), pixels, 0.1)


def _add_sizes_and_names(corpus: _Corpus) -> None:
    for height, width in ((1, 1), (1, 37), (41, 1), (2, 400), (400, 2), (3, 3)):
        pixels, deep = scene(height, width), deep_scene(height, width)
        corpus.good(f"{height}x{width}.png", png_bytes(pixels), pixels)
        corpus.good(f"{height}x{width}_16.png", png_bytes(deep), deep)
        corpus.good(f"{height}x{width}_16.tif", tifffile_bytes(deep, photometric="rgb"), deep)
    corpus.good("1x1.gif", pillow_bytes(scene(1, 1, 1), "GIF"), np.repeat(scene(1, 1, 1), 3, -1))

    pixels = scene(9, 12)
    data = png_bytes(pixels)
    names = ["with spaces (and 100% brackets).png", "ünïcødé 图片 🖼.png", "-dash.png", "UPPER.PNG", "a.b.png"]
    for name in (*names, "no_suffix", "long" * 40 + ".png", "quote'\".png", ".hidden.png"):
        corpus.good(name, data, pixels)
    with suppress(OSError):  # not every system has such names
        corpus.good("line\nbreak.png", data, pixels)
    with suppress(OSError):
        corpus.good(os.fsdecode(b"not utf-8 caf\xe9.png"), data, pixels)
    corpus.good("png_named.jpg", data, pixels)
    corpus.good("jpeg_named.png", pillow_bytes(pixels, "JPEG", quality=95, subsampling="4:4:4"), pixels, 0.08)
    corpus.good("webp_named.jpg", pillow_bytes(pixels, "WEBP", lossless=True), pixels)
    deep = deep_scene(9, 12)
    corpus.good("tiff16_named.png", tifffile_bytes(deep, photometric="rgb"), deep)
    with suppress(OSError):
        (corpus.folder / "link.png").symlink_to("UPPER.PNG")
        corpus.cases.append(Case(corpus.folder / "link.png", pixels / np.float32(255)))


def _add_broken(corpus: _Corpus) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)  # fills the file evenly
    deep = noise.astype(np.uint16) * 257
    whole = {
        "png": png_bytes(noise),
        "png16.png": png_bytes(deep),
        "jpg": pillow_bytes(noise, "JPEG"),
        "progressive.jpg": pillow_bytes(noise, "JPEG", progressive=True),
        "webp": pillow_bytes(noise, "WEBP"),
        "bmp": pillow_bytes(noise, "BMP"),
        "gif": pillow_bytes(Image.fromarray(noise).quantize(256), "GIF"),
        "tga": pillow_bytes(noise, "TGA"),
        "ppm": b"P6 60 40 255\n" + noise.tobytes(),
        "raw.tif": tifffile_bytes(noise, photometric="rgb"),
        "raw16.tif": tifffile_bytes(deep, photometric="rgb"),
        "zip.tif": tifffile_bytes(noise, photometric="rgb", compression="zlib"),
        "zip16.tif": tifffile_bytes(deep, photometric="rgb", compression="zlib"),
        "tiles16.tif": tifffile_bytes(deep, photometric="rgb", tile=(16, 16)),
        "lzw.tif": pillow_bytes(noise, "TIFF", compression="tiff_lzw"),
        "lzw16.tif": tifffile_bytes(deep[:8, :8], photometric="rgb"),
    }
    if features.check("jpg_2000"):
        whole["jp2"] = pillow_bytes(noise, "JPEG2000")
    for name, data in whole.items():
        corpus.bad(f"truncated_{name}" if "." in name else f"truncated.{name}", data[: len(data) * 2 // 3], "")
        corpus.bad(f"beginning_{name}" if "." in name else f"beginning.{name}", data[:20], "")
    for name in ("lzw", "zip16", "zip"):
        data = bytearray(whole[f"{name}.tif"])
        middle = len(data) // 2
        data[middle : middle + 300] = bytes(300)
        corpus.bad(f"damaged_{name}.tif", bytes(data), "damaged")
    lzw16 = bytearray(cv2_bytes(deep))
    lzw16[len(lzw16) // 2 : len(lzw16) // 2 + 300] = b"\xff" * 300
    corpus.bad("damaged_lzw16.tif", bytes(lzw16), "damaged")
    data = bytearray(png_bytes(noise))
    data[len(data) // 2 : len(data) // 2 + 20] = bytes(20)
    corpus.bad("damaged.png", bytes(data), "damaged")

    tags = {256: (SHORT, 4), 257: (SHORT, 4), 258: (SHORT, 16), 262: (SHORT, 1)}
    corpus.bad("no_strip16.tif", tiff_bytes(tags), "truncated")
    corpus.bad("one_strip_of_four16.tif", tiff_bytes({**tags, 278: (SHORT, 1)}, bytes(8)), "truncated")
    data = bytearray(png_bytes(deep))
    data[33:37] = b"\xff\0\0\0"  # 4 GB of pixels are said to follow
    corpus.bad("endless16.png", bytes(data), "")

    corpus.bad("empty.png", b"", "empty")
    corpus.bad("empty.tif", b"", "empty")
    corpus.bad("zeros.jpg", bytes(5000), "not a picture")
    corpus.bad("noise.png", noise.tobytes(), "not a picture")
    corpus.bad("text.png", b"this is not a picture\n" * 9, "not a picture")
    corpus.bad("page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not a picture")
    corpus.bad("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not a picture")
    corpus.bad("document.pdf", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n", "not a picture")
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    corpus.bad("postscript.eps", postscript, "not a picture")
    corpus.bad("telephone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "not a picture")
    corpus.bad("film.jpg", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(200), "not a picture")
    corpus.bad("no_pixels.png", png_file([(b"IHDR", struct.pack(">2I5B", 9, 9, 8, 2, 0, 0, 0)), (b"IEND", b"")]), "")
    corpus.bad("no_pixels16.png", png_file([(b"IHDR", struct.pack(">2I5B", 9, 9, 16, 2, 0, 0, 0)), (b"IEND", b"")]), "")
    corpus.bad("no_width.png", png_file([(b"IHDR", struct.pack(">2I5B", 0, 9, 8, 2, 0, 0, 0)), (b"IEND", b"")]), "")
    corpus.bad("no_width.bmp", b"BM" + struct.pack("<3IIiiHH6I", 54, 0, 54, 40, 0, 9, 1, 24, 0, 0, 0, 0, 0, 0), "")


def _add_bombs(corpus: _Corpus) -> None:
    wide = 100_000
    limit = "178956970"
    for depth in (8, 16):
        header = struct.pack(">2I5B", wide, wide, depth, 2, 0, 0, 0)
        data = png_file([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")])
        corpus.bad(f"bomb{depth}.png", data, limit)
        tags = {256: (LONG, wide), 257: (LONG, wide), 258: (SHORT, depth), 259: (SHORT, 8), 262: (SHORT, 1)}
        corpus.bad(f"bomb{depth}.tif", tiff_bytes(tags, zlib.compress(bytes(100))), limit)
    corpus.bad("bomb.bmp", b"BM" + struct.pack("<3IIiiHH6I", 54, 0, 54, 40, wide, wide, 1, 24, 0, 0, 0, 0, 0, 0), limit)
    corpus.bad("bomb.ppm", b"P6 %d %d 255\n" % (wide, wide), limit)
    gif = bytearray(pillow_bytes(scene(4, 4, 1), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    corpus.bad("bomb.gif", bytes(gif), limit)
    jpeg = bytearray(pillow_bytes(scene(8, 8), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">2H", 65000, 65000)
    corpus.bad("bomb.jpg", bytes(jpeg), limit)
    text = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000)))
    corpus.bad("bomb_in_text.png", png_bytes(scene(4, 4), [text]), "damaged")
    tags = {256: (SHORT, 4), 257: (SHORT, 4), 258: (SHORT, 16), 262: (SHORT, 1), 277: (SHORT, 65535)}
    corpus.bad("bomb_of_channels.tif", tiff_bytes(tags, bytes(32)), "65535 channels")


def _add_no_files(corpus: _Corpus) -> None:
    folder = corpus.folder
    corpus.bad("missing.png", None, "No such file")
    (folder / "folder.png").mkdir(exist_ok=True)
    corpus.bad("folder.png", None, "not a file")
    with suppress(OSError, AttributeError):  # Windows has no pipes of this kind, and links only for some
        os.mkfifo(folder / "pipe.png")
        corpus.bad("pipe.png", None, "not a file")
    with suppress(OSError):
        (folder / "broken_link.png").symlink_to(folder / "nowhere.png")
        corpus.bad("broken_link.png", None, "No such file")
        (folder / "circle_a.png").symlink_to(folder / "circle_b.png")
        (folder / "circle_b.png").symlink_to(folder / "circle_a.png")
        corpus.bad("circle_a.png", None, "symbolic links")
    if hasattr(os, "geteuid") and os.geteuid() != 0:  # everything is readable for root
        corpus.bad("unreadable.png", png_bytes(scene(4, 4)), "Permission denied")
        (folder / "unreadable.png").chmod(0)
