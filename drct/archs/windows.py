"""Geometry of windows: cutting feature maps into windows, masks of shifted windows, relative positions.

Letters in shapes: B images, H x W tokens, C channels, w = window_size, N = w * w tokens of a window, n windows of an
image.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from drct.archs.tracing import is_traced, is_transformed

MASKED = -100.0  # added to the logits of token pairs that must not see each other; not -inf, as the weights expect


def window_partition(x: Tensor, w: int) -> Tensor:
    """Cut a feature map into windows: (B, H, W, C) -> (B * n, N, C), windows and tokens in row-major order."""
    return rearrange(x, "b (nh wh) (nw ww) c -> (b nh nw) (wh ww) c", wh=w, ww=w)


def window_merge(windows: Tensor, w: int, height: int, width: int) -> Tensor:
    """Undo `window_partition`: (B * n, N, C) -> (B, H, W, C)."""
    return rearrange(windows, "(b nh nw) (wh ww) c -> b (nh wh) (nw ww) c", nh=height // w, nw=width // w, wh=w, ww=w)


def overlapping_windows(x: Tensor, w: int, m: int) -> Tensor:
    """Cut a feature map into windows of side m at every w-th token: (B, H + m - w, W + m - w, C) -> (B * n, m * m, C).

    Windows and tokens are in row-major order. The result is contiguous.
    """
    return rearrange(x.unfold(1, m, w).unfold(2, m, w), "b nh nw c wh ww -> (b nh nw) (wh ww) c")


_collections: list[list[Tensor]] = []  # of all threads: the backward pass runs in one of its own


@contextmanager
def results_collected() -> Iterator[list[Tensor]]:
    """Within the block, collect what functions that are `cached` return.

    A recorded graph reads these tensors in their memory, which is free once they are forgotten.
    """
    collection: list[Tensor] = []
    _collections.append(collection)
    try:
        yield collection
    finally:
        _collections[:] = [other for other in _collections if other is not collection]


def cached(build: Callable[..., Tensor], results: int = 32) -> Callable[..., Tensor]:
    """Remember the last results of `build`, made so that training can use them even if inference mode asked first."""

    @lru_cache(maxsize=results)
    def remember(*args: Any) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            return build(*args)

    def build_normal_tensor(*args: Any) -> Tensor:
        # While torch.jit records, sizes are tensors, and what does not depend on them becomes a constant
        if is_traced() or is_transformed() or any(isinstance(argument, Tensor) for argument in args):
            return build(*args)
        result = remember(*args)
        if type(result) is not Tensor:  # a stand-in, made while a program is recorded
            remember.cache_clear()
        for collection in _collections:
            collection.append(result)
        return result

    return build_normal_tensor


@cached
def relative_position_index(w: int, device: torch.device) -> Tensor:
    """Return the row of the bias table for each pair of tokens of a window: (N, N), int64, in [0, (2w-1)^2)."""
    side = torch.arange(w, device=device)
    y, x = torch.meshgrid(side, side, indexing="ij")
    dy = y.flatten()[:, None] - y.flatten()[None, :] + w - 1  # (N, N), 0 .. 2w-2
    dx = x.flatten()[:, None] - x.flatten()[None, :] + w - 1
    return dy * (2 * w - 1) + dx


@cached
def overlapping_position_index(w: int, overlap: int, device: torch.device) -> Tensor:
    """Return the row of HAT's bias table for each query of a window and key of the larger window around it.

    Rows count from the end of the table where they are negative: HAT's weights are trained that way.

    Args:
        w: Side of a window of queries.
        overlap: Tokens by which the window of keys is larger, on both sides together: its side is w + overlap = m.
        device: Where to make it.

    Returns:
        (N, m * m), int64, with absolute values below (w + m - 1)^2.
    """
    queries, keys = torch.arange(w, device=device), torch.arange(w + overlap, device=device)
    apart = keys[None, :] - queries[:, None] - overlap + 1  # (w, m), along one axis
    rows = apart[:, None, :, None] * (2 * w + overlap - 1) + apart[None, :, None, :]  # (w, w, m, m)
    return rows.flatten(2).flatten(0, 1)


@cached
def shift_masks(w: int, shift: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the four attention masks that a cyclic shift needs at any image size: (4, N, N), 0 or -100.

    A window in the last column (row) of the rolled image holds columns (rows) of both borders of the image, which
    must not see each other. Kind 0: an inner window, no mask; 1: last column; 2: last row; 3: the corner.
    """
    wrapped = torch.arange(w, device=device) >= w - shift  # of a border window: from the opposite border?
    by_row, by_column = wrapped.repeat_interleave(w), wrapped.repeat(w)  # (N,)
    rows_differ = by_row[:, None] != by_row[None, :]  # (N, N)
    columns_differ = by_column[:, None] != by_column[None, :]
    differ = torch.stack([torch.zeros_like(rows_differ), columns_differ, rows_differ, rows_differ | columns_differ])
    return differ.to(dtype) * MASKED


@cached
def window_kinds(rows: int, columns: int, device: torch.device) -> Tensor:
    """Return which of the `shift_masks` each window of a shifted image needs: (rows * columns,), int64, 0 to 3."""
    last_row = torch.arange(rows, device=device) == rows - 1
    last_column = torch.arange(columns, device=device) == columns - 1
    return (2 * last_row[:, None] + last_column[None, :].long()).flatten()


def window_masks(
    height: int, width: int, w: int, shift: int, device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    """Return the attention mask of each window of a shifted feature map: (n, N, N), or None without a shift."""
    if not shift:
        return None
    return shift_masks(w, shift, device, dtype)[window_kinds(height // w, width // w, device)]


def pieces(start: int, length: int, at_most: int, powers_of_two: bool) -> Iterator[tuple[int, int]]:
    """Cut a stretch into pieces: start and length of each."""
    end = start + length
    while start < end:
        size = min(at_most, end - start)
        size = 2 ** (size.bit_length() - 1) if powers_of_two else size
        yield start, size
        start += size
