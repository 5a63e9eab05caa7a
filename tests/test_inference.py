"""Padding and tiles."""

import subprocess
import sys

import pytest
import torch
from conftest import TINY, VARIANTS, pair
from torch.nn import functional as F

from drct.archs.drct_arch import DRCT
from drct.archs.execution import memory_needed
from drct.archs.hat_arch import HAT
from drct.inference import choose_tile, free_memory, pad_to_multiple, upscale, upscale_tiled
from drct.inference.runner import NetworkRunner


@pytest.mark.parametrize(("height", "width"), [(9, 15), (16, 17), (12, 24), (8, 8)])
def test_padding_is_pytorchs_reflection(height, width):
    x = torch.rand(2, 3, height, width)
    expected = F.pad(x, (0, -width % 8, 0, -height % 8), "reflect")
    assert torch.equal(pad_to_multiple(x, 8), expected)


def test_padding_reflects_back_and_forth_where_an_image_is_small():
    x = torch.tensor([[[[0.0, 1, 2]]]])
    assert pad_to_multiple(x, 8)[0, 0].tolist() == [[0, 1, 2, 1, 0, 1, 2, 1]] * 8
    assert torch.equal(pad_to_multiple(torch.full((1, 3, 1, 1), 0.7), 16), torch.full((1, 3, 16, 16), 0.7))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 3), (5, 4), (13, 22)])
