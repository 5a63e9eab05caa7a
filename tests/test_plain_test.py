"""Tests that are described by arguments, and option files that leave out the network."""

import csv
import json
from pathlib import Path

import cv2
import pytest
import torch
from conftest import HAT_TINY as TINY_HAT
from conftest import ROOT, TINY, hat_pair, pair, photo, test_options, write_options
from torch import nn

from drct.archs.traits import NetworkTraits
from drct.commands.prepare import main as prepare
from drct.commands.test import main as run_test
from drct.errors import DRCTError
from drct.inference.weights import LoadedNetwork
from drct.runs import network_of_weights
from drct.runs.plain_test import plain_options

SHIPPED = "DRCT-XS_SRx4"
HAT_TINY = TINY_HAT | {"conv_scale": 0.01}  # the default, as weights do not show it


@pytest.fixture
def photos(workplace):
    """Folder of high-resolution images whose sides are no multiples of anything."""
    Path("mine/HR").mkdir(parents=True)
    for name, size in {"a": (50, 62), "b": (49, 53)}.items():
        cv2.imwrite(f"mine/HR/{name}.png", photo(*size, seed=len(name)))
    cv2.imwrite("mine/HR/gray.png", cv2.cvtColor(photo(45, 47, 3), cv2.COLOR_BGR2GRAY))
    return Path("mine/HR")


def metrics(run, dataset):
    return json.loads(Path(f"results/{run}/metrics_{dataset}.json").read_text())


def yaml_of_shipped(gt, lq):
    """The shipped option file of the shipped weights, on other images."""
    import yaml

    options = yaml.safe_load((ROOT / "options/test/DRCT-XS_SRx4.yml").read_text())
    data = options["datasets"]["test_1"] | {"name": "mine", "dataroot_gt": str(gt), "dataroot_lq": str(lq)}
    path = options["path"] | {"pretrain_network_g": str(ROOT / "experiments/pretrained_models/DRCT-XS_SRx4.pth")}
    return options | {"name": "yaml", "num_gpu": 0, "datasets": {"test_1": data}, "path": path}


