"""What figures of the weights are made of: factors that are not their own, modes of a test, and their training."""

import json
from pathlib import Path

import numpy as np
import outscale
import pytest
import torch
import training
import weights_table
from conftest import ROOT, TINY, photo

import drct
from drct.archs.drct_arch import DRCT
from drct.data.prepare import reduce_image
from drct.errors import DRCTError
from drct.evaluation.metrics import ImageMetrics
from drct.images.bgr import read_image, write_png
from drct.runtime import weight_files
from drct.runtime.weight_files import CLEAN_WEIGHTS, PHOTO_WEIGHTS
from drct.runtime.zoo import HERE, RELEASES


@pytest.fixture
def shelf(workplace, monkeypatch):
    """Two tiny networks under names of the project's weights, and two photographs."""
    for name, scale in (("DRCT-XS_SRx2", 2), ("DRCT-XS_SRx4", 4)):
        torch.save({"params_ema": DRCT(**TINY | {"upscale": scale}).state_dict()}, f"{name}.pth")
    monkeypatch.setattr(weight_files, "folders", lambda: [workplace])
    for i in range(2):
        write_png(f"hr/{i}.png", photo(49, 62 + i, i))
    return workplace


def psnr(result, truth, border):
    options = {"psnr": {"type": "calculate_psnr", "crop_border": border, "test_y_channel": True}}
    return ImageMetrics(options, torch.device("cpu")).measure(np.ascontiguousarray(result), truth)["psnr"]


def test_factors_of_the_networks_are_measured_as_by_drct_test(shelf):
    arguments = ["hr", "--factors", "2", "1.5", "--weights", "DRCT-XS_SRx2", "DRCT-XS_SRx4", "-o", "out.json"]
    assert outscale.main([*arguments, "--device", "cpu", "--precision", "fp32"]) == 0
    content = json.loads(Path("out.json").read_text())
    assert (content["photographs"], content["precision"]) == (2, "fp32")
    upscaler, found = drct.load("DRCT-XS_SRx2", "cpu", "fp32"), []
    for i in range(2):
        truth = read_image(f"hr/{i}.png")[:48, :62]
        rgb = np.ascontiguousarray(reduce_image(truth, 2)[..., ::-1])
        found.append(psnr(upscaler.upscale(rgb)[..., ::-1], truth, 2))
    assert content["factors"]["2"]["DRCT-XS_SRx2"]["psnr"] == pytest.approx(np.mean(found), abs=1e-3)
    assert set(content["factors"]) == {"2", "1.5"}
    for values in content["factors"].values():
        assert set(values) == {"bicubic", "DRCT-XS_SRx2", "DRCT-XS_SRx4"}
        assert values["DRCT-XS_SRx4"]["seconds"] > 0


def test_the_table_names_the_weights_that_are_taken():
    values = {name: {"psnr": 30 + i, "seconds": 0.5} for i, name in enumerate(("bicubic", *CLEAN_WEIGHTS))}
    lines = outscale.outscale_table({"factors": {"1.5": values, "2.5": values, "4": values}}).splitlines()[2:]
    taken = [line.split(" | ")[:2] for line in lines if "auto" in line]
    assert taken == [["| ×1.5", "DRCT-XS_SRx2"], ["| ×2.5", "DRCT-XS_SRx3"], ["| ×4", "DRCT-XS_SRx4"]]
    assert lines[0] == "| ×1.5 | bicubic |  | 30.00 |  |"


def test_what_cannot_be_measured_is_told(shelf, capsys):
    write_png("small/a.png", photo(15, 40))
    Path("empty").mkdir()
    for folder, told in (("small", "too few"), ("empty", "empty has no images"), ("nowhere", "no such folder")):
        assert outscale.main([folder, "--weights", "DRCT-XS_SRx2", "--device", "cpu"]) == 2
        assert told in capsys.readouterr().err
    with pytest.raises(SystemExit):
        outscale.main(["hr", "--factors", "1"])


