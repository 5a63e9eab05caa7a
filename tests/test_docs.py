"""The examples of docs/develop.md: their files are written where the page says, in a copy, and their commands run."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields

import cv2
import httpx
import numpy as np
import pytest
import torch
from conftest import ROOT
from screenshot import served
from test_readme import PAGES, commands, section
from torch.nn import functional as F

from drct.archs.traits import NetworkTraits


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package, with options, demo images and weights, without anything else."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "drct", folder / "drct", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "options", folder / "options")
    (folder / "datasets").mkdir()
    (folder / "datasets/demo").symlink_to(ROOT / "datasets/demo")
    weights = folder / "experiments/pretrained_models"
    weights.mkdir(parents=True)
    (weights / "DRCT-XS_SRx4.pth").symlink_to(ROOT / "experiments/pretrained_models/DRCT-XS_SRx4.pth")
    return folder


def follow(title: str, folder, files: int = 1) -> str:
    """Do what a section says: write its files, and run its commands, all of which must succeed; what they print."""
    found = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)
    assert len(found) == files
    for name, content in found:
        assert not (ROOT / name).exists(), f"{name} is a file of the project: the example needs another name"
        (folder / name).write_text(content, encoding="utf-8")
    return "".join(run(line, folder) for line in commands(section(title)))


def run(line: str, folder) -> str:
    """Run a command, which must succeed, and return what it prints. A page is served until it has been read."""
    program, *words = shlex.split(line)
    assert program == "drct"
    if words[0] == "serve":
        with served(*words[1:], "--device", "cpu", cwd=folder) as url:
            return httpx.get(f"{url}config", trust_env=False, timeout=60).text
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # the copy, not this
    command = [sys.executable, "-m", program, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def column(path, name: str) -> list[float]:
    """The numbers of a column of a table of metrics."""
    with path.open(encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def printed(copy):
    """What the commands of the example of a network print."""
    for package in ("gradio", "httpx", "onnxruntime", "matplotlib"):
        pytest.importorskip(package)
    return follow("Add a network", copy, files=2)


@pytest.fixture(scope="module")
def network(copy, printed):
    """The weights of that network, after its two iterations."""
    return torch.load(copy / "experiments/SmallCNN_SRx4/models/net_g_2.pth", weights_only=True)


def test_the_network_of_the_page_works(copy, network, printed):
    assert {name.split(".")[0] for name in network["params"]} == {"first", "blocks", "last"}
    assert network["params"]["blocks.3.weight"].shape == (32, 32, 3, 3)
    psnr = column(copy / "experiments/SmallCNN_SRx4/metrics/metrics_demo_2.csv", "psnr")
    assert len(psnr) == 6 and all(20 < value < 40 for value in psnr)  # five images and their mean
    assert "SmallCNN, upscales 4 times, 51,712 parameters" in printed
    assert "| SmallCNN_SRx4 | 0.05" in printed
    assert '"experiments/SmallCNN_SRx4"' in printed  # a choice of the page
    assert json.loads((copy / "lam/lam.json").read_text(encoding="utf-8"))


def test_results_of_the_network_are_those_of_its_weights(copy, network):
    whole, tiled, onnx = (
        cv2.imread(str(copy / name)).astype(int) for name in ("camera_x4.png", "larger/camera.png", "camera_onnx.png")
    )
    x = torch.from_numpy(cv2.imread(str(copy / "datasets/demo/LRbicx4/camera.png"))[..., ::-1].copy())
    x = x.permute(2, 0, 1)[None] / 255
    features = F.conv2d(x, network["params_ema"]["first.weight"], network["params_ema"]["first.bias"], padding=1)
    for i in range(4):
        conv = (network["params_ema"][f"blocks.{i}.{name}"] for name in ("weight", "bias"))
        features = features + F.conv2d(features, *conv, padding=1).relu()
    details = F.pixel_shuffle(F.conv2d(features, network["params_ema"]["last.weight"], padding=1), 4)
    expected = (F.interpolate(x, scale_factor=4) + details).clamp(0, 1)[0].permute(1, 2, 0).numpy()[..., ::-1] * 255
    assert details.abs().mean() > 1e-4, "the network adds next to nothing"
    for result in (whole, tiled, onnx):
        assert np.abs(result - expected).max() <= 2  # bf16 of `auto`


def test_what_the_page_on_networks_says_of_traits(copy, network):
    """Its table has all of them, and its example declares what it says."""
    page = PAGES[ROOT / "docs/networks.md"]
    table = page.split("| trait |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [field.name for field in fields(NetworkTraits)]
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    check = """
import torch
from drct.archs.traits import declared_traits
from drct.inference.runner import NetworkRunner
network = Windowed().eval()
sizes = []
network.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape)))
traits = declared_traits(network)
runner = NetworkRunner(network, torch.device("cpu"), "fp32", "auto", False, traits)
print(tuple(runner.run(torch.rand(1, 3, 13, 20)).shape), *sizes, traits.memory(8, 8, torch.float32, runner.device))
"""
    (copy / "windowed.py").write_text(example + check, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, "windowed.py"], cwd=copy, env=environment, capture_output=True, text=True)
    assert done.stdout == "(1, 3, 52, 80) (1, 3, 16, 24) 24576\n", done.stderr


def test_the_dataset_of_the_page_works(copy, network):
    follow("Add a dataset", copy)
    log = next((copy / "experiments/SmallCNN_noisy").glob("train_*.log")).read_text(encoding="utf-8")
    assert "Dataset [NoisyPairedDataset] - demo is built" in log
    noisy = torch.load(copy / "experiments/SmallCNN_noisy/models/net_g_2.pth", weights_only=True)
    assert not torch.equal(noisy["params"]["first.weight"], network["params"]["first.weight"])  # but for it, the same


def test_the_metric_of_the_page_works(copy):
    follow("Add a metric", copy)
    table = copy / "results/edges/metrics_demo.csv"
    error, bicubic = column(table, "edges"), column(table, "bicubic edges")
    assert len(error) == 6 and all(0 < value < other for value, other in zip(error, bicubic, strict=True))
    assert "edges ↓" in (copy / "results/edges/report.html").read_text(encoding="utf-8")
