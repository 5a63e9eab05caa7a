"""Preparing data, and the dataset that makes its own pairs."""

import os
import pickle
import random
import re
from pathlib import Path

import basicsr  # noqa: F401
import cv2
import data_benchmark
import lmdb
import numpy as np
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.utils import FileClient, bgr2ycbcr, imfrombytes
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from basicsr.utils.matlab_functions import imresize
from conftest import photo
from PIL import Image
from torch.utils.data import DataLoader

from drct.commands.prepare import main as prepare
from drct.data import lmdb_writer
from drct.data.bicubic import reduce_region
from drct.data.cache import DecodedFiles, cache_images
from drct.data.imagenet_paired_dataset import ImageNetPairedDataset
from drct.data.prepare import ground_truths, reduce_image
from drct.errors import DRCTError
from drct.images.bgr import read_image, write_png
from drct.images.listing import list_images

BENCHMARKS = Path(os.environ.get("DRCT_BENCHMARKS", Path(__file__).parents[1] / "datasets"))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------------------- preparing


def test_benchmark_layout_from_a_folder_of_images(workplace, capsys):
    write_png("hr/a.png", photo(50, 64))
    cv2.imwrite("hr/b.jpg", photo(36, 36, 1))
    Path("hr/notes.txt").write_text("not an image")
    assert prepare(["benchmark", "hr", "-o", "out", "--processes", "1"]) == 0
    folders = ("GTmod12", "LRbicx2", "LRbicx3", "LRbicx4")
    assert files("out") == sorted(f"{folder}/{name}.png" for folder in folders for name in "ab")
    gt = read_image("out/GTmod12/a.png")
    assert np.array_equal(gt, photo(50, 64)[:48, :60])
    for scale in (2, 3, 4):
        small = imresize(gt.astype(np.float32) / 255, 1 / scale)
        expected = (small.clip(0, 1) * 255).round().astype(np.uint8)
        assert np.array_equal(read_image(f"out/LRbicx{scale}/a.png"), expected)
    assert "2 of 2 images prepared in out: 8 files written" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["benchmark"], ["subimages", "--size", "24", "--step", "24"]])
def test_copies_reduced_by_factors_are_prepared_like_images(workplace, command):
    original = photo(50, 64)
    write_png("hr/a.png", original)
    write_png("all/a.png", original)
    reduced = imresize(original.astype(np.float32) / 255, 0.6)
    write_png("all/a_x0.6.png", (reduced.clip(0, 1) * 255).round().astype(np.uint8))
    assert read_image("all/a_x0.6.png").shape == (30, 39, 3)
    assert prepare([*command, "hr", "-o", "made/out", "--factors", "1", "0.6"]) == 0
    assert prepare([*command, "all", "-o", "given/out", "--processes", "1"]) == 0
    assert files("made") == files("given")
    images = [name for name in files("made") if name.endswith(".png")]
    assert any("a_x0.6" in name for name in images)
    for name in images:
        assert np.array_equal(read_image(f"made/{name}"), read_image(f"given/{name}")), name


def test_copies_with_the_name_of_another_image_are_refused(workplace, capsys):
    for name in ("a", "a_x0.5"):
        write_png(f"hr/{name}.png", photo(48, 48))
    assert prepare(["benchmark", "hr", "-o", "out", "--factors", "1", "0.5"]) == 2
    assert "a_x0.5.png has the name of a copy of " in capsys.readouterr().err
    assert not Path("out").exists()
    with pytest.raises(SystemExit):
        prepare(["benchmark", "hr", "-o", "out", "--factors", "2"])
    assert "2 is not in (0, 1]" in capsys.readouterr().err


def test_benchmark_layout_from_hr_and_lr_files(workplace):
    for name in ("img_001_SRF_4_HR", "img_002_SRF_4_HR", "baby_HR"):
        write_png(f"files/{name}.png", photo(24, 24))
    for name in ("img_001_SRF_4_LR", "img_002_SRF_4_LR", "baby_LR"):
        write_png(f"files/{name}.png", photo(6, 6))
    assert prepare(["benchmark", "files", "-o", "out", "--scales", "4", "--processes", "1"]) == 0
    assert files("out/GTmod12") == ["baby.png", "img_001.png", "img_002.png"]
    assert files("out/LRbicx4") == files("out/GTmod12")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b", "Ruhr"], {"a": "a", "b": "b", "Ruhr": "Ruhr"}),
        (["aHR", "aLR", "b-HR", "b-LR"], {"aHR": "a", "b-HR": "b"}),
        (["HR", "LR"], {"HR": "HR"}),
        (["a b", "c"], {"a b": "a_b", "c": "c"}),
        (["a", "only_LR"], {"a": "a", "only_LR": "only_LR"}),
        (["a_HR", "b"], {"a_HR": "a_HR", "b": "b"}),
    ],
)
def test_which_files_are_ground_truth(names, expected):
    result = ground_truths([Path(f"{name}.png") for name in names])
    assert {source.stem: name for source, name in result.items()} == expected


