"""Time of a run by kind of kernel, on a GPU as PyTorch's profiler names them, on a CPU by operations."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# The first kind that a name belongs to counts
GPU_KINDS = {
    "attention": r"(?i)fmha|flash|attention|softmax",
    "convolutions": r"(?i)conv|implicit_gemm|fprop|dgrad|wgrad|winograd",
    "matrix products": r"(?i)gemm|gemv|cutlass|nvjet|xmma|cublas|splitk|dot_kernel",
    "normalization": r"(?i)norm|welford",
    "moving and reordering": r"(?i)copy|memcpy|memset|cat|index|gather|scatter|transpose|nchw|nhwc|permute|roll",
    "activations, additions, sums": r"(?i)elementwise|gelu|relu|add|mul|reduce|foreach|multi_tensor|fill|triton_",
}
CPU_KINDS = {  # sums and quotients of attention count as additions
    "attention": r"scaled_dot_product|bmm|softmax|exp2",
    "linear layers and convolutions": r"_linear|addmm|::mm$|::linear|convolution|conv2d",
    "moving and reordering": r"copy|cat$|reorder|pixel_shuffle|pixel_unshuffle|contiguous|index|gather",
    "normalization, activations, additions": r"norm|gelu|relu|add|mul|sum|div|sub",
}
OTHER = "other"


@dataclass
class KernelProfile:
    """Where the time of a run goes."""

    contender: str  # its key
    size: str
    seconds: dict[str, float]  # of kernels by kind
    kernels: int  # that were started
    wall: float  # seconds of the run, while it was profiled


def kind_of(name: str, kinds: dict[str, str]) -> str:
    """Return the kind of a kernel or operation."""
    return next((kind for kind, names in kinds.items() if re.search(names, name)), OTHER)


def profile_run(run: Callable[[], object], device: str) -> tuple[dict[str, float], int, float]:
    """Profile a run: seconds by kind, how many kernels were started, and seconds in all."""
    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    start = time.perf_counter()
    with profile(activities=activities) as profiler:
        run()
        if on_gpu:
            torch.cuda.synchronize()
    wall = time.perf_counter() - start
    return *_by_kind(profiler.key_averages(), on_gpu), wall


def _by_kind(events: Iterable[Any], on_gpu: bool) -> tuple[dict[str, float], int]:
    """Add up profiler events. On a GPU only kernels count, not the operations that start them, which name them too."""
    kinds = GPU_KINDS if on_gpu else CPU_KINDS
    seconds: Counter[str] = Counter(dict.fromkeys([*kinds, OTHER], 0))
    count = 0
    for event in events:
        if on_gpu and (event.device_type != DeviceType.CUDA or getattr(event, "is_user_annotation", False)):
            continue
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        seconds[kind_of(event.key, kinds)] += own / 1e6
        count += event.count
    return dict(seconds), count
