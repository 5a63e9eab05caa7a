"""The memory of networks that do not declare it."""

import logging
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from conftest import TINY, photo, test_options, write_options
from spandrel.architectures.SwinIR import SwinIR
from torch import nn
from torch.nn import functional as F

import drct
from drct.archs.traits import NetworkTraits
from drct.cli import main
from drct.inference import measured_memory, runner
from drct.inference.measured_memory import MeasuredMemory

CPU = torch.device("cpu")


class GlobalAttention(nn.Module):
    """Each pixel attends to all."""

    def forward(self, x):
        tokens = x.flatten(2)
        return (tokens @ (tokens.transpose(1, 2) @ tokens).softmax(-1)).view_as(x)


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 12, 3, padding=1))

    def forward(self, x):
        return F.pixel_shuffle(self.layers(x), 2)


def swinir() -> nn.Module:
    options = {"embed_dim": 24, "depths": [2], "num_heads": [2], "window_size": 8, "upscale": 2}
    return SwinIR(**options, upsampler="pixelshuffle").eval()


@pytest.mark.parametrize(
    ("network", "window", "size", "tolerance"),
    [(Convolutions(), 1, (90, 110), 0.1), (swinir(), 8, (64, 80), 0.1), (GlobalAttention(), 1, (50, 60), 0.2)],
    ids=["convolutions", "windows", "global attention"],
)
def test_memory_is_extrapolated_from_small_images(monkeypatch, network, window, size, tolerance, capfd):
    monkeypatch.setattr(measured_memory, "SMALL", 16)
    memory = MeasuredMemory(network, NetworkTraits(2, window))
    estimated = memory(*size, torch.float32, CPU)
    with torch.no_grad(), measured_memory._on_cpu(CPU) as peak:
        network(torch.rand(1, 3, *size))
    assert abs(estimated / peak() - 1) < tolerance
    assert capfd.readouterr().err == ""


def test_what_a_convolution_takes_is_known():
    """The result of a convolution and of ReLU exist at the same time, or the first while its layout is changed."""
    memory = MeasuredMemory(Convolutions(), NetworkTraits(2))
    of_a_map = 100 * 100 * 32 * 4
    assert 2 * of_a_map <= memory(100, 100, torch.float32, CPU) <= 4 * of_a_map


def test_memory_outside_pytorch_is_seen():
    class Outside(nn.Module):
        def forward(self, x):
            array = np.ones((x[0, 0].numel(), 2000), np.float32)  # 8 kB a pixel
            time.sleep(0.02)
            return x + float(array[0, 0] - array[-1, -1])

    traits = NetworkTraits(1, place=lambda device: CPU, precision="fp32")
    needed = MeasuredMemory(Outside(), traits)(200, 200, torch.float32, CPU)
    assert 0.8 * 8000 * 200**2 < needed < 1.5 * 8000 * 200**2


def test_tiles_are_taken_where_the_measured_memory_is_not_free(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, "drct")
    monkeypatch.setattr(measured_memory, "SMALL", 16)
    network, traits = swinir(), NetworkTraits(2, 8, minimum=16)
    image = photo(50, 60)
    whole = drct.Upscaler(network, "cpu", "fp32", tile=None, traits=traits).upscale(image)
    automatic = drct.Upscaler(network, "cpu", "fp32", traits=traits)
    assert np.array_equal(automatic.upscale(image), whole)
    assert "as a whole" in caplog.text
    needed = automatic.traits.memory(50, 60, torch.float32, CPU)
    monkeypatch.setattr(runner, "free_memory", lambda device: needed)
    tiled = automatic.upscale(image)
    assert "tiles of" in caplog.text
    assert 0 < np.abs(tiled.astype(int) - whole).max() < 60
    caplog.clear()
    monkeypatch.setattr(runner, "free_memory", lambda device: 1)
    assert automatic.upscale(image[:32, :30]).shape == (64, 60, 3)  # small enough to be measured by
    assert not caplog.text
    assert automatic.upscale(image[:40]).shape == (80, 120, 3)
    assert "tiles of 8 pixels" in caplog.text


def test_a_network_is_measured_once_in_each_precision():
    sizes = []

    class Counting(Convolutions):
        def forward(self, x):
            sizes.append(tuple(x.shape[2:]))
            return super().forward(x)

    upscaler = drct.Upscaler(Counting(), "cpu", "fp32", traits=NetworkTraits(2))
    for _ in range(2):
        upscaler.upscale(photo(110, 120))
    assert sizes == [(48, 48), (96, 96), (110, 120), (110, 120)]


def test_a_test_run_takes_tiles_as_needed_by_any_network(workplace, monkeypatch):
    network = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 2}
    torch.save({"params": EDSR(3, 3, num_feat=8, num_block=1, upscale=2).state_dict()}, "w.pth")
    Path("lr").mkdir()
    cv2.imwrite("lr/a.png", photo(100, 130))
    options = test_options("w.pth") | {"network_g": network, "tile": "auto"}
    data = {"name": "set", "type": "SingleImageDataset", "dataroot_lq": "lr", "io_backend": {"type": "disk"}}
    options["datasets"] = {"test_1": data}
    del options["val"]["metrics"]
    taken = []
    choose = runner.choose_tile

    def spy(*args):
        taken.append(choose(*args[:-1], args[-1]))
        return taken[-1]

    monkeypatch.setattr(runner, "choose_tile", spy)
    monkeypatch.setattr(runner, "free_memory", lambda device: 6e6)
    assert main(["test", "-opt", write_options(Path("t.yml"), options)]) == 0
    assert taken and taken[0] is not None
    assert cv2.imread(str(next(Path("results").rglob("a*.png")))).shape == (200, 260, 3)


def test_tiles_are_never_of_single_pixels():
    traits = NetworkTraits(2, memory=lambda *_: 10**12)
    assert runner.choose_tile(traits, 500, 500, torch.float32, CPU, 1e6) == (8, 32)
    traits = drct.DRCT(**TINY).traits
    assert runner.choose_tile(traits, 500, 500, torch.float32, CPU, 1) == (8, 32)
