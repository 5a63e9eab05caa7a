"""ONNX models of any program, as networks."""

import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import TINY, pair, photo
from onnx import TensorProto, helper
from test_door import picture_tensor, pixels_of
from torch import nn
from torch.nn import functional as F

import drct
from drct.analysis import networks
from drct.cli import main
from drct.errors import DRCTError
from drct.inference.sources import onnx_files
from drct.inference.tiling import upscale
from drct.inference.weights import read_network
from drct.web.service import Service

PICTURE = photo(90, 130)


class Small(nn.Module):
    """Convolutions that enlarge by 3, on blocks of pixels of a side."""

    def __init__(self, channels: int = 3, block: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = block
        self.first = nn.Conv2d(channels * block**2, 8, 3, padding=1, padding_mode="zeros")
        self.last = nn.Conv2d(8, channels * (3 * block) ** 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.first(F.pixel_unshuffle(x, self.block)))
        return F.pixel_shuffle(self.last(features), 3 * self.block) + F.interpolate(x, scale_factor=3)


def write_model(network: nn.Module, file: str, size=None, half: bool = False, channels: int = 3) -> nn.Module:
    """Record a network for one size (height, width), or for all if None."""
    network = network.eval()
    recorded = network.half() if half else network
    axes = {"x": {0: "n", 2: "h", 3: "w"}, "y": {0: "n", 2: "h2", 3: "w2"}} if size is None else None
    x = torch.rand(1, channels, *(size or (48, 96))).to(torch.float16 if half else torch.float32)
    torch.onnx.export(
        recorded, (x,), file, input_names=["x"], output_names=["y"], dynamic_axes=axes, dynamo=False, opset_version=17
    )
    return network.float()


def test_our_own_model_computes_what_the_network_computes(workplace):
    _, network = pair(2, **TINY | {"depths": (6,), "num_heads": (2,)})
    torch.save({"params": network.state_dict()}, "w.pth")
    for options, tolerance in (([], 1e-4), (["--fp16"], 1e-2)):
        assert main(["export", "w.pth", "-o", "w.onnx", "--overwrite", "--no-check", *options]) == 0
        with torch.no_grad():
            expected = upscale(network, picture_tensor(PICTURE), 4, 2).clamp(0, 1)
        upscaler = drct.load("w.onnx", "cpu")
        assert upscaler.precision == ("fp16" if options else "fp32") and upscaler.scale == 2
        assert (upscaler.upscale(picture_tensor(PICTURE)) - expected).abs().max() <= tolerance
        if options:
            continue  # slow on a CPU
        cv2.imwrite("a.png", PICTURE)
        assert main(["upscale", "a.png", "-o", "o.png", "--weights", "w.onnx"]) == 0
        assert np.abs(cv2.imread("o.png").astype(int) - pixels_of(expected)).max() <= 1
        tiles = drct.load("w.onnx", "cpu", tile=(64, 8)).upscale(PICTURE)
        of_network = drct.Upscaler(network, "cpu", "fp32", tile=(64, 8)).upscale(PICTURE)
        assert np.abs(tiles.astype(int) - of_network).max() <= 1


@pytest.mark.parametrize("half", [False, True])
def test_a_model_of_one_size_is_computed_in_tiles(workplace, capsys, half):
    network = write_model(Small(), "w.onnx", (64, 64), half)
    x, tolerance = picture_tensor(PICTURE), 1e-2 if half else 1e-4
    # Three tiles of 130 pixels, and two of 90, which have 32 or more in common, and change in the middle of that
    starts = {0: (0, 33, 66), 1: (0, 26)}
    cuts = {0: (0, 48, 82, 130), 1: (0, 45, 90)}
    cuts[0] = (0, (33 + 64) // 2, (66 + 33 + 64) // 2, 130)
    expected = torch.zeros(1, 3, 270, 390)
    with torch.no_grad():
        for row, top in enumerate(starts[1]):
            for column, left in enumerate(starts[0]):
                tile = network(x[..., top : top + 64, left : left + 64])
                y0, y1, x0, x1 = (*cuts[1][row : row + 2], *cuts[0][column : column + 2])
                part = tile[..., 3 * (y0 - top) : 3 * (y1 - top), 3 * (x0 - left) : 3 * (x1 - left)]
                expected[..., 3 * y0 : 3 * y1, 3 * x0 : 3 * x1] = part
    expected = expected.clamp(0, 1)
    assert (drct.load("w.onnx", "cpu").upscale(x) - expected).abs().max() <= tolerance
    cv2.imwrite("a.png", PICTURE)
    assert main(["upscale", "a.png", "-o", "o.png", "--weights", "w.onnx"]) == 0
    assert np.abs(cv2.imread("o.png").astype(int) - pixels_of(expected)).max() <= 1 + 255 * tolerance
    served = Service(workplace, 1, "cpu").upscale(Path("a.png"), "w.onnx")
    assert np.array_equal(cv2.imread(str(served.file)), cv2.imread("o.png"))
    assert "; by ONNX model" in served.summary
    assert main(["info", "w.onnx"]) == 0
    assert "64x64 pixels only: others in tiles" in capsys.readouterr().out


@pytest.mark.parametrize("size", [(30, 40), (64, 20), (1, 1)])
def test_an_image_smaller_than_the_one_size_is_padded_with_its_reflection(workplace, size):
    network = write_model(Small(), "w.onnx", (48, 64))
    x = torch.rand(1, 3, *size)
    rows, columns = (np.pad(np.arange(n), (0, max(0, m - n)), "reflect") for n, m in zip(size, (48, 64), strict=True))
    padded = x[..., rows, :][..., columns]
    with torch.no_grad():
        parts = [network(padded[..., :48, :]), network(padded[..., 16:, :])] if size[0] == 64 else [network(padded)]
    whole = torch.cat([parts[0][..., :96, :], parts[1][..., 48:, :]], -2) if size[0] == 64 else parts[0]
    expected = whole[..., : 3 * size[0], : 3 * size[1]].clamp(0, 1)
    assert (drct.load("w.onnx", "cpu").upscale(x) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize(("block", "half"), [(1, True), (4, False), (6, False)])
def test_scale_and_multiples_of_a_model_of_any_size_are_found(workplace, block, half):
    network = write_model(Small(block=block), "w.onnx", None, half)
    loaded = read_network("w.onnx")
    assert loaded.traits.scale == 3 and loaded.traits.window == block and loaded.traits.minimum <= block
    x = picture_tensor(PICTURE)
    with torch.no_grad():
        expected = upscale(network, x, block, 3).clamp(0, 1)
    assert (drct.load("w.onnx", "cpu").upscale(x) - expected).abs().max() <= (1e-2 if half else 1e-4)


def test_a_least_size_is_found(workplace):
    class AtLeast12(nn.Module):
        def forward(self, x):
            return F.pad(F.interpolate(x, scale_factor=2), (22, 22, 22, 22), "reflect")[..., 22:-22, 22:-22]

    write_model(AtLeast12(), "w.onnx")
    traits = read_network("w.onnx").traits
    assert traits.window == 1 and traits.minimum == 16
    image = photo(5, 6)
    assert np.array_equal(drct.load("w.onnx", "cpu").upscale(image), image.repeat(2, 0).repeat(2, 1))


def test_a_model_of_one_channel_takes_gray_and_each_channel_of_colours(workplace):
    network = write_model(Small(channels=1), "w.onnx", channels=1)
    image = PICTURE[:20, :30]
    result = drct.load("w.onnx", "cpu").upscale(image)
    with torch.no_grad():
        expected = network(torch.from_numpy(image[..., 1].copy()).float()[None, None] / 255)
    assert np.abs(result[..., 1] - (expected.clamp(0, 1) * 255)[0, 0].numpy()).max() <= 0.51


def test_batches_are_split_for_a_model_that_takes_one_image(workplace):
    network = write_model(Small(), "w.onnx", (16, 16))
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        expected = network(x).clamp(0, 1)
    assert (drct.load("w.onnx", "cpu").upscale(x) - expected).abs().max() <= 1e-5
    assert drct.load("w.onnx", "cpu", self_ensemble=True).upscale(x).shape == (3, 3, 48, 48)


# ------------------------------------------------------------------------------------------------------------ refused


def node_model(file: str, op: str, inputs, outputs, **attributes) -> None:
    """Write a model of one node."""
    values = [
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in tensors]
        for tensors in (inputs, outputs)
    ]
    node = helper.make_node(op, [t[0] for t in inputs], [t[0] for t in outputs], **attributes)
    graph = helper.make_graph([node], "g", *values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, file)


FLOAT = TensorProto.FLOAT
BYTES = TensorProto.UINT8
IMAGE = ["n", 3, "h", "w"]


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "attributes", "message"),
    [
        ("Add", [("a", FLOAT, IMAGE), ("b", FLOAT, IMAGE)], [("y", FLOAT, IMAGE)], {}, "outputs are a, b and y"),
        ("Identity", [("a", BYTES, IMAGE)], [("y", BYTES, IMAGE)], {}, "takes tensor.uint8.: exp"),
        ("Identity", [("a", FLOAT, [1, 64, 64, 3])], [("y", FLOAT, [1, 64, 64, 3])], {}, "64 x 3, with channels"),
        ("Identity", [("a", FLOAT, [7, 3, 64, 64])], [("y", FLOAT, [7, 3, 64, 64])], {}, "takes 7 x 3 x 64 x"),
        ("Identity", [("a", FLOAT, ["n", 9])], [("y", FLOAT, ["n", 9])], {}, "takes any x 9: expected is one image"),
        ("GlobalAveragePool", [("a", FLOAT, IMAGE)], [("y", FLOAT, ["n", 3, 1, 1])], {}, "no image enlarged by"),
        ("Flatten", [("a", FLOAT, IMAGE)], [("y", FLOAT, ["n", "m"])], {}, "no image enlarged by"),
    ],
)  # fmt: skip
def test_models_that_enlarge_no_image_say_what_they_are(workplace, capsys, op, inputs, outputs, attributes, message):
    node_model("w.onnx", op, inputs, outputs, **attributes)
    with pytest.raises(DRCTError, match=rf"w\.onnx.*{message}") as caught:
        drct.load("w.onnx", "cpu")
    assert "\n" not in str(caught.value)
    assert main(["info", "w.onnx"]) == 0
    assert "refused      w.onnx" in capsys.readouterr().out