def test_a_stray_file_among_pairs_is_named():
    with pytest.raises(DRCTError, match=r"stray\.png is named neither"):
        ground_truths([Path("a_HR.png"), Path("a_LR.png"), Path("stray.png")])


@pytest.mark.parametrize("processes", ["1", "2"])
def test_broken_files_are_reported_and_the_rest_is_done(workplace, capsys, processes):
    for name in ("a", "b"):
        write_png(f"hr/{name}.png", photo(24, 24))
    Path("hr/empty.png").write_bytes(b"")
    Path("hr/text.jpg").write_text("hello")
    write_png("hr/truncated.png", photo(96, 96))
    data = Path("hr/truncated.png").read_bytes()
    Path("hr/truncated.png").write_bytes(data[: len(data) // 2])
    write_png("hr/tiny.png", photo(5, 5))
    assert prepare(["benchmark", "hr", "-o", "out", "--processes", processes]) == 1
    assert files("out/GTmod12") == ["a.png", "b.png"]
    captured = capsys.readouterr()
    assert "2 of 6 images prepared" in captured.out
    failed = re.findall(r"^failed: .*?hr/(\w+)\.\w+", captured.err, re.MULTILINE)
    assert sorted(failed) == ["empty", "text", "tiny", "truncated"]


def test_existing_files_are_kept_unless_asked(workplace, capsys):
    write_png("hr/a.png", photo(24, 24))
    write_png("out/LRbicx2/a.png", photo(3, 3))
    assert prepare(["lr", "hr", "-o", "out", "--scales", "2", "3"]) == 0
    assert read_image("out/LRbicx2/a.png").shape == (3, 3, 3)
    assert read_image("out/LRbicx3/a.png").shape == (8, 8, 3)
    assert "1 that existed kept" in capsys.readouterr().out
    assert prepare(["lr", "hr", "-o", "out", "--scales", "2", "--overwrite"]) == 0
    assert read_image("out/LRbicx2/a.png").shape == (12, 12, 3)


def test_subimages_are_cut_at_the_same_places_of_the_whole_images(workplace):
    image = photo(75, 100)
    write_png("hr/a.png", image)
    write_png("hr/small.png", photo(24, 30))
    arguments = [
        "subimages",
        "hr",
        "-o",
        "DF",
        "--scales",
        "2",
        "4",
        "--size",
        "48",
        "--step",
        "24",
        "--processes",
        "1",
    ]
    assert prepare(arguments) == 0
    names = files("DF/DF_HR_sub")
    assert len(names) == 2 * 3 + 1  # 72x96 has patches at 0, 24 by 0, 24, 48; the small image is one patch
    assert files("DF/DF_bicx4_sub") == names
    last = max(name for name in names if name.startswith("a_"))
    assert np.array_equal(read_image(f"DF/DF_HR_sub/{last}"), image[24:72, 48:96])
    whole = reduce_image(image[:72, :96], 4)
    assert np.array_equal(read_image(f"DF/DF_bicx4_sub/{last}"), whole[6:18, 12:24])
    assert Path("DF/meta_info_DF_HR_sub.txt").read_text().splitlines()[0] == "a_s001.png (48,48,3)"


def test_patches_of_different_cuts_are_not_mixed(workplace, capsys):
    write_png("hr/a.png", photo(48, 48))
    for size, status in (("24", 0), ("24", 0), ("12", 2)):
        arguments = ["subimages", "hr", "-o", "DF", "--size", size, "--step", "12", "--scales", "4", "--processes", "1"]
        assert prepare(arguments) == status
    assert "holds patches of {'size': 24, 'step': 12}" in capsys.readouterr().err
    assert {read_image(path).shape for path in list_images("DF/DF_HR_sub")} == {(24, 24, 3)}


def test_meta_info_lists_folders_recursively(workplace, capsys):
    def list_images_in(output, *more):
        return prepare(["meta-info", "gt", "-o", output, "--processes", "1", *more])

    write_png("gt/n01/x.png", photo(10, 20))
    write_png("elsewhere/y.png", photo(30, 20))
    Path("gt/n02").symlink_to(Path("elsewhere").resolve())
    Path("elsewhere/circle").symlink_to(Path("gt").resolve())
    assert prepare(["meta-info", "gt", "-o", "meta.txt", "--processes", "2"]) == 0
    assert Path("meta.txt").read_text() == "n01/x.png (10,20,3)\nn02/y.png (30,20,3)\n"
    assert list_images_in("meta.txt") == 0  # the same list
    Path("gt/n01/bad.png").write_bytes(b"")
    write_png("gt/n01/two words.png", photo(10, 20))
    assert list_images_in("other.txt") == 1
    assert Path("other.txt").read_text() == Path("meta.txt").read_text()
    error = capsys.readouterr().err
    assert "bad.png" in error
    assert "two words.png: a name with a blank" in error
    write_png("gt/n01/z.png", photo(10, 20))
    assert list_images_in("meta.txt") == 2
    assert "meta.txt exists and lists other images" in capsys.readouterr().err
    assert list_images_in("meta.txt", "--overwrite") == 1  # bad.png
    assert "z.png" in Path("meta.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmark", "nowhere", "-o", "out"], "no such folder: nowhere"),
        (["benchmark", "nothing", "-o", "out"], "there are no images in nothing"),
        (["benchmark", "same", "-o", "out"], "would both become a.png"),
        (["meta-info", "same", "-o", "nothing"], "but nothing is a folder"),
        (["subimages", "same", "-o", "out", "--size", "50"], "--size must be a multiple of 12"),
    ],
)
def test_mistakes_are_explained(workplace, capsys, arguments, message):
    Path("nothing").mkdir()
    write_png("same/a.png", photo(24, 24))
    cv2.imwrite("same/a.jpg", photo(24, 24))
    assert prepare(arguments) == 2
    assert message in capsys.readouterr().err


