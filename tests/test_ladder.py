"""The ladder: its sets, its option files, and the script that measures networks on it."""

import json
from pathlib import Path

import ladder
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, network_options, photo

from drct.archs.drct_arch import DRCT
from drct.commands.prepare import main as prepare
from drct.data.ladder import RUNGS
from drct.data.recipes import StepRecipe
from drct.evaluation.metrics import ImageMetrics
from drct.images.bgr import read_image, write_png
from drct.runtime.yaml_file import load_yaml, parse_yaml

FILES = sorted((ROOT / "options/test").glob("*_ladder.yml"))


def rungs_of(file: Path) -> dict[str, str]:
    """Names of datasets and folders of low-resolution images of an option file."""
    return {d["name"]: d["dataroot_lq"] for d in load_yaml(str(file))["datasets"].values()}


def test_the_sets_are_recipes_of_the_cropped_images(workplace, capsys):
    for i in range(2):
        write_png(f"hr/{i}.png", photo(65 + i, 83, i))
    assert prepare(["ladder", "hr", "-o", "set", "--processes", "1"]) == 0
    assert "2 of 2 images prepared in set: 14 files written" in capsys.readouterr().out
    recipes = {"LRbicx4": "clean"} | {f"LRx4_{rung}": text for rung, text in RUNGS.items()}
    for i in range(2):
        truth = read_image(f"hr/{i}.png")[:60, :72]
        assert np.array_equal(read_image(f"set/GTmod12/{i}.png"), truth)
        for folder, recipe in recipes.items():
            expected, _ = StepRecipe(recipe).degrade(truth, 4, 0, str(i))
            assert np.array_equal(read_image(f"set/{folder}/{i}.png"), expected), folder
    assert prepare(["ladder", "set/GTmod12", "-o", "set", "--processes", "1"]) == 0
    assert "0 files written, 14 that existed kept" in capsys.readouterr().out


def test_a_broken_image_is_told_and_the_others_are_made(workplace, capsys):
    write_png("hr/1.png", photo(48, 48))
    Path("hr/0.png").write_bytes(b"not an image")
    assert prepare(["ladder", "hr", "-o", "set", "--scale", "2", "--processes", "1"]) == 1
    printed = capsys.readouterr()
    assert "1 of 2 images prepared" in printed.out and "cannot read image hr/0.png" in printed.err
    assert [path.name for path in Path("set/LRx2_jpeg40").iterdir()] == ["1.png"]


def test_the_option_files_have_every_rung_and_measure_alike():
    folders = ["LRbicx4", *(f"LRx4_{rung}" for rung in RUNGS)]
    expected = {
        f"Set14_{rung}": f"./datasets/Set14/{folder}" for rung, folder in zip(["clean", *RUNGS], folders, strict=True)
    }
    assert [rungs_of(file) for file in FILES] == [expected] * 2
    first, second = (load_yaml(str(file)) for file in FILES)
    assert first["val"] == second["val"] and first["val"]["metrics"].keys() == {"psnr", "ssim", "niqe"}


@pytest.fixture
def small(workplace: Path) -> Path:
    """An image as large as NIQE needs, and the option files of the ladder with a tiny network."""
    noise = np.random.default_rng(0).normal(0, 6, (108, 204, 3))
    write_png("hr/0.png", (photo(108, 204) + noise).clip(0, 255).astype(np.uint8))
    torch.manual_seed(0)
    torch.save({"params_ema": DRCT(**TINY, upscale=4, upsampler="pixelshuffle").state_dict()}, "weights.pth")
    Path("options/test").mkdir(parents=True)
    for file in FILES:
        options = load_yaml(str(file)) | {"network_g": network_options(TINY, 4), "num_gpu": 0}
        options["path"]["pretrain_network_g"] = "weights.pth"
        Path("options/test", file.name).write_text(json.dumps(options))
    return workplace


def test_the_script_measures_networks_on_sets(small, capsys):
    Path("figures").mkdir()
    assert ladder.main(["mine=hr", "--processes", "1"]) == 0
    measured = ladder.read_ladder(Path("figures/ladder.json"))
    assert list(measured["mine"]) == ["clean", *RUNGS]
    for rung, sources in measured["mine"].items():
        assert list(sources) == ["bicubic", "DRCT-XS", "Real-DRCT-XS"]
        results = json.loads(Path(f"results/DRCT-XS_SRx4_ladder_mine/metrics_mine_{rung}.json").read_text())
        for metric, mean in sources["DRCT-XS"].items():
            assert mean == pytest.approx(results["images"]["0"][metric], abs=1e-5)
    bicubic = [sources["bicubic"]["psnr"] for sources in measured["mine"].values()]
    assert bicubic[:5] == sorted(bicubic[:5], reverse=True)  # each rung loses more than the one before
    table = ladder.ladder_table(measured, list(ladder.TITLES))
    assert capsys.readouterr().out.endswith(table)
    cells = [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]
    clean = measured["mine"]["clean"]
    gain = clean["DRCT-XS"]["psnr"] - clean["bicubic"]["psnr"]
    assert cells[:4] == ["mine", "clean", f"{clean['bicubic']['psnr']:.2f}", f"{gain:+.2f}".replace("-", "−")]


def test_figures_of_other_sets_and_networks_stay(small, monkeypatch):
    monkeypatch.setattr(ladder, "measure", lambda name, file: {"clean": {file.stem: {"psnr": 1.0}}})
    for name, file in (("one", "a.yml"), ("one", "b.yml"), ("two", "a.yml")):
        assert ladder.main([f"{name}=hr", "--opt", file, "-o", "out.json", "--processes", "1"]) == 0
    measured = ladder.read_ladder(Path("out.json"))
    assert {name: list(rungs["clean"]) for name, rungs in measured.items()} == {"one": ["a", "b"], "two": ["a"]}
    assert "| two | clean | – | – | – |" in ladder.ladder_table(measured, ["psnr"])  # without bicubic


def test_what_cannot_be_measured_is_told(small, capsys):
    assert ladder.main(["hr"]) == 2
    assert "hr: expected NAME=FOLDER" in capsys.readouterr().err
    assert ladder.main(["mine=nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    write_png("small/0.png", read_image("hr/0.png")[:, :192])
    assert ladder.main(["mine=small", "--processes", "1"]) == 2
    printed = capsys.readouterr().err
    assert "niqe is undefined" in printed and "DRCT-XS_SRx4_ladder.yml on mine failed" in printed
    assert not Path("figures/ladder.json").exists()


def test_options_of_lpips_are_those_of_the_metrics():
    """The metrics that are commented out fit where they stand."""
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        uncommented = text.replace("    # lpips", "    lpips").replace("    # dists", "    dists")
        options = parse_yaml(uncommented.replace("    #   ", "      "))
        assert options["val"]["metrics"]["dists"] == {"type": "dists", "crop_border": 4}


@pytest.mark.parametrize("size", [(104, 200), (200, 104)])
def test_niqe_needs_two_blocks(size):
    measured = ImageMetrics({"niqe": {"type": "calculate_niqe", "crop_border": 4}}, torch.device("cpu"))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert 0 < measured.measure(image, None)["niqe"] < 1000
    for part in (image[:-1], image[:, :-1], image[:90, :90], np.full_like(image, 128)):
        with pytest.raises(ValueError, match="niqe is undefined: the image of"):
            measured.measure(part, None)
