"""What a patch of a result depends on: attribution maps, diffusion index, receptive field."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs.swinir_arch import SwinIR
from conftest import TINY, pair, photo, rescale_
from PIL import Image
from torch import nn
from torch.nn import functional as F

from drct.analysis.attribution import (
    Area,
    Attribution,
    blur_path,
    detail,
    explain,
    gini,
    integrate,
    receptive_field,
    square_with,
)
from drct.archs.drct_arch import DRCT
from drct.archs.traits import NetworkTraits
from drct.commands.analyze_lam import LARGEST_ERROR, SIGMA, STEPS, main
from drct.errors import DRCTError
from drct.inference.weights import LoadedNetwork

SWINIR = {"img_size": 16, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2}
SWINIR |= {"upscale": 2, "upsampler": "pixelshuffle", "resi_connection": "1conv"}


def picture(height, width, seed=0):
    return photo(height, width, seed).astype(np.float32) / 255


def tensors(path):
    return torch.from_numpy(path).permute(0, 3, 1, 2)[:, None]


class Convolutions(nn.Module):
    """Two 3x3 convolutions with a smooth nonlinearity between them: sees 2 pixels to each side."""

    def __init__(self, scale=1):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3 * scale**2, 3, padding=1)
        self.scale = scale

    def forward(self, x):
        return F.pixel_shuffle(self.second(torch.tanh(3 * self.first(x))), self.scale)


# ---------------------------------------------------------------------------------------------------------- blur path


def test_the_path_begins_at_the_blurred_image_and_ends_at_the_image():
    image = picture(20, 24)
    path = blur_path(image, 10, 1.2)
    assert path.shape == (11, 20, 24, 3)
    assert np.array_equal(path[-1], image.astype(np.float64))
    taps = np.exp(-(np.arange(-4.0, 5.0) ** 2) / (2 * 1.2**2))
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    surroundings = np.pad(image.astype(np.float64), ((4, 4), (4, 4), (0, 0)), mode="reflect")
    blurred = [[np.tensordot(kernel, surroundings[y : y + 9, x : x + 9]) for x in range(24)] for y in range(20)]
    np.testing.assert_allclose(path[0], blurred, rtol=0, atol=1e-12)


def test_the_path_goes_steadily_from_blurred_to_sharp():
    path = blur_path(picture(20, 24), 10, 1.2)
    detail_on_the_way = [float(detail(tensor)) for tensor in tensors(path)]
    assert detail_on_the_way == sorted(detail_on_the_way)
    assert detail_on_the_way[-1] > 1.1 * detail_on_the_way[0]


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 5, 3), (7, 3, 1)])
def test_images_smaller_than_the_blur_and_gray_ones_have_a_path(shape):
    image = np.random.default_rng(0).random(shape)
    path = blur_path(image, 3, 1.2)
    assert path.shape == (4, *shape) and np.array_equal(path[-1], image)


# ------------------------------------------------------------------------------------------------ integrated gradients


def test_of_a_linear_quantity_the_attribution_is_the_gradient_times_the_difference():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 20, 24, generator=generator, dtype=torch.float64)
    path = tensors(blur_path(picture(20, 24), 3, 1.2))
    found = integrate(lambda x: (x * weight).sum(), path)
    np.testing.assert_allclose(found.values, (weight * (path[-1] - path[0])[0]).numpy(), rtol=0, atol=1e-14)
    assert found.completeness_error < 1e-12


def test_attributions_of_a_nonlinear_network_add_up_to_the_change_of_the_detail():
    network, path = Convolutions().double(), blur_path(picture(20, 24), 25, 1.2)
    found = integrate(lambda x: detail(network(x)), tensors(path))
    first, last = (detail(network(x)).item() for x in tensors(path)[[0, -1]])
    assert (found.baseline, found.image) == pytest.approx((first, last), rel=1e-12)
    assert found.values.sum() == pytest.approx(last - first, rel=0.01)
    assert found.completeness_error == pytest.approx(abs(found.values.sum() - last + first) / abs(last - first))


def test_too_few_steps_show_in_the_completeness_error_which_falls_with_their_square():
    network = Convolutions().double()
    errors = [
        integrate(lambda x: network(x).square().sum(), tensors(blur_path(picture(20, 24), n, 3))).completeness_error
        for n in (1, 16, 32)
    ]
    assert errors[0] > 0.01
    assert errors[1] > 3 * errors[2]


def test_attributions_of_drct_add_up_with_the_default_number_of_steps():
    network = DRCT(upscale=2, upsampler="pixelshuffle", **TINY).eval()
    rescale_(network)
    loaded = LoadedNetwork(network, network.traits, "tiny", "tiny")
    found = explain(loaded, picture(18, 21), Area(6, 7, 8, 8), STEPS, SIGMA, "cpu")
    error = found.attribution.completeness_error
    change = found.attribution.image - found.attribution.baseline
    assert error < LARGEST_ERROR and abs(change) > 1
    assert abs(found.attribution.values.sum() - change) < 0.01 * abs(change)


@pytest.mark.parametrize("scale", [1, 2])
def test_attributions_are_zero_outside_of_what_a_convolution_sees(scale):
    loaded = LoadedNetwork(Convolutions(scale), NetworkTraits(scale), "small", "small")
    found = explain(loaded, picture(20, 24), Area(9, 7, 5, 5), 4, 1.2, "cpu")
    seen = np.zeros((20, 24), bool)
    seen[7 - 2 : 7 + 5 + 2, 9 - 2 : 9 + 5 + 2] = True
    assert not found.attribution.values[:, ~seen].any()
    magnitude = found.attribution.magnitude
    border = [magnitude[5, 7:16], magnitude[13, 7:16], magnitude[5:14, 7], magnitude[5:14, 15]]
    assert all(edge.any() for edge in border)
    assert not found.field[:, :9].any() and found.extent == (5, 5)


def test_what_is_padded_to_whole_windows_is_attributed_to_the_pixels_it_reflects():
    """A network that copies, of which only the padding is looked at through the reflection of a patch at the edge."""

    class Mirror(nn.Module):
        def forward(self, x):
            return x.flip(-1)  # the padded columns come first

    image = picture(8, 13)
    mirror = LoadedNetwork(Mirror(), NetworkTraits(1, 8), "mirror", "mirror")
    found = explain(mirror, image, Area(0, 0, 3, 3), 4, 1.2, "cpu")
    seen = np.nonzero(found.attribution.magnitude.any(0))[0]
    assert seen.tolist() == [9, 10, 11]  # columns 15, 14 and 13 of the padded image


def test_gradients_of_the_image_are_those_of_the_original_implementation():
    original, network = pair(2, torch.float64, **TINY)
    x = torch.rand(1, 3, 16, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(1, 3, 32, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for module in (original, network.requires_grad_(False)):
        image = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad((module(image) * weight).sum(), image)[0])
    assert gradients[0].abs().max() > 0.1
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------------------------------------ numbers


def test_detail_is_the_sum_of_the_magnitudes_of_the_gradient():
    ramp = torch.arange(5.0).view(5, 1) * 3 + torch.arange(6.0) * 4  # gradient (3, 4), magnitude 5
    assert float(detail(ramp.expand(1, 2, 5, 6))) == pytest.approx(2 * 4 * 5 * 5, rel=1e-5)
    assert float(detail(torch.full((1, 3, 5, 6), 0.5))) < 0.1


def test_detail_of_a_flat_patch_has_a_gradient():
    patch = torch.full((1, 3, 5, 6), 0.5, requires_grad=True)
    detail(patch).backward()
    assert torch.equal(patch.grad, torch.zeros_like(patch))


def test_diffusion_index_of_known_distributions():
    one, half = np.zeros((2, 10, 10))
    one[3, 4] = -7
    half[:5] = 2
    index = [Attribution(values[None], 0, 1).diffusion_index for values in (np.full((10, 10), 0.3), one, half)]
    assert index == pytest.approx([100, 1, 50])  # of n pixels, a single one has 100 / n
    assert gini(np.array([3.0, 1.0, 2.0])) == pytest.approx(2 / 9)  # mean difference 8 / 9, over twice the mean


def test_receptive_field_of_a_convolution_is_the_magnitude_of_its_kernel():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 2, (3, 5), padding=(1, 2), bias=False)
    field = receptive_field(conv, torch.rand(2, 3, 11, 12), 6, 7)
    kernel = conv.weight.detach().sum(0).abs().sum(0).numpy()
    np.testing.assert_allclose(field[5:8, 5:10], kernel, rtol=1e-5)
    assert np.count_nonzero(field) == 15


def test_receptive_field_is_the_mean_over_images():
    images = torch.rand(2, 3, 11, 12, dtype=torch.float64)
    network = Convolutions().double()
    both = receptive_field(network, images, 6, 7)
    each = [receptive_field(network, image[None], 6, 7) for image in images]
    assert not np.allclose(each[0], each[1])
    np.testing.assert_allclose(both, np.mean(each, 0), rtol=1e-12)


def test_squares_hold_their_share_of_a_map():
    field = np.zeros((9, 9))
    field[4, 4], field[4, 5], field[1, 4] = 60, 31, 9
    assert [square_with(share, field, 4, 4) for share in (0.5, 0.6, 0.9, 0.99)] == [1, 1, 3, 7]


def test_surroundings_have_the_patch_in_their_middle_but_near_the_edges_of_the_image():
    assert Area(40, 30, 8, 8).surroundings(20, 100, 120) == (34, 24, 20, 20)
    assert Area(2, 90, 8, 8).surroundings(20, 100, 120) == (0, 80, 20, 20)
    assert Area(2, 3, 8, 8).surroundings(20, 12, 120) == (0, 0, 20, 12)


# ------------------------------------------------------------------------------------------------------------ command


@pytest.fixture
def image(workplace):
    cv2.imwrite("photo.png", photo(40, 60))
    return workplace / "photo.png"


def test_the_command_writes_numbers_and_a_picture_of_all_networks(image, weights, capsys):
    options = ["--input", "photo.png", "-o", "out", "--context", "16", "--steps", "2", "--device", "cpu"]
    swinir = SwinIR(**SWINIR).eval()
    rescale_(swinir)
    torch.save({"params": swinir.state_dict()}, "SwinIR.pth")
    assert main([str(weights), "SwinIR.pth", "--patch", "30,5,8", *options]) == 0
    content = json.loads((image.parent / "out" / "lam.json").read_text())
    assert content["patch"] == {"x": 30, "y": 5, "width": 8, "height": 8}
    assert content["context"] == {"x": 26, "y": 1, "width": 16, "height": 16}
    assert (content["steps"], content["sigma"]) == (2, 1.2)
    assert [network["name"] for network in content["networks"]] == ["weights", "SwinIR"]
    assert [network["scale"] for network in content["networks"]] == [2, 2]
    for network in content["networks"]:
        assert network["diffusion_index"] == pytest.approx(100 * (1 - network["gini"]))
        assert 0 < network["diffusion_index"] < 100 and network["completeness_error"] >= 0
        squares = network["receptive_field"]["squares"]
        assert 1 <= squares["50%"] <= squares["90%"] <= squares["99%"]
    with Image.open("out/lam.png") as drawn:
        assert drawn.width == 1200 and drawn.height > 600
    out = capsys.readouterr().out
    assert "| weights | " in out and "| SwinIR | " in out


def test_without_a_patch_the_most_detailed_area_is_taken(workplace, weights):
    pixels = np.full((40, 60, 3), 128, np.uint8)
    pixels[12:28:2, 36:52:2] = 255
    cv2.imwrite("photo.png", pixels)
    assert main(["weights.pth", "--input", "photo.png", "-o", ".", "--context", "20", "--steps", "1"]) == 0
    patch = json.loads((workplace / "lam.json").read_text())["patch"]
    assert abs(patch["x"] - 36) <= 1 and abs(patch["y"] - 12) <= 1 and patch["width"] == 16


def test_few_steps_are_warned_of(image, weights, capsys):
    assert main(["weights.pth", "--input", "photo.png", "-o", ".", "--context", "16", "--steps", "1"]) == 0
    content = json.loads((image.parent / "lam.json").read_text())
    assert content["networks"][0]["completeness_error"] > 0.01
    assert "warning: weights: " in capsys.readouterr().err


def test_networks_of_the_same_name_are_told_apart(image, weights):
    (image.parent / "other").mkdir()
    other = weights.rename(image.parent / "other" / "weights.pth")
    torch.save(torch.load(other, weights_only=True), weights)
    sources = ["weights.pth", "other/weights.pth"]
    assert main([*sources, "--input", "photo.png", "-o", ".", "--context", "16", "--steps", "1"]) == 0
    content = json.loads((image.parent / "lam.json").read_text())
    assert [network["name"] for network in content["networks"]] == sources


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patch", "50,30,16"], "--patch 50,30,16 is not within photo.png, which has 60x40 pixels"),
        (["--patch=-1,0,8"], "is not within"),
        (["--patch", "0,0,1"], "2 pixels or more"),
        (["--patch", "0,0,20", "--context", "16"], "--context 16 is smaller than the patch"),
        (["--steps", "0"], "--steps must be above 0"),
        (["--sigma", "0"], "--sigma must be above 0"),
        (["--input", "none.png"], "none.png"),
    ],
)
def test_mistakes_are_told_in_one_line(image, weights, options, message, capsys):
    assert main(["weights.pth", "--input", "photo.png", "-o", "out", *options]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not (image.parent / "out").exists()


def test_a_flat_image_has_nothing_to_attribute():
    loaded = LoadedNetwork(Convolutions(), NetworkTraits(1), "small", "small")
    flat = np.full((16, 16, 3), 0.5, np.float32)
    with pytest.raises(DRCTError, match="small: blurring the image does not change the patch"):
        explain(loaded, flat, Area(4, 4, 8, 8), 2, 1.2, "cpu")


def test_what_is_missing_to_draw_is_told_before_anything_is_computed(image, weights, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["weights.pth", "--input", "photo.png", "-o", "out"]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err
