"""The examples of docs/develop.md: their files are written where the page says, in a copy, and their commands run."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from test_readme import DEVELOP, commands


def section(title: str) -> str:
    """The text of a section of the page."""
    return re.split(r"^## ", DEVELOP.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


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


def follow(title: str, folder, more: int = 0) -> None:
    """Do what a section says: write its files, and run its commands, all of which must succeed."""
    files = re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)
    lines = commands(section(title))
    assert len(files) == 1 + more and len(lines) == 1
    for name, content in files:
        assert not (ROOT / name).exists(), f"{name} is a file of the project: the example needs another name"
        (folder / name).write_text(content, encoding="utf-8")
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "drct"
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # the copy, not this
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr


def column(path, name: str) -> list[float]:
    """The numbers of a column of a table of metrics."""
    with path.open(encoding="utf-8") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def network(copy):
    """The weights of the example of a network, after its two iterations."""
    follow("Add a network", copy, more=1)
    return torch.load(copy / "experiments/SmallCNN_SRx4/models/net_g_2.pth", weights_only=True)


def test_the_network_of_the_page_works(copy, network):
    assert {name.split(".")[0] for name in network["params"]} == {"first", "blocks", "last"}
    assert network["params"]["blocks.3.weight"].shape == (32, 32, 3, 3)
    psnr = column(copy / "experiments/SmallCNN_SRx4/metrics/metrics_demo_2.csv", "psnr")
    assert len(psnr) == 6 and all(20 < value < 40 for value in psnr)  # five images and their mean


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
