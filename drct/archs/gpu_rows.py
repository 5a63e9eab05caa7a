"""What blocks on a GPU do to rows of channels between matrix products, as three Triton kernels in place of ten.

Rows are padded with zeros to a width that matrix products are fast for: with the 180 to 308 channels of DRCT's blocks
they take kernels of half the speed.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from drct.archs.gpu_switches import row_width

ENTRIES = 4096  # of rows that a program computes at a time


@triton.jit
def _normalized(values, columns, channels, eps):  # type: ignore[no-untyped-def]
    values = values.to(tl.float32)
    mean = tl.sum(values, 1) / channels
    centred = tl.where(columns[None, :] < channels, values - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, 1) / channels
    return centred * (1.0 / tl.sqrt(variance + eps))[:, None]


@triton.jit
def _gather(  # type: ignore[no-untyped-def]
    source, tokens, x, normed, count, channels, source_row, row, eps, rows_of: tl.constexpr, block: tl.constexpr
):
    rows = tl.program_id(0).to(tl.int64) * rows_of + tl.arange(0, rows_of)
    columns = tl.arange(0, block)
    present = rows < count
    token = tl.load(tokens + rows, mask=present, other=0)
    inside = present[:, None] & (columns[None, :] < channels)
    values = tl.load(source + token[:, None] * source_row + columns[None, :], mask=inside, other=0.0)
    at, kept = rows[:, None] * row + columns[None, :], present[:, None] & (columns[None, :] < row)
    tl.store(x + at, values, mask=kept)
    tl.store(normed + at, _normalized(values, columns, channels, eps).to(normed.dtype.element_ty), mask=kept)


@triton.jit
def _add(  # type: ignore[no-untyped-def]
    x, more, normed, count, channels, row, eps, rows_of: tl.constexpr, block: tl.constexpr
):
    rows = tl.program_id(0).to(tl.int64) * rows_of + tl.arange(0, rows_of)
    columns = tl.arange(0, block)
    at = rows[:, None] * row + columns[None, :]
    kept = (rows < count)[:, None] & (columns[None, :] < row)
    values = tl.load(x + at, mask=kept, other=0.0).to(tl.float32) + tl.load(more + at, mask=kept, other=0.0)
    values = values.to(x.dtype.element_ty)
    tl.store(x + at, values, mask=kept)
    tl.store(normed + at, _normalized(values, columns, channels, eps).to(normed.dtype.element_ty), mask=kept)


@triton.jit
def _scatter(  # type: ignore[no-untyped-def]
    new, tokens, target, count, channels, new_row, target_row, factor,
    is_last: tl.constexpr, rows_of: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * rows_of + tl.arange(0, rows_of)
    columns = tl.arange(0, block)
    present = rows < count
    inside = present[:, None] & (columns[None, :] < channels)
    token = tl.load(tokens + rows, mask=present, other=0)
    values = tl.load(new + rows[:, None] * new_row + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    places = target + token[:, None] * target_row + columns[None, :]
    if is_last:
        values = tl.load(places, mask=inside, other=0.0) + factor * values
    else:
        values = tl.where(values >= 0, values, values * factor)
    tl.store(places, values.to(target.dtype.element_ty), mask=inside)


def gathered(source: Tensor, tokens: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Gather rows.

    Args:
        source: Rows, with the channels of each beside each other: (R, C).
        tokens: Which of them: (T,), int64.
        eps: Added to the variance of a row.

    Returns:
        The rows, padded with zeros, and the same normalized: each (T, `row_width(C)`).
    """
    channels, width = source.shape[1], row_width(source.shape[1])
    x, normed = source.new_empty(2, len(tokens), width)
    sizes = (len(tokens), channels, source.stride(0), width, eps)
    _run(_gather, len(tokens), width, source, tokens, x, normed, *sizes)
    return x, normed


def added(x: Tensor, more: Tensor, channels: int, eps: float) -> Tensor:
    """Add rows to others, in place, and return these normalized.

    Args:
        x: Rows of so many channels, padded with zeros: (T, W). It is changed.
        more: What to add, likewise.
        channels: Of these W.
        eps: Added to the variance of a row.
    """
    normed = x.new_empty(x.shape)
    _run(_add, len(x), x.shape[1], x, more, normed, len(x), channels, x.shape[1], eps)
    return normed


def scattered(new: Tensor, tokens: Tensor, target: Tensor, factor: float, adds: bool) -> None:
    """Write the outcome of a block to its places: leaky ReLU of it, or what is there plus a part of it.

    Args:
        new: (T, at least C).
        tokens: Rows of the target: (T,), int64.
        target: Rows, with the channels of each beside each other: (R, C).
        factor: Slope of leaky ReLU below zero, or the part.
        adds: Whether to add.
    """
    channels = target.shape[1]
    sizes = (len(tokens), channels, new.stride(0), target.stride(0))
    _run(_scatter, len(tokens), channels, new, tokens, target, *sizes, factor, adds)


def _run(kernel: Any, count: int, width: int, *arguments: Any) -> None:
    block = triton.next_power_of_2(width)
    rows = max(1, ENTRIES // block)
    if count:
        with torch.cuda.device_of(arguments[0]):  # unlike PyTorch, Triton runs on the current device
            kernel[(triton.cdiv(count, rows),)](*arguments, rows, block, num_warps=4)