def test_results_are_those_of_an_option_file_on_prepared_images_to_the_last_digit(photos, capsys):
    assert prepare(["lr", str(photos), "-o", "prepared", "--scales", "4"]) == 0
    assert run_test(["-opt", write_options(Path("a.yml"), yaml_of_shipped(photos, "prepared/LRbicx4"))]) == 0
    expected = metrics("yaml", "mine")
    assert len(expected["images"]) == 3 and 10 < expected["mean"]["psnr"] < 60
    capsys.readouterr()
    arguments = ["--weights", SHIPPED, "--data", str(photos), "--device", "cpu"]
    assert run_test(arguments) == 0
    assert metrics(SHIPPED, "mine") == expected
    said = capsys.readouterr().out
    assert f"| mine | psnr ↑ | {expected['bicubic']['mean']['psnr']:.2f} | {expected['mean']['psnr']:.2f} |" in said
    rows = list(csv.reader(Path(f"results/{SHIPPED}/metrics_mine.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["image", "a", "b", "gray", "mean"]
    assert Path(f"results/{SHIPPED}/report.html").is_file()
    assert cv2.imread(f"results/{SHIPPED}/visualization/mine/a_{SHIPPED}.png").shape == (48, 60, 3)
    assert run_test([*arguments, "--lr", "prepared/LRbicx4", "--name", "given", "--scale", "4"]) == 0
    assert metrics("given", "mine") == expected


def test_results_are_those_of_the_layout_of_benchmarks(workplace):
    Path("raw").mkdir()
    for kind in ("HR", "LR"):  # as benchmarks are distributed
        cv2.imwrite(f"raw/img_001_SRF_4_{kind}.png", photo(48, 60))
    assert prepare(["benchmark", "raw", "-o", "Set", "--scales", "4"]) == 0
    assert run_test(["-opt", write_options(Path("a.yml"), yaml_of_shipped("Set/GTmod12", "Set/LRbicx4"))]) == 0
    both = ["--weights", SHIPPED, "--data", "Set/GTmod12", "--data", "raw", "--device", "cpu"]
    assert run_test([*both, "--force_yml", "val:save_img=false"]) == 0
    expected = metrics("yaml", "mine")
    assert metrics(SHIPPED, "Set") == expected | {"dataset": "Set"}
    assert metrics(SHIPPED, "raw")["mean"] == expected["mean"]
    assert list(metrics(SHIPPED, "raw")["images"]) == ["img_001_SRF_4_HR"]
    assert not Path(f"results/{SHIPPED}/visualization").exists()


@pytest.mark.parametrize("network", ["DRCT", "HAT"])
def test_an_option_file_may_leave_out_network_and_scale(pairs, network):
    original, _ = pair(2, **TINY) if network == "DRCT" else hat_pair(2, **HAT_TINY)
    torch.save({"params_ema": original.state_dict()}, "w.pth")
    options = test_options("w.pth")
    if network == "HAT":
        arguments = {key: list(v) if isinstance(v, tuple) else v for key, v in HAT_TINY.items()}
        options["network_g"] = {"type": "HAT", "upscale": 2, "upsampler": "pixelshuffle", "mlp_ratio": 2, **arguments}
    assert run_test(["-opt", write_options(Path("whole.yml"), options)]) == 0
    expected = metrics("run", "set")
    for key in ("network_g", "scale"):
        del options[key]
    for metric in options["val"]["metrics"].values():
        del metric["crop_border"]  # which is the scale
    options["name"] = "short"
    assert run_test(["-opt", write_options(Path("short.yml"), options)]) == 0
    assert metrics("short", "set") == expected
    settings = json.loads(Path("results/short/settings.json").read_text())
    assert settings["options"]["network_g"]["type"] == network
    assert settings["options"]["scale"] == 2
    assert settings["options"]["network_g"]["embed_dim"] == TINY["embed_dim"]


def test_the_weights_that_the_option_file_asks_for_are_taken(pairs):
    original, _ = pair(2, **TINY)
    ema = {name: value.clone() for name, value in original.state_dict().items()}
    with torch.no_grad():
        original.conv_last.weight.mul_(1.5)
    torch.save({"params": original.state_dict(), "params_ema": ema}, "both.pth")
    found = {}
    for key in ("params", "params_ema"):
        for short in (False, True):
            options = test_options("both.pth")
            options["path"]["param_key_g"] = key
            if short:
                del options["network_g"]
            assert run_test(["-opt", write_options(Path("a.yml"), options)]) == 0
            found[key, short] = metrics("run", "set")["mean"]
    assert found["params", True] == found["params", False] != found["params_ema", False] == found["params_ema", True]


class Nearest(nn.Module):
    """A network of no registry and without weights."""

    def forward(self, x):
        return x.repeat_interleave(3, 2).repeat_interleave(3, 3)


def test_a_network_of_any_kind_is_tested_as_it_was_loaded(photos, monkeypatch):
    loaded = LoadedNetwork(Nearest().eval(), NetworkTraits(3, window=5), "nearest", Path("nearest.onnx"))
    monkeypatch.setattr(network_of_weights, "read_network", lambda *_: loaded)
    Path("nearest.onnx").write_bytes(b"x")
    arguments = ["--weights", "nearest.onnx", "--data", str(photos), "--device", "cpu", "--tile", "off"]
    assert run_test(arguments) == 0
    saved = cv2.imread("results/nearest/visualization/mine/b_nearest.png")
    assert saved.shape == (48, 51, 3)
    assert (saved[::3, ::3].repeat(3, 0).repeat(3, 1) == saved).all()
    settings = json.loads(Path("results/nearest/settings.json").read_text())
    assert (settings["network"], settings["options"]["scale"]) == ("Nearest", 3)
    assert settings["options"]["val"]["metrics"]["psnr"]["crop_border"] == 3


# ------------------------------------------------------------------------------------------------------------ mistakes


def without_network(change):
    options = test_options("weights.pth")
    del options["network_g"]
    change(options)
    return options


MISTAKES = {
    "neither network nor weights": (
        lambda o: o["path"].pop("pretrain_network_g"),
        "a.yml has no 'network_g', and no path.pretrain_network_g to read it from: set one of them",
    ),
    "no section of paths": (lambda o: o.pop("path"), "a.yml has no 'network_g', and no path.pretrain_network_g"),
    "misspelt": (lambda o: o.update(network_G={}), "a.yml has no 'network_g' (did you mean 'network_G'?)"),
    "another scale": (lambda o: o.update(scale=3), "a.yml: scale is 3, but the network of weights.pth upscales by 2"),
    "another network": (lambda o: o["path"].update(pretrain_network_g="other.pth"), "other.pth: not weights of a DRCT"),
    "no weights": (lambda o: o["path"].update(pretrain_network_g="x.pth"), "path.pretrain_network_g: no weights x.pth"),
    "not a path": (lambda o: o["path"].update(pretrain_network_g=[1]), "must be the path of one file, not [1]"),
}


@pytest.mark.parametrize("change, words", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_option_files_without_network_are_told_in_one_line(weights, pairs, capsys, change, words):
    torch.save({"params": {"x": torch.zeros(1)}}, "other.pth")
    assert run_test(["-opt", write_options(Path("a.yml"), without_network(change))]) == 2
    said = capsys.readouterr().err.splitlines()
    assert words in said[-1] and said[-1].startswith("error: ")
    assert not Path("results").exists()


def test_a_training_run_needs_its_network(pairs, capsys):
    from conftest import train_options

    from drct.commands.train import main as run_train

    for key in ("network_g", "scale"):
        options = train_options()
        del options[key]
        assert run_train(["-opt", write_options(Path("a.yml"), options)]) == 2
        assert f"a.yml has no '{key}'" in capsys.readouterr().err


def test_mistakes_in_arguments_that_need_pytorch(photos, capsys):
    Path("net.yml").write_text("network_g: {type: DRCT}\n")
    arguments = ["--weights", SHIPPED, "--data", str(photos)]
    mistakes = {
        "--scale 2": "drct test: scale is 2, but the network of DRCT-XS_SRx4 upscales by 4",
        "--network net.yml --force_yml network_g:type=DRCT": "--network and network_g both name the network",
        "--device nonsense": "device nonsense is not there",
        "--device xla": "device xla is not there",
        "--lr mine --lr mine": "--lr is given 2 times, --data 1 time:",
        "--lr .": "datasets.test_001 (mine): there are no images in",
    }
    for more, words in mistakes.items():
        assert run_test([*arguments, *more.split()]) == 2
        said = capsys.readouterr().err.splitlines()
        assert words in said[-1], more
    assert not Path("results").exists()


def test_datasets_have_names_of_their_own_and_settings_are_those_of_the_arguments(workplace):
    folders = [Path(p) for p in ("Set5/GTmod12", "Set14/HR", "other/Set5", "photos", "/")]
    options = plain_options("x/DRCT_SRx2.pth", folders, device="cpu", tile=64, precision="bf16", self_ensemble=True)
    names = [dataset["name"] for dataset in options["datasets"].values()]
    assert names == ["Set5", "Set14", "Set5_2", "photos", "data"]
    assert list(options["datasets"]) == sorted(options["datasets"])
    assert (options["name"], options["num_gpu"]) == ("DRCT_SRx2", 0)
    assert (options["precision"], options["self_ensemble"]) == ("bf16", True)
    assert options["tile"] == {"tile_size": 64, "tile_pad": 32}
    with pytest.raises(DRCTError, match="--lr is given 1 time,"):
        plain_options("x", folders, folders[:1])


def test_images_that_are_too_small_are_left_out_and_named(photos, capsys):
    cv2.imwrite("mine/HR/tiny.png", photo(8, 30))
    assert run_test(["--weights", SHIPPED, "--data", str(photos), "--device", "cpu"]) == 1
    table = metrics(SHIPPED, "mine")
    assert len(table["images"]) == 3
    assert "too small to be reduced 4 times" in table["failed"][str(Path("mine/HR/tiny.png"))]
