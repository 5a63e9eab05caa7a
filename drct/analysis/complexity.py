"""Parameters, operations and memory of networks, counted truly and as published tables count them.

Only shapes are computed, so that images of any size take seconds.
"""

import csv
import io
import json
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from drct.analysis import networks
from drct.archs import families
from drct.errors import DRCTError, did_you_mean
from drct.files import expanded
from drct.inference.weights import LoadedNetwork
from drct.text import first_line, markdown_table

NAMED = (*families.NAMED, *networks.PEERS)


@dataclass(frozen=True)
class Complexity:
    """Cost of a network for one image, batch 1, in float32. Height and width are rounded up to whole windows.

    Attributes:
        network: Name of the network.
        width: Width of the image before upscaling, in pixels.
        height: Height of the image before upscaling, in pixels.
        parameters: Number of parameters.
        multi_adds: "Total mult-adds" of torchinfo, which does not see products without parameters, such as those of
            attention, and counts a linear layer once for each entry of its input's first dimension only.
        pass_bytes: "Forward/backward pass size" of torchinfo: twice the outputs of all layers that have parameters.
        operations: Floating point operations of inference: two for each term of a matrix product, including those of
            attention, as `torch.utils.flop_counter` counts them. For a DRCT they are those of its definition; the fast
            execution saves some of them.
        activation_bytes: Bytes of floating point numbers that a training step keeps from the forward pass for the
            backward pass, on the CPU, besides parameters and buffers. Copies of weights, such as a DRCT's padded ones,
            count.
    """

    network: str
    width: int
    height: int
    parameters: int
    multi_adds: int
    pass_bytes: int
    operations: int
    activation_bytes: int


def complexity_of(
    source: str | os.PathLike,
    width: int,
    height: int,
    training: bool = True,
    network: str | os.PathLike | None = None,
) -> Complexity:
    """Measure a network for an image of this size.

    Args:
        source: A name in `NAMED`, or a source that `networks.load` takes.
        width: Width of the image, in pixels.
        height: Height of the image, in pixels.
        training: Measure the activations of a training step as well, which takes longer; otherwise they are 0.
        network: Option file that names the architecture of weights, as for `networks.load`.

    Raises:
        DRCTError: if there is no such network, or it does not take such an image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the way spandrel's networks are written
        loaded = _find_network(source, network)
    name, found, window = loaded.name, loaded.network, loaded.traits.window
    rows, columns = (-(-side // window) * window for side in (height, width))
    try:
        multi_adds, pass_bytes, operations = counts_of(found, rows, columns)
        activation_bytes = kept_for_backward(found, rows, columns) if training else 0
    except (RuntimeError, ValueError) as error:  # raised by the network about its input
        raise DRCTError(f"{name} does not take an image of {width}x{height}: {first_line(error)}") from error
    parameters = sum(p.numel() for p in found.parameters())
    return Complexity(name, width, height, parameters, multi_adds, pass_bytes, operations, activation_bytes)


def _find_network(source: str | os.PathLike, network: str | os.PathLike | None) -> LoadedNetwork:
    name = os.fspath(source)
    if name in NAMED:
        return networks.make(name)
    try:
        return networks.load(source, network)
    except DRCTError as error:
        if "/" in name or expanded(name).suffix or expanded(name).exists():
            raise
        known = f"the networks with a name are {', '.join(NAMED)}"
        raise DRCTError(f"no network {name}{did_you_mean(name, NAMED)}: {known}; and {error}") from None


def counts_of(network: nn.Module, height: int, width: int) -> tuple[int, int, int]:
    """Return the multi-adds, the bytes of the pass and the operations of `Complexity`."""
    multi_adds = pass_bytes = 0

    def count(layer: nn.Module, _: tuple[Any, ...], output: torch.Tensor) -> None:
        nonlocal multi_adds, pass_bytes
        terms = sum(p.numel() for name, p in layer.named_parameters() if name in ("weight", "bias"))
        times = output[:, 0].numel() if "Conv" in type(layer).__name__ else len(output)
        multi_adds += terms * times
        pass_bytes += 2 * 4 * output.numel()  # forward and backward, float32

    layers = [m for m in network.modules() if not list(m.children()) and list(m.parameters())]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, height, width))
    for hook in hooks:
        hook.remove()
    return multi_adds, pass_bytes, counter.get_total_flops()


def kept_for_backward(network: nn.Module, height: int, width: int) -> int:
    """Return the bytes of floating point numbers that autograd keeps from a training step's forward pass on an image.

    Memory shared by several tensors counts once; parameters, buffers and indices do not count. The network stays in
    training mode.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    own = [*network.parameters(), *network.buffers()]
    own += [fake.from_tensor(tensor) for tensor in own]  # their counterparts in fake mode, alive as long as this list
    of_network = {tensor.untyped_storage()._cdata for tensor in own}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage._cdata not in of_network:
            kept[storage._cdata] = storage
        return tensor

    network.train()
    with fake, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.empty(1, 3, height, width))
    return sum(storage.nbytes() for storage in kept.values())


def complexity_table(found: Sequence[Complexity]) -> str:
    """Return a Markdown table in the units of published tables, with parameters cut off as there, not rounded."""
    columns = {
        "network": [c.network for c in found],
        "parameters (M)": [f"{c.parameters // 1000 / 1000:.3f}" for c in found],
        "multi-adds of torchinfo (G)": [f"{c.multi_adds / 1e9:.2f}" for c in found],
        "forward/backward pass of torchinfo (MB)": [f"{c.pass_bytes / 1e6:.2f}" for c in found],
        "operations (GFLOP)": [f"{c.operations / 1e9:.2f}" for c in found],
        "activations of a training step (GB)": [f"{c.activation_bytes / 1e9:.2f}" for c in found],
    }
    return markdown_table(list(columns), zip(*columns.values(), strict=True))


def complexity_csv(found: Sequence[Complexity]) -> str:
    """Return CSV text with a line for each network; numbers are bytes and single operations."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Complexity.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, found))
    return text.getvalue()


def complexity_json(found: Sequence[Complexity]) -> str:
    """Return a JSON list with an object for each network; numbers are bytes and single operations."""
    return json.dumps([asdict(c) for c in found], indent=1) + "\n"


FORMATS: dict[str, Callable[[Sequence[Complexity]], str]] = {
    "markdown": complexity_table,
    "csv": complexity_csv,
    "json": complexity_json,
}


def read_complexity(path: Path) -> list[Complexity]:
    """Read a file written by `complexity_json`. Raises `DRCTError` if the file is something else."""
    try:
        return [Complexity(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise DRCTError(f"{path} is no result of drct complexity: {error}") from error
