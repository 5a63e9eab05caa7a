"""Folders, lists and LMDBs of image pairs: what pairs, what is refused at the start, and with which words."""

import logging
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import paired_image_dataset, single_image_dataset
from conftest import photo, train_options
from PIL import Image
from torch.utils.data import DataLoader

from drct.commands.prepare import main as prepare
from drct.data.file_lists import read_list
from drct.data.imagenet_paired_dataset import ImageNetPairedDataset
from drct.data.pair_sizes import mismatch
from drct.data.paired_images import PairedImageDataset, SingleImageDataset
from drct.data.prepare import reduce_image
from drct.data.training_set import SampleOrder, TrainingSet
from drct.errors import DRCTError
from drct.images.bgr import read_image, write_png
from drct.runs.build import make_dataset
from drct.runs.checks import check_options


def options(kind="PairedImageDataset", phase="val", **more):
    opt = {"name": "set", "type": kind, "dataroot_gt": "gt", "dataroot_lq": "lr", "io_backend": {"type": "disk"}}
    return opt | {"phase": phase, "scale": 2, "gt_size": 16, "use_hflip": True, "use_rot": True} | more


@pytest.fixture
def folders(workplace):
    """`gt/` and `lr/` (x2) with images a, b and c."""
    for number, name in enumerate("abc"):
        write_png(f"gt/{name}.png", photo(40, 36 + 4 * number, number))
        write_png(f"lr/{name}.png", reduce_image(read_image(f"gt/{name}.png"), 2))
    return workplace


def names(dataset):
    return [(Path(pair["gt_path"]).name, Path(pair["lq_path"]).name) for pair in dataset.paths]


def refusal(phase="val", **more):
    with pytest.raises(DRCTError) as error:
        make_dataset(phase, options(phase=phase, **more))
    message = str(error.value)
    assert message.startswith(f"datasets.{phase} (set): ") and "\n" not in message
    return message


# ------------------------------------------------------------------------------------------- the same as in BasicSR


@pytest.mark.parametrize("more", [{}, {"color": "y"}, {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}])
@pytest.mark.parametrize("phase", ["train", "val"])
def test_items_are_those_of_basicsr(folders, phase, more):
    def items(kind):
        random.seed(7)
        dataset = kind(options(phase=phase, **more))
        return sorted(map(dataset.__getitem__, _by_path(dataset)), key=lambda item: item["lq_path"]), random.random()

    def _by_path(dataset):
        return sorted(range(3), key=lambda i: str(dataset.paths[i]))

    for own, original in (
        (PairedImageDataset, paired_image_dataset.PairedImageDataset),
        (SingleImageDataset, single_image_dataset.SingleImageDataset),
    ):
        (ours, after), (theirs, expected) = items(own), items(original)
        assert after == expected
        for item, reference in zip(ours, theirs, strict=True):
            assert item.keys() == reference.keys()
            assert all(torch.equal(item[key], reference[key]) for key in ("lq", "gt") if key in item)
            assert item["lq_path"] == reference["lq_path"]


def test_lmdbs_and_lists_give_the_same_items(folders):
    for folder in ("gt", "lr"):
        assert prepare(["lmdb", folder, "-o", f"{folder}.lmdb", "--processes", "1"]) == 0
    Path("list.txt").write_text("c.png (40,44,3)\na.png (40,36,3)\n")
    lmdb = {"dataroot_gt": "gt.lmdb", "dataroot_lq": "lr.lmdb", "io_backend": {"type": "lmdb"}}
    plain, stored = make_dataset("val", options()), make_dataset("val", options(**lmdb))
    listed = make_dataset("val", options(meta_info_file="list.txt"))
    assert len(plain) == len(stored) == 3 and names(listed) == [("c.png", "c.png"), ("a.png", "a.png")]
    for i in range(3):
        assert all(torch.equal(plain[i][key], stored[i][key]) for key in ("gt", "lq"))
    assert torch.equal(listed[1]["gt"], plain[0]["gt"])


