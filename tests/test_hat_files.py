"""HAT: its weight files, named networks and option files."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import HAT_TINY as TINY
from conftest import TINY as DRCT_TINY
from conftest import hat_pair as pair
from conftest import network_options, photo, test_options, train_options, write_options

import drct
from drct.analysis.feature_maps import measure
from drct.archs import execution, families, hat_variants
from drct.archs.drct_arch import DRCT
from drct.archs.hat_arch import HAT
from drct.commands import test as test_run
from drct.commands import train as train_run
from drct.errors import DRCTError
from drct.inference import export
from drct.inference.description import as_text, describe
from drct.inference.weights import LoadedNetwork, read_network
from drct.runs.checks import check_options
from drct.runtime import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compress_ratio": 5, "squeeze_factor": 2.5},
        {"depths": (1, 3, 2), "num_heads": (2, 4, 3), "mlp_ratio": 3.5, "upscale": 3},
        {"window_size": 7, "overlap_ratio": 0.3, "img_size": 21, "qkv_bias": False, "in_chans": 1},
        {"ape": True, "patch_norm": False, "resi_connection": "identity", "upscale": 8},
        {"overlap_ratio": 0.0, "upsampler": "", "upscale": 1},
    ],
    ids=str,
)
def test_a_network_is_made_again_from_its_weights_alone(options):
    network = HAT(**TINY | options)
    again = HAT(**hat_variants.hat_options(dict(network.named_parameters())))
    again.load_state_dict(network.state_dict())
    for kind in ("overlap", "window_size", "upscale", "in_chans", "upsampler"):
        assert getattr(again, kind) == getattr(network, kind)


@pytest.mark.parametrize("name", hat_variants.VARIANTS)
def test_variants_are_known_by_name(name):
    with torch.device("meta"):
        weights = HAT(**hat_variants.VARIANTS[name], upscale=2).state_dict()
    family = families.family_of_weights(weights)
    assert family.network is HAT
    assert family.variant(family.options(weights)) == name
    assert families.name_of({"type": "HAT", **hat_variants.VARIANTS[name]}) == name


def test_a_hat_without_a_name_is_described():
    options = hat_variants.hat_options(HAT(**TINY).state_dict())
    assert hat_variants.hat_variant(options) == "a HAT of 2 groups, 12 channels, compression by 3, windows of 4x4"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layers.0.residual_group.blocks.0.mlp.fc1.weight"), "incomplete: there is no .*fc1"),
        (lambda w: w.update({"layers.0.residual_group.blocks.0.attn.relative_position_bias_table": torch.zeros(0, 2)}),
         "of shapes that no HAT has"),
        (lambda w: w.pop(hat_variants.MARK), "look like"),
    ],
)  # fmt: skip
def test_weights_that_are_not_quite_those_of_a_hat_say_why(change, message):
    weights = HAT(**TINY).state_dict()
    change(weights)
    with pytest.raises(ValueError, match=message):
        hat_variants.hat_options(weights)


def test_a_file_of_the_original_upscales_as_the_original_does(tmp_path):
    original, _ = pair(2, **TINY | {"conv_scale": 0.01, "img_size": 64})
    torch.save({"params_ema": original.state_dict()}, tmp_path / "hat.pth")
    upscaler = drct.load(tmp_path / "hat.pth", device="cpu", precision="fp32")
    assert repr(upscaler).startswith("Upscaler(HAT x2")
    x = torch.rand(1, 3, 12, 20)
    with torch.no_grad():
        assert (upscaler.upscale(x) - original(x).clamp(0, 1)).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["original", "safetensors", "compact"])
def test_exported_weights_and_their_description(tmp_path, kind):
    original, network = pair(2, **TINY)
    loaded = LoadedNetwork(network, network.traits, "hat", tmp_path / "hat.pth", "params")
    content, _ = export.weight_file(loaded, kind, fp16=False)
    path = tmp_path / f"exported{'.safetensors' if kind == 'safetensors' else '.pth'}"
    path.write_bytes(content)
    again = read_network(path).network
    assert again.layers[0].residual_group.blocks[0].conv_scale == 0.5  # from the metadata: weights do not tell it
    x = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        assert torch.equal(again(x), network(x))
    if kind == "original":
        original.load_state_dict(torch.load(path, weights_only=True)["params"])
    found = describe(str(path), 30, 20)
    assert found["variant"] == "a HAT of 2 groups, 12 channels, compression by 3, windows of 4x4"
    assert found["operations"] == execution.operations(network, 20, 30)
    assert "a HAT of 2 groups" in as_text(found)
    assert found["layout"] == ("original" if kind == "original" else "compact")


def test_weights_of_another_hat_name_the_options_that_differ(tmp_path):
    network = HAT(**TINY)
    with pytest.raises(DRCTError, match=r"compress_ratio is 4 in the file, 3 in network_g"):
        checkpoint.load_weights(network, HAT(**TINY | {"compress_ratio": 4}).state_dict(), True, "hat.pth")
    with pytest.raises(DRCTError, match="they look like DRCT"):
        checkpoint.load_weights(network, DRCT(**DRCT_TINY).state_dict(), True, "drct.pth")


def test_hub_folders(tmp_path):
    network = HAT(**TINY).eval()
    network.save_pretrained(tmp_path / "hat")
    again = HAT.from_pretrained(tmp_path / "hat")
    x = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        assert torch.equal(again(x), network(x))


# -------------------------------------------------------------------------------------------------------- option files


NETWORK_G = network_options(TINY, 2, "HAT")


def run_train(options, *arguments):
    return train_run.main(["-opt", write_options(Path("train.yml"), options), *arguments])


def test_an_option_file_of_the_hat_project_trains_and_resumes_exactly(pairs):
    """With its model, its list of files that is not here, and a stop in the middle."""
    options = train_options(total_iter=4) | {"model_type": "HATModel", "network_g": NETWORK_G}
    options["datasets"]["train"]["meta_info_file"] = "hat/data/meta_info/meta_info_DF2Ksub_GT.txt"
    options["val"] = None
    assert run_train(options | {"name": "whole"}) == 0
    options["train"]["total_iter"] = 2
    assert run_train(options) == 0
    options["train"]["total_iter"] = 4
    assert run_train(options, "--auto_resume") == 0
    whole, resumed = (
        torch.load(f"experiments/{name}/models/net_g_4.pth", weights_only=True) for name in ("whole", "run")
    )
    for entry in ("params", "params_ema"):
        for name, value in whole[entry].items():
            assert torch.equal(value, resumed[entry][name]), name


def test_a_test_file_of_the_hat_project_saves_the_images_of_the_original(workplace):
    original, _ = pair(2, **TINY)
    torch.save({"params_ema": original.state_dict()}, "hat.pth")
    for folder, side in (("gt", 32), ("lr", 16)):
        Path(folder).mkdir()
        cv2.imwrite(f"{folder}/a.png", photo(side, side))
    options = test_options("hat.pth") | {"model_type": "HATModel", "network_g": NETWORK_G}
    assert test_run.main(["-opt", write_options(Path("test.yml"), options)]) == 0
    x = torch.from_numpy(cv2.imread("lr/a.png")[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = (original(x).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255).round()
    found = cv2.imread("results/run/visualization/set/a_run.png")[..., ::-1]
    assert np.abs(found - expected).max() <= 1


def test_misspelt_options_of_hat_are_named(pairs):
    options = test_options("hat.pth") | {"network_g": NETWORK_G | {"overlap_ratio": "half"}}
    with pytest.raises(DRCTError, match="network_g.overlap_ratio must be 0 or a number above, not 'half'"):
        check_options(options, False, "hat.yml", logging.getLogger())


def test_features_are_measured_where_the_original_has_them():
    original, network = pair(2, **TINY)
    image = torch.rand(3, 14, 11)
    for one, other in zip(measure(network, image, 4), measure(original, image, 4), strict=True):
        assert one.stage == other.stage
        for quantity, size in one.sizes.items():
            assert size == pytest.approx(other.sizes[quantity], rel=1e-4), (one.stage, quantity)


@pytest.mark.parametrize("fp16", [False, True])
def test_onnx_graphs_take_any_size_and_are_described(tmp_path, fp16):
    pytest.importorskip("onnxruntime")
    _, network = pair(2, **TINY)
    loaded = LoadedNetwork(network, network.traits, "hat", tmp_path / "hat.pth", "params")
    content, remark = export.onnx_graph(loaded, fp16=fp16, opset=17, check=True)
    assert "any height and width" in remark and "ONNX Runtime" in remark  # which compares results
    (tmp_path / "hat.onnx").write_bytes(content)
    assert describe(str(tmp_path / "hat.onnx"), 20, 12)["variant"].startswith("a HAT of 2 groups")
