"""Whether networks run as a GPU wants it, and ways of running on one.

with gpu_switches.switched(graphs=True):
    network(x)
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from drct.text import first_line

ROW_MULTIPLE = 16  # of channels in rows for Triton's kernels and matrix products: 32 bytes of bf16


@dataclass(frozen=True)
class Switches:
    """What of it is on."""

    compiled: str | Callable[..., Any] = ""  # back end of torch.compile for the blocks of DRCT, as 'inductor'
    graphs: bool | None = None  # replay CUDA graphs for sizes that come again; None: for small images
    triton: bool = False  # window attention by the kernel in `gpu_triton` in inference
    rows: bool = True  # the kernels in `gpu_rows` between the products of DRCT's blocks in inference


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


def row_width(channels: int) -> int:
    """Return the width of rows of so many channels."""
    return -(-channels // ROW_MULTIPLE) * ROW_MULTIPLE


def has_row_kernels(x: Tensor) -> bool:
    """Return whether the kernels of `gpu_rows` are on and work for a feature map."""
    switches = present()
    if not switches.rows or switches.compiled or type(x) is not Tensor:  # such as one without values
        return False
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    return has_triton(x.device, x.dtype)


@cache
def has_triton(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether Triton is there and can make kernels for a device and dtype, for which it needs a C compiler."""
    if device.type != "cuda" or find_spec("triton") is None:
        return False
    try:
        from drct.archs import gpu_rows

        first = torch.zeros(1, dtype=torch.int64, device=device)
        gpu_rows.gathered(torch.ones(1, ROW_MULTIPLE, device=device, dtype=dtype), first, 1.0)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # of an installation, a compiler, a driver, a GPU that is too old
        warnings.warn(f"slower than it could be, as Triton does not work here: {first_line(error)}", stacklevel=2)
        return False
    return True