# ------------------------------------------------------------------------------------------------------------- lists

LISTS = {
    "plain": b"a.png (40,36,3)\nc.png (40,44,3)\n",
    "names only": b"a.png\nc.png",
    "blank lines": b"\na.png (40,36,3)\n\n  \nc.png (40,44,3)\n\n",
    "byte order mark": b"\xef\xbb\xbfa.png (40,36,3)\nc.png (40,44,3)\n",
    "Windows": b"a.png (40,36,3)\r\nc.png (40,44,3)\r\n",
    "PowerShell": "a.png (40,36,3)\r\nc.png (40,44,3)\r\n".encode("utf-16"),
    "blanks around": b"  a.png   (40, 36, 3)  \n\tc.png (40,44,3) 1\t\n",
    "comments": b"# two of three\na.png (40,36,3)\n#b.png (40,40,3)\nc.png (40,44,3)\n",
    "other columns": b"a.png 40 36\nc.png 40 44\n",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS.keys())
@pytest.mark.parametrize("kind", ["PairedImageDataset", "SingleImageDataset", "ImageNetPairedDataset"])
def test_lists_are_read_however_they_were_written(folders, text, kind):
    Path("list.txt").write_bytes(text)
    dataset = make_dataset("val", options(kind, meta_info_file="list.txt"))
    paths = [path["gt_path"] if isinstance(path, dict) else path for path in dataset.paths]
    assert [Path(path).name for path in paths] == ["a.png", "c.png"]
    assert dataset[1]["lq"].shape == (3, 20, 22)


def test_lists_may_have_absolute_paths_subfolders_and_names_with_blanks(folders):
    for folder in ("gt", "lr"):
        Path(folder, "sub").mkdir()
        Path(folder, "b.png").rename(f"{folder}/sub/b.png")
        Path(folder, "c.png").rename(f"{folder}/c c.png")
    Path("list.txt").write_text(f"{Path('gt/a.png').absolute()}\nsub\\b.png (40,40,3)\nc c.png (40,44,3)\n")
    dataset = make_dataset("val", options(meta_info_file="list.txt"))
    assert [dataset[i]["lq"].shape[2] for i in range(3)] == [18, 20, 22]
    assert [Path(pair["lq_path"]) for pair in dataset.paths] == [
        Path("lr/a.png"),
        Path("lr/sub/b.png"),
        Path("lr/c c.png"),
    ]


def test_lists_that_do_not_help_are_refused(folders):
    Path("list.txt").write_text("\n# nothing\n")
    assert "the list list.txt names no files" in refusal(meta_info_file="list.txt")
    Path("list.txt").write_bytes(b"gr\xf6\xdfe.png (1,1,3)\n")
    assert "list.txt is not text in UTF-8: save it as UTF-8" in refusal(meta_info_file="list.txt")
    Path("list.txt").write_text("gt/a.png\ngt/b.png\n")
    message = refusal(meta_info_file="list.txt")
    assert "there is no file gt/gt/a.png, nor any other of 2 images looked for" in message.replace("\\", "/")
    assert read_list_sizes("a.png (3,4,3)\n") == [(3, 4)]


def read_list_sizes(text):
    Path("sizes.txt").write_text(text)
    return [size for _, size in read_list(Path("sizes.txt"))]


# ----------------------------------------------------------------------------------------------------------- folders


