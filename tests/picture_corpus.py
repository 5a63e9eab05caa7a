"""A corpus of odd picture files, each with the pixels that it must read as or the error that it must give.

The expected pixels are the arrays that the files were made from.
"""

import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL
import tifffile
from picture_files import (
    LONG,
    SHORT,
    cmyk_profile,
    cmyk_scene,
    cv2_bytes,
    deep_scene,
    exif_bytes,
    lzw,
    pillow_bytes,
    plain_inversion,
    png_bytes,
    png_file,
    scene,
    srgb_curve,
    srgb_profile,
    tiff_bytes,
    tifffile_bytes,
    turned,
)
from PIL import Image, features


@dataclass(frozen=True)
class Case:
    """A file and the expected result of reading it.

    Attributes:
        path: The file, or the folder, link or pipe in its place, or nothing.
        pixels: (H, W, C) in [0, 1], upright; C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha. None if reading
            must fail.
        dtype: Type of the pixels as they are read: uint8, uint16 or float32.
        tolerance: Largest difference allowed from `pixels`.
        note: Text that the picture's note must contain; "" if there must be no note.
        error: Text that the error must contain if reading must fail.
    """

    path: Path
    pixels: np.ndarray | None = None
    dtype: str = "uint8"
    tolerance: float = 0.0
    note: str = ""
    error: str = ""

    def __str__(self) -> str:
        return self.path.name


class _Corpus:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases: list[Case] = []
        folder.mkdir(parents=True, exist_ok=True)

    def good(self, name: str, data: bytes, pixels: np.ndarray, tolerance: float = 0, note: str = "") -> None:
        """Add a file that must read as `pixels`: uint8, uint16, or float32 in [0, 1]."""
        path = self.folder / name
        path.write_bytes(data)
        white = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
        reference = (pixels / np.float32(white)).astype(np.float32)
        self.cases.append(Case(path, reference, str(pixels.dtype), tolerance, note))

    def bad(self, name: str, data: bytes | None, error: str) -> None:
        """Add a file that cannot be read; if `data` is None, nothing is written."""
        path = self.folder / name
        if data is not None:
            path.write_bytes(data)
        self.cases.append(Case(path, error=error))


def make_corpus(folder: Path) -> list[Case]:
    """Fill a folder with more than two hundred small files, which takes about a second."""
    corpus = _Corpus(Path(folder))
    _add_png(corpus)
    _add_jpeg(corpus)
    _add_tiff(corpus)
    _add_deep_tiff(corpus)
    _add_turned_and_paged_tiff(corpus)
    _add_float_and_unknown_tiff(corpus)
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

    for depth, make in ((8, scene), (16, deep_scene)):  # with one transparent colour
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
    corpus.good(
        "damaged_profile.png",
        png_bytes(pixels, [(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))]),
        pixels,
        note="profile",
    )
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
    corpus.good("telephone.jpg", data, pixels, lossy, "first of its 2 pictures")

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


def _add_tiff(corpus: _Corpus) -> None:
    pixels = scene(20, 27)
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
    else:  # older versions cannot read what they wrote
        corpus.bad("ycbcr.tif", pillow_bytes(ycbcr, "TIFF"), "damaged")
    lightness = scene(20, 27, 1)[..., 0]
    lab = np.stack([lightness, np.zeros_like(lightness), np.zeros_like(lightness)], -1)
    shine = np.where(lightness > 20, ((lightness / 2.55 + 16) / 116) ** 3, lightness / 2.55 / 903.3)
    data = tifffile_bytes(lab, photometric="cielab")
    corpus.good("lab.tif", data, np.repeat(srgb_curve(shine)[..., None], 3, -1), 0.02)


def _add_deep_tiff(corpus: _Corpus) -> None:
    deep = deep_scene(20, 27)
    rgb = {"photometric": "rgb"}
    gray = {"photometric": "minisblack"}
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


def _add_turned_and_paged_tiff(corpus: _Corpus) -> None:
    pixels, deep = scene(20, 27), deep_scene(20, 27)
    rgb = {"photometric": "rgb"}
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


def _add_float_and_unknown_tiff(corpus: _Corpus) -> None:
    deep = deep_scene(20, 27)
    rgb = {"photometric": "rgb"}
    gray = {"photometric": "minisblack"}
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


def _add_others(corpus: _Corpus) -> None:
    pixels, four = scene(20, 27), scene(20, 27, 4)
    gray = np.repeat(scene(20, 27, 1), 3, -1)  # lossy WebP halves the resolution of colour
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
    with suppress(OSError):  # not every system allows such names
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
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)  # with detail everywhere in the file
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
    data[33:37] = b"\xff\0\0\0"  # the chunk claims 4 GB of pixels
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
    bomb = zlib.compress(bytes(100_000_000))
    for name, start, word in (
        (b"zTXt", b"Comment\0\0", "text"),
        (b"iTXt", b"Comment\0\1\0\0\0", "text"),
        (b"iCCP", b"x\0\0", "colour profile"),
    ):
        note = f"its {word} cannot be read"
        pixels = scene(4, 4)
        corpus.good(f"bomb_in_{name.decode()}.png", png_bytes(pixels, [(name, start + bomb)]), pixels, note=note)
    tags = {256: (SHORT, 4), 257: (SHORT, 4), 258: (SHORT, 16), 262: (SHORT, 1), 277: (SHORT, 65535)}
    corpus.bad("bomb_of_channels.tif", tiff_bytes(tags, bytes(32)), "65535 channels")


def _add_no_files(corpus: _Corpus) -> None:
    folder = corpus.folder
    corpus.bad("missing.png", None, "No such file")
    (folder / "folder.png").mkdir(exist_ok=True)
    corpus.bad("folder.png", None, "not a file")
    with suppress(OSError, AttributeError):  # Windows has no named pipes, and links only for some users
        os.mkfifo(folder / "pipe.png")
        corpus.bad("pipe.png", None, "not a file")
    with suppress(OSError):
        (folder / "broken_link.png").symlink_to(folder / "nowhere.png")
        corpus.bad("broken_link.png", None, "No such file")
        (folder / "circle_a.png").symlink_to(folder / "circle_b.png")
        (folder / "circle_b.png").symlink_to(folder / "circle_a.png")
        corpus.bad("circle_a.png", None, "symbolic links")
    if hasattr(os, "geteuid") and os.geteuid() != 0:  # root can read everything
        corpus.bad("unreadable.png", png_bytes(scene(4, 4)), "Permission denied")
        (folder / "unreadable.png").chmod(0)