def test_the_modes_of_a_test_stand_beside_each_other(shelf):
    Path("figures").mkdir()
    Path("w.json").write_text(json.dumps({"other": {"Set5": {"fp32": {"psnr": 31.5, "ssim": 0.9}}}}))
    arguments = ["DRCT-XS_SRx4", "--data", "hr", "--modes", "fp32", "self-ensemble", "-o", "w.json"]
    assert weights_table.main(arguments) == 0
    figures = json.loads(Path("w.json").read_text())
    assert set(figures) == {"other", "DRCT-XS_SRx4"}
    (found,) = figures["DRCT-XS_SRx4"].values()
    assert set(found) == {"bicubic", "fp32", "self-ensemble"}
    assert found["fp32"]["psnr"] != found["self-ensemble"]["psnr"]
    settings = json.loads(Path("results/DRCT-XS_SRx4_self-ensemble/settings.json").read_text())
    assert settings["options"]["self_ensemble"] and not settings["options"]["tile"]
    table = weights_table.weights_table(figures).splitlines()
    assert table[0].startswith("| weights | images | PSNR bicubic | PSNR fp32 | PSNR bf16 | PSNR self-ensemble |")
    assert table[-1] == "| other | Set5 | – | 31.50 | – | – | – | – | 0.9000 |"


def scalars(path, points, last):
    path.parent.mkdir(parents=True)
    lines = [f"{i},metrics/{images}/psnr,{value}\n" for images, i, value in points]
    path.write_text("".join(["iteration,tag,value\n", *lines, f"{last},train/lr,0.1\n"]))


def test_stages_are_drawn_one_after_the_other(workplace):
    scalars(Path("XS/stage1/scalars.csv"), [("Set5", 100, 29.5), ("Set5", 200, 30.5)], 250)
    scalars(Path("XS/stage2/scalars.csv"), [("Set5", 100, 30.75)], 100)
    scalars(Path("XS/stage10/scalars.csv"), [("held_out", 50, 27.25)], 60)
    scalars(Path("other/scalars.csv"), [("held_out", 50, 33.125)], 60)
    stages = training.read_stages(Path("XS"))
    assert {images: [stage.name for stage in of] for images, of in stages.items()} == {
        "Set5": ["stage 1", "stage 2"],
        "held_out": ["stage 10"],
    }
    assert [stage.iterations.tolist() for stage in stages["Set5"]] == [[100, 200], [350]]
    assert stages["held_out"][0].iterations.tolist() == [400]
    figure = training.draw_training({name: training.read_stages(Path(name)) for name in ("XS", "other")})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["XS on Set5", "XS on held_out", "other on held_out"]
    labels = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes]
    assert labels == [["stage 1 30.50 dB", "stage 2 30.75 dB"], ["stage 10 27.25 dB"], ["33.12 dB"]]
    assert training.main(["XS", "other", "-o", "out.png"]) == 0
    assert Path("out.png").read_bytes().startswith(b"\x89PNG")


def test_a_training_without_scalars_is_told(workplace, capsys):
    Path("XS").mkdir()
    assert training.main(["XS", "-o", "out.png"]) == 2
    assert "error: XS has no scalars.csv" in capsys.readouterr().err
    with pytest.raises(DRCTError, match="no PSNR was measured in the training of XS"):
        training.draw_training({"XS": {}})


def test_the_weights_that_are_measured_are_those_that_come_with_the_project():
    assert {f"{name}.pth" for name in (*CLEAN_WEIGHTS, PHOTO_WEIGHTS)} == {r.file for r in RELEASES if r.source is HERE}
    assert {r.file: r.scale for r in RELEASES if Path(r.file).stem in CLEAN_WEIGHTS} == {
        f"{name}.pth": scale for name, scale in CLEAN_WEIGHTS.items()
    }
    assert (ROOT / "figures/training.png").is_file()
