"""What networks take: parameters, operations, memory; and the figures of published tables, which count otherwise.

Nothing is computed but shapes, so that images of any size are done in seconds.
"""

import csv
import io
import json
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from published import DRCT_PAPER
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from drct.analysis import networks
from drct.archs.variants import VARIANTS
from drct.errors import DRCTError, did_you_mean
from drct.files import expanded

PUBLISHED_SIZE = (64, 64)
NAMED = (*VARIANTS, *networks.PEERS)

Layers = Iterable[tuple[nn.Module, Sequence[int]]]


@dataclass(frozen=True)
class Complexity:
    """What a network takes for one image, batch 1, in float32. Sides are rounded up to whole windows.

    Args:
        network: Its name.
        width, height: Of the image before upscaling, in pixels.
        parameters: How many it has.
        multi_adds: "Total mult-adds" of torchinfo, which does not see products without parameters, such as those of
            attention, and counts a linear layer once for each entry of its input's first dimension only.
        pass_bytes: "Forward/backward pass size" of torchinfo: the results of all layers that have parameters, twice.
        operations: Floating point operations of inference: two for each term of a product of matrices, attention's
            as well, as `torch.utils.flop_counter` counts them. Those of a DRCT are of its definition, of which
            `SwinBlock.adjusted` saves some.
        activation_bytes: Floating point numbers that a training step keeps from the forward pass for the backward
            pass, on the CPU, besides parameters and buffers. Copies of weights, such as a DRCT's padded ones, count.
        published: What the paper reports in the place of the first three, and under which name; '' if it does not.
    """

    network: str
    width: int
    height: int
    parameters: int
    multi_adds: int
    pass_bytes: int
    operations: int
    activation_bytes: int
    published: str


# ---------------------------------------------------------------------------------------------------------- measuring


def complexity_of(source: str | os.PathLike, width: int, height: int, training: bool = True) -> Complexity:
    """Measure a network.

    Args:
        source: A name of `NAMED`, or what `networks.load` takes.
        width, height: Of the image, in pixels.
        training: Measure the activations of a training step, too, which takes longer; else they are 0.

    Raises:
        DRCTError: if there is no such network, or it does not take such an image.
    """
    name, network, window = _network_of(source)
    rows, columns = (-(-side // window) * window for side in (height, width))
    try:
        multi_adds, pass_bytes, operations = _counted(network, rows, columns)
        activation_bytes = kept_for_backward(network, rows, columns) if training else 0
    except (RuntimeError, ValueError) as error:  # the network's, of its input
        raise DRCTError(f"{name} does not take an image of {width}x{height}: {str(error).splitlines()[0]}") from error
    parameters = sum(p.numel() for p in network.parameters())
    published = published_as(name) if (width, height) == PUBLISHED_SIZE else ""
    return Complexity(name, width, height, parameters, multi_adds, pass_bytes, operations, activation_bytes, published)


def published_as(network: str) -> str:
    """Parameters, multi-adds and pass size that the paper reports of a network, and what it calls it; '' if none."""
    for row in DRCT_PAPER:
        if row.network == network:
            return f"{row.name}: {row.parameters:.3f} M, {row.multi_adds:.2f} G, {row.pass_size:.2f} MB"
    return ""


def _network_of(source: str | os.PathLike) -> tuple[str, nn.Module, int]:
    """Name, network, and of what its input's sides are multiples."""
    name = os.fspath(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how spandrel's networks are written
        if name in NAMED:
            network = networks.make(name)
            return name, network, int(network.window_size)  # type: ignore[arg-type]
        try:
            loaded = networks.load(source)
        except DRCTError as error:
            if "/" in name or expanded(name).suffix or expanded(name).exists():
                raise
            known = f"the networks with a name are {', '.join(NAMED)}"
            raise DRCTError(f"no network {name}{did_you_mean(name, NAMED)}: {known}; and {error}") from None
    return loaded.name, loaded.network, loaded.window


def torchinfo_counts(layers: Layers) -> tuple[int, int]:
    """Multi-adds, and bytes of the "forward/backward pass size", as torchinfo counts them.

    Args:
        layers: Those that have parameters, each as often as it is called, with the shape of its result.
    """
    multi_adds = pass_bytes = 0
    for layer, shape in layers:
        terms = sum(p.numel() for name, p in layer.named_parameters() if name in ("weight", "bias"))
        times = math.prod((shape[0], *shape[2:])) if "Conv" in type(layer).__name__ else shape[0]
        multi_adds += terms * times
        pass_bytes += 2 * 4 * math.prod(shape)  # forward and backward, float32
    return multi_adds, pass_bytes


def _counted(network: nn.Module, height: int, width: int) -> tuple[int, int, int]:
    """What `torchinfo_counts` returns, and the operations, of a network."""
    called: list[tuple[nn.Module, Sequence[int]]] = []
    layers = [m for m in network.modules() if not list(m.children()) and list(m.parameters())]
    hooks = [m.register_forward_hook(lambda layer, _, out: called.append((layer, out.shape))) for m in layers]
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, height, width))
    for hook in hooks:
        hook.remove()
    return *torchinfo_counts(called), counter.get_total_flops()


def kept_for_backward(network: nn.Module, height: int, width: int) -> int:
    """Bytes of floating point numbers that autograd keeps from a training step's forward pass on one image.

    Memory that several tensors share counts once; parameters and buffers do not count, nor do indices.

    Args:
        network: Takes RGB images; is in training mode afterwards.
        height, width: Of the image, in pixels, as the network takes it.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    own = [*network.parameters(), *network.buffers()]
    own += [fake.from_tensor(tensor) for tensor in own]  # what they become in there, as long as these live
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


# ------------------------------------------------------------------------------------------------------------ showing

HEADER = (
    "network",
    "parameters (M)",
    "multi-adds of torchinfo (G)",
    "forward/backward pass of torchinfo (MB)",
    "operations (GFLOP)",
    "activations of a training step (GB)",
    "published as",
)


def markdown(found: Sequence[Complexity]) -> str:
    """A table, with the units of published ones, and parameters cut off as there instead of rounded."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * 5 + "---|"]
    for c in found:
        figures = (
            f"{c.parameters // 1000 / 1000:.3f}",
            f"{c.multi_adds / 1e9:.2f}",
            f"{c.pass_bytes / 1e6:.2f}",
            f"{c.operations / 1e9:.2f}",
            f"{c.activation_bytes / 1e9:.2f}",
        )
        lines.append("| " + " | ".join((c.network, *figures, c.published)) + " |")
    return "\n".join(lines) + "\n"


def as_csv(found: Sequence[Complexity]) -> str:
    """A line for each network, in units of one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Complexity.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, found))
    return text.getvalue()


def as_json(found: Sequence[Complexity]) -> str:
    """A list of objects, in units of one."""
    return json.dumps([asdict(c) for c in found], indent=1) + "\n"


def read(path: Path) -> list[Complexity]:
    """What `as_json` made.

    Raises:
        DRCTError: if the file is something else.
    """
    try:
        return [Complexity(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise DRCTError(f"{path} is no result of drct complexity: {error}") from error
