"""What a network does to images of a size, recorded as a CUDA graph and replayed.

On small images a GPU is faster than Python can start its operations; a graph is started at once. It holds the memory of
one run for as long as it is kept.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from drct.archs import gpu_switches, progress
from drct.archs.gpu_windows import window_order
from drct.archs.prepared_weights import kept_for, prepared_tensors
from drct.archs.regions import autocast_dtype

if TYPE_CHECKING:
    from drct.archs.frame import Frame

KEPT = 2  # sizes of a network
Compute = Callable[[Tensor], Tensor]


class Recording(NamedTuple):
    """A graph and the tensors that it reads and writes."""

    replay: Callable[[], object]
    source: Tensor
    result: Tensor
    held: Any  # tensors that it reads besides


def is_wanted(x: Tensor) -> bool:
    """Return whether an image is to be computed by `run`. Progress cannot be reported from within a graph."""
    return gpu_switches.present().graphs and gpu_switches.has_graphs(x.device) and not progress.is_watched()


def run(network: "Frame", x: Tensor, compute: Compute) -> Tensor:
    """Return `compute(x)`: as it is for the first image of a size, recorded for the second, replayed from then on.

    Recordings are dropped with the prepared weights that they read.

    Args:
        network: The network that `compute` runs.
        x: Image.
        compute: What to compute: no operation may depend on values, or on weights that are not prepared or parameters.
    """
    recordings: dict[Any, Recording | None] = kept_for(network).setdefault("recordings", {})
    key = (x.shape, x.dtype, x.device, autocast_dtype(x), gpu_switches.present())
    if key not in recordings:
        result = compute(x)
        while len(recordings) >= KEPT:
            del recordings[next(iter(recordings))]
        recordings[key] = None
        return result
    recording = recordings.pop(key) or _record(network, x, compute)
    recordings[key] = recording  # the last one used is dropped last
    recording.source.copy_(x)
    recording.replay()
    return recording.result.clone()


def _record(network: "Frame", x: Tensor, compute: Compute) -> Recording:
    source, graph = x.clone(), torch.cuda.CUDAGraph()
    features = source.permute(0, 2, 3, 1)
    orders = [window_order(features, network.window_size, shift) for shift in (0, network.shift)]
    with _without_autocast_cache(x), torch.cuda.graph(graph):
        result = compute(source)
    return Recording(graph.replay, source, result, (orders, prepared_tensors(network)))


def _without_autocast_cache(x: Tensor) -> AbstractContextManager:
    """Within the block, autocast converts weights in the graph itself; those that it has converted soon go."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, torch.get_autocast_dtype(kind), cache_enabled=False)
