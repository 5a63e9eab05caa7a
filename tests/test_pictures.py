"""Picture files of all kinds: each is read correctly, or refused in one clear line."""

import errno
import os
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from picture_corpus import Case, make_corpus
from picture_files import (
    deep_scene,
    exif_bytes,
    gray_profile,
    pillow_bytes,
    png_bytes,
    scene,
    srgb_profile,
    tifffile_bytes,
)
from PIL import ExifTags, Image, ImageOps

from drct.errors import DRCTError
from drct.images.depth import convert_depth
from drct.images.metadata import Metadata
from drct.images.pictures import (
    WRITABLE,
    Picture,
    from_pil,
    read_picture,
    to_pil,
    write_picture,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> list[Case]:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def complaint(case: Case) -> str:
    """Describe how the result of reading a case differs from the expected one; "" if it does not."""
    try:
        picture = read_picture(case.path)
    except DRCTError as error:
        message = str(error)
        expected = case.pixels is None and case.error in message and str(case.path) in message and "\n" not in message
        return "" if expected else f"fails with {message!r}"
    if case.pixels is None:
        return "is read"
    if (picture.pixels.shape, str(picture.pixels.dtype)) != (case.pixels.shape, case.dtype):
        return f"is {picture.pixels.dtype} {picture.pixels.shape}, not {case.dtype} {case.pixels.shape}"
    difference = np.abs(convert_depth(picture.pixels, np.float32) - case.pixels).max()
    if difference > case.tolerance + 1e-7:
        return f"differs by {difference}"
    if case.note not in picture.note or bool(case.note) != bool(picture.note):
        return f"has the note {picture.note!r}"
    return ""


def test_every_file_of_the_corpus_gives_its_picture_or_a_one_line_error(corpus, capfd, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrong = {str(case): complaint(case) for case in corpus if "\n" not in case.path.name}
    assert {name: what for name, what in wrong.items() if what} == {}
    assert len(corpus) > 200
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_errors_are_one_line_even_for_a_name_of_two(tmp_path):
    (tmp_path / "two\nlines.png").write_bytes(png_bytes(scene(3, 4)))
    assert np.array_equal(read_picture(tmp_path / "two\nlines.png").pixels, scene(3, 4))
    with pytest.raises(DRCTError, match=r"two lines\.jpg: No such file"):
        read_picture(tmp_path / "two\nlines.jpg")


def test_damage_anywhere_never_escapes_as_another_error(corpus, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)  # decoding damaged sizes would take long
    random = np.random.default_rng(0)
    path = tmp_path / "damaged"
    read = 0
    for case in corpus:
        if case.pixels is None:
            continue
        for limit in (60, 10**9):  # damage in the header, or anywhere
            data = bytearray(case.path.read_bytes())
            for _ in range(3):
                data[random.integers(min(limit, len(data)))] = random.integers(256)
            path.write_bytes(data)
            try:
                read_picture(path)
                read += 1
            except DRCTError as error:
                assert "\n" not in str(error)
    assert read > 20
    assert capfd.readouterr() == ("", "")


def test_threads_that_silence_libtiff_give_the_terminal_back(corpus, capfd):
    paths = [case.path for case in corpus if case.path.suffix == ".tif"] * 2

    def read(path: Path) -> None:
        with suppress(DRCTError):
            read_picture(path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, paths))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.parametrize("kind", ["png8", "png16", "tif8", "tif16", "jpg"])
def test_the_pixel_limit_of_pillow_holds_for_all_formats(kind, tmp_path, monkeypatch):
    pixels, deep = scene(20, 27), deep_scene(20, 27)
    data = {
        "png8": png_bytes(pixels),
        "png16": png_bytes(deep),
        "tif8": tifffile_bytes(pixels, photometric="rgb"),
        "tif16": tifffile_bytes(deep, photometric="rgb"),
        "jpg": pillow_bytes(pixels, "JPEG"),
    }
    path = tmp_path / "picture"
    path.write_bytes(data[kind])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 27 // 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns at half of the size that it refuses
        assert read_picture(path).pixels.shape == (20, 27, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20 * 27 // 2 - 1)
    with pytest.raises(DRCTError, match=r"540 pixels.* 538 pixels"):
        read_picture(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_by_pillow(orientation, tmp_path):
    stored = deep_scene(10, 13, 4)
    exif = exif_bytes(orientation)
    image = Image.fromarray((stored >> 8).astype(np.uint8))
    image.getexif().load(exif)
    expected = np.asarray(ImageOps.exif_transpose(image))

    assert np.array_equal(from_pil(image).pixels, expected)
    tag = [(274, "H", 1, orientation, True)]
    alpha = {"photometric": "rgb", "extrasamples": ["unassalpha"], "extratags": tag}
    files = {
        "8.png": pillow_bytes(image, "PNG", exif=exif),
        "8.webp": pillow_bytes(image, "WEBP", exif=exif, lossless=True, exact=True),
        "8.tif": tifffile_bytes(np.asarray(image), **alpha),
        "16.png": png_bytes(stored, [(b"eXIf", exif.removeprefix(b"Exif\0\0"))]),
        "16.tif": tifffile_bytes(stored, **alpha),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        picture = read_picture(tmp_path / name)
        pixels = picture.pixels >> 8 if "16" in name else picture.pixels
        assert np.array_equal(pixels, expected), name
        if picture.metadata.exif:
            assert ExifTags.Base.Orientation not in exif_of(picture)


def exif_of(picture: Picture) -> Image.Exif:
    exif = Image.Exif()
    exif.load(picture.metadata.exif or b"")
    return exif


def test_exif_is_kept_without_orientation_sizes_and_thumbnail(tmp_path):
    data = bytearray(exif_bytes(6).removeprefix(b"Exif\0\0"))
    order = "<" if data[:2] == b"II" else ">"
    thumbnail = pillow_bytes(scene(8, 8), "JPEG")
    entries = struct.unpack_from(order + "H", data, 8)[0]
    struct.pack_into(order + "I", data, 10 + 12 * entries, len(data))  # the offset of the next directory
    second = struct.pack(order + "H", 2)
    for tag, value in ((513, len(data) + 30), (514, len(thumbnail))):  # its offset and length
        second += struct.pack(order + "2H2I", tag, 4, 1, value)
    data += second + bytes(4) + thumbnail
    path = tmp_path / "camera.jpg"
    path.write_bytes(pillow_bytes(scene(8, 8), "JPEG", exif=b"Exif\0\0" + bytes(data)))
    with Image.open(path) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.IFD1)[514] == len(thumbnail)

    picture = read_picture(path)

    exif = exif_of(picture)
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert exif[ExifTags.Base.Make].encode("latin-1") == "Müller & 山田".encode()
    assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {1: "N", 2: (25.0, 2.0, 30.5)}
    assert details == {ExifTags.Base.DateTimeOriginal: "2024:02:29 12:00:00", ExifTags.Base.ExposureTime: 0.008}
    assert ExifTags.Base.Orientation not in exif
    assert not exif.get_ifd(ExifTags.IFD.IFD1)
    assert picture.metadata.exif and thumbnail not in picture.metadata.exif


def test_a_profile_is_kept_if_it_matches_the_colour_model(tmp_path):
    rgb, gray = srgb_profile(), gray_profile()
    path = tmp_path / "picture.png"
    palette = Image.fromarray(scene(9, 9)).quantize(16)
    for image, profile, kept in (
        (scene(9, 9), rgb, rgb),
        (scene(9, 9, 4), rgb, rgb),
        (scene(9, 9, 1), gray, gray),
        (scene(9, 9, 2), gray, gray),
        (palette, rgb, rgb),
        (scene(9, 9, 1), rgb, None),
        (scene(9, 9), gray, None),
    ):
        path.write_bytes(pillow_bytes(image, "PNG", icc_profile=profile))
        assert read_picture(path).metadata.icc_profile == kept
    cmyk = Image.fromarray(scene(9, 9, 4), "RGBA").convert("RGB").convert("CMYK")
    path.write_bytes(pillow_bytes(cmyk, "JPEG", icc_profile=rgb))
    assert read_picture(path).metadata.icc_profile is None


def oracle(path: Path, channels: int) -> np.ndarray:
    """Read a file that we wrote with another library, (H, W, C)."""
    if path.suffix == ".tif":
        pixels = tifffile.imread(path)
    elif path.suffix == ".png":
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        pixels = pixels if channels == 1 else pixels[..., {2: [0, 3], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]]
    else:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def camera_exif() -> bytes:
    """EXIF as a `Picture` holds it: without orientation."""
    exif = Image.Exif()
    exif.load(exif_bytes())
    exif.endian = "<"
    del exif[ExifTags.Base.Orientation]
    exif[ExifTags.Base.Make] = "Müller & 山田".encode()
    return exif.tobytes()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp", ".jpg"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_written_pictures_are_read_back_unchanged(suffix, dtype, channels, tmp_path):
    pixels = convert_depth(deep_scene(70, 31, channels), dtype)
    profile = gray_profile() if channels < 3 else srgb_profile()
    path = tmp_path / f"picture{suffix}"

    write_picture(path, Picture(pixels, "PNG", Metadata(profile, exif=camera_exif())), quality=100)
    picture = read_picture(path)

    flat = suffix in (".bmp", ".jpg") and channels in (2, 4)
    if flat:
        values = convert_depth(pixels, np.float32)
        pixels = values[..., :-1] * values[..., -1:] + 1 - values[..., -1:]
    if suffix == ".webp" and channels < 3:
        pixels, profile = pixels[..., [0, 0, 0, 1][: channels + 2]], None
    deepest = {".png": np.uint16, ".tif": np.float32}.get(suffix, np.uint8)
    pixels = convert_depth(pixels, dtype if np.dtype(dtype).itemsize <= np.dtype(deepest).itemsize else deepest)
    assert (picture.pixels.shape, picture.pixels.dtype) == (pixels.shape, pixels.dtype)
    if suffix == ".jpg":
        assert np.abs(picture.pixels.astype(int) - pixels).max() <= 8
    else:
        assert np.array_equal(picture.pixels, pixels)
    assert np.array_equal(picture.pixels, oracle(path, picture.pixels.shape[2]))
    assert picture.format == WRITABLE[suffix]
    if suffix == ".bmp":
        assert (picture.metadata.icc_profile, picture.metadata.exif) == (None, None)
        return
    assert picture.metadata.icc_profile == profile
    exif = exif_of(picture)
    assert "Müller & 山田".encode() in (picture.metadata.exif or b"")
    assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2024:02:29 12:00:00"
    assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {1: "N", 2: (25.0, 2.0, 30.5)}


def test_a_note_says_what_a_format_cannot_hold(tmp_path):
    rgb, half, opaque = scene(9, 9), scene(9, 9, 4), scene(9, 9, 4)
    half[..., 3] = 128
    opaque[..., 3] = 255
    exif = exif_bytes()
    long = Image.Exif()
    long.load(exif)
    long[ExifTags.Base.Artist] = "x" * 70_000
    floats = convert_depth(half, np.float32)
    for suffix, picture, note in (
        (".png", Picture(half, metadata=Metadata(icc_profile=srgb_profile(), exif=exif)), ""),
        (".tif", Picture(floats, metadata=Metadata(icc_profile=srgb_profile(), exif=exif)), ""),
        (".png", Picture(floats), "PNG has no floats: rounded to 16 bits"),
        (".jpg", Picture(rgb, metadata=Metadata(icc_profile=srgb_profile(), exif=exif)), ""),
        (".jpg", Picture(opaque), ""),
        (".jpg", Picture(half), "JPEG has no transparency: flattened on white"),
        (".bmp", Picture(half), "BMP has no transparency: flattened on white"),
        (".bmp", Picture(rgb, metadata=Metadata(exif=exif)), "BMP has no EXIF: dropped"),
        (".webp", Picture(convert_depth(half, np.uint16)), "WEBP has no 16 bits: rounded to 8 bits"),
        (
            ".webp",
            Picture(half[..., 2:], metadata=Metadata(gray_profile())),
            "WEBP has no gray: colour profile dropped",
        ),
        (".jpg", Picture(rgb, metadata=Metadata(exif=long.tobytes())), "JPEG has no room for 70"),
    ):
        found = write_picture(tmp_path / f"picture{suffix}", picture)
        assert found.startswith(note) and bool(found) == bool(note)
    write_picture(tmp_path / "white.bmp", Picture(half))
    flat = read_picture(tmp_path / "white.bmp").pixels
    assert np.abs(flat - (half[..., :3] * (128 / 255) + 127)).max() <= 0.51


def test_a_picture_that_cannot_be_written_leaves_the_older_file(tmp_path, monkeypatch):
    picture = Picture(scene(4, 5))
    wide = Picture(np.zeros((1, 16384, 3), np.uint8))
    damaged = Picture(scene(4, 5), metadata=Metadata(exif=b"Exif\0\0nonsense"))
    for name, unwritable, message in (
        ("a.webp", wide, "16384x1 pixels, but WEBP has at most 16383 a side"),
        ("a.tif", damaged, "cannot write"),
    ):
        path = tmp_path / name
        write_picture(path, picture)
        before = path.read_bytes()
        with pytest.raises(DRCTError, match=message):
            write_picture(path, unwritable)
        assert path.read_bytes() == before

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for suffix in WRITABLE:
        path = tmp_path / f"b{suffix}"
        write_picture(path, picture)
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("drct.files.os.fsync", full)
            with pytest.raises(DRCTError, match="No space left on device"):
                write_picture(path, Picture(scene(30, 30)))
        assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))


def test_the_suffix_determines_the_format(tmp_path):
    for suffix, format in WRITABLE.items():
        path = tmp_path / f"picture{suffix.upper()}"
        write_picture(path, Picture(scene(4, 5)))
        with Image.open(path) as image:
            assert image.format == format
    for name in ("a.gif", "b", "c.png.txt"):
        with pytest.raises(DRCTError, match=rf"{name}: its name must end in one of \.png, \.jpg"):
            write_picture(tmp_path / name, Picture(scene(4, 5)))
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pictures_go_to_pillow_and_back(mode):
    picture = Picture(scene(6, 7, len(mode)), "PNG", Metadata(exif=camera_exif()))
    image = to_pil(picture)
    assert image.mode == mode
    back = from_pil(image)
    assert np.array_equal(back.pixels, picture.pixels)
    assert back.metadata.exif and "Müller & 山田".encode() in back.metadata.exif
    assert from_pil(to_pil(back)).metadata.exif == back.metadata.exif
    deep = to_pil(Picture(convert_depth(picture.pixels, np.uint16)))
    assert np.array_equal(np.asarray(deep), np.asarray(image))


def test_depths_are_rounded_to_the_nearest():
    bytes_, words = np.arange(256, dtype=np.uint8), np.arange(65536, dtype=np.uint16)
    assert np.array_equal(convert_depth(words, np.uint8), np.rint(words.astype(np.float64) / 257))
    assert np.array_equal(convert_depth(bytes_, np.uint16), bytes_.astype(int) * 257)
    for values in (bytes_, words):
        floats = convert_depth(values, np.float32)
        assert (floats.dtype, floats.min(), floats.max()) == (np.float32, 0, 1)
        assert np.array_equal(convert_depth(floats, values.dtype), values)
    assert convert_depth(np.array([-0.5, 1.5], np.float32), np.uint8).tolist() == [0, 255]


def test_pillow_images_without_a_known_white_are_refused():
    with pytest.raises(DRCTError, match="32 bits"):
        from_pil(Image.new("I", (3, 3), 70000))
    with pytest.raises(DRCTError, match="from 0 to 255, not from 0 to 1"):
        from_pil(Image.linear_gradient("L").convert("F"))


def test_the_quality_of_a_jpeg_is_read_from_its_tables(tmp_path):
    image = Image.fromarray(scene(24, 24))
    for quality in (1, 2, 10, 25, 30, 40, 49, 50, 51, 75, 89, 90, 91, 95, 98, 100):
        image.save(tmp_path / "a.jpg", quality=quality)
        picture = read_picture(tmp_path / "a.jpg")
        assert (picture.lossy, picture.quality) == (True, quality)
        assert from_pil(Image.open(tmp_path / "a.jpg")).quality == quality
    image.save(tmp_path / "gray.jpg", qtables=[[20] * 64], quality=50)  # of no program's scale
    assert 60 < read_picture(tmp_path / "gray.jpg").quality < 90


def test_formats_that_lose_something_are_told_from_those_that_do_not(tmp_path):
    image = Image.fromarray(scene(24, 24))
    written = {
        "a.png": ({}, False),
        "a.tif": ({}, False),
        "a.bmp": ({}, False),
        "a.gif": ({}, False),
        "lossy.webp": ({"quality": 80}, True),
        "whole.webp": ({"lossless": True}, False),
        "a.avif": ({"quality": 60}, True),
        "a.jpg": ({}, True),
    }
    for name, (options, lossy) in written.items():
        image.save(tmp_path / name, **options)
        assert read_picture(tmp_path / name).lossy == lossy, name
    # Alpha is coded without loss, in a chunk of its own
    Image.fromarray(scene(24, 24, 4)).save(tmp_path / "alpha.webp", quality=80)
    assert read_picture(tmp_path / "alpha.webp").lossy