def test_damaged_models_missing_packages_and_options_are_explained(workplace, monkeypatch, capsys):
    Path("w.onnx").write_bytes(b"\x08\x07nonsense")
    with pytest.raises(DRCTError, match=r"w\.onnx cannot be run by ONNX Runtime: .+") as caught:
        read_network("w.onnx")
    assert "\n" not in str(caught.value)
    write_model(Small(), "w.onnx", (16, 16))
    Path("options.yml").write_text("network_g: {type: EDSR}\n")
    assert main(["info", "w.onnx", "--network", "options.yml"]) == 2
    assert "error: w.onnx tells itself which network it is: leave out --network" in capsys.readouterr().err
    with pytest.raises(DRCTError, match="w.onnx tells itself which network it is: leave out --network"):
        read_network("w.onnx", {"type": "EDSR"})
    with pytest.raises(DRCTError, match="computes in fp32 only, not in bf16"):
        drct.load("w.onnx", "cpu", "bf16")
    for device, message in (
        ("nowhere", "for ONNX models, it is one of cuda, "),
        ("directml", ".* has no Dml"),
    ):
        with pytest.raises(DRCTError, match=f"device {device} is not there: {message}"):
            drct.load("w.onnx", device)
    assert main(["export", "w.onnx", "-o", "x.onnx"]) == 2
    assert "w.onnx is an ONNX model, which is written in no other format" in capsys.readouterr().err
    with pytest.raises(DRCTError, match="layers of an ONNX model"):
        networks.load("w.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DRCTError, match="w.onnx is an ONNX model, which needs onnxruntime: pip install onnxruntime"):
        read_network("w.onnx")


def test_a_named_model_is_found_and_offered(workplace, capsys):
    folder = Path("experiments/pretrained_models")
    folder.mkdir(parents=True)
    write_model(Small(), str(folder / "mine.onnx"), (16, 16))
    assert drct.load("mine", "cpu").scale == 3
    assert main(["info", "mine"]) == 0
    assert "ONNX model, upscales 3 times" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        (None, ["CPUExecutionProvider"], ["CPUExecutionProvider"]),
        (None, ["DmlExecutionProvider"], ["DmlExecutionProvider", "CPUExecutionProvider"]),
        ("cpu", ["DmlExecutionProvider"], ["CPUExecutionProvider"]),
        ("mps", ["CoreMLExecutionProvider"], ["CoreMLExecutionProvider", "CPUExecutionProvider"]),
        ("openvino", ["OpenVINOExecutionProvider"], ["OpenVINOExecutionProvider", "CPUExecutionProvider"]),
        ("cuda:1", ["CUDAExecutionProvider"], ["CUDAExecutionProvider", "CPUExecutionProvider"]),
        (
            "tensorrt",
            ["CUDAExecutionProvider", "TensorrtExecutionProvider"],
            ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
        ),
    ],
)
def test_the_provider_follows_from_the_device(workplace, monkeypatch, caplog, device, available, expected):
    """With a stand-in for ONNX Runtime's sessions, as there is only a CPU here."""
    write_model(Small(), "w.onnx", (16, 16))
    model = onnx_files.read(Path("w.onnx")).network
    asked = []

    class Session:
        def __init__(self, path, options, providers):
            self.providers = [p[0] if isinstance(p, tuple) else p for p in providers]
            asked.append(providers)

        def get_providers(self):
            return self.providers

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*available, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    assert model.place(device).type == "cpu"  # PyTorch has no CUDA here
    if expected == ["CPUExecutionProvider"]:
        assert not asked and not caplog.text
        return
    assert [p[0] if isinstance(p, tuple) else p for p in asked[0]] == expected
    assert f"w.onnx: computing with {expected[0]}" in caplog.text
    if device == "cuda:1":
        assert asked[0][0][1] == {"device_id": "1"}


def test_metadata_of_anybody_is_shown_on_one_line(workplace, capsys):
    write_model(Small(), "w.onnx", (16, 16))
    model = onnx.load("w.onnx")
    helper.set_model_props(model, {"name": "a\nb" * 100, "minimum": "9" * 50, "drct_version": "x"})
    onnx.save(model, "w.onnx")
    assert read_network("w.onnx").kind == "ONNX model"
