"""The memory of networks that do not declare it: measured on two small images, and extrapolated."""

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import psutil
import torch
from torch import Tensor

from drct.archs.traits import NetworkTraits

SMALL = 48  # side in pixels of the smaller of the images, before it is padded; that of the larger is twice as long
STEADY = 1.15  # power of the number of pixels up to which memory counts as proportional to it
INTERVAL = 5e-4  # seconds between two looks at the memory


class MeasuredMemory:
    """The memory that inference on one image needs, as a function like `NetworkTraits.memory`.

    The network is run on two small images when the first answer is asked for in some precision. Between and beyond
    them, memory grows with a power of the number of pixels, from 1 (convolutions, windows) to 2 (global attention).

    Args:
        network: Takes (B, C, H, W) in [0, 1].
        traits: Sizes that it takes.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], traits: NetworkTraits) -> None:
        self._network = network
        self._traits = traits
        self._found: dict[tuple[torch.dtype, torch.device], tuple[float, float]] = {}  # bytes at `larger`, power
        smaller = traits.fitting(SMALL, SMALL)
        self._sizes = smaller, traits.fitting(2 * smaller[0], 2 * smaller[1])

    @property
    def larger(self) -> int:
        """Pixels of the larger image."""
        return math.prod(self._sizes[1])

    def is_known(self, dtype: torch.dtype, device: torch.device) -> bool:
        """Return whether the memory has been measured in some precision."""
        return (dtype, device) in self._found

    def __call__(self, height: int, width: int, dtype: torch.dtype, device: torch.device) -> int:
        """Return the bytes for an image of this size."""
        if not self.is_known(dtype, device):
            self._found[dtype, device] = self._measure(dtype, device)
        needed, power = self._found[dtype, device]
        return math.ceil(needed * (math.prod(self._traits.fitting(height, width)) / self.larger) ** power)

    def _measure(self, dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
        low = nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
        found = []
        for size in self._sizes:
            x = torch.rand(1, self._traits.channels, *size, device=device)
            watch = _outside_pytorch if self._traits.place else _on_cpu if device.type == "cpu" else _on_accelerator
            with torch.no_grad(), low, watch(device) as peak:
                self._network(x)
            found.append(max(1.0, peak()))
        growth = math.log(found[1] / found[0]) / math.log(self.larger / math.prod(self._sizes[0]))
        # What is seen of other programs' allocators is too rough to tell a power
        return found[1], 1.0 if growth < STEADY or self._traits.place else min(growth, 2.0)


Peak = Callable[[], float]  # the largest amount of memory within a block, in bytes above that at its start


@contextmanager
def _on_cpu(device: torch.device) -> Iterator[Peak]:
    """Follow what PyTorch allocates and frees. What the process takes would not show memory that it has kept."""
    level = os.environ.get("KINETO_LOG_LEVEL")
    os.environ["KINETO_LOG_LEVEL"] = level or "99"  # of the profiler, which else writes lines when it starts
    used = peak = 0.0
    try:
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            yield lambda: peak
    finally:
        if level is None:
            del os.environ["KINETO_LOG_LEVEL"]
    results = profiler.profiler.kineto_results
    for _, amount in sorted((e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"):
        used += amount
        peak = max(peak, used)


@contextmanager
def _on_accelerator(device: torch.device) -> Iterator[Peak]:
    """Ask PyTorch's allocator of the device; that of MPS does not count, but keeps what it has taken."""
    memory = torch.get_device_module(device)
    memory.synchronize()
    memory.empty_cache()
    if device.type == "mps":
        before = memory.driver_allocated_memory()
        yield lambda: memory.driver_allocated_memory() - before
        return
    before = memory.memory_allocated(device)
    memory.reset_peak_memory_stats(device)
    yield lambda: memory.max_memory_allocated(device) - before


@contextmanager
def _outside_pytorch(device: torch.device) -> Iterator[Peak]:
    """Look again and again at the memory of the process, or at what is free on the GPU."""
    process, largest, done = psutil.Process(), 0, threading.Event()

    def used() -> int:
        return -torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else process.memory_info().rss

    def watch() -> None:
        nonlocal largest
        while not done.wait(INTERVAL):
            largest = max(largest, used() - before)

    before = used()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: float(largest)
    finally:
        done.set()
        watcher.join()
