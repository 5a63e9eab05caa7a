"""Geometry of windows: cutting feature maps into them, which of them wrap around when shifted, relative positions.

Letters in shapes: B images, H x W tokens, C channels, w = window_size, N = w * w tokens of a window, n windows.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

MASKED = -100.0  # added to the logits of token pairs that must not see each other; not -inf, as the weights expect


def window_partition(x: Tensor, w: int) -> Tensor:
    """Cut a feature map into windows: (B, H, W, C) -> (B, H/w * W/w, w*w, C), windows and tokens in row-major order."""
    return rearrange(x, "b (nh wh) (nw ww) c -> b (nh nw) (wh ww) c", wh=w, ww=w)


def window_merge(windows: Tensor, w: int, width: int) -> Tensor:
    """Undo `window_partition`: (B, n, w*w, C) -> (B, H, W, C), where W = `width`."""
    return rearrange(windows, "b (nh nw) (wh ww) c -> b (nh wh) (nw ww) c", nw=width // w, wh=w, ww=w)


def _cached(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Remember the last results of `build`. They are usable in training even if first asked for in inference mode."""

    @lru_cache(maxsize=32)
    def remember(*args) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return build(*args)

    def build_normal_tensor(*args) -> Tensor:
        # While torch.jit records, sizes are tensors; what does not depend on them is a constant of the program
        if torch.compiler.is_compiling() or any(isinstance(argument, Tensor) for argument in args):
            return build(*args)
        result = remember(*args)
        if type(result) is not Tensor:  # a stand-in, made while a program is recorded
            remember.cache_clear()
        return result

    return build_normal_tensor


@_cached
def relative_position_index(w: int, device: torch.device) -> Tensor:
    """Row of the bias table for each pair of tokens of a window: (N, N), int64, values in [0, (2w-1)^2)."""
    side = torch.arange(w, device=device)
    y, x = torch.meshgrid(side, side, indexing="ij")
    dy = y.flatten()[:, None] - y.flatten()[None, :] + w - 1  # (N, N), 0 .. 2w-2
    dx = x.flatten()[:, None] - x.flatten()[None, :] + w - 1
    return dy * (2 * w - 1) + dx


@_cached
def shift_masks(w: int, shift: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The four attention masks that a cyclic shift needs, whatever the size of the image: (4, N, N), 0 or -100.

    A window in the last column (row) of the rolled image holds columns (rows) of both borders of the image, which
    must not see each other. Kind 0: an inner window, no mask; 1: last column; 2: last row; 3: the corner.
    """
    wrapped = torch.arange(w, device=device) >= w - shift  # of a border window: from the opposite border?
    by_row, by_column = wrapped.repeat_interleave(w), wrapped.repeat(w)  # (N,)
    rows_differ = by_row[:, None] != by_row[None, :]  # (N, N)
    columns_differ = by_column[:, None] != by_column[None, :]
    differ = torch.stack([torch.zeros_like(rows_differ), columns_differ, rows_differ, rows_differ | columns_differ])
    return differ.to(dtype) * MASKED


@_cached
def window_kinds(rows: int, columns: int, device: torch.device) -> Tensor:
    """Which of the `shift_masks` each window of a rolled image needs: (rows * columns,), int64, values 0 to 3."""
    last_row = torch.arange(rows, device=device) == rows - 1
    last_column = torch.arange(columns, device=device) == columns - 1
    return (2 * last_row[:, None] + last_column[None, :].long()).flatten()


def shift_attention_mask(height: int, width: int, w: int, shift: int) -> Tensor:
    """The mask of every window of a height x width image: (n, N, N), float32, on the CPU.

    Not used to compute anything: the original keeps it in its weight files.
    """
    cpu = torch.device("cpu")
    return shift_masks(w, shift, cpu, torch.float32)[window_kinds(height // w, width // w, cpu)]


class Region(NamedTuple):
    """A rectangle of windows, all of one kind. Positions and sizes count windows."""

    row: int
    column: int
    rows: int
    columns: int
    kind: int  # of the `shift_masks`


def regions(rows: int, columns: int, shifted: bool, at_most: int, few_sizes: bool) -> Iterator[Region]:
    """Cut a grid of windows into regions. Without a shift all windows are of kind 0.

    Args:
        rows, columns: Of the grid.
        shifted: Whether the image is rolled.
        at_most: Windows of a region.
        few_sizes: Make regions of powers of two of windows only, whatever the grid: more of them, but every size of a
            matrix product leaves something in PyTorch's caches of the CPU.
    """
    row_parts = [(0, rows - 1, 0), (rows - 1, 1, 2)] if shifted else [(0, rows, 0)]
    column_parts = [(0, columns - 1, 0), (columns - 1, 1, 1)] if shifted else [(0, columns, 0)]
    for first_row, part_rows, row_kind in row_parts:
        for first_column, part_columns, column_kind in column_parts:
            for column, width in _pieces(first_column, part_columns, at_most, few_sizes):
                for row, height in _pieces(first_row, part_rows, max(1, at_most // width), few_sizes):
                    yield Region(row, column, height, width, row_kind + column_kind)


def _pieces(start: int, length: int, at_most: int, powers_of_two: bool) -> Iterator[tuple[int, int]]:
    """Start and length of pieces."""
    end = start + length
    while start < end:
        size = min(at_most, end - start)
        size = 2 ** (size.bit_length() - 1) if powers_of_two else size
        yield start, size
        start += size


def read_region(features: Tensor, region: Region, w: int, shift: int) -> Tensor:
    """The windows of a region of a cyclically shifted feature map: (B, H, W, C) -> (B, n, N, C), contiguous."""
    for dim, start, length in ((1, region.row, region.rows), (2, region.column, region.columns)):
        spans = list(_wrapped_spans(start * w + shift, length * w, features.shape[dim]))
        parts = [features.narrow(dim, source, size) for source, _, size in spans]
        features = torch.cat(parts, dim) if len(parts) > 1 else parts[0]
    return window_partition(features, w).contiguous()


def write_region(features: Tensor, windows: Tensor, region: Region, w: int, shift: int) -> None:
    """Put windows back to where `read_region` takes them from: (B, n, N, C) into (B, H, W, C)."""
    tokens = window_merge(windows, w, region.columns * w)
    for row, from_row, rows in _wrapped_spans(region.row * w + shift, region.rows * w, features.shape[1]):
        for column, from_column, columns in _wrapped_spans(
            region.column * w + shift, region.columns * w, features.shape[2]
        ):
            part = tokens[:, from_row : from_row + rows, from_column : from_column + columns]
            features[:, row : row + rows, column : column + columns] = part


def _wrapped_spans(start: int, length: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Where a stretch of an axis of a given size lies that may run over its end: start, offset in it, length."""
    start %= size
    first = min(length, size - start)
    yield start, 0, first
    if first < length:
        yield 0, first, length - first
