"""The check of sets that are unusual: odd shapes and names, folders in the wrong place, a thousand images alike."""

import os
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_doctor import options_of, photograph, write_png

from drct.commands import prepare
from drct.data import parallel
from drct.data.build import build_dataset
from drct.data.doctor.check import check_images
from drct.data.doctor.duplicates import MOST_CANDIDATES, candidates, sources_of
from drct.data.doctor.image_measures import measure_image
from drct.data.file_lists import list_entry, read_list
from drct.data.image_lists import measure_folder
from drct.errors import DRCTError
from drct.images.bgr import read_image


def kinds(gt: Path, lq: Path | None = None, against: tuple[Path, ...] = ()) -> list[tuple[str, str]]:
    return [(finding.name, finding.kind) for finding in check_images(gt, lq, against, 1).findings]


def check(*arguments: str | Path) -> int:
    return prepare.main(["check", *map(str, arguments), "--processes", "1"])


def test_a_strip_among_the_benchmarks_does_not_make_images_unreadable(tmp_path: Path) -> None:
    write_png(tmp_path / "GT" / "a.png", photograph(0, 128, 128))
    write_png(tmp_path / "GT" / "strip.png", cv2.resize(photograph(1, 128, 128), (3000, 2)))
    write_png(tmp_path / "benchmark" / "strip.png", cv2.resize(photograph(2, 128, 128), (3000, 2)))
    write_png(tmp_path / "benchmark" / "leak.png", photograph(0, 128, 128))
    found = kinds(tmp_path / "GT", against=(tmp_path / "benchmark",))
    assert ("a.png", "leak") in found
    assert "unreadable" not in {kind for _, kind in found}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2), (7, 30), (24, 24)])
