"""Attention of windows in the order of `gpu_windows`, by kernels that never store the attention weights.

Letters in shapes: see `drct.archs.frame`.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from drct.archs import gpu_switches
from drct.archs.gpu_windows import Kinds, Run

BIAS_GRADIENTS = 2**26  # entries of the gradients of the bias that a backward pass holds before it adds them up


def attention_by_kind(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, kinds: Kinds, dropout: float = 0.0, scale: float = 1.0
) -> Tensor:
    """Compute softmax(scale q k^T + bias + mask) v.

    Args:
        q: (n * B, h, N, d).
        k, v: (n * B, h, M, d).
        bias: (h, N, M), or that plus the mask of each kind: (kinds, h, N, M).
        kinds: Kinds of the n windows.
        dropout: Dropout rate of the attention weights.
        scale: Factor of the products of queries and keys.

    Returns:
        (n * B, h, N, d), of which the heads of a token lie beside each other. Bias and mask stay as small as they are.
    """
    biases = (bias if bias.ndim == 4 else with_masks(bias, kinds.masks)).to(q.dtype).unbind()
    if gpu_switches.present().triton and not torch.is_grad_enabled() and not dropout:
        from drct.archs.gpu_triton import window_attention  # triton comes with PyTorch for CUDA only

        q = q if scale == 1 else q * scale
        return window_attention(q, k, v, torch.stack(list(biases)), kinds.runs)
    images = len(q) // max(1, kinds.runs[-1][2])
    at_most = max(1, len(q))
    if torch.is_grad_enabled() and bias.requires_grad:  # of which SDPA makes the gradient for each window
        at_most = max(1, BIAS_GRADIENTS // biases[0].numel())
    kinds_of_parts, sizes = zip(*_parts(kinds.runs, images, at_most), strict=True)
    parts = (t.split(sizes) if len(sizes) > 1 else (t,) for t in (q, k, v))  # whose gradients make one piece again
    results = []
    for kind, q_part, k_part, v_part in zip(kinds_of_parts, *parts, strict=True):
        result = F.scaled_dot_product_attention(q_part, k_part, v_part, biases[kind][None], dropout, scale=scale)
        results.append(result.transpose(1, 2))
    return (results[0] if len(results) == 1 else torch.cat(results)).transpose(1, 2)


def with_masks(bias: Tensor, masks: Tensor | None) -> Tensor:
    """Add the mask of each kind to a bias (h, N, M): (kinds, h, N, M)."""
    return bias[None] if masks is None else bias + masks[:, None].to(bias.dtype)


def _parts(runs: Sequence[Run], images: int, at_most: int) -> Iterator[tuple[int, int]]:
    """Cut runs of windows into parts of at most so many windows of all images: the kind and the number of each."""
    for kind, first, end in runs:
        left = (end - first) * images
        while left > at_most:
            yield kind, at_most
            left -= at_most
        yield kind, left
