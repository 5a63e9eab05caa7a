"""Networks in the formats of other programs, against the original implementation, and what `drct info` says of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import spandrel
import torch
from conftest import ROOT, TINY, VARIANTS, pair, rescale_
from spandrel.architectures.DRCT import DRCT as OriginalDRCT  # noqa: N811
from torch.utils.flop_counter import FlopCounterMode

import drct
from drct.archs import variants, windows
from drct.archs.drct_arch import DRCT
from drct.archs.execution import memory_needed, operations
from drct.cli import main as drct_main
from drct.commands.export import main as export
from drct.commands.info import main as info
from drct.inference import export as formats
from drct.inference import pad_to_multiple, upscale
from drct.inference.weights import read_network

SMALL = TINY | {"depths": (6,), "num_heads": (2,)}
WEIGHTS = ROOT / "experiments/pretrained_models/DRCT-XS_SRx4.pth"


@pytest.fixture
def small(workplace):
    """A small network with rescaled weights, and `small.pth`, a checkpoint of it."""
    _, network = pair(2, **SMALL)
    other = DRCT(upscale=2, **SMALL)
    torch.save({"params": other.state_dict(), "params_ema": network.state_dict()}, "small.pth")
    return network


def session_of(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"image": x.numpy()})[0])


# -------------------------------------------------------------------------------------------------------------- ONNX


@pytest.mark.parametrize("scale", [2, 3])
def test_an_onnx_model_takes_any_size_and_computes_what_the_original_does(workplace, scale, capsys):
    original, network = pair(scale, **SMALL)
    torch.save({"params_ema": original.state_dict()}, "tiny.pth")
    assert export(["tiny.pth", "-o", "tiny.onnx"]) == 0
    assert "opset 17, any height and width" in capsys.readouterr().out
    run = session_of("tiny.onnx")
    for batch, height, width in [(1, 1, 1), (2, 3, 2), (1, 4, 4), (1, 1, 9), (2, 13, 22), (1, 21, 5), (1, 16, 20)]:
        x = torch.rand(batch, 3, height, width)
        with torch.no_grad():
            expected = original(pad_to_multiple(x, 4))[..., : height * scale, : width * scale]
        result = run(x)
        assert result.shape == expected.shape
        assert result.dtype == torch.float32
        assert (result - expected).abs().max() <= 1e-4, (batch, height, width)
        assert (result - upscale(network, x, 4, scale)).abs().max() <= 1e-4
    assert expected.std() > 0.3, "the weights are too small for errors to show"


def test_an_onnx_model_says_what_it_is_and_is_little_larger_than_its_weights(small, capsys):
    assert export(["small.pth", "-o", "small.onnx", "--opset", "18", "--no-check"]) == 0
    model = onnx.load("small.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert [side.dim_param or side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", 3, "height", "width",
    ]  # fmt: skip
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["scale"] == "2"
    assert said["made_from"] == "small.pth"
    assert said["entry"] == "params_ema"
    assert said["drct_version"] == drct.__version__
    assert DRCT(**json.loads(said["drct_config"])).state_dict().keys() == small.state_dict().keys()
    tensors = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    stored = sum(len(tensor.raw_data) for tensor in (*tensors, *model.graph.initializer))
    geometry = 16**2 * (4 * 4 + 2 * 8)  # four masks, and positions for two heads, once for all blocks
    assert stored <= sum(p.nbytes for p in small.parameters()) + geometry + 20_000


def test_onnx_in_half_precision_is_half_as_large_and_close(small):
    assert export(["small.pth", "-o", "small.onnx", "--fp16"]) == 0
    model = onnx.load("small.onnx")
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert weights <= sum(p.nbytes for p in small.parameters()) // 2 + 1000
    x = torch.rand(1, 3, 11, 17)
    result = session_of("small.onnx")(x)
    assert result.dtype == torch.float32
    assert 1e-5 < (result - upscale(small, x, 4, 2)).abs().max() <= formats.TOLERANCE["fp16"]


@pytest.mark.slow
def test_the_shipped_weights_as_onnx(workplace):
    assert export([str(WEIGHTS), "-o", "xs.onnx"]) == 0
    network, run = read_network(WEIGHTS).network, session_of("xs.onnx")
    for size in [(64, 64), (5, 90), (37, 50)]:
        x = torch.rand(1, 3, *size)
        assert (run(x) - upscale(network, x, 8, 4)).abs().max() <= 1e-4


@pytest.mark.parametrize("wrong", ["a mask of no size", "the masks of one size"])
def test_an_export_that_computes_something_else_leaves_no_file(small, workplace, monkeypatch, capsys, wrong):
    kinds = windows.window_kinds
    if wrong == "a mask of no size":
        monkeypatch.setattr(windows, "window_kinds", lambda *size: torch.zeros_like(kinds(*size)))
    else:  # as the original's trace has them
        monkeypatch.setattr(
            windows, "window_kinds", lambda rows, columns, device: kinds(int(rows), int(columns), device)
        )
    assert export(["small.pth", "-o", "small.onnx"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: ONNX Runtime c")
    assert "not written" in message
    assert [path.name for path in workplace.iterdir()] == ["small.pth"]


def test_missing_packages_are_named_and_checking_is_left_out_without_onnxruntime(small, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export(["small.pth", "-o", "small.onnx", "--check"]) == 2
    assert "onnxruntime: pip install onnx onnxruntime" in capsys.readouterr().err
    assert export(["small.pth", "-o", "small.onnx"]) == 0
    assert "not checked" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert export(["small.pth", "-o", "other.onnx"]) == 2
    assert "onnx: pip install onnx onnxruntime" in capsys.readouterr().err
    assert info(["small.onnx"]) == 2
    assert "onnx: pip install onnx onnxruntime" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ape": True, "img_size": 16}, "a network with ape"),
        ({"upsampler": "", "upscale": 1}, "without reconstruction"),
    ],
)
def test_networks_that_do_not_run_at_any_size_are_refused(workplace, capsys, options, message):
    torch.save(DRCT(**SMALL | options).state_dict(), "odd.pth")
    for name in ("odd.onnx", "odd.pt2"):
        assert export(["odd.pth", "-o", name]) == 2
        assert message in capsys.readouterr().err
    assert export(["odd.pth", "-o", "odd.safetensors"]) == 0


# ------------------------------------------------------------------------------------------------------ torch.export


@pytest.mark.slow
def test_an_exported_program_runs_at_other_sizes_than_the_recorded_one(small):
    assert export(["small.pth", "-o", "small.pt2"]) == 0
    extra = {"drct.json": ""}
    program = torch.export.load("small.pt2", extra_files=extra).module()
    assert json.loads(extra["drct.json"])["made_from"] == "small.pth"
    for batch, height, width in [(1, 8, 8), (3, 16, 12), (2, 8, 28)]:
        x = torch.rand(batch, 3, height, width)
        with torch.no_grad():
            assert (program(x) - small(x)).abs().max() <= 1e-4


# ----------------------------------------------------------------------------------------------------------- weights


def test_original_files_load_strictly_in_the_original(small):
    assert export(["small.pth", "-o", "compact.pth", "--format", "compact"]) == 0
    assert export(["compact.pth", "-o", "original.pth"]) == 0
    content = torch.load("original.pth", weights_only=True)
    original = OriginalDRCT(upscale=2, upsampler="pixelshuffle", **SMALL)
    original.load_state_dict(content["params_ema"], strict=True)
    x = torch.rand(1, 3, 16, 16)
    read_by_others = spandrel.ModelLoader().load_from_file("original.pth")
    assert read_by_others.architecture.id == "DRCT"
    with torch.no_grad():
        assert (original.eval()(x) - small(x)).abs().max() <= 1e-5
        assert (read_by_others(x) - small(x).clamp(0, 1)).abs().max() <= 1e-5


def test_compact_files_hold_the_parameters_and_nothing_else(small):
    assert export(["small.pth", "-o", "compact.pth", "--format", "compact"]) == 0
    weights = torch.load("compact.pth", weights_only=True)["params_ema"]
    parameters = dict(small.named_parameters())
    assert weights.keys() == parameters.keys()
    assert all(torch.equal(weights[name], p) for name, p in parameters.items())


def test_the_mean_of_weights_is_written(workplace):
    states = [pair(2, **SMALL)[1].state_dict() for _ in range(3)]
    for number, state in enumerate(states):
        torch.save({"params_ema": state}, f"run{number}.pth")
    assert export(["run0.pth", "--average", "run1.pth", "run2.pth", "-o", "mean.pth"]) == 0
    content = torch.load("mean.pth", weights_only=True)
    assert content["metadata"]["made_from"] == "run0.pth + run1.pth + run2.pth"
    assert content["params_ema"].keys() == states[0].keys()
    for name, value in content["params_ema"].items():
        mean = torch.stack([state[name].double() for state in states]).mean(0)
        assert torch.equal(value, mean.to(value.dtype)), name


def test_weights_of_different_networks_are_not_averaged(small, capsys):
    torch.save({"params": DRCT(upscale=2, **SMALL | {"gc": 6}).state_dict()}, "wide.pth")
    export(["small.pth", "-o", "small.safetensors"])
    capsys.readouterr()
    assert export(["small.safetensors", "--average", "wide.pth", "-o", "mean.pth"]) == 2
    assert "wide.pth is not the network of small.safetensors" in capsys.readouterr().err
    assert export(["small.pth", "--average", "missing.pth", "-o", "mean.pth"]) == 2
    assert "missing.pth" in capsys.readouterr().err
    assert not Path("mean.pth").exists()


@pytest.mark.parametrize("entry", ["params", "params_ema", None])
def test_the_entry_that_was_read_is_kept(workplace, entry):
    weights = DRCT(upscale=2, **SMALL).state_dict()
    torch.save({entry: weights} if entry else weights, "first.pth")
    for source, target in (("first.pth", "second.safetensors"), ("second.safetensors", "third.pth")):
        assert export([source, "-o", target]) == 0
    assert torch.load("third.pth", weights_only=True).keys() == {entry or "params", "metadata"}


def test_half_precision_halves_weight_files(small):
    for name in ("half.pth", "half.safetensors"):
        assert export(["small.pth", "-o", name, "--fp16"]) == 0
        found = read_network(name).network
        for (name, p), q in zip(small.named_parameters(), found.parameters(), strict=True):
            assert torch.equal(p.half().float(), q), name
    read = safetensors.torch.load_file("half.safetensors")
    assert {value.dtype for value in read.values()} == {torch.float16}


@pytest.mark.parametrize("options", [{"img_size": 4}, {"img_range": 255.0}, {"qk_scale": 0.3}], ids=str)
def test_arguments_that_leave_no_trace_in_weights_are_kept(workplace, options):
    network = DRCT(upscale=2, **SMALL | options).eval()
    rescale_(network)
    network.save_pretrained("folder")
    x = torch.rand(1, 3, 7, 9)
    expected = upscale(network, x, 4, 2)
    for source, target in (("folder", "a.safetensors"), ("a.safetensors", "b.pth"), ("b.pth", "c.pth")):
        assert (
            export([source, "-o", target, "--format", {"a": "safetensors", "b": "compact", "c": "original"}[target[0]]])
            == 0
        )
        assert torch.equal(drct.load(target, precision="fp32").run(x), expected)
    original = OriginalDRCT(upsampler="pixelshuffle", upscale=2, **SMALL | options).eval()
    original.load_state_dict(torch.load("c.pth", weights_only=True)["params"], strict=True)
    with torch.no_grad():
        difference = (original(pad_to_multiple(x, 4))[..., :14, :18] - expected).abs().max()
    assert difference <= 1e-5 * options.get("img_range", 1)
    with safetensors.safe_open("a.safetensors", "pt") as file:  # as the Hub has them
        config = file.metadata()["drct_config"]
    (workplace / "hub").mkdir()
    (workplace / "hub/config.json").write_text(config)
    shutil.copy("a.safetensors", "hub/model.safetensors")
    assert torch.equal(upscale(DRCT.from_pretrained("hub").eval(), x, 4, 2), expected)


def test_a_damaged_config_is_explained(workplace, capsys):
    weights = dict(DRCT(upscale=2, **SMALL).named_parameters())
    for config, message in (("{", "not JSON"), ("[]", "holds no arguments"), ('{"upscale": 3}', "upscale is 3, not 2")):
        safetensors.torch.save_file(weights, "a.safetensors", {"drct_config": config})
        assert info(["a.safetensors"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error


def test_existing_files_are_replaced_only_on_request(small, workplace, capsys):
    (workplace / "there.pth").write_text("precious")
    assert export(["small.pth", "-o", "there.pth"]) == 2
    assert capsys.readouterr().err == "error: there.pth exists: --overwrite replaces it\n"
    assert (workplace / "there.pth").read_text() == "precious"
    assert export(["small.pth", "-o", "there.pth", "--overwrite"]) == 0
    assert read_network("there.pth").network.upscale == 2


def test_the_format_follows_from_the_suffix_or_is_given(small, capsys):
    assert export(["small.pth", "-o", "small.bin"]) == 2
    assert "say what it is with --format" in capsys.readouterr().err
    assert export(["small.pth", "-o", "small.bin", "--format", "safetensors"]) == 0
    with safetensors.safe_open("small.bin", "pt") as file:
        assert file.metadata()["made_from"] == "small.pth"


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_file_whose_name_is_not_text_is_exported(small):
    os.rename("small.pth", b"sm\xff.pth")  # noqa: PTH104 - not text
    for name in ("out.safetensors", "out.pth"):
        assert export(["sm\udcff.pth", "-o", name]) == 0
        assert read_network(name).network.upscale == 2
    with safetensors.safe_open("out.safetensors", "pt") as file:
        assert file.metadata()["made_from"] == "sm?.pth"


# -------------------------------------------------------------------------------------------------------------- info


@pytest.mark.parametrize(
    ("options", "scale", "size"),
    [(TINY, 2, (12, 20)), (TINY, 3, (4, 8)), (VARIANTS["DRCT-XS"], 4, (32, 16)), (VARIANTS["DRCT"], 4, (16, 16))],
)
def test_operations_are_those_that_pytorch_counts_in_the_original(options, scale, size):
    original = OriginalDRCT(upscale=scale, upsampler="pixelshuffle", **options).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        original(torch.rand(1, 3, *size))
    with torch.device("meta"):
        network = DRCT(upscale=scale, **options)
    assert operations(network, *size) == counter.get_total_flops()
    assert operations(network, size[0] - 1, size[1] - 3) == counter.get_total_flops()  # it is padded


def test_operations_are_the_published_ones():
    with torch.device("meta"):
        counts = [operations(DRCT(**variants.VARIANTS[name]), 64, 64) for name in ("DRCT", "DRCT-L")]
    assert [round(count / 1e9, 2) for count in counts] == [148.67, 287.80]


def test_variants_are_known_by_name():
    for scale, (name, options) in enumerate(variants.VARIANTS.items(), 1):
        with torch.device("meta"):
            weights = DRCT(upscale=2**scale, **options).state_dict()
        assert variants.variant(variants.drct_options(weights)) == name
    with torch.device("meta"):
        weights = DRCT(**variants.VARIANTS["DRCT"] | {"gc": 20}).state_dict()
    named = variants.variant(variants.drct_options(weights))
    assert named == "a DRCT of 6 groups, 180 channels, growth 20, windows of 16x16"


def test_info_of_the_shipped_weights(capsys):
    assert drct_main(["info", str(WEIGHTS), "--size", "256x128"]) == 0
    text = capsys.readouterr().out
    network = read_network(WEIGHTS).network
    assert "DRCT-XS, upscales 4 times, 1,354,179 parameters" in text
    assert "float32, original layout, params_ema" in text
    assert f"for 256x128  {operations(network, 128, 256) / 1e9:.2f} GFLOP" in text
    memory = memory_needed(network, 128, 256, torch.float32, torch.device("cpu"))
    assert f"{memory / 1e9:.2f} GB in fp32" in text


def test_info_in_json_tells_every_kind_apart(small, capsys):
    export(["small.pth", "-o", "small.onnx", "--fp16", "--no-check"])
    export(["small.pth", "-o", "compact.pth", "--format", "compact", "--fp16"])
    export(["small.pth", "-o", "small.safetensors"])
    small.save_pretrained("folder")
    capsys.readouterr()
    names = ["small.pth", "compact.pth", "small.safetensors", "folder", "small.onnx"]
    assert info([*names, "--json", "--size", "9x7"]) == 0
    found = dict(zip(names, json.loads(capsys.readouterr().out), strict=True))
    assert [each["file"] for each in found.values()] == names
    for each in found.values():
        assert each["parameters"] == sum(p.numel() for p in small.parameters())
        assert each["operations"] == operations(small, 7, 9)
        assert each["scale"] == 2
        assert all(amount > 0 for amount in each["memory"].values())
    assert found["small.pth"]["entries"] == ["params", "params_ema"]
    assert found["small.pth"]["entry"] == "params_ema"
    assert [each.get("layout") for each in found.values()] == ["original", "compact", "compact", "original", None]
    assert [each["precision"] for each in found.values()] == ["float32", "float16", "float32", "float32", "fp16"]
    assert found["small.onnx"]["inputs"] == [
        {"name": "image", "type": "float32", "shape": ["batch", 3, "height", "width"]}
    ]
    assert found["small.onnx"]["opset"] == {"ai.onnx": 17}
    assert found["small.onnx"]["metadata"]["made_from"] == "small.pth"


MEASURE = """
import sys, threading, time
import numpy as np, onnxruntime, psutil

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
process, peak, running = psutil.Process(), 0, True
session.run(None, {"image": np.zeros((1, 3, 16, 16), np.float32)})

