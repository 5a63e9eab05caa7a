"""Padding and tiles."""

import logging

import pytest
import torch
from conftest import TINY, pair
from torch.nn import functional as F

from drct.inference import pad_to_multiple, upscale, upscale_tiled
from drct.inference.upscale import round_up_tiles


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
    logger = logging.getLogger("test")
    assert round_up_tiles(100, 10, 16, logger) == (112, 16)
    assert "112" in caplog.text
    caplog.clear()
    assert round_up_tiles(128, 0, 16, logger) == (128, 0)
    assert not caplog.text
