"""Kinds of picture files that could be taken for others: thumbnails, raw files, signed samples, deeper colours."""

import struct
from io import BytesIO

import cv2
import numpy as np
import pytest
import tifffile
from picture_files import deep_scene, pillow_bytes, scene, srgb_profile, tifffile_bytes
from PIL import Image, features

from drct.errors import DRCTError
from drct.images.headers import avif_colour, stored_bits
from drct.images.metadata import Metadata
from drct.images.pictures import read_picture, write_picture


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_deep_colour_of_avif_goes_to_png(tmp_path):
    data = bytearray(pillow_bytes(scene(16, 16), "AVIF"))
    place = data.index(b"colrnclx") + 8
    data[place : place + 4] = bytes((0, 9, 0, 16))
    path = tmp_path / "a.avif"
    path.write_bytes(data)
    assert read_picture(path).metadata.colour == ((b"cICP", bytes((9, 16, 0, 1))),)
    path.write_bytes(pillow_bytes(scene(16, 16), "AVIF"))
    assert read_picture(path).metadata.colour == ()


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow reads no JPEG 2000")
def test_profile_and_xmp_of_jpeg_2000(tmp_path):
    profile, packet, path = srgb_profile(), b"<a>title</a>", tmp_path / "a.jp2"
    data = pillow_bytes(scene(64, 64), "JPEG2000")
    start = data.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", data, start)
    content = data[start + 8 : start + size]
    content = content[: content.index(b"colr") - 4] + box(b"colr", b"\2\0\0" + profile)
    uuid = box(b"uuid", bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC") + packet)
    path.write_bytes(data[:start] + box(b"jp2h", content) + data[start + size :] + uuid)
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, scene(64, 64))
    assert (picture.metadata.icc_profile, picture.metadata.xmp, picture.note) == (profile, packet, "")
    path.write_bytes(data)
    texts = read_picture(path).metadata.texts  # the library's name
    assert read_picture(path).metadata == Metadata(texts=texts)


def test_profile_of_bmp(tmp_path):
    profile, pixels, path = srgb_profile(), scene(20, 27), tmp_path / "a.bmp"
    rows = np.pad(pixels[::-1, :, ::-1].reshape(20, -1), ((0, 0), (0, 3))).tobytes()
    header = struct.pack("<I2i2H6I", 124, 27, 20, 1, 24, 0, len(rows), 0, 0, 0, 0) + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<4I", 4, 124 + len(rows), len(profile), 0)
    path.write_bytes(b"BM" + struct.pack("<3I", 138 + len(rows) + len(profile), 0, 138) + header + rows + profile)
    picture = read_picture(path)
    assert np.array_equal(picture.pixels, pixels)
    assert (picture.metadata.icc_profile, picture.note) == (profile, "")


def pages(*parts: tuple[np.ndarray, dict]) -> bytes:
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for pixels, options in parts:
            writer.write(pixels, **({"photometric": "rgb", "metadata": None} | options))
    return file.getvalue()


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_thumbnails_and_masks_are_no_pages(options, dtype, tmp_path):
    full = scene(20, 27).astype(dtype) * (257 if dtype == np.uint16 else 1)
    small = np.ascontiguousarray(full[::4, ::4])
    titled = {"description": "the picture", **options}
    mask = {"subfiletype": 4, "photometric": "mask"}
    path = tmp_path / "a.tif"
    for parts, note in (
        ([(small, {"subfiletype": 1}), (full, titled)], ""),
        ([(full, titled), (small, {"subfiletype": 1})], ""),
        ([(full[..., 0] > 99, mask), (small, {"subfiletype": 1}), (full, titled), (full, {})], "first of its 2 pages"),
        ([(small, {"extratags": [(255, 3, 1, 2, True)]}), (full, titled)], ""),
        ([(full, titled | {"subfiletype": 2}), (full, {"subfiletype": 2})], "first of its 2 pages"),
        ([(full, titled | {"subfiletype": 1})], ""),
    ):
        path.write_bytes(pages(*parts))
        picture = read_picture(path)
        assert np.array_equal(picture.pixels, full)
        assert note in picture.note and bool(note) == bool(picture.note)
        assert b"the picture" in (picture.metadata.exif or b"")


def test_thumbnails_are_skipped_in_files_that_opencv_decodes(tmp_path):
    full, path = deep_scene(20, 27, 1), tmp_path / "a.tif"
    image = Image.fromarray(full[..., 0])
    image.encoderinfo = {"tiffinfo": {254: 0}}
    options = {"compression": "tiff_lzw", "save_all": True, "append_images": [image], "tiffinfo": {254: 1}}
    path.write_bytes(pillow_bytes(image.resize((9, 6)), "TIFF", **options))
    assert np.array_equal(read_picture(path).pixels, full)


