"""Textures that are repeated: their results can be repeated, too."""

import numpy as np
import pytest
import torch
from conftest import TINY, pair
from PIL import Image

import drct
from drct.cli import main as drct_main
from drct.inference.tiling import continue_periodically

TINIEST = TINY | {"depths": (1,), "num_heads": (2,)}


@pytest.fixture(scope="module")
def tiny():
    return drct.Upscaler(pair(2, **TINIEST)[1], device="cpu", precision="fp32")


def texture(height, width, channels=3, dtype=np.uint8):
    largest = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    values = np.random.default_rng(0).random((height, width, channels)) * largest
    return np.rint(values).astype(dtype) if largest > 1 else values.astype(dtype)


def test_a_picture_is_repeated_around_itself():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    result = continue_periodically(x, 4, 4)
    assert result.shape == (1, 1, 12, 16)
    for y in range(12):
        for column in range(16):
            assert result[0, 0, y, column] == x[0, 0, (y - 4) % 3, (column - 4) % 5]


@pytest.mark.parametrize(
    ("channels", "dtype", "rounding"),
    [(1, np.uint8, 1), (2, np.uint16, 2), (3, np.uint8, 1), (4, np.uint8, 1), (4, np.float32, 1e-5)],
)
def test_rolling_the_texture_rolls_the_result(tiny, channels, dtype, rounding):
    image = texture(12, 20, channels, dtype)
    rolled = np.roll(image, (4, -8), (0, 1))  # by whole windows

    def largest_difference(**options):
        result, result_of_rolled = (tiny.upscale(given, **options).astype(float) for given in (image, rolled))
        return np.abs(np.roll(result, (8, -16), (0, 1)) - result_of_rolled).max()

    assert largest_difference(wrap=True) <= rounding
    assert largest_difference() > 10 * rounding


@pytest.mark.parametrize(
    ("settings", "outscale"), [({}, 1.5), ({}, 3), ({"self_ensemble": True}, None), ({"tile": (48, 32)}, None)]
)
def test_rolling_holds_with_other_settings(settings, outscale):
    upscaler = drct.Upscaler(pair(2, **TINIEST)[1], "cpu", "fp32", **settings)
    x = torch.rand(1, 3, 8, 16)
    factor = outscale or 2
    result = upscaler.upscale(x, outscale, wrap=True)
    assert result.shape == (1, 3, round(8 * factor), round(16 * factor))
    rolled = upscaler.upscale(x.roll((4, 8), (2, 3)), outscale, wrap=True)
    assert (result.roll((round(4 * factor), round(8 * factor)), (2, 3)) - rolled).abs().max() <= 1e-5


def test_rolling_holds_with_trained_weights():
    upscaler = drct.load(device="cpu", precision="fp32")
    image = texture(8, 24)
    result = upscaler.upscale(image, wrap=True)
    rolled = upscaler.upscale(np.roll(image, (0, 16), (0, 1)), wrap=True)
    assert np.abs(np.roll(result, (0, 64), (0, 1)).astype(int) - rolled).max() <= 1


def test_the_result_is_the_middle_of_a_large_repetition(tiny):
    image = texture(24, 20, dtype=np.float32)
    result = tiny.upscale(np.tile(image, (3, 3, 1)))[48:96, 40:80]
    assert np.abs(tiny.upscale(image, wrap=True) - result).max() <= 1e-5


@pytest.mark.parametrize(("height", "width"), [(1, 1), (13, 22)])
def test_a_texture_of_any_size_goes_on_over_its_edges(height, width):
    """A smooth texture stays smooth across its edges, where whole windows do not fit it either."""
    upscaler = drct.load(device="cpu", precision="fp32")
    y, x = np.mgrid[:height, :width]
    waves = 0.5 + 0.2 * np.sin(2 * np.pi * x / width + 1) + 0.2 * np.sin(2 * np.pi * y / height + 2)
    result = upscaler.upscale(np.dstack([waves] * 3), wrap=True)
    assert result.shape == (4 * height, 4 * width, 3)
    for axis in (0, 1):
        steps = np.abs(np.diff(result, axis=axis, append=result.take([0], axis)))
        assert steps.take([-1], axis).max() <= max(0.02, 1.3 * steps.take(range(steps.shape[axis] - 1), axis).max())


def test_the_command_and_the_file_functions_take_textures(tiny, workplace):
    torch.save(tiny.network.state_dict(), "tiny.pth")
    image = texture(12, 20)
    Image.fromarray(image).save("texture.png")
    settings = ["--weights", "tiny.pth", "--precision", "fp32", "--device", "cpu"]
    assert drct_main(["upscale", "texture.png", "-o", "result.png", "--tileable", *settings]) == 0
    expected = tiny.upscale(image, wrap=True)
    assert np.array_equal(np.asarray(Image.open("result.png")), expected)
    assert np.array_equal(np.asarray(tiny.upscale("texture.png", wrap=True)), expected)
    assert np.array_equal(np.asarray(tiny.upscale(Image.fromarray(image), wrap=True)), expected)
    assert not np.array_equal(tiny.upscale(image), expected)
