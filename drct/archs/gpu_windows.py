"""Windows of a feature map in the order in which GPUs, and inference on the CPU, compute them: by kind.

A GPU waits for the start of every operation and for every byte, and so does a CPU where images are small. So windows
are read with a single operation, whatever the shift; those of a kind lie in one piece, which attention takes with one
mask; and the images of a batch come last: windows are (n, B, N, C), and the masks of n windows are four at most.

Letters in shapes: see `drct.archs.frame`.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from drct.archs import gpu_switches, progress
from drct.archs.windows import cached, pieces, shift_masks, window_kinds, window_partition

Run = tuple[int, int, int]  # kind of windows (see `shift_masks`), first window, end


class Kinds(NamedTuple):
    """The kinds of some windows."""

    masks: Tensor | None  # (4, N, N), or None without a shift
    runs: tuple[Run, ...]


class WindowOrder(NamedTuple):
    """Which tokens of a feature map (B, H, W, C), numbered along it, its windows (n, B, N, C) consist of."""

    tokens: Tensor  # (n * B * N,), int64: the token at each place in the windows
    places: Tensor  # (B * H * W,), int64: the place of each token
    windows: int  # n
    kinds: Kinds

    def pieces(self, at_most: int) -> Iterator["WindowOrder"]:
        """Cut the windows into pieces: on a GPU of about equal size, on the CPU of powers of two of windows only.

        Every size of a matrix product leaves something in PyTorch's caches on the CPU.
        """
        count = -(-self.windows // at_most)
        spans = [(self.windows * i // count, self.windows * (i + 1) // count) for i in range(count)]
        if not gpu_switches.is_gpu(self.tokens.device):
            spans = [(start, start + size) for start, size in pieces(0, self.windows, at_most, powers_of_two=True)]
        step = len(self.tokens) // self.windows
        for start, end in spans:
            cut = ((kind, max(a, start) - start, min(b, end) - start) for kind, a, b in self.kinds.runs)
            runs = tuple((kind, a, b) for kind, a, b in cut if a < b)
            part = self.tokens[start * step : end * step]
            yield WindowOrder(part, self.places, end - start, self.kinds._replace(runs=runs))


def window_order(x: Tensor, w: int, shift: int) -> WindowOrder:
    """Return the order of the windows of a feature map (B, H, W, C) that is cyclically shifted first."""
    batch, height, width = x.shape[:3]
    rows, columns = height // w, width // w
    tokens, places = _tokens_and_places(batch, height, width, w, shift, x.device)
    masks = shift_masks(w, shift, x.device, x.dtype) if shift else None
    return WindowOrder(tokens, places, rows * columns, Kinds(masks, tuple(_runs(rows, columns, shift > 0))))


def _runs(rows: int, columns: int, shifted: bool) -> Iterator[Run]:
    counts = [(rows - 1) * (columns - 1), rows - 1, columns - 1, 1] if shifted else [rows * columns]
    start = 0
    for kind, count in enumerate(counts):
        if count:
            yield kind, start, start + count
        start += count


@partial(cached, results=4)  # of large images these are large
def _tokens_and_places(batch: int, height: int, width: int, w: int, shift: int, device: torch.device) -> Tensor:
    """Return `tokens` and `places` of a `WindowOrder`: (2, B * H * W)."""
    numbers = torch.arange(batch * height * width, device=device).view(batch, height, width, 1)
    windows = window_partition(torch.roll(numbers, (-shift, -shift), (1, 2)), w).view(batch, -1, w * w)
    windows = windows.transpose(0, 1)  # (n, B, N)
    if shift:
        windows = windows[window_kinds(height // w, width // w, device).argsort(stable=True)]
    tokens = windows.flatten()
    return torch.stack([tokens, torch.empty_like(tokens).scatter_(0, tokens, numbers.flatten())])


class _Reordered(torch.autograd.Function):
    """Rows of a matrix in another order. The backward pass adds nothing up, as that of an index would."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _, inverse = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None


def in_all_windows(x: Tensor, w: int, shift: int, recompute: bool, run: Callable[..., Tensor], *args: Any) -> Tensor:
    """Compute `run(windows, kinds, *args)` of all windows of a feature map: (B, H, W, C) -> (B, H, W, C').

    Args:
        x: The feature map.
        w: Side of a window.
        shift: Cyclic shift of the feature map before it is cut into windows.
        recompute: Recompute `run` in the backward pass instead of storing its activations.
        run: What to compute of the tokens of windows, (n * B * N, C), and their `Kinds`.
        args: More arguments for `run`.
    """
    order = window_order(x, w, shift)
    rows = _Reordered.apply(x.flatten(0, 2), order.tokens, order.places)
    arguments = (rows, order.kinds, *args)
    new = checkpoint(run, *arguments, use_reentrant=False) if recompute else run(*arguments)
    return _Reordered.apply(new, order.places, order.tokens).view(*x.shape[:3], -1)


def in_few_windows(
    source: Tensor, target: Tensor, w: int, shift: int, at_most: int, run: Callable[[Tensor, Kinds], Tensor]
) -> None:
    """Compute `run` of all windows of a feature map, in pieces of at most so many, and report the progress.

    Args:
        source: (B, H, W, C), contiguous but for its channels.
        target: (B, H, W, C'), likewise, which may be the same.
        w: Side of a window.
        shift: Cyclic shift of the feature map before it is cut into windows.
        at_most: Largest number of windows of an image to compute at a time.
        run: What to compute of windows (n, B, N, C) and their `Kinds`. It may overwrite the windows.
    """
    from_rows, to_rows = rows_of(source), rows_of(target)
    for piece in few_windows(source, w, shift, at_most):
        windows = from_rows.index_select(0, piece.tokens).view(piece.windows, len(source), w * w, -1)
        to_rows[piece.tokens] = run(windows, piece.kinds).flatten(0, 2)


def few_windows(x: Tensor, w: int, shift: int, at_most: int) -> Iterator[WindowOrder]:
    """Yield the windows of a feature map in pieces of at most so many of an image, and report the progress."""
    order = window_order(x, w, shift)
    done = 0
    for piece in order.pieces(at_most):
        yield piece
        done += piece.windows
        progress.report(done / order.windows)


def rows_of(x: Tensor) -> Tensor:
    """Return the tokens of a feature map that is contiguous but for its channels: (B, H, W, C) -> (B * H * W, C)."""
    return x.view(-1, x.shape[-1])