def test_bits_that_are_not_read_are_told(tmp_path):
    path = tmp_path / "picture"
    deep = deep_scene(64, 64)
    ok, jpeg2000 = cv2.imencode(".jp2", deep)
    assert ok
    pale = np.zeros((20, 27, 4), np.uint16)
    for data, note in (
        (b"P6 64 64 # a comment\n 65535\n" + deep.astype(">u2").tobytes(), "its 16 bits are reduced to 8"),
        (b"P6 64 64\n255\n" + scene(64, 64).tobytes(), ""),
        (jpeg2000.tobytes(), "its 16 bits are reduced to 8"),
        (tifffile_bytes(pale, photometric="separated"), "its 16 bits are reduced to 8; CMYK"),
    ):
        path.write_bytes(data)
        assert read_picture(path).note.startswith(note)
    path.write_bytes(tifffile_bytes(pale[..., :3], photometric="cielab"))
    with pytest.raises(DRCTError, match="TIFF of CIELAB and 16 bits is not read"):
        read_picture(path)


def test_depth_and_colour_in_headers():
    """Pillow writes no AVIF of 10 bits."""
    box = b"....pixi\0\0\0\0\3" + bytes((10, 10, 10)) + bytes(9)
    assert stored_bits(box, "AVIF") == 10
    assert stored_bits(b"pixi", "AVIF") == stored_bits(b"", "JPEG2000") == stored_bits(b"P6", "PPM") == 0
    for codes, colour in (((9, 16), (9, 16, 0, 1)), ((12, 13), (12, 13, 0, 1)), ((1, 13), ()), ((2, 2), ())):
        start = b"colrnclx" + struct.pack(">3HB", *codes, 9, 128)
        assert avif_colour(start) == (((b"cICP", bytes(colour)),) if colour else ())
    assert avif_colour(b"colrnclx\0") == avif_colour(b"") == ()


def test_a_raw_file_is_refused_though_its_thumbnail_could_be_read(tmp_path):
    path = tmp_path / "a.dng"
    file = BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(scene(5, 6), photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        writer.write(scene(20, 27, 1)[..., 0].astype(np.uint16), photometric="cfa", metadata=None)
    path.write_bytes(file.getvalue())
    with pytest.raises(DRCTError, match="raw file"):
        read_picture(path)
    path.write_bytes(tifffile_bytes(scene(20, 27, 1)[..., 0].astype(np.uint16), photometric="cfa"))
    with pytest.raises(DRCTError, match="raw file"):
        read_picture(path)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.complex64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_samples_with_a_sign_are_refused(dtype, channels, compression, tmp_path):
    path = tmp_path / "a.tif"
    pixels = np.zeros((8, 9, channels), dtype)
    data = tifffile_bytes(
        pixels if channels == 3 else pixels[..., 0],
        photometric="rgb" if channels == 3 else "minisblack",
        compression=compression,
    )
    path.write_bytes(data)
    with pytest.raises(DRCTError, match="signed integers|complex"):
        read_picture(path)


def test_descriptions_of_pixels_and_places_are_told(tmp_path):
    path = tmp_path / "a.tif"
    for options, note in (
        ({"description": "ImageJ=1.53t\nimages=3\n"}, "its description of the pixels: dropped"),
        ({"description": '{"shape": [20, 27, 3]}'}, ""),
        ({"extratags": [(33550, 12, 3, (1.0, 1.0, 0.0), True)]}, "its georeferencing: dropped"),
        ({"description": "A bird"}, ""),
    ):
        for pixels in (scene(20, 27), scene(20, 27).astype(np.uint16) * 257):
            path.write_bytes(tifffile_bytes(pixels, photometric="rgb", **options))
            picture = read_picture(path)
            assert picture.note == note
            write_picture(path, picture)
            assert np.array_equal(tifffile.imread(path), pixels)


def test_several_pictures_in_one_file_are_told(tmp_path):
    path = tmp_path / "a.ico"
    path.write_bytes(pillow_bytes(scene(32, 32, 4), "ICO", sizes=[(16, 16), (32, 32)]))
    picture = read_picture(path)
    assert picture.pixels.shape == (32, 32, 4)
    assert picture.note == "several sizes: only the largest of its 2 sizes is taken"
