"""Writing a network in the formats of other programs, and comparing its results there."""

import copy
import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim
from tqdm import tqdm

from drct.archs.families import identity
from drct.archs.soundness import is_sound, unsound
from drct.archs.traits import NetworkTraits
from drct.errors import DRCTError
from drct.inference.tiling import upscale
from drct.inference.weights import LoadedNetwork
from drct.text import first_line
from drct.version import __version__

TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}  # of results, in [0, 1]; seen are 3e-6 and 2.3e-3
INSTALL = "pip install onnx onnxruntime"


def metadata(loaded: LoadedNetwork, fp16: bool) -> dict[str, str]:
    """Return the metadata of an exported file: the card of the network, and technical entries."""
    source = loaded.source if isinstance(loaded.source, str) else loaded.source.name
    return {
        **loaded.card,
        "drct_version": __version__,
        **(identity(loaded.network) or {"network": loaded.kind, "name": loaded.kind}),
        **({"minimum": str(loaded.traits.minimum)} if loaded.traits.minimum > 1 else {}),
        "scale": str(loaded.traits.scale),
        "made_from": source.encode("utf-8", "replace").decode(),  # a file's name need not be text
        "entry": loaded.entry,
        "precision": "fp16" if fp16 else "fp32",
    }


def _check_exportable(loaded: LoadedNetwork, weights: bool) -> None:
    """Raise `DRCTError` if a network is written in no format, or if its weights are not."""
    if loaded.traits.place is not None:
        raise DRCTError(f"{loaded.source} is an ONNX model, which is written in no other format")
    if weights and loaded.kind:
        raise DRCTError(
            f"{loaded.source} is a network of {loaded.kind}: of those other than DRCT and HAT, only .onnx and .pt2 are "
            "written"
        )


def weight_file(loaded: LoadedNetwork, kind: str, fp16: bool) -> tuple[bytes, str]:
    """Make a file of weights, with `metadata`; return its content and a remark on it.

    Args:
        loaded: The network.
        kind: 'safetensors'; 'original', as the original implementation saves them; or 'compact', without what the
            original saves besides parameters. The last two have the entry that was read, or 'params' if that was a bare
            state dict.
        fp16: Store parameters in half precision.
    """
    network, entry = loaded.network, loaded.entry if loaded.entry in ("params", "params_ema") else "params"
    _check_exportable(loaded, weights=True)
    _check_result(loaded)
    weights = {name: p.detach().half() if fp16 else p.detach() for name, p in network.named_parameters()}
    if problem := unsound(weights.items()):
        raise DRCTError(f"{loaded.source}: in half precision, {problem}: leave out --fp16; not written")
    if kind == "safetensors":
        return safetensors.torch.save(weights, {"format": "pt", **metadata(loaded, fp16)}), "config in the metadata"
    if kind == "original":
        weights = network.state_dict() | weights
    file = io.BytesIO()
    torch.save({entry: weights, "metadata": metadata(loaded, fp16)}, file)
    return file.getvalue(), f"entry {entry}"