def test_folders_pair_whatever_else_is_in_them(folders, caplog):
    Path("gt/Thumbs.db").write_bytes(b"x")
    Path("gt/.DS_Store").write_bytes(b"x")
    Path("lr/.a.png.x1.tmp").write_bytes(b"x")
    Path("lr/sub").mkdir()
    Path("gt/a.png").rename("gt/a.PNG")
    cv2.imwrite("lr/b.jpg", read_image("lr/b.png"))
    Path("lr/b.png").unlink()
    shutil.move("gt/c.png", "elsewhere.png")
    Path("gt/c.png").symlink_to(Path("elsewhere.png").absolute())
    with caplog.at_level(logging.INFO, "basicsr"):
        dataset = make_dataset("val", options())
    assert names(dataset) == [("a.PNG", "a.png"), ("b.png", "b.jpg"), ("c.png", "c.png")]
    assert all(dataset[i]["gt"].shape[1] == 40 for i in range(3))
    assert "gt: 1 file not images by their names, such as Thumbs.db: skipped" in caplog.text


def test_folders_that_do_not_pair_are_explained(folders):
    shutil.copy("gt/a.png", "gt/d.png")
    assert "1 image of dataroot_gt without a partner in dataroot_lq lr, the first: d.png" in refusal()
    for name in "abcd":
        shutil.copy("lr/a.png", f"lr/{name}x2.png")
    assert "With filename_tmpl: '{}x2' all have one" in refusal()
    Path("lr/cx2.png").unlink()
    assert "filename_tmpl" not in refusal()
    for name in "abc":
        Path("lr", f"{name}.png").unlink()
    write_png("lr/dx2.png", reduce_image(read_image("gt/d.png"), 2))
    for name in "abc":
        write_png(f"lr/{name}x2.png", reduce_image(read_image(f"gt/{name}.png"), 2))
    assert len(make_dataset("val", options(filename_tmpl="{}x2"))) == 4
    write_png("lr/more.png", photo(8, 8))
    message = refusal(filename_tmpl="{}x2")
    assert "1 image of dataroot_lq without a partner in dataroot_gt gt, the first: more.png" in message


@pytest.mark.parametrize("kind", ["PairedImageDataset", "SingleImageDataset", "ImageNetPairedDataset"])
def test_folders_without_images_are_explained(folders, kind):
    folder = Path("nothing")
    folder.mkdir()
    (folder / "a.txt").write_text("")
    message = refusal(type=kind, dataroot_gt="nothing", dataroot_lq="nothing")
    assert "there are no images in nothing, only files such as a.txt" in message
    if kind != "ImageNetPairedDataset":
        write_png("nothing/below/a.png", photo(8, 8))
        assert "images in folders below it are not used" in refusal(dataroot_gt="nothing", dataroot_lq="nothing")


def test_lmdbs_that_do_not_pair_are_explained(folders):
    lmdb = {"dataroot_gt": "gt.lmdb", "dataroot_lq": "lr.lmdb", "io_backend": {"type": "lmdb"}}
    assert prepare(["lmdb", "gt", "-o", "gt.lmdb", "--processes", "1"]) == 0
    Path("lr.lmdb").mkdir()
    assert "lr.lmdb is not an LMDB of images, it has no data.mdb" in refusal(**lmdb)
    assert "gt does not end in .lmdb: set type: disk" in refusal(**lmdb | {"dataroot_gt": "gt"})
    shutil.rmtree("lr.lmdb")
    Path("lr/b.png").unlink()
    assert prepare(["lmdb", "lr", "-o", "lr.lmdb", "--processes", "1"]) == 0
    assert "1 image of gt.lmdb not in lr.lmdb, the first: b" in refusal(**lmdb)


# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("phase", ["train", "val"])
@pytest.mark.parametrize("lmdb", [False, True])
def test_sets_of_another_scale_are_refused_at_the_start(folders, phase, lmdb):
    for name in "abc":
        write_png(f"lr4/{name}.png", reduce_image(read_image(f"gt/{name}.png"), 4))
    more = {"dataroot_lq": "lr4"}
    if lmdb:
        for folder in ("gt", "lr4"):
            assert prepare(["lmdb", folder, "-o", f"{folder}.lmdb", "--processes", "1"]) == 0
        more = {"dataroot_gt": "gt.lmdb", "dataroot_lq": "lr4.lmdb", "io_backend": {"type": "lmdb"}}
    message = refusal(phase, **more)
    assert "is 36x40" in message and "9x10: not 2 times larger but 4" in message
    assert "set dataroot_lq to images of scale 2, or scale: 4" in message
    assert len(make_dataset(phase, options(phase=phase, scale=4, **more))) == 3


