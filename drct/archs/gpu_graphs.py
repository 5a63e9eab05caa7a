"""What a network does to images of a size, recorded as a CUDA graph and replayed.

On small images a GPU is faster than Python can start its operations; a graph is started at once. It holds the memory of
one run for as long as it is kept.
"""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from drct.archs import gpu_switches, progress
from drct.archs.gpu_windows import window_order
from drct.archs.prepared_weights import kept_for, prepared_tensors
from drct.archs.regions import autocast_dtype
from drct.text import first_line

if TYPE_CHECKING:
    from drct.archs.frame import Frame

KEPT = 2  # sizes of a network
SMALL = 131072  # pixels of images that a GPU computes in about the time in which Python starts the operations
FAILED = "failed"  # in place of a recording
Compute = Callable[[Tensor], Tensor]
_one_at_a_time = RLock()  # a recording has one place for its source and one for its result


class Recording(NamedTuple):
    """A graph and the tensors that it reads and writes."""

    replay: Callable[[], object]
    source: Tensor
    result: Tensor
    held: Any  # tensors that it reads besides


def is_wanted(x: Tensor) -> bool:
    """Return whether images (B, C, H, W) are to be computed by `run`."""
    if not gpu_switches.has_graphs(x.device):
        return False
    on = gpu_switches.present().graphs
    return on if on is not None else len(x) * x.shape[2] * x.shape[3] <= SMALL


def run(network: "Frame", x: Tensor, compute: Compute) -> Tensor:
    """Return `compute(x)`: as it is for the first image of a size, recorded for the second, replayed from then on.

    Recordings are dropped with the prepared weights that they read. Where one fails, images of that size are computed
    without.

    Args:
        network: The network that `compute` runs.
        x: Images.
        compute: What to compute: no operation may depend on values, or on weights that are not prepared or parameters.
    """
    recordings: dict[Any, Recording | str | None] = kept_for(network).setdefault("recordings", {})
    key = _key(network, x)
    if key not in recordings:
        result = compute(x)
        while len(recordings) >= KEPT:
            recordings.pop(next(iter(recordings), None), None)
        recordings[key] = None
        return result
    with _one_at_a_time:
        recording = recordings.pop(key, None)
        if recording is None:
            recording = _record_if_possible(network, x, compute)
        recordings[key] = recording  # the last one used is dropped last
        if isinstance(recording, Recording):
            recording.source.copy_(x)
            with torch.cuda.device_of(x):
                recording.replay()
            progress.report(1)  # not possible from within a graph
            return recording.result.clone()
    return compute(x)


def forget(network: "Frame") -> None:
    """Free the memory of a network's recordings, which nothing else can use."""
    kept_for(network).pop("recordings", None)


def _key(network: "Frame", x: Tensor) -> Any:
    """Return what a recording holds for."""
    stream = torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else None
    settings = (torch.get_float32_matmul_precision(), torch.is_inference_mode_enabled(), gpu_switches.present())
    return x.shape, x.dtype, x.device, stream, autocast_dtype(x), settings, network.img_range, network.mean.data_ptr()


def _record_if_possible(network: "Frame", x: Tensor, compute: Compute) -> Recording | str:
    try:
        return _record(network, x, compute)
    except RuntimeError as error:
        if gpu_switches.present().graphs:
            raise
        warnings.warn(f"not recorded as a CUDA graph: {first_line(error)}", stacklevel=2)
        return FAILED


def _record(network: "Frame", x: Tensor, compute: Compute) -> Recording:
    source, graph = x.clone(), torch.cuda.CUDAGraph()
    features = source.permute(0, 2, 3, 1)
    orders = [window_order(features, network.window_size, shift) for shift in (0, network.shift)]
    with (
        torch.cuda.device_of(x),
        torch.cuda.stream(torch.cuda.current_stream(x.device)),  # back to it, even where the recording fails
        _without_autocast_cache(x),
        # PyTorch's own stream for recordings is on the GPU that was the first to record
        torch.cuda.graph(graph, stream=_stream(x.device), capture_error_mode="thread_local"),
    ):
        result = compute(source)
    return Recording(graph.replay, source, result, (orders, prepared_tensors(network)))


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _without_autocast_cache(x: Tensor) -> AbstractContextManager:
    """Within the block, autocast converts weights in the graph itself; those that it has converted soon go."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, torch.get_autocast_dtype(kind), cache_enabled=False)