def watch():
    global peak
    while running:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.002)

start = process.memory_info().rss
threading.Thread(target=watch, daemon=True).start()
session.run(None, {"image": np.zeros((1, 3, 128, 128), np.float32)})
running = False
print(peak - start)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "scale"), [("DRCT-XS", 2), ("DRCT-XS", 4), ("DRCT-C144", 4)])
def test_the_memory_that_info_tells_of_onnx_is_about_what_onnxruntime_takes(workplace, capsys, variant, scale):
    DRCT(upscale=scale, **VARIANTS[variant]).save_pretrained("folder")
    assert export(["folder", "-o", "a.onnx", "--no-check"]) == 0
    capsys.readouterr()
    assert info(["a.onnx", "--size", "128x128", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)[0]["memory"]["fp32"]
    command = [sys.executable, "-c", MEASURE, "a.onnx"]
    measured = int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout)
    assert 0.8 * measured <= estimate <= 1.5 * measured


def test_info_of_anothers_onnx_model(workplace, capsys):
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    weight = onnx.numpy_helper.from_array(np.ones((3, 3), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:], [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], producer_name="somebody")
    onnx.save(model, "other.onnx")
    assert info(["other.onnx"]) == 0
    text = capsys.readouterr().out
    for part in ("made by      somebody", "x, float32, n x 3", "y, float32, n x 3", "opset 13", "1 nodes"):
        assert part in text
    assert "network" not in text


def test_info_of_other_files_says_what_they_are(small, workplace, capsys):
    torch.save({"iter": 5, "epoch": 1, "optimizers": [], "schedulers": []}, "5.state")
    torch.save({"body.0.rdb1.conv1.weight": torch.zeros(1)}, "esrgan.pth")
    (workplace / "page.pth").write_text("<html>")
    (workplace / "photo.webp").write_bytes(b"RIFF1234WEBP")
    (workplace / "broken.onnx").write_bytes(b"\x08\xff")
    (workplace / "broken.pt2").write_bytes(b"PK")
    expected = {
        "5.state": "is a training state; its weights are in models/net_g_5.pth",
        "esrgan.pth": "they look like RRDBNet",
        "page.pth": "it is a web page",
        "photo.webp": "it is an image",
        "broken.onnx": "damaged or not an ONNX model",
        "broken.pt2": "damaged or not a program of torch.export",
        "nothing.pth": "no weights nothing.pth",
    }
    for name, message in expected.items():
        assert info([name]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error
    assert info([*expected, "small.pth"]) == 1
    output = capsys.readouterr()
    assert output.err.count("error: ") == len(expected)
    assert "parameters" in output.out
