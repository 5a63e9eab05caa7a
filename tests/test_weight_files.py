"""Weights and results that are not finite, and weight files of any content."""

import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY, pair, photo, test_options, train_options, write_options
from PIL import Image
from torch import nn
from torch.nn import functional as F
from weight_mutants import BASE, HAT_BASE, write_mutant

import drct
from drct.archs.drct_arch import DRCT
from drct.archs.hat_arch import HAT
from drct.archs.soundness import is_sound, unsound
from drct.archs.traits import NetworkTraits
from drct.cli import main
from drct.errors import DRCTError
from drct.inference import notes
from drct.inference.weights import read_network
from drct.models.drct_model import DRCTModel
from drct.web.service import Service


def weights_of(scale=2, **options):
    return pair(scale, **TINY | options)[1].state_dict()


def too_large():
    """Weights that are sound by themselves, but whose products are not."""
    weights = weights_of()
    for name in ("conv_before_upsample.0.weight", "upsample.0.weight", "conv_last.weight"):
        weights[name] *= 1e8
    return weights


@pytest.mark.parametrize(("value", "sound"), [(0, True), (-9e9, True), (2e10, False), (-1e38, False)])
def test_numbers_that_no_network_has_are_found(value, sound):
    x = torch.zeros(5, 7)
    x[3, 2] = value
    assert is_sound(x) is sound
    for bad, word in (
        (math.nan, "NaN"),
        (math.inf, "infinity"),
        (-math.inf, "infinity"),
        (2e38, "values up to 2.0e+38"),
    ):
        x[1, 1] = bad
        assert not is_sound(x)
        assert unsound([("a", torch.ones(2)), ("index", torch.arange(3)), ("b", x)]) == f"b holds {word}"
    assert is_sound(torch.zeros(0, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("name", ["conv_last.bias", "layers.1.swin3.attn.relative_position_bias_table"])
def test_weights_that_are_not_finite_are_refused_everywhere(workplace, capsys, name, value):
    weights = weights_of()
    weights[name].flatten()[1] = value
    torch.save({"params_ema": weights}, "w.pth")
    cv2.imwrite("a.png", photo(8, 8))
    for command in (["info", "w.pth"], ["upscale", "a.png", "--weights", "w.pth"], ["export", "w.pth", "-o", "x.pth"]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: w.pth: {name} holds")
        assert error.count("\n") == 1
    with pytest.raises(DRCTError, match=rf"w\.pth: {name}"):
        Service(workplace, 1, "cpu").upscale(Path("a.png"), "w.pth")
    assert main(["test", "-opt", write_options(Path("t.yml"), only_lr(test_options("w.pth")))]) == 2
    assert f"w.pth: {name} holds" in capsys.readouterr().err
    assert {path.name for path in workplace.iterdir()} <= {"w.pth", "a.png", "t.yml", "lr", "upscaled"}
    assert not list(workplace.glob("upscaled/*"))


def only_lr(options):
    Path("lr").mkdir(exist_ok=True)
    cv2.imwrite("lr/a.png", photo(8, 8))
    options["datasets"]["test_1"] = {
        "name": "set", "type": "SingleImageDataset", "dataroot_lq": "lr", "io_backend": {"type": "disk"},
    }  # fmt: skip
    del options["val"]["metrics"]
    return options


def test_values_that_do_not_matter_may_be_anything(workplace):
    weights = weights_of()
    weights["layers.0.swin2.attn_mask"][0, 0, 0] = math.nan  # is computed
    weights["layers.0.swin1.attn.relative_position_index"][0, 0] = -1
    torch.save({"params": {"a": torch.tensor(math.nan)}, "params_ema": weights}, "w.pth")
    assert read_network("w.pth").entry == "params_ema"


def test_a_result_that_is_not_finite_fails_the_image(workplace, capsys):
    torch.save({"params_ema": too_large()}, "w.pth")
    cv2.imwrite("a.png", photo(8, 8))
    assert main(["upscale", "a.png", "--weights", "w.pth", "-o", "out"]) == 1
    assert "a.png: the network's result is not finite" in capsys.readouterr().err
    assert not list(Path("out").glob("*"))
    for name in ("x.pth", "x.safetensors", "x.pt2", "x.onnx"):
        assert main(["export", "w.pth", "-o", name]) == 2
        assert "not finite; not written" in capsys.readouterr().err
    assert not list(workplace.glob("x.*"))
    assert main(["test", "-opt", write_options(Path("t.yml"), only_lr(test_options("w.pth")))]) == 1
    assert "not finite" in capsys.readouterr().err
    assert not list(Path("results").rglob("*.png"))


class Overflowing(nn.Module):
    """Upscales twice, but not in low precision."""

    def forward(self, x):
        factor = math.inf if torch.is_autocast_enabled(x.device.type) else 1
        return F.interpolate(x, scale_factor=2) * factor


def test_what_overflows_in_low_precision_is_computed_again_with_a_note(caplog):
    image = photo(6, 5)
    traits = NetworkTraits(scale=2)
    for ensemble, tile in ((False, None), (True, (4, 0))):
        upscaler = drct.Upscaler(Overflowing(), "cpu", "bf16", tile, ensemble, traits)
        with notes.collected() as found:
            alpha = image[..., 0].clip(1)  # else the colours of invisible pixels would change
            result = upscaler.upscale(np.dstack([image, alpha]))
        assert np.array_equal(result[..., :3], image.repeat(2, 0).repeat(2, 1))
        assert found == ["the network overflows in bf16 on this image: computed again in fp32"]
    assert not caplog.text
    upscaler.upscale(image)
    assert "the network overflows in bf16" in caplog.text
    with pytest.raises(DRCTError, match="the image holds values that are not finite"):
        upscaler.upscale(torch.full((3, 4, 4), math.nan))


def test_a_network_that_overflows_in_half_precision_is_not_written_so(workplace, capsys):
    weights = weights_of()
    weights["conv_last.weight"] *= 1e6
    torch.save({"params": weights}, "w.pth")
    for name in ("x.safetensors", "x.pt2", "x.onnx"):
        assert main(["export", "w.pth", "-o", name, "--fp16", "--no-check"]) == 2
        assert "in half precision, conv_last.weight holds infinity: leave out --fp16" in capsys.readouterr().err
    assert not list(workplace.glob("x.*"))


# ----------------------------------------------------------------------------------------------------------- training


def run_training(capfd, **train):
    status = main(["train", "-opt", write_options(Path("train.yml"), train_options(**train))])
    return status, capfd.readouterr().err


def test_training_does_not_begin_with_weights_that_are_not_finite(pairs, capfd):
    weights = weights_of()
    weights["conv_first.weight"][0] = math.nan
    torch.save({"params": weights}, "w.pth")
    options = train_options()
    options["path"]["pretrain_network_g"] = "w.pth"
    assert main(["train", "-opt", write_options(Path("train.yml"), options)]) == 2
    assert "w.pth: conv_first.weight holds NaN" in capfd.readouterr().err
    assert not Path("experiments").exists()


def test_training_that_ruins_the_weights_fails_and_saves_none(pairs, capfd):
    status, error = run_training(capfd, total_iter=1, optim_g={"type": "Adam", "lr": 1e30})
    assert status == 2
    assert "error: training has ruined the weights, which are not saved" in error
    assert not list(Path("experiments").rglob("*.pth"))


def test_training_without_a_single_finite_step_fails(pairs, capfd, monkeypatch):
    feed = DRCTModel.feed_data

    def poisoned(model, data):
        feed(model, data | {"lq": data["lq"] * math.nan} if model.net_g.training else data)

    monkeypatch.setattr(DRCTModel, "feed_data", poisoned)
    status, error = run_training(capfd, total_iter=2)
    assert status == 2
    assert "nothing was trained: loss or gradient was not finite in any of 2 steps" in error
    assert not list(Path("experiments").rglob("net_g_latest.pth"))


# -------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("entry", ["state_dict", "model", "generator", "net_g", "ema", "mine"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "generator."])
def test_weights_are_read_from_where_other_programs_keep_them(workplace, entry, prefix):
    network = DRCT(**BASE)
    content = {entry: {prefix + name: value for name, value in network.state_dict().items()}, "epoch": 3}
    if entry == "generator":
        content["discriminator"] = {"conv0.weight": torch.zeros(3)}
    torch.save(content, "w.pth")
    loaded = read_network("w.pth")
    assert loaded.entry == entry
    assert torch.equal(loaded.network.conv_last.weight, network.conv_last.weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_floating_type_are_read(workplace, dtype):
    weights = {name: value.to(dtype) for name, value in DRCT(**BASE).named_parameters()}
    torch.save(weights, "w.pth")
    assert torch.equal(read_network("w.pth").network.norm.weight, weights["norm.weight"].float())
    torch.save(weights | {"norm.weight": weights["norm.weight"].to(torch.int8)}, "w.pth")
    with pytest.raises(DRCTError, match=r"w\.pth: norm\.weight holds int8"):
        read_network("w.pth")


CONFLICTS = {
    "embed_dim": [-4, 0, 16, 10**8, 12.5, True, "12", None],
    "depths": [[6] * 3000, [], 6, [0]],
    "num_heads": [[6] * 3000, [3], [0], [1e9]],
    "window_size": [2, 0, -1, 10**6],
    "img_size": [10**7, 0, [16, 16, 16], -16],
    "gc": [0, 8, 10**8],
    "mlp_ratio": [3.0, 0.0, -1.0, math.inf, math.nan],
    "upscale": [3, 0, 2**40],
    "img_range": [math.inf, 0.0, 1e300],
    "ape": [True],
    "qkv_bias": [False],
    "upsampler": ["", "nearest"],
}


OF_HAT = {key: values for key, values in CONFLICTS.items() if key not in ("gc", "img_size")} | {
    "depths": [[6] * 3000, [], 6, [0], [3], [2, 2]],
    "compress_ratio": [4, 0, -1, 1e-300, 13, math.nan, "3"],
    "squeeze_factor": [3, 0.0, 1e5],
    "overlap_ratio": [0, 0.25, -0.5, 1e9, math.inf],
    "conv_scale": [math.nan, "x"],
    "img_size": [0, [16, 16, 16], -16],
}


@pytest.mark.parametrize(("kind", "key"), [*(("DRCT", key) for key in CONFLICTS), *(("HAT", key) for key in OF_HAT)])
def test_metadata_that_contradicts_the_weights_names_the_key(workplace, kind, key):
    network, conflicts = (DRCT(**BASE), CONFLICTS) if kind == "DRCT" else (HAT(**HAT_BASE), OF_HAT)
    for wrong in conflicts[key]:
        config = json.dumps(network._hub_mixin_config | {key: wrong})
        torch.save({"params": dict(network.named_parameters()), "metadata": {"drct_config": config}}, "w.pth")
        with pytest.raises(DRCTError, match=rf"w\.pth.*{key}") as caught:
            read_network("w.pth")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("conv_first.weight", (0, 3, 3, 3)),
        ("layers.0.residual_group.blocks.0.attn.relative_position_bias_table", (1999**2, 2)),
        ("layers.0.residual_group.blocks.0.conv_block.cab.0.weight", (0, 12, 3, 3)),
        ("layers.0.residual_group.blocks.1.conv_block.cab.0.weight", (3000, 12, 3, 3)),
        ("layers.0.residual_group.blocks.0.mlp.fc1.weight", (0, 12)),
        ("layers.0.residual_group.overlap_attn.relative_position_bias_table", (1999**2, 2)),
        ("layers.0.residual_group.overlap_attn.relative_position_bias_table", (1, 2)),
        ("layers.0.residual_group.overlap_attn.relative_position_bias_table", (81, 0)),
        ("layers.0.residual_group.overlap_attn.qkv.weight", (12, 12)),
        ("layers.0.conv.weight", (12, 12, 1, 1)),
        ("upsample.0.weight", (64 * 65**2, 64, 1, 1)),
    ],
)
def test_shapes_that_no_hat_has_are_refused_before_memory_is_taken(workplace, name, shape):
    weights = {key: value.detach() for key, value in HAT(**HAT_BASE).named_parameters()}
    torch.save({"params": weights | {name: torch.zeros(shape, dtype=torch.float16)}}, "w.pth")
    del weights
    read_network()
    memory = peak_memory()
    with pytest.raises(DRCTError, match=r"w\.pth: (?!.*Copy it again)") as caught:  # which is found later
        read_network("w.pth")
    assert "\n" not in str(caught.value)
    assert peak_memory() - memory < 100e6


@pytest.mark.parametrize("change", [{"conv_scale": 0.5}, {"img_range": 2.0, "depths": (1,)}])
def test_a_folder_of_a_hat_is_read_with_its_arguments(workplace, change):
    network = HAT(**HAT_BASE | change).eval()
    network.save_pretrained("folder")
    again = read_network("folder").network
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(again(x), network(x))


@pytest.mark.parametrize("kind", ["DRCT", "HAT"])
def test_files_that_were_tampered_with_are_read_or_refused_at_once(workplace, kind):
    """Seeded changes of a weight file end in a sound network or in one line, in little time and memory."""
    read_network()
    refused = 0
    for seed in range(60):
        path, changes = write_mutant(seed, workplace, kind)
        memory, start = peak_memory(), time.process_time()
        try:
            assert not unsound(read_network(path).network.named_parameters()), changes
        except DRCTError as error:
            refused += 1
            assert "\n" not in str(error), changes
            assert len(str(error)) < 500 + len(str(path)), changes
        assert time.process_time() - start < 2, changes
        assert peak_memory() - memory < 100e6, changes
        path.unlink()
    assert 30 <= refused < 60


def peak_memory():
    resource = pytest.importorskip("resource")  # not on Windows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ---------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("name", [None, "", 5, b"abc", "x" * 300, "x\0y", "~nobody" * 50])
def test_what_names_no_weights_is_explained(workplace, name):
    with pytest.raises(DRCTError, match=r"no weights|weights are the path") as caught:
        drct.load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["meta", torch.device("meta"), "nowhere", "cuda:99", 1.5])
def test_a_device_that_computes_nothing_is_refused(device):
    with pytest.raises(DRCTError, match="is not there"):
        drct.Upscaler(Overflowing(), device, "fp32", traits=NetworkTraits(2))


def test_images_without_pixels_or_values_are_refused():
    upscaler = drct.Upscaler(DRCT(**BASE), "cpu", "fp32")
    images = [Image.new("RGB", (0, 0)), Image.new("L", (0, 4)), np.zeros(()), np.zeros((0, 0)), torch.tensor(1.0)]
    images += [torch.zeros(3, 0, 0), torch.zeros(3, 4, 4, device="meta"), torch.zeros(3, 4, 4).to_sparse()]
    for image in images:
        with pytest.raises(DRCTError, match=r"no pixels|an image is an array|tensors are"):
            upscaler.upscale(image)


def test_outscale_is_any_real_number():
    upscaler = drct.Upscaler(DRCT(**BASE), "cpu", "fp32")
    image = photo(6, 4)
    for factor in (np.float32(1.5), np.float64(1.5)):
        assert np.array_equal(upscaler.upscale(image, factor), upscaler.upscale(image, 1.5))
    assert np.array_equal(upscaler.upscale(image, np.int64(2)), upscaler.upscale(image))
    for wrong in (math.inf, math.nan, np.float32("inf"), -1, True, 10**400, 1e9, [2], torch.tensor(2.0)):
        for picture in (image, torch.zeros(3, 4, 4)):
            with pytest.raises(DRCTError, match="outscale must be a number above 0"):
                upscaler.upscale(picture, wrong)


def test_the_cost_of_a_large_image_is_told_legibly(workplace, capsys):
    torch.save(DRCT(**BASE).state_dict(), "w.pth")
    assert main(["info", "w.pth", "--size", "4032x3024"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  for 4032x3024  " in lines[-1]
    assert len({len(line) - len(line[2:].split("  ", 1)[1].lstrip()) for line in lines[1:]}) == 1  # one column
