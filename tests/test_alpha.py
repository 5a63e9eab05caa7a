"""Transparency: no fringe around what is visible, whatever colours hide in what is not."""

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, pair
from PIL import Image

import drct
from drct.inference.alpha import fill_invisible, settle

WHITE, BLACK = 1.0, 0.0


@pytest.fixture(scope="module")
def tiny():
    return drct.Upscaler(pair(2, **TINY)[1], device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def trained():
    return drct.load(device="cpu", precision="fp32")


def shapes(size=24):
    """Alphas (H, W) in [0, 1] of sprites, by name."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    single = np.zeros((size, size))
    single[size // 2, size // 2] = 1
    islands = np.zeros((size, size))
    small, large = size // 5, size // 2
    islands[1:small, 1:small] = islands[large:-2, large + 2 : -1] = islands[2, -3] = 1
    return {
        "disc": (size * 0.3 - np.hypot(y, x) + 0.5).clip(0, 1),
        "hole": 1 - (size * 0.3 - np.hypot(y, x) + 0.5).clip(0, 1),
        "islands": islands,
        "pixel": single,
        "gradient": (x / size + 0.5 - 0.2).clip(0, 1),
        "faint": (x > 0) / 255,
        "at the border": (x < 0).astype(float),
        "opaque": np.ones((size, size)),
        "invisible": np.zeros((size, size)),
    }


def sprite(alpha, colour, hidden, dtype=np.uint8):
    """(H, W, C + 1) of one colour where it is visible, and of a hidden one or a picture of them elsewhere."""
    largest = np.iinfo(dtype).max
    opacity = np.rint(alpha * largest)
    colours = np.where(opacity[..., None] > 0, colour, hidden) * largest
    return np.dstack([np.rint(colours), opacity]).astype(dtype)


def composite(pixels, background):
    values = pixels / np.iinfo(pixels.dtype).max
    return values[..., :-1] * values[..., -1:] + background * (1 - values[..., -1:])


@pytest.mark.parametrize("name", sorted(shapes().keys() - {"invisible"}))
def test_a_sprite_of_one_colour_has_no_fringe_on_any_background(trained, name):
    colour = np.array([1, 0.8, 0.25])
    result = trained.upscale(sprite(shapes()[name], colour, hidden=0))
    checker = (np.indices(result.shape[:2]).sum(0) // 4 % 2)[..., None]
    alpha = result[..., -1:] / 255
    inner = slice(8, -8)  # at the edges of the picture, the network misses even a single colour
    for background in (WHITE, BLACK, checker):
        # Without a fringe, all that can be seen is a mixture of the colour and the background
        expected = colour * alpha + background * (1 - alpha)
        assert np.abs(composite(result, background) - expected)[inner, inner].max() <= 4 / 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(shapes().keys() - {"invisible"}))
def test_hidden_colours_change_nothing(tiny, name, channels, dtype):
    rng = np.random.default_rng(0)
    alpha, colours = shapes(13)[name], rng.random((13, 13, channels))
    results = [tiny.upscale(sprite(alpha, colours, hidden, dtype)) for hidden in (0, 1, rng.random((13, 13, channels)))]
    assert results[0].shape == (26, 26, channels + 1)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_a_sprite_comes_close_to_the_larger_one_it_was_reduced_from(trained):
    y, x = np.mgrid[:160, :160] / 160
    truth = np.dstack([0.9 - 0.2 * y, 0.7 + 0.2 * x, 0.5 * y, (np.hypot(y - 0.5, x - 0.5) < 0.35).astype(float)])
    premultiplied = np.dstack([truth[..., :3] * truth[..., 3:], truth[..., 3]])
    reduced = cv2.resize(premultiplied, (40, 40), interpolation=cv2.INTER_AREA)
    reduced[..., :3] /= reduced[..., 3:].clip(1e-6)
    result = trained.upscale(np.rint(reduced * 255).astype(np.uint8))
    error = np.abs(composite(result, WHITE) - (truth[..., :3] * truth[..., 3:] + 1 - truth[..., 3:]))
    assert np.sqrt((error**2).mean()) < 0.025  # 0.036 with a fringe


def test_alpha_is_exact_within_opaque_and_invisible_areas(trained):
    result = trained.upscale(sprite(shapes(32)["disc"], np.array([1, 1, 1]), hidden=0))[..., -1]
    y, x = np.mgrid[:128, :128] / 4 - 15.6
    assert (result[np.hypot(y, x) < 32 * 0.3 - 5] == 255).all()
    assert (result[np.hypot(y, x) > 32 * 0.3 + 5] == 0).all()
    assert len(np.unique(result)) > 20


def test_settling_leaves_everything_but_flat_areas():
    alpha = torch.zeros(1, 1, 12, 12)
    alpha[..., 6:] = 1
    alpha[..., 11, 11] = 0.9
    result = settle(torch.full((1, 1, 24, 24), 0.5), alpha)[0, 0]
    assert result[0].tolist() == [0] * 8 + [0.5] * 8 + [1] * 8
    assert result[23].tolist() == [0] * 8 + [0.5] * 8 + [1] * 2 + [0.5] * 6


def test_colours_are_filled_in_from_the_nearest_visible_pixels():
    alpha = torch.zeros(1, 1, 40, 57)
    alpha[..., :30, :10] = 1
    alpha[..., 50] = 1 / 255
    colours = torch.rand(3, 1, 40, 57)
    colours[..., :10] = torch.tensor([1.0, 0, 0]).view(3, 1, 1, 1)
    colours[..., 50] = torch.tensor([0, 0.3, 1.0]).view(3, 1, 1)
    filled = fill_invisible(colours, alpha)
    visible = (alpha > 0).expand_as(colours)
    assert torch.equal(filled[visible], colours[visible])
    assert filled[0, 0, 5, :12].min() > 0.95
    assert filled[2, 0, :, 49:52].min() > 0.9
    assert (filled[1] <= 0.3 + 1e-6).all()  # a mixture of the visible colours everywhere
    assert (filled.sum(0) >= 1 - 1e-5).all()
    assert torch.equal(fill_invisible(colours, torch.zeros_like(alpha)), colours)


def test_a_palette_with_transparency_has_no_fringe(trained, workplace):
    image = Image.fromarray((shapes()["disc"] > 0.5).astype(np.uint8), "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    image.save("sprite.png", transparency=0)
    result = np.asarray(trained.upscale("sprite.png"))
    assert composite(result, WHITE).min() >= 1 - 3 / 255


def test_an_opaque_picture_gives_what_it_gives_without_alpha(tiny):
    rgb = np.random.default_rng(0).integers(0, 256, (11, 14, 3), np.uint8)
    for opacity in (255, 128, 0):
        result = tiny.upscale(np.dstack([rgb, np.full(rgb.shape[:2], opacity, np.uint8)]))
        assert np.array_equal(result[..., :3], tiny.upscale(rgb))
        assert (result[..., 3] == opacity).all()