def test_images_of_any_size_are_measured_without_a_warning(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert measure_image(image).repeated == 0


def test_pairs_of_equal_size_are_found(tmp_path: Path) -> None:
    write_png(tmp_path / "GT" / "a.png", photograph(0, 128, 128))
    assert ("a.png", "size") in kinds(tmp_path / "GT", tmp_path / "GT")


def test_files_of_one_name_with_other_suffixes_are_duplicates(tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "a_s001.png"):
        write_png(tmp_path / name, photograph(0, 128, 128))
    assert ("a.png", "identical") in kinds(tmp_path)
    assert sources_of(["a.png", "a_x0.8.png", "b.jpg", "b.png"]) == ["a", "a", "b.jpg", "b.png"]


def test_of_a_thousand_images_alike_each_has_few_candidates() -> None:
    hashes = np.repeat(np.random.default_rng(0).random((2, 2, 64)) > 0.5, 500, 0)
    names = [str(number) for number in range(1000)]
    pairs = candidates(hashes, names, names)
    assert len(pairs) <= 1000 * MOST_CANDIDATES
    assert {number for pair in pairs for number in pair} == set(range(1000))
    assert all((a < 500) == (b < 500) for a, b in pairs)
    assert candidates(hashes, ["same"] * 1000, names) == candidates(hashes, names, ["same"] * 1000) == []


def test_candidates_are_all_pairs_whose_hashes_are_near() -> None:
    rng = np.random.default_rng(1)
    hashes = np.repeat(rng.random((10, 2, 64)) > 0.5, 3, 0) ^ (rng.random((30, 2, 64)) < 0.1)
    hashes[29, 0] = hashes[0, 1]  # mirrored
    names = [str(number) for number in range(30)]
    expected = {
        (min(a, b), max(a, b))
        for a in range(30)
        for b in range(30)
        if a != b and (hashes[a, 0] != hashes[b]).sum(1).min() <= 14
    }
    assert (0, 29) in expected
    assert candidates(hashes, names, names) == sorted(expected)


class _KilledPool(ProcessPoolExecutor):
    """A pool whose processes the system kills, as it does when memory runs out."""

    def submit(self, *_: object) -> Future:  # type: ignore[override]
        future: Future = Future()
        future.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        return future


def test_a_killed_process_is_no_fault_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", _KilledPool)
    jobs = {tmp_path / name: partial(int, name) for name in "12"}
    with pytest.raises(DRCTError, match="check: a process was killed.*--processes 1"):
        parallel.run_parallel(jobs, 2, "check")


ODD_NAMES = ["#a.png", " b.png", "c (4,4,3).png", "d\ne.png", "f  g.png", "hé☃.png", "{}i.png", "<b>&'j.png"]


@pytest.mark.skipif(os.name != "posix", reason="there are no such names")
def test_odd_names_are_excluded_or_the_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ODD_NAMES:
        write_png(tmp_path / "GT" / name, np.full((48, 48, 3), 100, np.uint8))
    for seed in range(len(ODD_NAMES) + 1):
        write_png(tmp_path / "GT" / f"sound_{seed}.png", photograph(seed, 128, 128))
    monkeypatch.chdir(tmp_path)
    assert check("GT") == 1
    assert "2 names among them cannot be in a list, such as 'c (4,4,3).png'" in capsys.readouterr().out
    assert "<b>" not in Path("check.html").read_text(encoding="utf-8")
    dataset = build_dataset(options_of(tmp_path / "GT", exclude="check_exclude.txt"))
    kept = {Path(path).name for path in dataset.paths}
    assert {name for name in kept if not name.startswith("sound")} == {"c (4,4,3).png", "d\ne.png"}
    assert len(measure_folder(tmp_path / "GT", 1)[1]) == 5  # with those that have blanks


MORE_NAMES = ["k\udcff.png", "sub/#l.png", "m.png ", "n\u2028.png", "o\\p.png", "q r.tga"]


@pytest.mark.parametrize("name", [*ODD_NAMES, *MORE_NAMES])
def test_what_is_listed_is_read_back(tmp_path: Path, name: str) -> None:
    entry = list_entry(name)
    if entry is not None:
        (tmp_path / "list.txt").write_bytes(f"# first\n{entry}\n".encode())
        assert [Path(listed.name) for listed in read_list(tmp_path / "list.txt")] == [Path(name)]


def test_a_list_of_no_faults_excludes_nothing(tmp_path: Path) -> None:
    write_png(tmp_path / "GT" / "a.png", photograph(0))
    assert check(tmp_path / "GT", "-o", tmp_path / "check.html") == 0
    dataset = build_dataset(options_of(tmp_path / "GT", exclude=str(tmp_path / "check_exclude.txt")))
    assert len(dataset.paths) == 1


@pytest.mark.parametrize("page", ["GT/check.html", "GT.html", "GT/sub/x.html", "other.html", "file.txt/check.html"])
def test_pictures_are_not_put_among_images_or_other_files(
    tmp_path: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(tmp_path / "GT" / "a.png", photograph(0, 128, 128))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.jpg").write_bytes(b"mine")
    (tmp_path / "file.txt").touch()
    assert check(tmp_path / "GT", "-o", tmp_path / page) == 2
    assert "-o FILE" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["a.png", "file.txt", "mine.jpg"]


def test_a_second_check_replaces_the_page_but_keeps_an_edited_list(tmp_path: Path) -> None:
    page = tmp_path / "check.html"
    write_png(tmp_path / "GT" / "flat.png", np.full((48, 48, 3), 100, np.uint8))
    write_png(tmp_path / "GT" / "a.png", photograph(0, 128, 128))
    check(tmp_path / "GT", "-o", page)
    check(tmp_path / "GT", "-o", page)
    assert not list(tmp_path.glob("*archived*"))
    (tmp_path / "check_exclude.txt").write_text("edited.png\n", encoding="utf-8")
    write_png(tmp_path / "GT" / "flat.png", photograph(1, 128, 128))
    assert check(tmp_path / "GT", "-o", page) == 0
    (archived,) = tmp_path.glob("*archived*")
    assert archived.read_text(encoding="utf-8") == "edited.png\n"
    assert [path.name for path in (tmp_path / "check").iterdir()] == ["findings.csv"]
    assert read_image(tmp_path / "GT" / "a.png").shape == (128, 128, 3)
