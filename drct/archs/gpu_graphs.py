"""What a network does to images of a size, recorded as a CUDA graph and replayed.

On small images a GPU is faster than Python can start its operations; a graph is started at once. It holds the memory of
one run for as long as it is kept.
"""

import warnings
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
SMALL = 131072  # pixels of images that a GPU computes in about the time in which Python starts the operations
Compute = Callable[[Tensor], Tensor]


class Recording(NamedTuple):
    """A graph and the tensors that it reads and writes."""

    replay: Callable[[], object]
    source: Tensor
    result: Tensor
    held: Any  # tensors that it reads besides


def is_wanted(x: Tensor) -> bool:
    """Return whether an image is to be computed by `run`."""
    if not gpu_switches.has_graphs(x.device):
        return False
    on = gpu_switches.present().graphs
    return on if on is not None else len(x) * x.shape[2] * x.shape[3] <= SMALL


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
    recording = recordings.pop(key)
    if recording is None:
        try:
            recording = _record(network, x, compute)
        except RuntimeError as error:  # other threads may use the GPU
            if gpu_switches.present().graphs:
                raise
            warnings.warn(f"not recorded as a CUDA graph: {error}", stacklevel=2)
            return compute(x)
    recordings[key] = recording  # the last one used is dropped last
    recording.source.copy_(x)
    with torch.cuda.device_of(x):
        recording.replay()
    progress.report(1)  # not possible from within a graph
    return recording.result.clone()


def _record(network: "Frame", x: Tensor, compute: Compute) -> Recording:
    source, graph = x.clone(), torch.cuda.CUDAGraph()
    features = source.permute(0, 2, 3, 1)
    orders = [window_order(features, network.window_size, shift) for shift in (0, network.shift)]
    with (
        torch.cuda.device_of(x),
        _without_autocast_cache(x),
        torch.cuda.graph(graph, capture_error_mode="thread_local"),
    ):
        result = compute(source)
    return Recording(graph.replay, source, result, (orders, prepared_tensors(network)))


def _without_autocast_cache(x: Tensor) -> AbstractContextManager:
    """Within the block, autocast converts weights in the graph itself; those that it has converted soon go."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, torch.get_autocast_dtype(kind), cache_enabled=False)
