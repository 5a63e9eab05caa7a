"""Whether networks run as a GPU wants it, and ways of running on one that are off until they are wanted.

with gpu_switches.switched(graphs=True):
    network(x)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Switches:
    """What of it is on."""

    compiled: str | Callable[..., Any] = ""  # back end of torch.compile for the blocks of DRCT, as 'inductor'
    graphs: bool = False  # record the second image of a size as a CUDA graph, and replay it for the next ones
    triton: bool = False  # window attention by the kernel in `gpu_triton` in inference


_AT_FIRST = Switches()
_present: ContextVar[Switches] = ContextVar("switches", default=_AT_FIRST)


def present() -> Switches:
    """Return the switches as they are set."""
    return _present.get()


@contextmanager
def switched(**changes: Any) -> Iterator[None]:
    """Within the block, change some of the `Switches`."""
    token = _present.set(replace(_present.get(), **changes))
    try:
        yield
    finally:
        _present.reset(token)


def is_gpu(device: torch.device) -> bool:
    """Return whether a device takes long to start an operation and then runs many things at a time."""
    return device.type != "cpu"


def has_graphs(device: torch.device) -> bool:
    """Return whether a device records its operations as CUDA graphs."""
    return device.type == "cuda"