def test_any_size_is_upscaled(height, width):
    original, network = pair(3, **TINY)
    x = torch.rand(2, 3, height, width)
    result = upscale(network, x, window_size=4, scale=3)
    assert result.shape == (2, 3, height * 3, width * 3)
    with torch.no_grad():
        expected = original(pad_to_multiple(x, 4))[..., : height * 3, : width * 3]
    assert (result - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("tile_pad", [0, 4])
def test_a_tile_that_covers_the_image_gives_the_whole_images_result(tile_pad):
    _, network = pair(2, **TINY)
    x = torch.rand(1, 3, 14, 19)
    assert torch.equal(upscale_tiled(network, x, 4, 2, 20, tile_pad), upscale(network, x, 4, 2))


def test_tiles_are_computed_with_their_surroundings_and_put_in_their_place():
    _, network = pair(2, **TINY)
    x = torch.rand(1, 3, 14, 19)
    result = upscale_tiled(network, x, window_size=4, scale=2, tile_size=8, tile_pad=4)
    assert result.shape == (1, 3, 28, 38)
    padded = pad_to_multiple(x, 4)  # 16 x 20
    with torch.no_grad():
        middle = network(padded[..., 4:16, 4:20])[..., 8:24, 8:24]  # tile rows 8..16, columns 8..16
    assert torch.allclose(result[..., 16:28, 16:32], middle[..., :12, :], atol=1e-6)


def test_tiles_of_a_local_network_have_no_seams():
    """A network that sees no further than tile_pad gives the same result with tiles as without."""
    local = torch.nn.Sequential(torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.PixelShuffle(2))
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        assert torch.allclose(upscale_tiled(local, x, 4, 2, 8, 4), local(x), atol=1e-6)


def test_tile_sizes_are_rounded_up_with_a_warning(caplog):
    network = DRCT(**TINY | {"window_size": 16, "img_size": 32})
    assert NetworkRunner(network, "cpu", "fp32", (100, 10)).tile == (112, 16)
    assert "tile_size 100 is taken as 112 and tile_pad 10 as 16" in caplog.text
    caplog.clear()
    assert NetworkRunner(network, "cpu", "fp32", (128, 0)).tile == (128, 0)
    assert not caplog.text


# ------------------------------------------------------------------------------------------------------------- memory

CPU = torch.device("cpu")

MEASURE = """
import gc, sys, threading, time
import psutil, torch
from drct.archs.drct_arch import DRCT
from drct.archs.hat_arch import HAT

options, low, sizes = eval(sys.argv[1]), sys.argv[2] == "bf16", eval(sys.argv[3])
network, process, peaks, running = eval(sys.argv[4])(**options).eval(), psutil.Process(), [0], True

def watch():
    while running:
        peaks[-1] = max(peaks[-1], process.memory_info().rss)
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=low):
    network(torch.rand(1, 3, 16, 16))
    gc.collect()
    start = process.memory_info().rss
    for height, width in sizes:
        network(torch.rand(1, 3, height, width))
        peaks.append(0)
running = False
print([peak - start for peak in peaks[:-1]])
"""


def measured_memory(options, precision, *sizes, kind=DRCT):
    """Peak memory above the loaded network, for each image of a fresh process, in bytes."""
    command = [sys.executable, "-c", MEASURE, repr(options), precision, repr(sizes), kind.__name__]
    return eval(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)


@pytest.mark.parametrize(("size", "precision"), [((128, 128), "fp32"), ((320, 256), "fp32"), ((256, 256), "bf16")])
def test_the_estimate_of_memory_is_not_exceeded_and_not_far_off(size, precision):
    options = VARIANTS["DRCT-XS"]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    estimate = memory_needed(DRCT(**options), *size, dtype, CPU)
    (measured,) = measured_memory(options, precision, size)
    assert measured <= estimate <= 2 * measured + 100e6


@pytest.mark.parametrize(("size", "precision"), [((128, 128), "fp32"), ((256, 192), "fp32"), ((256, 256), "bf16")])
def test_the_estimate_of_memory_of_a_hat_is_not_exceeded_and_not_far_off(size, precision):
    options = {"embed_dim": 48, "depths": (1,), "num_heads": (4,), "squeeze_factor": 8}
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    estimate = memory_needed(HAT(**options), *size, dtype, CPU)
    (measured,) = measured_memory(options, precision, size, kind=HAT)
    assert measured <= estimate <= 2 * measured + 100e6


def test_a_hat_needs_a_few_feature_maps():
    """1024x1024 with the released network in bf16: 1132 MB for three feature maps, 201 MB for the result."""
    with torch.device("meta"):
        network = HAT()
    assert memory_needed(network, 1024, 1024, torch.bfloat16, CPU) < 2.6e9
    assert memory_needed(network, 192, 256, torch.float32, CPU) < 0.7e9  # of which the original takes 2.0e9


def test_a_network_needs_a_few_feature_maps():
    """1024x1024 with the released network in bf16: 646 MB for one dense feature map, 201 MB for the result."""
    with torch.device("meta"):
        network = DRCT()
    assert memory_needed(network, 1024, 1024, torch.bfloat16, CPU) < 2e9
    assert memory_needed(network, 256, 256, torch.float32, CPU) < 0.4e9


def test_tiles_are_chosen_where_memory_does_not_suffice():
    network = DRCT(**VARIANTS["DRCT-XS"])

    def tile(height, width, free):
        return choose_tile(network.traits, height, width, torch.float32, CPU, free)

    whole = memory_needed(network, 500, 700, torch.float32, CPU)
    assert tile(500, 700, 1.3 * whole) is None
    earlier = 700
    for share in (1.0, 0.8, 0.7):
        size, pad = tile(500, 700, share * whole)
        assert size % 8 == pad % 8 == 0
        assert size <= earlier
        earlier = size
        result = 3 * 500 * 700 * 17 * 4
        assert result + memory_needed(
            network, *(min(side, size + 2 * pad) for side in (500, 700)), torch.float32, CPU
        ) <= (0.8 * share * whole)
    assert tile(500, 700, 0) == (8, 32)
    assert free_memory(CPU) > 1e6


def test_many_sizes_do_not_fill_the_memory():
    generator = torch.Generator().manual_seed(0)
    sizes = [tuple(side) for side in (torch.randint(1, 15, (100, 2), generator=generator) * 8).tolist()]
    largest = (112, 112)
    options = VARIANTS["DRCT-XS"] | {"depths": (6,), "num_heads": (4,)}
    peaks = measured_memory(options, "fp32", largest, *sizes, largest)
    half = len(peaks) // 2
    assert max(peaks[half:]) <= max(peaks[:half]) + 20e6, peaks