def onnx_graph(loaded: LoadedNetwork, fp16: bool, opset: int, check: bool | None) -> tuple[bytes, str]:
    """Record an ONNX model that takes images of any size; return the content of its file and a remark on it.

    Its input `image` (batch, channels, height, width) is RGB in [0, 1], its output `upscaled` is not clamped; both are
    float32. Padding and cropping are in the graph.

    Args:
        loaded: The network.
        fp16: Store weights and compute in half precision.
        opset: Version of ONNX's operators.
        check: Whether to compare results in ONNX Runtime with the network's. None: if it is installed.

    Raises:
        DRCTError: if results differ, the network cannot be recorded, or a package is missing.
    """
    of_any_size = _of_any_size(loaded)
    try:
        import onnx
    except ImportError as error:
        raise DRCTError(f"ONNX needs the package onnx: {INSTALL}") from error
    runtime = None if check is False else _onnxruntime()
    if check and runtime is None:
        raise DRCTError(f"--check needs the package onnxruntime: {INSTALL}")
    traits, w = loaded.traits, loaded.traits.window
    network = _half(loaded) if fp16 else of_any_size
    axes = {0: "batch", 2: "height", 3: "width"}
    upscaled_axes = {0: "batch", 2: "upscaled_height", 3: "upscaled_width"}
    # PyTorch's newer way needs another package; before 2.5 there was no choice
    by_tracing: Any = {"dynamo": False} if "dynamo" in signature(torch.onnx.export).parameters else {}
    with _recording(loaded, "ONNX"), TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        file = str(Path(folder, "network.onnx"))
        warnings.simplefilter("ignore")  # about what becomes constant, as it should; the results are compared
        torch.onnx.export(
            _Upscale(network, traits),
            (torch.rand(2, traits.channels, *traits.at_least(w + 1, 2 * w + 1)),),
            file,
            input_names=["image"],
            output_names=["upscaled"],
            dynamic_axes={"image": axes, "upscaled": upscaled_axes},
            opset_version=opset,
            **by_tracing,
        )
        model = onnx.load(file)
    onnx.helper.set_model_props(model, metadata(loaded, fp16))
    content = model.SerializeToString()
    notes = f"opset {opset}, any height and width"
    if runtime is None:
        return content, f"{notes}, not checked" + f": that needs onnxruntime, {INSTALL}" * (check is None)
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # its errors are reported here
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": x.numpy()})[0])

    # Less than a window, windows with all neighbours, and two images
    sizes = [(1, w // 2 + 1, w + 1), (1, 3 * w - 1, 2 * w), (2, w, w)]
    return content, f"{notes}, {_compare(run, of_any_size, traits, sizes, fp16, 'ONNX Runtime')}"


@contextmanager
def _recording(loaded: LoadedNetwork, format: str) -> Iterator[None]:
    """Turn what PyTorch raises while it records a network, which may be anything, into a `DRCTError`."""
    print("recording the network ...", file=sys.stderr)
    try:
        yield
    except Exception as error:
        reason = first_line(error).rstrip(".")
        raise DRCTError(
            f"{loaded.source} cannot be recorded for images of all sizes by {format}: {reason}; not written"
        ) from error


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        return None
    return onnxruntime


class _Upscale(nn.Module):
    """A network with the padding and cropping of `upscale`, with float32 input and output."""

    def __init__(self, network: nn.Module, traits: NetworkTraits) -> None:
        super().__init__()
        self.network = network
        self.traits = traits
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(next(self.network.parameters()).dtype)
        return upscale(self.network, x, self.traits.window, self.traits.scale).float()


def exported_program(loaded: LoadedNetwork, fp16: bool, check: bool | None) -> tuple[bytes, str]:
    """Record a program of `torch.export`; return the content of its file and a remark on it.

    The program maps (B, C, H, W), RGB in [0, 1], to (B, C, H * scale, W * scale). H and W are multiples of the window,
    at least two windows, because PyTorch specializes a program for a single one.

    Args:
        loaded: The network.
        fp16: Use half precision for weights, computation, input and output.
        check: Compare results with the network's, unless False.

    Raises:
        DRCTError: if results differ, or the network cannot be recorded.
    """
    network = _of_any_size(loaded)
    traits, w, dtype, file = loaded.traits, loaded.traits.window, torch.float16 if fp16 else torch.float32, io.BytesIO()
    example = torch.rand(2, traits.channels, *traits.fitting(2 * w, 3 * w), dtype=dtype)
    fewest = max(2, -(-traits.minimum // w))
    sides = {0: Dim("batch"), 2: w * Dim("rows", min=fewest), 3: w * Dim("columns", min=fewest)}
    recorded = _half(loaded) if fp16 else network
    with _recording(loaded, "torch.export"), torch.no_grad():
        program = torch.export.export(recorded, (example,), dynamic_shapes=(sides,), strict=False)
    torch.export.save(program, file, extra_files={"drct.json": json.dumps(metadata(loaded, fp16))})
    notes = f"sides that are multiples of {w} from {fewest * w} on"
    if check is False:
        return file.getvalue(), f"{notes}, not checked"
    module = torch.export.load(io.BytesIO(file.getvalue())).module()

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return module(x.to(dtype)).float()

    sizes = [(1, 2 * w, 2 * w), (1, 4 * w, 3 * w), (3, 2 * w, 2 * w)]
    return file.getvalue(), f"{notes}, {_compare(run, network, traits, sizes, fp16, 'torch.export')}"


def _of_any_size(loaded: LoadedNetwork) -> nn.Module:
    _check_exportable(loaded, weights=False)
    if loaded.traits.only_size is not None:
        raise DRCTError(f"{loaded.source}: a network with ape takes images of one size only and is not written so")
    if not loaded.traits.upscales:
        raise DRCTError(f"{loaded.source}: a network without reconstruction head (upsampler '') upscales nothing")
    _check_result(loaded)
    return loaded.network


def _half(loaded: LoadedNetwork) -> nn.Module:
    """Return the network in half precision. Raises `DRCTError` if it overflows there."""
    network = copy.deepcopy(loaded.network).half()
    if problem := unsound(network.named_parameters()):
        raise DRCTError(f"{loaded.source}: in half precision, {problem}: leave out --fp16; not written")
    _check_result(replace(loaded, network=network), " in half precision: leave out --fp16")
    return network


def _check_result(loaded: LoadedNetwork, where: str = "") -> None:
    """Raise `DRCTError` if the definition's result for a small image is not finite."""
    if not loaded.traits.upscales:
        return
    w, dtype = loaded.traits.window, next(loaded.network.parameters()).dtype
    height, width = loaded.traits.only_size or loaded.traits.fitting(w, 2 * w)
    x = torch.rand(1, loaded.traits.channels, height, width, generator=torch.Generator().manual_seed(0))
    if not is_sound(upscale(loaded.network, x.to(dtype), w, loaded.traits.scale)):
        raise DRCTError(f"{loaded.source}: the network's result is not finite{where}; not written")


def _compare(
    run: Callable[[Tensor], Tensor],
    network: nn.Module,
    traits: NetworkTraits,
    sizes: list[tuple[int, int, int]],
    fp16: bool,
    name: str,
) -> str:
    """Compare the results of a program with those of the network, for images of some (batch, height, width)."""
    tolerance = TOLERANCE["fp16" if fp16 else "fp32"]
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, *sides in tqdm(sizes, "checking", unit="size", leave=False, disable=None):
        height, width = traits.at_least(*sides)
        x = torch.rand(batch, traits.channels, height, width, generator=generator)
        expected = upscale(network, x, traits.window, traits.scale)
        images = f"{batch} of {width}x{height}"
        try:
            difference = (run(x) - expected).abs().max().item()
        except Exception as error:
            raise DRCTError(f"{name} cannot run {images}: {first_line(error)}; not written") from error
        if not difference <= tolerance:
            raise DRCTError(
                f"{name} computes something else than PyTorch, {difference:.1e} at {images} where {tolerance:.0e} is "
                "allowed; not written"
            )
        largest = max(largest, difference)
    return f"at most {largest:.1e} from PyTorch at {len(sizes)} sizes in {name}"
