"""Preparing data, and the dataset that makes its own pairs."""

import os
import random
import re
from pathlib import Path

import basicsr  # noqa: F401
import cv2
import numpy as np
import pytest
import torch
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from basicsr.utils.matlab_functions import imresize
from conftest import photo
from PIL import Image

from drct.data import prepare
from drct.data.imagenet_paired_dataset import ImageNetPairedDataset
from drct.data.images import list_images, read_image, write_png
from drct.errors import DRCTError

BENCHMARKS = Path(os.environ.get("DRCT_BENCHMARKS", Path(__file__).parents[1] / "datasets"))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------------------- preparing


def test_benchmark_layout_from_a_folder_of_images(workplace, capsys):
    write_png("hr/a.png", photo(50, 64))
    cv2.imwrite("hr/b.jpg", photo(36, 36, 1))
    Path("hr/notes.txt").write_text("not an image")
    assert prepare.main(["benchmark", "hr", "-o", "out"]) == 0
    folders = ("GTmod12", "LRbicx2", "LRbicx3", "LRbicx4")
    assert files("out") == sorted(f"{folder}/{name}.png" for folder in folders for name in "ab")
    gt = read_image("out/GTmod12/a.png")
    assert np.array_equal(gt, photo(50, 64)[:48, :60])
    for scale in (2, 3, 4):
        small = imresize(gt.astype(np.float32) / 255, 1 / scale)
        expected = (small.clip(0, 1) * 255).round().astype(np.uint8)
        assert np.array_equal(read_image(f"out/LRbicx{scale}/a.png"), expected)
    assert "2 of 2 images prepared in out: 8 files written" in capsys.readouterr().out


def test_benchmark_layout_from_hr_and_lr_files(workplace):
    for name in ("img_001_SRF_4_HR", "img_002_SRF_4_HR", "baby_HR"):
        write_png(f"files/{name}.png", photo(24, 24))
    for name in ("img_001_SRF_4_LR", "img_002_SRF_4_LR", "baby_LR"):
        write_png(f"files/{name}.png", photo(6, 6))
    assert prepare.main(["benchmark", "files", "-o", "out", "--scales", "4", "--processes", "1"]) == 0
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
    result = prepare.ground_truths([Path(f"{name}.png") for name in names])
    assert {source.stem: name for source, name in result.items()} == expected


def test_a_stray_file_among_pairs_is_named():
    with pytest.raises(DRCTError, match=r"stray\.png is named neither"):
        prepare.ground_truths([Path("a_HR.png"), Path("a_LR.png"), Path("stray.png")])


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
    assert prepare.main(["benchmark", "hr", "-o", "out", "--processes", processes]) == 1
    assert files("out/GTmod12") == ["a.png", "b.png"]
    captured = capsys.readouterr()
    assert "2 of 6 images prepared" in captured.out
    failed = re.findall(r"^failed: .*?hr/(\w+)\.\w+", captured.err, re.MULTILINE)
    assert sorted(failed) == ["empty", "text", "tiny", "truncated"]


def test_existing_files_are_kept_unless_asked(workplace, capsys):
    write_png("hr/a.png", photo(24, 24))
    write_png("out/LRbicx2/a.png", photo(3, 3))
    assert prepare.main(["lr", "hr", "-o", "out", "--scales", "2", "3"]) == 0
    assert read_image("out/LRbicx2/a.png").shape == (3, 3, 3)
    assert read_image("out/LRbicx3/a.png").shape == (8, 8, 3)
    assert "1 that existed kept" in capsys.readouterr().out
    assert prepare.main(["lr", "hr", "-o", "out", "--scales", "2", "--overwrite"]) == 0
    assert read_image("out/LRbicx2/a.png").shape == (12, 12, 3)