def test_images_are_read_as_the_benchmarks_are(workplace):
    gray, rgba = photo(8, 9)[..., 0], np.dstack([photo(8, 9), np.full((8, 9), 7, np.uint8)])
    cv2.imwrite("gray.png", gray)
    cv2.imwrite("rgba.png", rgba)
    cv2.imwrite("deep.png", photo(8, 9).astype(np.uint16) * 257)
    assert np.array_equal(read_image("gray.png"), np.dstack([gray] * 3))
    assert np.array_equal(read_image("rgba.png"), photo(8, 9))
    assert np.array_equal(read_image("deep.png"), photo(8, 9))
    Image.fromarray(photo(8, 12)).save("turned.jpg", exif=_turned())
    assert read_image("turned.jpg").shape == (12, 8, 3)
    Path(".hidden.png").write_bytes(Path("gray.png").read_bytes())
    assert [path.name for path in list_images(".")] == ["deep.png", "gray.png", "rgba.png", "turned.jpg"]


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_a_failed_write_leaves_nothing(workplace):
    Path("file").write_text("in the way")
    with pytest.raises(DRCTError, match="cannot write"):
        write_png("file/a.png", photo(4, 4))


# ------------------------------------------------------------------------------------------------ published figures


@pytest.mark.parametrize("name", ["Set5", "Set14"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_prepared_benchmarks_are_the_published_files(name, scale):
    folder, reduced = BENCHMARKS / name, BENCHMARKS / name / f"LRbicx{scale}"
    if not reduced.is_dir():
        pytest.skip(f"{reduced} is not here: DRCT_BENCHMARKS names the folder of the benchmarks")
    for path in list_images(folder / "GTmod12"):
        assert np.array_equal(reduce_image(read_image(path), scale), read_image(reduced / path.name)), path.name


# ------------------------------------------------------------------------------------------- ImageNetPairedDataset


def imagenet(**more):
    opt = {"name": "set", "dataroot_gt": "gt", "io_backend": {"type": "disk"}, "phase": "train", "scale": 2}
    return opt | {"gt_size": 24, "use_hflip": True, "use_rot": True} | more


@pytest.fixture
def gt(workplace):
    write_png("gt/n01/a.png", photo(50, 61))
    write_png("gt/n01/small.png", photo(15, 40, 1))
    write_png("gt/n02/b.png", photo(48, 48, 2))
    return workplace


def test_training_pairs_are_patches_of_the_image_and_its_bicubic(gt):
    dataset = ImageNetPairedDataset(imagenet(use_hflip=False, use_rot=False))
    assert len(dataset) == 3
    item = dataset[0]
    assert (item["gt"].shape, item["lq"].shape) == ((3, 24, 24), (3, 12, 12))
    assert item["lq"].dtype == torch.float32
    assert Path(item["gt_path"]) == Path("gt/n01/a.png")
    image = torch.from_numpy(photo(50, 61)[:50, :60, ::-1].astype(np.float32).transpose(2, 0, 1) / 255)
    reduced = imresize(image, 0.5)
    places = [
        (y, x) for y in range(14) for x in range(19) if torch.equal(image[:, 2 * y :, 2 * x :][:, :24, :24], item["gt"])
    ]
    assert len(places) == 1
    y, x = places[0]
    assert (reduced[:, y : y + 12, x : x + 12] - item["lq"]).abs().max() < 1e-6


def test_both_images_of_a_pair_are_flipped_and_turned_alike(gt):
    random.seed(0)
    dataset = ImageNetPairedDataset(imagenet())
    seen = set()
    for _ in range(40):
        item = dataset[2]
        assert item["gt"].shape == (3, 24, 24)
        # Away from the border, reducing the patch is the same as taking the patch of the reduced image
        assert (imresize(item["gt"], 0.5) - item["lq"])[:, 3:-3, 3:-3].abs().max() < 1e-5
        seen.add(tuple(item["lq"].sum(dim=(0, 2)).argsort().tolist()))
    assert len(seen) > 10


def test_small_images_are_enlarged_to_the_patch(gt):
    item = ImageNetPairedDataset(imagenet(phase="val"))[1]
    expected = cv2.resize(photo(15, 40, 1)[:14, :40].astype(np.float32) / 255, (40, 24))
    assert torch.equal(item["gt"], torch.from_numpy(expected[..., ::-1].transpose(2, 0, 1).copy()))
    assert item["lq"].shape == (3, 12, 20)


def test_lists_and_lmdb_give_the_same_images_as_folders(gt):
    prepare(["meta-info", "gt", "-o", "meta.txt", "--processes", "1"])
    names = ["n01/a.png", "n01/small.png", "n02/b.png"]
    make_lmdb_from_imgs("gt", "gt.lmdb", names, [name.removesuffix(".png") for name in names])
    folder = ImageNetPairedDataset(imagenet(phase="val"))
    listed = ImageNetPairedDataset(imagenet(phase="val", meta_info_file="meta.txt"))
    stored = ImageNetPairedDataset(imagenet(phase="val", dataroot_gt="gt.lmdb", io_backend={"type": "lmdb"}))
    assert len(folder) == len(listed) == len(stored) == 3
    for items in zip(folder, listed, stored, strict=False):
        assert all(torch.equal(item["lq"], items[0]["lq"]) for item in items)
        assert all(torch.equal(item["gt"], items[0]["gt"]) for item in items)
        if items[0]["gt_path"].endswith("b.png"):
            break


def test_y_channel_and_normalization(gt):
    item = ImageNetPairedDataset(imagenet(color="y"))[0]
    assert (item["gt"].shape, item["lq"].shape) == ((1, 24, 24), (1, 12, 12))
    plain = ImageNetPairedDataset(imagenet(phase="val"))[0]
    shifted = ImageNetPairedDataset(imagenet(phase="val", mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25]))[0]
    assert torch.allclose(shifted["lq"], (plain["lq"] - 0.5) / 0.25, atol=1e-6)


def test_files_that_cannot_be_read_are_named(gt):
    Path("gt/n01/a.png").write_bytes(b"broken")
    with pytest.raises(DRCTError, match=r"cannot read image gt/n01/a\.png"):
        ImageNetPairedDataset(imagenet())[0]
    with pytest.raises(DRCTError, match="there are no images in empty"):
        Path("empty").mkdir()
        ImageNetPairedDataset(imagenet(dataroot_gt="empty"))


# ------------------------------------------------------------------------------------------ reducing only the patch


def noise(height, width, seed=0):
    """Every pixel matters: an error of a place or a weight shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("scale", "height", "width"), [(2, 46, 62), (2, 200, 34), (3, 57, 81), (4, 68, 372), (4, 500, 76)]
)
def test_a_region_is_reduced_as_in_the_whole_image(scale, height, width):
    image = noise(height, width)
    whole = imresize(image.astype(np.float32) / 255, 1 / scale)
    h, w = height // scale, width // scale
    regions = [
        (0, 0, 5, 7),
        (h - 5, w - 7, 5, 7),
        (0, w - 1, 1, 1),
        (h // 2, w // 3, 6, 4),
        (0, 0, h, w),
        (3, 1, h - 4, 3),
    ]
    for top, left, rows, columns in regions:
        for source in (image, image.astype(np.float32) / 255):
            region = reduce_region(source, scale, top, left, rows, columns)
            assert region.dtype == np.float32
            expected = whole[top : top + rows, left : left + columns]
            assert region.shape == expected.shape
            assert np.abs(region - expected).max() < 1e-6


@pytest.mark.parametrize(("scale", "size"), [(2, 24), (3, 24), (4, 32)])
@pytest.mark.parametrize(("height", "width"), [(61, 75), (33, 34), (19, 50), (50, 23)])
def test_training_pairs_are_those_of_reducing_whole_images(workplace, scale, size, height, width):
    write_png("gt/a.png", noise(height, width))
    dataset = ImageNetPairedDataset(imagenet(scale=scale, gt_size=size))
    for seed in range(12):
        random.seed(seed)
        plain, after = data_benchmark.plain_pair(Path("gt/a.png"), scale, size), random.random()
        random.seed(seed)
        item = dataset[0]
        assert random.random() == after
        assert torch.equal(item["gt"], plain["gt"])
        assert item["lq"].shape == plain["lq"].shape
        assert (item["lq"] - plain["lq"]).abs().max() < 1e-6


def test_the_y_channel_is_that_of_the_plain_pair(gt):
    random.seed(3)
    item = ImageNetPairedDataset(imagenet(color="y"))[0]
    random.seed(3)
    plain = data_benchmark.plain_pair(Path("gt/n01/a.png"), 2, 24)
    for key in ("gt", "lq"):
        bgr = np.ascontiguousarray(plain[key].numpy()[::-1].transpose(1, 2, 0))
        assert np.abs(bgr2ycbcr(bgr, y_only=True) - item[key][0].numpy()).max() < 1e-5


def test_the_patch_must_be_a_multiple_of_the_scale(gt):
    with pytest.raises(ValueError, match="gt_size 25 is not a multiple of the scale 2"):
        ImageNetPairedDataset(imagenet(gt_size=25))


def test_the_benchmark_compares_times_and_pixels(workplace, capsys, monkeypatch):
    arguments = ["--width", "90", "--height", "70", "--gt-size", "32", "--repetitions", "2"]
    threads = torch.get_num_threads()
    try:
        assert data_benchmark.main(arguments) == 0
        output = capsys.readouterr().out
        assert re.search(r"^whole pair +[\d.]+ +[\d.]+ +[\d.]+x$", output, re.MULTILINE)
        assert re.search(r"decoding the JPEG takes [\d.]+ ms: \d+% of the plain pair", output)

        def shifted(image, scale, top, left, *size):
            return reduce_region(image, scale, max(0, top - 1), left, *size)

        monkeypatch.setattr("drct.data.imagenet_paired_dataset.reduce_region", shifted)
        assert data_benchmark.main(arguments) == 1
        assert data_benchmark.main(["--gt-size", "30"]) == 2
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(-1)


# --------------------------------------------------------------------------------------------------------------- LMDB


def store(source, output, *more):
    return prepare(["lmdb", source, "-o", output, "--processes", "1", *more])


def names_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def stored(folder):
    """Keys and bytes of an LMDB, read by BasicSR."""
    keys = [line.split(".")[0] for line in Path(folder, "meta_info.txt").read_text().splitlines()]
    client = FileClient("lmdb", db_paths=folder, client_keys="gt")
    return {key: client.get(key, "gt") for key in keys}


def test_an_lmdb_holds_the_files_as_they_are(gt, capsys):
    cv2.imwrite("gt/c.jpg", photo(20, 28, 3))
    Image.fromarray(photo(8, 12)).save("gt/turned.jpeg", exif=_turned())
    cv2.imwrite("gt/gray.bmp", photo(9, 8)[..., 0])
    assert store("gt", "out/gt.lmdb") == 0
    assert files("out") == ["gt.lmdb/data.mdb", "gt.lmdb/lock.mdb", "gt.lmdb/meta_info.txt"]
    assert names_in("out") == ["gt.lmdb"]  # nothing hidden either
    assert Path("out/gt.lmdb/meta_info.txt").read_text().splitlines() == [
        "c.jpg (20,28,3) 0",
        "gray.bmp (9,8,3) 0",
        "n01/a.png (50,61,3) 0",
        "n01/small.png (15,40,3) 0",
        "n02/b.png (48,48,3) 0",
        "turned.jpeg (12,8,3) 0",
    ]
    expected = {str(path.relative_to("gt").with_suffix("")): path.read_bytes() for path in list_images("gt", True)}
    assert stored("out/gt.lmdb") == expected
    assert "6 of 6 images stored in out/gt.lmdb" in capsys.readouterr().out
    assert store("gt", "again.lmdb") == 0
    for name in ("data.mdb", "meta_info.txt"):
        assert Path("again.lmdb", name).read_bytes() == Path("out/gt.lmdb", name).read_bytes()


def test_both_kinds_of_datasets_read_an_lmdb(gt):
    for name in ("a", "small", "b"):
        path = next(Path("gt").rglob(f"{name}.png"))
        write_png(Path("lq", path.relative_to("gt")), reduce_image(read_image(path), 2))
    assert store("gt", "gt.lmdb") == store("lq", "lq.lmdb") == 0
    options = imagenet(phase="val", dataroot_gt="gt.lmdb", io_backend={"type": "lmdb"})
    folder = ImageNetPairedDataset(imagenet(phase="val"))
    own = list(
        map(ImageNetPairedDataset(options).__getitem__, range(3))
    )  # and closed, since a process cannot open an LMDB twice
    assert all(torch.equal(own[i]["gt"], folder[i]["gt"]) for i in range(3))
    paired = PairedImageDataset(options | {"dataroot_lq": "lq.lmdb", "io_backend": {"type": "lmdb"}})
    assert len(paired) == 3
    for i in range(3):
        name = paired[i]["gt_path"]
        for key in ("gt", "lq"):
            image = read_image(f"{key}/{name}.png")
            height, width = paired[i][key].shape[1:]
            expected = image[:height, :width, ::-1].transpose(2, 0, 1).astype(np.float32) / 255
            assert np.array_equal(paired[i][key].numpy(), expected)


def test_files_that_an_lmdb_cannot_hold_are_reported(gt, capsys):
    Path("gt/bad.png").write_bytes(b"")
    for name in ("two words", "v1.0", "größe", "n" * 200 + "/" + "m" * 200 + "/" + "k" * 120):
        write_png(f"gt/{name}.png", photo(8, 8))
    assert store("gt", "gt.lmdb") == 1
    captured = capsys.readouterr()
    assert "3 of 8 images stored" in captured.out
    reasons = (r"bad\.png", r"two words\.png: a name with a blank", r"v1\.0\.png: a name with a second dot")
    reasons += (r"größe\.png: a name with characters outside of ASCII", r"k\.png: a path of more than 511 characters")
    for reason in reasons:
        assert re.search(f"^failed: .*{reason}", captured.err, re.MULTILINE), reason
    assert sorted(stored("gt.lmdb")) == ["n01/a", "n01/small", "n02/b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gt", "out"], "out must end in .lmdb"),
        (["nowhere", "out.lmdb"], "no such folder: nowhere"),
        (["same", "out.lmdb"], "would both get the key a: rename one of them"),
        (["broken", "out.lmdb"], "none of the images of broken can be stored"),
        (["gt", "there.lmdb"], "there.lmdb exists: choose another name, or --overwrite"),
        (["gt", "mine.lmdb", "--overwrite"], "mine.lmdb holds other files or is not an LMDB, and is not overwritten"),
        (["gt", "file.lmdb", "--overwrite"], "file.lmdb holds other files or is not an LMDB"),
        (["gt", "file.lmdb/out.lmdb"], "cannot write file.lmdb/out.lmdb"),
    ],
)
def test_mistakes_of_an_lmdb_are_explained(gt, capsys, arguments, message):
    Path("file.lmdb").write_text("")
    write_png("same/a.png", photo(8, 8))
    cv2.imwrite("same/a.jpg", photo(8, 8))
    Path("broken").mkdir()
    Path("broken/a.png").write_bytes(b"")
    Path("there.lmdb").mkdir()
    write_png("mine.lmdb/holiday.png", photo(8, 8))
    before = files(".")
    assert store(*arguments) == 2
    assert message in capsys.readouterr().err
    assert files(".") == before


def test_an_lmdb_is_replaced_when_asked(gt):
    assert store("gt", "gt.lmdb") == 0
    write_png("gt/n01/z.png", photo(8, 8))
    assert store("gt", "gt.lmdb") == 2
    assert store("gt", "gt.lmdb", "--overwrite") == 0
    assert len(stored("gt.lmdb")) == 4
    assert names_in(".") == ["gt", "gt.lmdb"]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left"), 2)])
def test_interrupted_writing_of_an_lmdb_keeps_the_older_one(gt, capsys, monkeypatch, error, status):
    assert store("gt/n02", "gt.lmdb") == 0
    put, calls = lmdb_writer._put, []

    def fail(*args):
        calls.append(args)
        if len(calls) == 2:
            raise error
        put(*args)

    monkeypatch.setattr(lmdb_writer, "_put", fail)
    assert store("gt", "gt.lmdb", "--overwrite") == status
    assert len(calls) == 2
    assert names_in(".") == ["gt", "gt.lmdb"]
    assert list(stored("gt.lmdb")) == ["b"]  # the older one
    assert ("No space left" in capsys.readouterr().err) == (status == 2)


def test_an_lmdb_grows_with_its_images(workplace, monkeypatch):
    monkeypatch.setattr(lmdb_writer, "FIRST_MAP_SIZE", 1 << 16)
    for i in range(6):
        write_png(f"gt/{i}.png", noise(200, 60 * (i + 1), i))
    total = sum(path.stat().st_size for path in Path("gt").iterdir())
    assert total > 1 << 19
    assert store("gt", "gt.lmdb") == 0
    assert stored("gt.lmdb") == {str(i): Path(f"gt/{i}.png").read_bytes() for i in range(6)}
    assert total < Path("gt.lmdb/data.mdb").stat().st_size < 1.2 * total
    with lmdb.open("gt.lmdb", map_size=0, readonly=True, lock=False) as environment:
        # On Windows the file is as large as the map
        assert environment.info()["map_size"] < 4 * total


# -------------------------------------------------------------------------------------------------- images in memory


@pytest.fixture
def kinds(workplace):
    """`kinds/`, images of all kinds that BasicSR can read."""
    Path("kinds").mkdir()
    image = noise(21, 30)
    alpha = np.dstack([image, noise(21, 30, 1)[..., 0]])
    for name, pixels in {
        "colour": image,
        "gray": image[..., 0],
        "alpha": alpha,
        "deep": noise(21, 30, 2) * 251.3,
    }.items():
        cv2.imwrite(f"kinds/{name}.png", pixels.astype(np.uint16) if name == "deep" else pixels)
    cv2.imwrite("kinds/jpeg.jpg", photo(21, 30))
    cv2.imwrite("kinds/gray_jpeg.jpg", photo(21, 30)[..., 0])
    Image.fromarray(photo(8, 12)).save("kinds/turned.jpg", exif=_turned())
    Image.fromarray(image).quantize(16).save("kinds/palette.png")
    return workplace


def paired(**more):
    opt = {"dataroot_gt": "gt", "dataroot_lq": "gt", "io_backend": {"type": "disk"}, "phase": "val", "scale": 1}
    return PairedImageDataset(opt | more)


@pytest.mark.parametrize("backend", ["disk", "lmdb"])
def test_cached_pixels_are_those_of_the_files(kinds, backend):
    paths = list_images("kinds")
    if backend == "lmdb":
        assert store("kinds", "kinds.lmdb") == 0
        dataset = ImageNetPairedDataset(imagenet(dataroot_gt="kinds.lmdb", io_backend={"type": "lmdb"}))
    else:
        dataset = ImageNetPairedDataset(imagenet(dataroot_gt="kinds"))
    cache_images(dataset)
    assert len(paths) == 8
    for path in paths:
        expected = imfrombytes(path.read_bytes(), float32=True)
        for _ in range(3):
            data = dataset.file_client.get(path.stem if backend == "lmdb" else path, "gt")
            assert data[:2] == b"BM"
            assert np.array_equal(imfrombytes(data, float32=True), expected), path


@pytest.mark.parametrize("started", [False, True])
def test_a_cached_dataset_reads_each_file_once(gt, monkeypatch, started):
    plain = [ImageNetPairedDataset(imagenet(phase="val"))[i] for i in range(3)]
    dataset = paired(dataroot_gt="gt/n01", dataroot_lq="gt/n01"), ImageNetPairedDataset(imagenet(phase="val"))
    read, get = [], FileClient.get
    if started:  # reading creates the file clients, which changes BasicSR's options
        assert dataset[0][0]
        assert dataset[1][0]
    monkeypatch.setattr(
        FileClient, "get", lambda self, path, key="default": (read.append((str(path), key)), get(self, path, key))[1]
    )
    for each in dataset:
        cache_images(each)
        cache_images(each)  # a second call changes nothing
    for _ in range(3):
        assert all(torch.equal(dataset[1][i]["gt"], plain[i]["gt"]) for i in range(3))
        assert all(torch.equal(dataset[1][i]["lq"], plain[i]["lq"]) for i in range(3))
    assert len(read) == 3
    for _ in range(3):
        items = {item["gt_path"]: item["gt"] for item in (dataset[0][i] for i in range(2))}
        for path, image in items.items():
            expected = read_image(path)[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255
            assert np.array_equal(image.numpy(), expected)
    assert len(read) == 3 + 4  # gt and lq


def test_files_that_are_not_images_are_not_cached(gt):
    Path("gt/text.png").write_text("no image")
    Path("gt/empty.png").write_bytes(b"")
    dataset = ImageNetPairedDataset(imagenet())
    cache_images(dataset)
    assert dataset.file_client.get("gt/text.png", "gt") == b"no image"
    assert dataset.file_client.get("gt/empty.png", "gt") == b""
    assert dataset.file_client.get_text("gt/text.png") == "no image"
    with pytest.raises(DRCTError, match=r"cannot read image gt/text\.png"):
        dataset[dataset.paths.index(str(Path("gt/text.png")))]
    write_png("gt/text.png", photo(8, 8))  # repaired in the meantime
    assert dataset.file_client.get("gt/text.png", "gt")[:2] == b"BM"


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_each_loader_worker_has_a_cache(gt, context):
    if context not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"no {context} here")
    assert store("gt", "gt.lmdb") == 0
    dataset = ImageNetPairedDataset(imagenet(phase="val", dataroot_gt="gt.lmdb", io_backend={"type": "lmdb"}))
    plain = {path: ImageNetPairedDataset(imagenet(phase="val"))[i] for i, path in enumerate(dataset.paths)}
    cache_images(dataset)
    loader = DataLoader(dataset, num_workers=1, multiprocessing_context=context, persistent_workers=True)
    for _ in range(2):
        items = {item["gt_path"][0]: item for item in loader}
        assert len(items) == 3
        assert all(torch.equal(items[path]["gt"][0], plain[path]["gt"]) for path in items)


def test_a_pickled_cache_has_no_images(gt):
    assert store("gt", "gt.lmdb") == 0
    dataset = ImageNetPairedDataset(imagenet(phase="val", dataroot_gt="gt.lmdb", io_backend={"type": "lmdb"}))
    cache_images(dataset)
    item = dataset[0]
    assert dataset.file_client.images
    sent = pickle.dumps(dataset)  # an open LMDB could not be pickled
    del dataset  # closes the LMDB, which a process cannot open twice
    copy = pickle.loads(sent)
    assert isinstance(copy.file_client, DecodedFiles)
    assert not copy.file_client.images
    assert torch.equal(copy[0]["gt"], item["gt"])
    assert copy.file_client.images


def test_datasets_without_a_file_client_cannot_be_cached():
    class Own:
        paths = ()

    with pytest.raises(DRCTError, match="the images of Own cannot be cached"):
        cache_images(Own())
    own = Own()
    own.file_client = None
    with pytest.raises(DRCTError, match="remove `cache: true`"):
        cache_images(own)
