"""`drct prepare degrade`: recipes, lists, sheets."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import photo

from drct.commands.prepare import main
from drct.data.prepare import reduce_image
from drct.data.recipes import StepRecipe
from drct.errors import DRCTError
from drct.images.bgr import read_image, write_png
from drct.runs.recipes import read_recipe


@pytest.fixture
def images(workplace: Path) -> Path:
    for i in range(3):
        write_png(f"hr/{i}.png", photo(64, 80 + i, i))
    return workplace


def degrade(*arguments: str) -> int:
    return main(["degrade", "hr", "--processes", "1", *arguments])


def rows(path: str) -> dict[str, str]:
    with open(path, newline="", encoding="utf-8") as file:
        return {row["image"]: row["got"] for row in csv.DictReader(file)}


def test_clean_images_are_those_of_benchmarks(images):
    assert degrade("-o", "lr", "--recipe", "clean") == 0
    for i in range(3):
        assert np.array_equal(read_image(f"lr/{i}.png"), reduce_image(read_image(f"hr/{i}.png"), 4))
    assert rows("lr.csv") == {"0": "clean", "1": "clean", "2": "clean"}


def test_steps_are_what_they_say(images):
    image = read_image("hr/0.png")
    lq, got = StepRecipe("noise:8").degrade(image, 2, 0, "0")
    noise = lq.astype(int) - reduce_image(image, 2)
    assert got == {"noise": "8"} and 7 < noise.std() < 9 and abs(noise.mean()) < 0.5
    lq, got = StepRecipe("jpeg:40").degrade(image, 4, 0, "0")
    file = cv2.imencode(".jpg", reduce_image(image, 4), [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    assert np.array_equal(lq, cv2.imdecode(file, cv2.IMREAD_COLOR))
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    blurred, _ = StepRecipe("blur:2").degrade(np.repeat(np.repeat(point, 1, 0), 1, 1), 1, 0, "0")
    weights = blurred[..., 0].astype(float) / blurred[..., 0].sum()
    assert ((np.arange(41) - 20) ** 2 @ weights.sum(0)) ** 0.5 == pytest.approx(2, abs=0.25)
    lq, _ = StepRecipe("resize:0.5").degrade(image, 1, 0, "0")
    assert lq.shape == image.shape and 0 < np.abs(lq.astype(int) - image).mean() < 40


def test_what_an_image_gets_depends_on_seed_and_name_alone(images):
    assert degrade("-o", "a", "--recipe", "noise:2-20+jpeg:30-90", "--seed", "5") == 0
    Path("hr/0.png").unlink()
    assert degrade("-o", "b", "--recipe", "noise:2-20+jpeg:30-90", "--seed", "5") == 0
    assert degrade("-o", "c", "--recipe", "noise:2-20+jpeg:30-90", "--seed", "6") == 0
    assert Path("a/1.png").read_bytes() == Path("b/1.png").read_bytes() != Path("c/1.png").read_bytes()
    assert rows("a.csv")["1"] == rows("b.csv")["1"] != rows("a.csv")["2"]


@pytest.mark.parametrize("name", ["real", "light"])
def test_degradations_of_training_are_recipes(images, name):
    assert degrade("-o", "lr", "--recipe", name) == 0
    first = {path.name: path.read_bytes() for path in Path("lr").glob("*.png")}
    assert degrade("-o", "lr", "--recipe", name, "--overwrite") == 0
    assert first == {path.name: path.read_bytes() for path in Path("lr").glob("*.png")}
    for i in range(3):
        clean, lq = reduce_image(read_image(f"hr/{i}.png"), 4), read_image(f"lr/{i}.png")
        assert lq.shape == clean.shape
        assert np.abs(lq.astype(int) - clean).mean() < 60
    qualities = [
        float(part.split()[1]) for got in rows("lr.csv").values() for part in got.split(", ") if "jpeg" in part
    ]
    assert all(30 <= quality <= 95 for quality in qualities) and (len(qualities) == 6 or name == "light")


def test_an_interrupted_run_goes_on_and_another_recipe_is_refused(images, capsys):
    assert degrade("-o", "lr", "--recipe", "jpeg:50") == 0
    Path("lr/1.png").unlink()
    untouched = Path("lr/0.png").stat().st_mtime_ns
    assert degrade("-o", "lr", "--recipe", "jpeg:50") == 0
    assert "1 of 3 images degraded in lr, 2 that existed kept" in capsys.readouterr().out
    assert Path("lr/1.png").exists() and Path("lr/0.png").stat().st_mtime_ns == untouched
    assert degrade("-o", "lr", "--recipe", "jpeg:60") == 2
    assert "lr holds images of recipe jpeg:50, scale 4, seed 0" in capsys.readouterr().err
    write_png("theirs/0.png", photo(8, 8))
    assert degrade("-o", "theirs", "--recipe", "jpeg:60") == 2
    assert "theirs/0.png exists, but is not listed" in capsys.readouterr().err


def test_a_broken_image_loses_no_other(images, capsys):
    Path("hr/1.png").write_bytes(b"not an image")
    assert degrade("-o", "lr", "--recipe", "jpeg:50") == 1
    assert "failed: cannot read image hr/1.png" in capsys.readouterr().err
    assert sorted(rows("lr.csv")) == ["0", "2"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jpg:40", "did you mean 'jpeg'"),
        ("jpeg", "needs a number from 1 to 100"),
        ("jpeg:0", "needs a number from 1 to 100"),
        ("jpeg:90-30", "the smaller first"),
        ("jpeg:nan", "needs a number"),
        ("noise:8+blur:2", "blurs come first"),
        ("nothing.yml", "no such option file"),
        ("pairs.yml", "does not degrade images"),
    ],
)
def test_mistakes_in_recipes_are_explained(images, text, words):
    from conftest import ROOT

    Path("pairs.yml").write_bytes((ROOT / "options/train/train_DRCT_SRx4_from_scratch.yml").read_bytes())
    with pytest.raises(DRCTError, match=words):
        read_recipe(text)


def test_a_sheet_shows_twelve_degradations(images, capsys):
    assert main(["degrade", "hr/0.png", "--show", "sheet.png"]) == 0
    sheet = read_image("sheet.png")
    panels = [part for row in np.split(sheet, 3) for part in np.split(row, 4, axis=1)]
    assert len({panel[54:].tobytes() for panel in panels}) == 12
    assert main(["degrade", "hr", "--show", "sheet.png", "--recipe", "light"]) == 2
    assert "sheet.png exists" in capsys.readouterr().err
    assert main(["degrade", "hr", "--show", "sheet.png", "--recipe", "light", "--overwrite"]) == 0
