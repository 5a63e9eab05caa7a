"""A folder of thousands of small images: memory stays flat, and nearly all of the time is the network's."""

import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import TINY, pair
from PIL import Image

from drct.images.pictures import write_picture
from drct.inference import batch
from drct.inference.batch import upscale_files
from drct.inference.batch_plan import ResultOptions
from drct.inference.runner import NetworkRunner
from drct.inference.weights import DEFAULT_WEIGHTS


def make_images(folder: Path, count: int) -> None:
    """Write PNG images of many sizes, each side from 24 to 64 pixels."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        height, width = random.integers(24, 65, 2)
        small = random.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:04}.png")


@pytest.mark.slow
def test_memory_is_flat_over_thousands_of_images(workplace, monkeypatch):
    make_images(workplace / "in", 3000)
    torch.save(pair(2, **TINY | {"depths": (1,), "num_heads": (2,)})[1].state_dict(), workplace / "tiny.pth")
    megabytes = []

    def measured(*arguments, **options):
        megabytes.append(psutil.Process().memory_info().rss / 1e6)
        return write_picture(*arguments, **options)

    monkeypatch.setattr(batch, "write_picture", measured)
    tally = upscale_files(["in"], ResultOptions(Path("out")), "tiny.pth", "cpu")
    assert tally.upscaled == len(megabytes) == 3000
    # The first images of every size enlarge what the allocator keeps
    assert np.median(megabytes[-300:]) - np.median(megabytes[300:600]) < 10


@pytest.mark.slow
def test_the_network_takes_most_of_the_time_of_small_images(workplace, monkeypatch):
    make_images(workplace / "in", 100)
    run, share, seconds = NetworkRunner.run, batch._upscale_share, {"network": 0.0, "all": 0.0}

    def timed(name, function):
        def call(*arguments):
            start = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                seconds[name] += time.perf_counter() - start

        return call

    monkeypatch.setattr(NetworkRunner, "run", timed("network", run))
    monkeypatch.setattr(batch, "_upscale_share", timed("all", share))
    assert upscale_files(["in"], ResultOptions(Path("out")), DEFAULT_WEIGHTS, "cpu").upscaled == 100
    assert seconds["all"] < 1.3 * seconds["network"]