def test_exchanged_folders_are_noticed(folders):
    message = refusal(dataroot_gt="lr", dataroot_lq="gt")
    assert "lr/a.png is 18x20, gt/a.png 36x40: not 2 times larger but smaller" in message.replace("\\", "/")
    assert message.endswith("exchange dataroot_gt and dataroot_lq")


@pytest.mark.parametrize("more", [1, 3])
def test_ground_truth_may_be_a_little_larger_in_validation(folders, more):
    write_png("gt/a.png", photo(40 + more, 36 + more))
    item = make_dataset("val", options())[0]
    assert item["gt"].shape == (3, 40, 36)


def test_a_pair_of_another_scale_is_an_error_of_that_pair(folders):
    write_png("lr/a.png", photo(10, 9))
    dataset = make_dataset("val", options())
    with pytest.raises(DRCTError, match="a.png is 36x40.*9x10: not 2 times larger but 4"):
        dataset[0]
    assert dataset[1]["gt"].shape[1] == 40


def test_a_patch_larger_than_all_images_is_refused_at_the_start(folders):
    message = refusal("train", gt_size=48)
    assert "3 images looked at, all smaller than gt_size 48; the largest, gt/" in message.replace("\\", "/")
    assert message.endswith("set gt_size to 40 at most, or use larger images")
    assert make_dataset("train", options(phase="train", gt_size=40))


@pytest.mark.parametrize(("phase", "smallest"), [("val", 4), ("train", 2)])
def test_images_smaller_than_the_scale_are_named(folders, phase, smallest):
    write_png("gt/a.png", photo(smallest - 1, 40))
    write_png("gt/b.png", photo(40, smallest))
    more = {} if phase == "train" else {"gt_size": 0}
    dataset = ImageNetPairedDataset(options("ImageNetPairedDataset", phase=phase, **more))
    with pytest.raises(DRCTError, match=f"a.png is 40x{smallest - 1}, too small to be reduced 2 times"):
        dataset[0]
    assert dataset[1]["lq"].shape[2] == (8 if phase == "train" else 2)


# ------------------------------------------------------------------------------------------------------------ damage

