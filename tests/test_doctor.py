"""The check of a set of images, and the option that leaves images out."""

import csv
import logging
import random
import re
import shutil
from pathlib import Path

import cv2
import doctor_benchmark
import numpy as np
import pytest

from drct.commands import prepare
from drct.data.build import build_dataset
from drct.data.doctor.check import Checked, check_images
from drct.data.doctor.duplicates import source_of
from drct.data.doctor.findings import SOFT, findings_of_image, findings_of_pair
from drct.data.doctor.image_measures import measure_image
from drct.data.doctor.pair_measures import measure_pair
from drct.data.doctor.scenes import References, features_of
from drct.data.prepare import reduce_image
from drct.errors import DRCTError
from drct.images.bgr import read_image

SOUND = 6  # images without faults


def photograph(seed: int, height: int = 384, width: int = 512) -> np.ndarray:
    """Draw shapes over a soft background, with texture, that no other seed has: sharp, as a reduced photograph is."""
    rng = np.random.default_rng(seed)
    size = (2 * height, 2 * width)
    image = cv2.resize(rng.uniform(40, 215, (4, 5, 3)).astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(60):
        centre, axes = rng.integers(0, size[::-1]), rng.integers(4, 90, 2)
        cv2.ellipse(image, centre.tolist(), axes.tolist(), int(rng.integers(180)), 0, 360, rng.uniform(20, 235, 3), -1)
    for octave in (8, 16, 32, 64, 128, 256):
        grid = rng.normal(0, 90 / octave**0.5, [max(2, side // (512 // octave)) for side in size])
        image += cv2.resize(grid.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)[..., None]
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image.round().clip(0, 255).astype(np.uint8)


def write_png(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image)


def write_pair(folder: Path, name: str, image: np.ndarray, small: np.ndarray | None = None) -> None:
    write_png(folder / "GT" / f"{name}.png", image)
    write_png(folder / "LR" / f"{name}.png", reduce_image(image, 4) if small is None else small)


def kinds_of(checked: Checked, name: str) -> set[str]:
    return {finding.kind for finding in checked.findings if finding.name == name}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of images with one of each fault, and a benchmark."""
    folder = tmp_path_factory.mktemp("set")
    rng = random.Random(1)
    images = iter(photograph(seed) for seed in range(100))
    for number in range(SOUND):
        write_pair(folder, f"sound_{number}", next(images))
    write_pair(folder, "shifted", image := next(images), doctor_benchmark.shifted(rng, image, 4))
    write_pair(folder, "kernel", image := next(images), cv2.resize(image, (128, 96), interpolation=cv2.INTER_AREA))
    write_pair(folder, "colour", image := next(images), reduce_image(image, 4)[..., ::-1].copy())
    write_pair(folder, "size", image := next(images), reduce_image(image, 4)[1:])
    write_pair(folder, "unlike", next(images), reduce_image(next(images), 4))
    write_pair(folder, "flat", np.full((384, 512, 3), 120, np.uint8))
    write_pair(folder, "blurred", cv2.GaussianBlur(next(images), (0, 0), 2))
    write_pair(folder, "enlarged", cv2.resize(next(images)[::2, ::2], (512, 384), interpolation=cv2.INTER_CUBIC))
    data = cv2.imencode(".jpg", next(images), [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    write_pair(folder, "jpeg", cv2.imdecode(data, cv2.IMREAD_COLOR)[4:, 4:][:376, :504])
    write_pair(folder, "zz_duplicate", read_image(folder / "GT" / "sound_1.png"))
    write_pair(folder, "zz_mirrored", cv2.resize(read_image(folder / "GT" / "sound_2.png")[:, ::-1], (400, 300)))
    write_png(folder / "benchmark" / "GTmod12" / "answer.png", answer := next(images))
    write_png(folder / "benchmark" / "LRbicx4" / "answer.png", reduce_image(answer, 4))
    write_pair(folder, "leak", doctor_benchmark.cropped(rng, answer)[:200, :240][:, ::-1].copy())
    (folder / "GT" / "broken.png").write_bytes((folder / "GT" / "sound_0.png").read_bytes()[:5000])
    shutil.copy(folder / "LR" / "sound_0.png", folder / "LR" / "broken.png")
    write_pair(folder, "alone", next(images))
    (folder / "LR" / "alone.png").unlink()
    return folder


EXPECTED = {
    "shifted": {"shift"},
    "kernel": {"kernel"},
    "colour": {"colour"},
    "size": {"size"},
    "unlike": {"unlike"},
    "flat": {"flat"},
    "blurred": {"soft"},
    "enlarged": {"soft"},
    "jpeg": {"jpeg"},
    "zz_duplicate": {"identical"},
    "zz_mirrored": {"similar"},
    "leak": {"leak"},
    "broken": {"unreadable"},
    "alone": {"alone"},
}


@pytest.fixture(scope="module")
def checked(faulty: Path) -> Checked:
    return check_images(faulty / "GT", faulty / "LR", [faulty / "benchmark"], processes=1)


@pytest.mark.parametrize(("name", "kinds"), EXPECTED.items())
def test_each_fault_is_found_and_no_other(checked: Checked, name: str, kinds: set[str]) -> None:
    assert kinds_of(checked, f"{name}.png") == kinds


def test_sound_images_have_no_findings(checked: Checked) -> None:
    assert {finding.name for finding in checked.findings} == {f"{name}.png" for name in EXPECTED}
    assert (checked.images, checked.benchmarks) == (SOUND + len(EXPECTED), 1)  # of the benchmark, only the ground truth


def test_the_command_writes_a_page_a_table_and_a_list(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [str(faulty / "GT"), str(faulty / "LR")]
    assert prepare.main(["check", *folders, "--against", str(faulty / "benchmark"), "--processes", "1"]) == 1
    assert "Shifted pairs" in capsys.readouterr().out
    with open("check/findings.csv", encoding="utf-8", newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {f"{name}.png" for name in EXPECTED}
    page = Path("check.html").read_text(encoding="utf-8")
    assert len(page) < 30_000
    for name in EXPECTED:
        assert f"{name}.png</th>" in page
    assert all(f"check/{thumbnail.name}" in page for thumbnail in Path("check").glob("*.jpg"))
    options = {"type": "PairedImageDataset", "dataroot_gt": folders[0], "dataroot_lq": folders[1], "scale": 4}
    (faulty / "GT" / "alone.png").rename(tmp_path / "alone.png")  # training refuses images without a partner
    try:
        Path("list.txt").write_text(Path("check_exclude.txt").read_text(encoding="utf-8").replace("\nalone.png", ""))
        backend = {"io_backend": {"type": "disk"}, "phase": "val"}
        dataset = build_dataset(options | backend | {"exclude": "list.txt"})
    finally:
        (tmp_path / "alone.png").rename(faulty / "GT" / "alone.png")
    assert sorted(Path(pair["gt_path"]).stem for pair in dataset.paths) == sorted(f"sound_{i}" for i in range(SOUND))


def test_a_sound_set_gives_status_0(tmp_path: Path) -> None:
    write_png(tmp_path / "GT" / "sub" / "a.png", photograph(0))
    write_png(tmp_path / "GT" / "b.png", photograph(1))
    page = tmp_path / "sound.html"
    assert prepare.main(["check", str(tmp_path / "GT"), "-o", str(page), "--processes", "1"]) == 0
    assert "No faults" in page.read_text(encoding="utf-8")


def test_a_page_of_another_suffix_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "a.png", photograph(0))
    assert prepare.main(["check", str(tmp_path), "-o", "check.txt"]) == 2
    assert "check.html" in capsys.readouterr().err


def test_what_most_images_have_is_no_reason_to_leave_them_out(tmp_path: Path) -> None:
    for number in range(4):
        image = photograph(number, 192, 192)
        small = cv2.resize(image, (48, 48), interpolation=cv2.INTER_LINEAR if number else cv2.INTER_AREA)
        write_pair(tmp_path, str(number), image, small)
    checked = check_images(tmp_path / "GT", tmp_path / "LR", [], processes=1)
    assert checked.of_set == {"kernel": 4}
    assert checked.left_out() == {}


def test_copies_and_patches_of_one_photograph_are_no_duplicates(tmp_path: Path) -> None:
    image = photograph(0)
    for factor in ("", "_x0.8", "_x0.6"):
        copy = (
            image
            if not factor
            else cv2.resize(image, None, fx=float(factor[2:]), fy=float(factor[2:]), interpolation=3)
        )
        write_png(tmp_path / f"a{factor}.png", copy)
        write_png(tmp_path / f"b{factor}.png", cv2.resize(copy, None, fx=0.9, fy=0.9, interpolation=cv2.INTER_AREA))
    checked = check_images(tmp_path, None, [], processes=1)
    assert {(each.name, each.kind) for each in checked.findings} == {
        (f"b{factor}.png", "similar") for factor in ("", "_x0.8", "_x0.6")
    }
    assert checked.versions == 4


@pytest.mark.parametrize(
    ("name", "source"),
    [("a.png", "a"), ("a_x0.8.png", "a"), ("a_x0.75_s012.png", "a"), ("d/a_s001.png", "d/a"), ("a_x2.png", "a_x2")],
)
def test_names_tell_the_source_of_copies_and_patches(name: str, source: str) -> None:
    assert source_of(name) == source


@pytest.mark.parametrize("sigma", [1.2, 2, 4, 8])
def test_blur_of_any_strength_is_far_beyond_the_limit(sigma: float) -> None:
    measures = measure_image(cv2.GaussianBlur(photograph(2), (0, 0), sigma))
    assert measures.weaker is not None
    assert measures.weaker > 3 * SOFT


@pytest.mark.parametrize("angle", [20, 45, 70])
def test_a_moved_camera_is_far_beyond_the_limit_though_it_takes_away_some_coarse_detail_too(angle: float) -> None:
    line = np.zeros((7, 7), np.float32)
    line[3] = 1
    line = cv2.warpAffine(line, cv2.getRotationMatrix2D((3, 3), angle, 1), (7, 7))
    measures = measure_image(cv2.filter2D(photograph(0)[:220, :220], -1, line / line.sum()))
    assert measures.weaker is not None
    assert measures.weaker > 5 * SOFT


def test_a_soft_gradient_is_flat_and_not_damaged_by_jpeg() -> None:
    ramp = np.linspace(20, 120, 220)[None, :, None] + np.zeros((220, 1, 3))
    findings = findings_of_image("a", measure_image(ramp.round().astype(np.uint8)))
    assert [finding.kind for finding in findings] == ["flat"]


@pytest.mark.parametrize("shift", [(0.1, 0.0), (-0.25, 0.5), (2.5, -1.25)])
@pytest.mark.parametrize("scale", [2, 4])
def test_shifts_are_measured_to_fractions_of_a_pixel(shift: tuple[float, float], scale: int) -> None:
    image = photograph(3)
    matrix = np.float32([[1, 0, shift[0] * scale], [0, 1, shift[1] * scale]])
    moved = cv2.warpAffine(image, matrix, (512, 384), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    measures = measure_pair(image, reduce_image(moved, scale), scale)
    assert measures.shift == pytest.approx(shift, abs=0.03)
    assert [finding.kind for finding in findings_of_pair("a", measures, "")] == ["shift"]


@pytest.mark.parametrize(
    ("kernel", "words"),
    [(cv2.INTER_AREA, "INTER_AREA"), (cv2.INTER_CUBIC, "INTER_CUBIC"), (cv2.INTER_LANCZOS4, "INTER_LANCZOS4")],
)
def test_the_kernel_is_named(kernel: int, words: str) -> None:
    image = photograph(4)
    measures = measure_pair(image, cv2.resize(image, (128, 96), interpolation=kernel), 4)
    assert words in measures.kernel


def test_descriptors_of_mirrored_features_are_those_of_the_mirrored_image() -> None:
    gray = cv2.cvtColor(photograph(5), cv2.COLOR_BGR2GRAY)
    mirrored = features_of(np.ascontiguousarray(gray[:, ::-1]))
    overlap = References([features_of(gray).mirrored()]).find(mirrored)
    assert overlap is not None
    assert not overlap.mirrored
    assert overlap.share > 0.95
    assert overlap.correlation > 0.98


def options_of(folder: Path, **more: object) -> dict:
    return {
        "name": "set",
        "type": "ImageNetPairedDataset",
        "dataroot_gt": str(folder),
        "io_backend": {"type": "disk"},
        "phase": "val",
        "scale": 4,
    } | more


@pytest.fixture
def three(tmp_path: Path) -> Path:
    for name in ("a", "sub/b", "c d"):
        write_png(tmp_path / "GT" / f"{name}.png", photograph(0, 48, 48))
    return tmp_path


def test_excluded_images_are_left_out(three: Path) -> None:
    (three / "list.txt").write_text("# a comment\nsub/b.png\nc d.png\n", encoding="utf-8")
    dataset = build_dataset(options_of(three / "GT", exclude=str(three / "list.txt")))
    assert [Path(path).name for path in dataset.paths] == ["a.png"]


def test_the_log_counts_excluded_images_and_names_those_that_are_not_there(
    three: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (three / "GT/sub/b.png").rename(three / "GT/b.png")
    (three / "list.txt").write_text("b.png\nc d.png\nnone.png\n", encoding="utf-8")
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
    options = {"type": "SingleImageDataset", "dataroot_lq": str(three / "GT"), "exclude": str(three / "list.txt")}
    with caplog.at_level(logging.INFO, "basicsr"):
        dataset = build_dataset(options | {"io_backend": {"type": "disk"}, "phase": "test"})
    assert [Path(path).name for path in dataset.paths] == ["a.png"]
    assert "2 of 3 images left out" in caplog.text
    assert "1 name" in caplog.text
    assert "none.png" in caplog.text


@pytest.mark.parametrize(("text", "words"), [("x.png\n", "x.png"), ("a.png\nsub/b.png\nc d.png\n", "none is left")])
def test_lists_that_fit_no_image_or_leave_none_are_refused(three: Path, text: str, words: str) -> None:
    (three / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DRCTError, match=words):
        build_dataset(options_of(three / "GT", exclude=str(three / "list.txt")))


def test_images_of_an_lmdb_are_excluded_by_the_names_of_their_files(tmp_path: Path) -> None:
    for name in ("a", "sub/b"):
        write_png(tmp_path / "GT" / f"{name}.png", photograph(0, 48, 48))
    assert prepare.main(["lmdb", str(tmp_path / "GT"), "-o", str(tmp_path / "GT.lmdb"), "--processes", "1"]) == 0
    (tmp_path / "list.txt").write_text("sub/b.png\n", encoding="utf-8")
    dataset = build_dataset(
        options_of(tmp_path / "GT.lmdb", io_backend={"type": "lmdb"}, exclude=str(tmp_path / "list.txt"))
    )
    assert dataset.paths == ["a"]


def write_photographs(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int, side: int, benchmark: int) -> None:
    """Write photographs for a small benchmark, of which so many are images of the benchmark set."""
    monkeypatch.setattr(doctor_benchmark, "BENCHMARK", benchmark)
    monkeypatch.setattr(doctor_benchmark, "PARTS", 1)
    for seed in range(count):
        write_png(folder / f"{seed}.png", photograph(seed, side, side))


def test_the_benchmark_plants_and_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(tmp_path, monkeypatch, 8, 384, benchmark=2)
    few = ["--images", "4", "--faulty", "1", "--processes", "1", "--seed", "1", "--tuning"]
    doctor_benchmark.main([str(tmp_path), *few])
    table = capsys.readouterr().out
    assert "| near-duplicate |" in table
    assert len(re.findall(r"\| 100\.0% \|", table)) >= 12  # of 15; a single image of each fault decides little


def test_the_benchmark_tells_that_photographs_are_too_few_before_it_cuts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photographs(tmp_path, monkeypatch, 3, 256, benchmark=1)
    monkeypatch.setattr(doctor_benchmark.PlantedSet, "save", lambda *_: pytest.fail("a file was written"))
    assert doctor_benchmark.main([str(tmp_path), "--images", "4", "--faulty", "1", "--seed", "1", "--tuning"]) == 2
    assert "12 patches of 220 pixels are needed, but 2 photographs have 2" in capsys.readouterr().err
