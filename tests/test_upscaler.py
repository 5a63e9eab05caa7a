"""Weights by name, networks from their files, and images of every kind in memory."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, VARIANTS, pair, photo
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import drct
from drct.archs import progress
from drct.archs.drct_arch import DRCT
from drct.archs.drct_plain_arch import DRCTPlain
from drct.archs.traits import NetworkTraits
from drct.archs.variants import drct_options
from drct.errors import DRCTError
from drct.images.pictures import read_picture
from drct.inference import upscale
from drct.inference.weights import read_network
from drct.runtime.weight_files import DEFAULT_WEIGHTS, PHOTO_WEIGHTS, available, find_weights


def tiny(scale=2, **options):
    return pair(scale, **TINY | options)[1]


# ------------------------------------------------------------------------------------------------ networks from files


@pytest.mark.parametrize(
    "options",
    [
        *({"upscale": scale} for scale in (1, 2, 3, 4, 8)),
        {"resi_connection": "identity", "patch_norm": False, "qkv_bias": False},
        {"ape": True, "mlp_ratio": 2.6, "in_chans": 1},
        {"img_size": 4},  # a single window: no shift
        {"img_size": 32, "upsampler": "", "upscale": 1},
        {"depths": (2, 2, 2), "num_heads": (1, 2, 3), "gc": 6},
    ],
)
def test_a_network_follows_from_its_weights(options):
    network = DRCT(**TINY | options)
    found = DRCT(**drct_options(network.state_dict()))
    assert found.state_dict().keys() == network.state_dict().keys()
    found.load_state_dict(network.state_dict())
    shapes = [{name: value.shape for name, value in n.state_dict().items()} for n in (found, network)]
    assert shapes[0] == shapes[1]
    for name in ("window_size", "shift", "upscale", "input_size"):
        assert getattr(found, name) == getattr(network, name), name
    for ours, theirs in zip(found.layers, network.layers, strict=True):
        assert ours.growth == theirs.growth
        for k in range(1, 6):
            assert getattr(ours, f"swin{k}").attn.num_heads == getattr(theirs, f"swin{k}").attn.num_heads


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_variants_follow_from_their_weights(variant):
    with torch.device("meta"):
        network = DRCT(**VARIANTS[variant])
    parameters = dict(network.named_parameters())
    with torch.device("meta"):
        found = DRCT(**drct_options(parameters))  # without what the original stores besides
    assert {name: p.shape for name, p in found.named_parameters()} == {n: p.shape for n, p in parameters.items()}


def test_every_kind_of_weight_file_is_read(workplace):
    network = tiny()
    weights = network.state_dict()
    torch.save({"params": tiny(gc=4).state_dict(), "params_ema": weights}, "ema.pth")
    torch.save(weights, "bare.pt")
    torch.save({f"module.{name}": value for name, value in weights.items()}, "parallel.pth")
    save_file(dict(network.named_parameters()), "w.safetensors")
    network.save_pretrained("folder")
    x = torch.rand(1, 3, 9, 13)
    expected = upscale(network, x, 4, 2)
    for name in ("ema.pth", "bare.pt", "parallel.pth", "w.safetensors", "folder"):
        found = read_network(name).network
        assert not found.training
        assert torch.equal(upscale(found, x, 4, 2), expected), name


def test_save_pretrained_writes_what_the_hub_expects_and_from_pretrained_reads_it(workplace):
    network = tiny(3, qkv_bias=False)
    network.save_pretrained("saved")
    config = json.loads((workplace / "saved" / "config.json").read_text())
    assert config["upscale"] == 3
    assert config["qkv_bias"] is False
    again = DRCT.from_pretrained("saved")
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_shipped_weights_are_found_by_name_from_anywhere(workplace):
    path = ROOT / "experiments" / "pretrained_models" / "DRCT-XS_SRx4.pth"
    assert "DRCT-XS_SRx4" in available()
    assert find_weights("DRCT-XS_SRx4").resolve() == find_weights("DRCT-XS_SRx4.pth").resolve() == path.resolve()
    (workplace / "experiments" / "pretrained_models").mkdir(parents=True)
    torch.save(tiny().state_dict(), "experiments/pretrained_models/mine.pth")
    assert "mine" in available()
    assert read_network("mine").network.upscale == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"layers.0.residual_group.blocks.0.attn.qkv.weight": 1, "conv_first.weight": 1}, "look like SwinIR"),
        ({"layers.0.residual_group.blocks.0.attn.qkv.weight": 1, "layers.0.overlap_attn.qkv.weight": 1}, "like HAT"),
        ({"body.0.rdb1.conv1.weight": 1, "conv_first.weight": 1}, "look like RRDBNet"),
        ({"encoder.weight": 1}, "names such as encoder.weight"),
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n1234567890", "it is an image"),
        (b"nonsense that is no checkpoint", "not a PyTorch checkpoint"),
        ({"iter": 700, "optimizers": []}, "a training state; its weights are in models/net_g_700.pth"),
    ],
)
def test_a_file_that_holds_no_drct_says_what_it_looks_like(workplace, content, message):
    if isinstance(content, bytes):
        (workplace / "w.pth").write_bytes(content)
    else:
        torch.save({k: torch.zeros(4, 4) if v == 1 else v for k, v in content.items()}, "w.pth")
    with pytest.raises(DRCTError, match="w.pth") as caught:
        drct.load("w.pth")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_drct_with_missing_weights_is_told_from_other_networks(workplace):
    weights = tiny().state_dict()
    del weights["conv_last.weight"], weights["layers.1.swin3.mlp.fc1.bias"]
    torch.save(weights, "w.pth")
    with pytest.raises(DRCTError, match="w.pth"):
        drct.load("w.pth")


@pytest.mark.parametrize("lacks", ["nothing", "a weight", "all"])
def test_a_folder_that_holds_no_whole_drct_is_refused(workplace, lacks):
    network = tiny()
    network.save_pretrained("folder")
    weights = dict(network.named_parameters())
    if lacks == "a weight":
        del weights["conv_last.weight"]
    if lacks == "all":
        (workplace / "folder" / "config.json").write_text("{}")
        weights = {"layers.0.residual_group.blocks.0.attn.qkv.weight": torch.zeros(3)}
    save_file(weights, "folder/model.safetensors")
    if lacks == "nothing":  # what follows from the arguments is no weight
        assert torch.equal(read_network("folder").network.conv_last.weight, network.conv_last.weight)
        return
    with pytest.raises(DRCTError, match=r"model\.safetensors.*(no conv_last\.weight|look like SwinIR)"):
        read_network("folder")


def test_weights_of_odd_shapes_and_paths_that_are_no_models_of_the_hub_are_explained(workplace):
    weights = tiny().state_dict()
    for name, value in (
        ("layers.0.swin1.attn.relative_position_bias_table", torch.zeros(49)),
        ("upsample.0.weight", torch.zeros(3, 0, 3, 3)),
    ):
        torch.save(weights | {name: value}, "w.pth")
        with pytest.raises(DRCTError, match="of shapes that no DRCT has"):
            drct.load("w.pth")
    (workplace / "weights").mkdir()
    for path in ("./DRCT-XS", "../x", "weights/DRCT", "weigths/DRCT.ckpt", "~nobody/x"):
        with pytest.raises(DRCTError, match=f"no weights {path}"):
            drct.load(path)


def test_auto_takes_the_weights_that_suit_the_picture(workplace):
    automatic = drct.load(device="cpu", precision="fp32")
    clean, for_photos = (drct.load(name, "cpu", "fp32") for name in (DEFAULT_WEIGHTS, PHOTO_WEIGHTS))
    image = Image.fromarray(photo(9, 14))
    expected = {"a.png": clean, "fine.jpg": clean, "coarse.jpg": for_photos, "a.webp": for_photos}
    image.save("a.png")
    image.save("fine.jpg", quality=92)
    image.save("coarse.jpg", quality=91)
    image.save("a.webp", quality=90)
    for name, upscaler in expected.items():
        assert np.array_equal(automatic.upscale(name), upscaler.upscale(name)), name
        assert automatic.for_picture(read_picture(name)).name == upscaler.name
    opened = Image.open("coarse.jpg")
    assert np.array_equal(automatic.upscale(opened), for_photos.upscale("coarse.jpg"))
    pixels = np.asarray(opened)  # which do not tell that they were compressed
    assert np.array_equal(automatic.upscale(pixels), clean.upscale(pixels))
    assert not np.array_equal(clean.upscale(pixels), for_photos.upscale(pixels))


def test_names_that_do_not_exist_are_explained(workplace):
    with pytest.raises(DRCTError, match="did you mean 'DRCT-XS_SRx4'"):
        drct.load("DRCT-XS_SRx")
    with pytest.raises(DRCTError, match="device nowhere"):
        drct.load(device="nowhere")
    with pytest.raises(DRCTError, match="precision must be"):
        drct.load(precision="fp64")
    for tile in (0, (256,), (1, 2, 3), 1.5, True, "small"):
        with pytest.raises(DRCTError, match="tile must be"):
            drct.load(tile=tile)
    (workplace / "empty").mkdir()
    with pytest.raises(DRCTError, match=r"empty is no folder of weights: .*config\.json"):
        drct.load("empty")


# ------------------------------------------------------------------------------------------------------------- images


@pytest.fixture(scope="module")
def upscaler():
    return drct.Upscaler(tiny(), device="cpu", precision="fp32")


def reference(upscaler, rgb, gray=False):
    """By the plain functions: (H, W, 3) in [0, 1] -> (2H, 2W, 3) or (2H, 2W, 1), clamped."""
    x = torch.from_numpy(np.ascontiguousarray(rgb, np.float32)).permute(2, 0, 1)[None]
    result = upscale(upscaler.network, x, 4, 2)[0].permute(1, 2, 0)
    return (result.mean(2, keepdim=True) if gray else result).clamp(0, 1).numpy()


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.float64, 1)])
@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
def test_arrays_keep_their_kind(upscaler, dtype, largest, channels):
    rng = np.random.default_rng(channels)
    values = rng.random((11, 7, channels or 1))
    image = (values * largest).round().astype(dtype) if largest > 1 else values.astype(dtype)
    result = upscaler.upscale(image if channels else image[..., 0])
    assert result.dtype == dtype
    assert result.shape == ((22, 14, channels) if channels else (22, 14))
    result = result.reshape(22, 14, -1) / largest
    given = image / largest
    colour = given[..., :3] if channels > 2 else given[..., :1].repeat(3, 2)
    expected = reference(upscaler, colour, gray=channels < 3)
    assert np.abs(result[..., : expected.shape[2]] - expected).max() <= 1e-6 + 0.5 / (largest if largest > 1 else 1e9)
    if channels in (2, 4):
        alpha = reference(upscaler, given[..., -1:].repeat(3, 2), gray=True)[..., 0]
        assert np.abs(result[..., -1] - alpha).max() <= 1e-6 + 0.5 / (largest if largest > 1 else 1e9)


def test_an_opaque_picture_stays_opaque(upscaler):
    image = np.dstack([photo(12, 9), np.full((12, 9), 255, np.uint8)])
    assert (upscaler.upscale(image)[..., 3] == 255).all()


def test_tensors_keep_their_kind(upscaler):
    x = torch.rand(2, 3, 9, 6, dtype=torch.float64)
    result = upscaler.upscale(x)
    assert result.dtype == torch.float64
    assert (result[1] - upscaler.upscale(x[1])).abs().max() <= 1e-5
    expected = upscale(upscaler.network, x.float(), 4, 2).clamp(0, 1)
    assert (result.float() - expected).abs().max() <= 1e-6


def test_pictures_and_paths_give_pictures(upscaler, workplace):
    array = photo(12, 9)
    image = Image.fromarray(array)
    image.save("photo.png")
    for given in (image, "photo.png", workplace / "photo.png"):
        result = upscaler.upscale(given)
        assert isinstance(result, Image.Image)
        assert result.mode == "RGB"
        assert np.array_equal(np.asarray(result), upscaler.upscale(array))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 3), "tensors are"),
        (torch.rand(1, 4, 4), "tensors are"),
        (torch.rand(0, 3, 4, 4), "tensors are"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "tensors are"),
        (np.zeros((2, 2, 5)), "1 to 4 channels"),
        (np.zeros((0, 2, 3)), "1 to 4 channels"),
        (np.zeros((2, 2, 3), np.int32), "pixels are uint8"),
        (np.full((2, 2, 3), 255.0), "from 255 to 255: divide them"),
        (np.full((2, 2, 3), np.nan), "divide them"),
        (7, "an image is a path"),
    ],
)
def test_what_is_no_image_is_explained(upscaler, image, message):
    with pytest.raises(DRCTError, match=message):
        upscaler.upscale(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsampler": ""}, "without a reconstruction head"),
        ({"in_chans": 4}, "4 channels"),
    ],
)
def test_networks_that_upscale_no_pictures_are_refused(options, message):
    upscaler = drct.Upscaler(DRCT(**TINY | options), "cpu", "fp32")
    with pytest.raises(DRCTError, match=message):
        upscaler.upscale(photo(4, 4))


def test_outscale_resizes_the_result(upscaler):
    image = photo(12, 9)
    assert upscaler.upscale(image, outscale=3).shape == (36, 27, 3)
    assert upscaler.upscale(image, outscale=1.5).shape == (18, 14, 3)
    whole, half = upscaler.upscale(image / 255), upscaler.upscale(image / 255, outscale=1)
    assert abs(whole.mean() - half.mean()) < 0.01
    assert np.array_equal(upscaler.upscale(image, outscale=2), upscaler.upscale(image))
    for wrong in (0, "2"):
        with pytest.raises(DRCTError, match="outscale"):
            upscaler.upscale(image, outscale=wrong)


def test_self_ensemble_is_the_mean_over_rotations_and_reflections():
    network = tiny()
    plain, ensemble = (drct.Upscaler(network, "cpu", "fp32", self_ensemble=on) for on in (False, True))
    image = np.random.default_rng(0).random((9, 14, 3))
    expected = np.zeros((18, 28, 3))
    for turns in range(4):
        for axis in (None, 0):
            turned = np.rot90(image if axis is None else np.flip(image, axis), turns)
            result = np.rot90(reference_unclamped(plain, turned), -turns)
            expected += (result if axis is None else np.flip(result, axis)) / 8
    assert np.abs(ensemble.upscale(image) - expected.clip(0, 1)).max() <= 1e-5


def reference_unclamped(upscaler, rgb):
    x = torch.from_numpy(np.ascontiguousarray(rgb, np.float32)).permute(2, 0, 1)[None]
    return upscaler.run(x)[0].permute(1, 2, 0).numpy()


def test_tiles_are_whole_windows_and_a_large_one_changes_nothing():
    network = tiny()
    tiled = drct.Upscaler(network, "cpu", "fp32", tile=30)
    assert tiled.tile == (32, 32)
    assert drct.Upscaler(network, "cpu", "fp32", tile=(10, 3)).tile == (12, 4)
    image = np.random.default_rng(0).random((17, 23, 3))
    whole = drct.Upscaler(network, "cpu", "fp32", tile=None).upscale(image)
    assert np.array_equal(tiled.upscale(image), whole)
    small = drct.Upscaler(network, "cpu", "fp32", tile=(8, 4)).upscale(image)
    assert 0 < np.abs(small - whole).max() < 0.5


def test_a_network_of_another_kind_is_run_too():
    """BasicSR has many, which know nothing of windows or of their scale."""

    class Nearest(nn.Module):
        def forward(self, x):
            return F.interpolate(x, scale_factor=3)

    upscaler = drct.Upscaler(Nearest(), "cpu", "fp32", tile=None, self_ensemble=True, traits=NetworkTraits(scale=3))
    image = photo(5, 7)
    assert np.array_equal(upscaler.upscale(image), image.repeat(3, 0).repeat(3, 1))
    automatic = drct.Upscaler(Nearest(), "cpu", "fp32", traits=NetworkTraits(scale=3))
    assert np.array_equal(automatic.upscale(image), upscaler.upscale(image))
    with pytest.raises(ValueError, match="Nearest declares no traits"):
        drct.Upscaler(Nearest(), "cpu", "fp32")


def test_adapted_and_plain_networks_are_run_too():
    image = photo(20, 30)
    network = tiny()
    expected = drct.Upscaler(network, "cpu", "fp32").upscale(image)
    network.conv_first = nn.Sequential(network.conv_first)
    network.conv_last = nn.Sequential(network.conv_last)
    assert np.abs(drct.Upscaler(network, "cpu", "fp32").upscale(image).astype(int) - expected).max() <= 1
    assert drct.Upscaler(DRCTPlain(**TINY, upscale=2), "cpu", "fp32").upscale(image).shape == (40, 60, 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_progress_rises_once_from_nothing_to_all(channels):
    upscaler = drct.Upscaler(tiny(), "cpu", "fp32", tile=(8, 4), self_ensemble=True)
    image = np.random.default_rng(0).integers(0, 256, (12, 20, channels), np.uint8)
    shares: list[float] = []
    with progress.watched(shares.append):
        upscaler.upscale(image)
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] == pytest.approx(1)


def test_hooks_on_the_network_fire():
    network, seen = tiny(), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    drct.Upscaler(network, "cpu", "fp32", tile=None).upscale(photo(8, 12))
    assert seen == [(1, 3, 16, 24)]


def test_an_upscaler_can_be_pickled_and_copied():
    upscaler = drct.Upscaler(tiny(), "cpu", "fp32")
    image = photo(8, 12)
    for other in (pickle.loads(pickle.dumps(upscaler)), copy.deepcopy(upscaler)):
        assert np.array_equal(other.upscale(image), upscaler.upscale(image))


def test_the_representation_tells_how_an_upscaler_runs():
    upscaler = drct.Upscaler(tiny(), "cpu", "fp32", tile=(10, 3), self_ensemble=True)
    assert repr(upscaler) == "Upscaler(DRCT x2 on cpu, fp32, tile (12, 4), self-ensemble)"


def test_low_precision_and_the_mode_of_the_network():
    network = tiny().train()
    image = np.random.default_rng(0).random((9, 14, 3))
    exact = drct.Upscaler(network, "cpu", "fp32").upscale(image)
    low = drct.Upscaler(network, "cpu", "bf16").upscale(image)
    assert network.training
    assert 0 < np.abs(exact - low).max() < 0.1