DAMAGE = {
    "empty": lambda data: b"",
    "text": lambda data: b"hello",
    "cut": lambda data: data[: len(data) // 2],
    "cut, with an end": lambda data: data[: len(data) // 2] + data[-12:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("phase", ["train", "val"])
@pytest.mark.parametrize("side", ["gt", "lr"])
def test_damaged_files_are_named_and_left_out(folders, caplog, damage, phase, side):
    file = Path(side, "b.png")
    file.write_bytes(damage(file.read_bytes()))
    dataset = make_dataset(phase, options(phase=phase))
    with pytest.raises(DRCTError, match=rf"cannot read image {side}.b\.png: \w+"):
        dataset[1]
    if phase == "train":
        samples = TrainingSet(dataset, seed=0)
        for epoch in range(3):
            assert samples[epoch, 1]["gt_path"] == samples[epoch, 2]["gt_path"]
        assert caplog.text.count(f"cannot be used: cannot read image {file}") == 1


def test_an_unusable_image_is_told_once_whatever_the_number_of_workers(folders, caplog, capfd):
    write_png("gt/a.png", photo(12, 12))
    write_png("lr/a.png", photo(6, 6))
    samples = TrainingSet(make_dataset("train", options(phase="train")), seed=0)
    loader = iter(DataLoader(samples, batch_sampler=SampleOrder(3, 1, 0), num_workers=2))
    for _ in range(12):
        next(loader)
    del loader
    said = [line for line in capfd.readouterr().err.splitlines() if "cannot be used" in line]
    assert len(said) <= 1
    assert samples.unusable.tolist() == [True, False, False]
    with pytest.raises(DRCTError, match=r"a\.png is 12x12, smaller than gt_size 16: set a smaller gt_size"):
        samples.dataset[0]


def test_a_missing_image_of_an_lmdb_is_named(folders):
    lmdb = {"dataroot_gt": "gt.lmdb", "dataroot_lq": "lr.lmdb", "io_backend": {"type": "lmdb"}}
    for folder in ("gt", "lr"):
        assert prepare(["lmdb", folder, "-o", f"{folder}.lmdb", "--processes", "1"]) == 0
        with Path(f"{folder}.lmdb/meta_info.txt").open("a") as file:
            file.write("\nd.png (40,40,3) 0\n" if folder == "gt" else "d.png (20,20,3) 0\n")
    dataset = make_dataset("val", options(**lmdb))
    with pytest.raises(DRCTError, match="cannot read image d: it is not in the LMDB"):
        dataset[3]


# ------------------------------------------------------------------------------------------------------------- notes


@pytest.mark.parametrize("kind", ["PairedImageDataset", "SingleImageDataset", "ImageNetPairedDataset"])
def test_what_is_not_used_of_images_is_told_once(folders, caplog, kind):
    for folder in ("gt", "lr"):
        image = read_image(f"{folder}/a.png")
        cv2.imwrite(f"{folder}/a.png", np.dstack([image, image[..., 0]]))
        cv2.imwrite(f"{folder}/b.png", read_image(f"{folder}/b.png").astype(np.uint16) * 257)
        cv2.imwrite(f"{folder}/c.png", read_image(f"{folder}/c.png")[..., 0])
    plain = [read_image(f"gt/{name}.png") for name in "abc"]
    dataset = make_dataset("val", options(kind))
    assert caplog.text.count("a.png has transparency, which is ignored") == 1
    assert caplog.text.count("b.png has more than 8 bits per channel") == 1
    assert "c.png" not in caplog.text  # gray is read as three equal channels
    if kind == "PairedImageDataset":
        for i in range(3):
            expected = plain[i][..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255
            assert np.array_equal(dataset[i]["gt"].numpy(), expected)


def test_images_that_lie_on_their_side_are_measured_upright(workplace):
    exif = Image.Exif()
    exif[0x0112] = 6
    for folder, size in (("gt", (40, 24)), ("lr", (20, 12))):
        Path(folder).mkdir()
        Image.fromarray(photo(*size)).save(f"{folder}/turned.jpg", exif=exif)
        write_png(f"{folder}/upright.png", photo(*size))
    assert make_dataset("val", options())[0]["lq"].shape == (3, 12, 20)


def test_options_that_an_lmdb_does_not_use_are_told(folders, caplog):
    opt = train_options()
    for folder in ("gt", "lr"):
        assert prepare(["lmdb", folder, "-o", f"{folder}.lmdb", "--processes", "1"]) == 0
    lmdb = {"dataroot_gt": "gt.lmdb", "dataroot_lq": "lr.lmdb", "io_backend": {"type": "lmdb"}}
    opt["datasets"]["val"] |= lmdb | {"filename_tmpl": "{}x2", "meta_info_file": "list.txt"}
    check_options(opt, True, "options.yml", logging.getLogger("drct"))
    for key in ("filename_tmpl", "meta_info_file"):
        assert (
            f"options.yml: datasets.val.{key} is not used with an LMDB, whose images pair by their keys" in caplog.text
        )


def test_ground_truth_in_place_of_low_resolution_images_is_named():
    words = mismatch({"gt_path": "a.png", "lq_path": "b.png"}, (8, 6), (8, 6), 4)
    assert words.endswith("not 4 times larger but as large: set dataroot_lq to images of scale 4")