def test_subimages_are_cut_at_the_same_places_of_the_whole_images(workplace):
    image = photo(75, 100)
    write_png("hr/a.png", image)
    write_png("hr/small.png", photo(24, 30))
    arguments = ["subimages", "hr", "-o", "DF", "--scales", "2", "4", "--size", "48", "--step", "24"]
    assert prepare.main(arguments) == 0
    names = files("DF/DF_HR_sub")
    assert len(names) == 2 * 3 + 1  # 72x96 has patches at 0, 24 by 0, 24, 48; the small image is one patch
    assert files("DF/DF_bicx4_sub") == names
    last = max(name for name in names if name.startswith("a_"))
    assert np.array_equal(read_image(f"DF/DF_HR_sub/{last}"), image[24:72, 48:96])
    whole = prepare.reduce_image(image[:72, :96], 4)
    assert np.array_equal(read_image(f"DF/DF_bicx4_sub/{last}"), whole[6:18, 12:24])
    assert Path("DF/meta_info_DF_HR_sub.txt").read_text().splitlines()[0] == "a_s001.png (48,48,3)"


def test_patches_of_different_cuts_are_not_mixed(workplace, capsys):
    write_png("hr/a.png", photo(48, 48))
    for size, status in (("24", 0), ("24", 0), ("12", 2)):
        assert prepare.main(["subimages", "hr", "-o", "DF", "--size", size, "--step", "12", "--scales", "4"]) == status
    assert "holds patches of {'size': 24, 'step': 12}" in capsys.readouterr().err
    assert {read_image(path).shape for path in list_images("DF/DF_HR_sub")} == {(24, 24, 3)}


def test_meta_info_lists_folders_recursively(workplace, capsys):
    write_png("gt/n01/x.png", photo(10, 20))
    write_png("elsewhere/y.png", photo(30, 20))
    Path("gt/n02").symlink_to(Path("elsewhere").resolve())
    Path("elsewhere/circle").symlink_to(Path("gt").resolve())
    assert prepare.main(["meta-info", "gt", "-o", "meta.txt"]) == 0
    assert Path("meta.txt").read_text() == "n01/x.png (10,20,3)\nn02/y.png (30,20,3)\n"
    assert prepare.main(["meta-info", "gt", "-o", "meta.txt"]) == 0  # the same list
    Path("gt/n01/bad.png").write_bytes(b"")
    write_png("gt/n01/two words.png", photo(10, 20))
    assert prepare.main(["meta-info", "gt", "-o", "other.txt"]) == 1
    assert Path("other.txt").read_text() == Path("meta.txt").read_text()
    error = capsys.readouterr().err
    assert "bad.png" in error
    assert "two words.png: a name with a blank" in error
    write_png("gt/n01/z.png", photo(10, 20))
    assert prepare.main(["meta-info", "gt", "-o", "meta.txt"]) == 2
    assert "meta.txt exists and lists other images" in capsys.readouterr().err
    assert prepare.main(["meta-info", "gt", "-o", "meta.txt", "--overwrite"]) == 1  # bad.png
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
    assert prepare.main(arguments) == 2
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
    folder = BENCHMARKS / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: DRCT_BENCHMARKS names the folder of the benchmarks")
    for path in list_images(folder / "GTmod12"):
        small = prepare.reduce_image(read_image(path), scale)
        assert np.array_equal(small, read_image(folder / f"LRbicx{scale}" / path.name)), path.name


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
    assert torch.equal(reduced[:, y : y + 12, x : x + 12], item["lq"])


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
    prepare.main(["meta-info", "gt", "-o", "meta.txt"])
    names = ["n01/a.png", "n01/small.png", "n02/b.png"]
    make_lmdb_from_imgs("gt", "gt.lmdb", names, [name.removesuffix(".png") for name in names])
    folder = ImageNetPairedDataset(imagenet(phase="val"))
    listed = ImageNetPairedDataset(imagenet(phase="val", meta_info_file="meta.txt"))
    lmdb = ImageNetPairedDataset(imagenet(phase="val", dataroot_gt="gt.lmdb", io_backend={"type": "lmdb"}))
    assert len(folder) == len(listed) == len(lmdb) == 3
    for items in zip(folder, listed, lmdb, strict=False):
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
    with pytest.raises(ValueError, match=r"cannot read image gt/n01/a\.png"):
        ImageNetPairedDataset(imagenet())[0]
    with pytest.raises(ValueError, match="there are no images in empty"):
        Path("empty").mkdir()
        ImageNetPairedDataset(imagenet(dataroot_gt="empty"))
