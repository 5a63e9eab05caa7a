"""Weights of attention blocks, prepared for training on a GPU: all those of a block in one step.

To start an operation on a weight takes longer than the operation itself, forward and backward.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from drct.archs.prepared_weights import HEAD_MULTIPLE, AttentionWeights, Product
from drct.archs.swin import Attention


class Heads(NamedTuple):
    """Heads that the rows (dim 0) or columns (dim 1) of a weight belong to."""

    dim: int
    heads: int
    d: int  # rows or columns of each


def training_weights(
    attn: Attention, products: Sequence[Product], dtype: torch.dtype
) -> tuple[AttentionWeights, list[Product]]:
    """Prepare weights and biases of a block's attention, whose queries stay unscaled, and of its other products."""
    h, d = attn.num_heads, len(attn.proj.weight) // attn.num_heads
    in_heads = (Heads(0, 3 * h, d), Heads(0, 3 * h, d), Heads(1, h, d))
    tensors = (attn.qkv.weight, attn.qkv.bias, attn.proj.weight, attn.proj.bias, attn.relative_position_bias())
    found = _Prepared.apply(dtype, in_heads, *tensors, *(t for product in products for t in product))
    qkv, qkv_bias, proj, proj_bias, bias, *rest = found
    attention = AttentionWeights(Product(qkv, qkv_bias), Product(proj, proj_bias), bias.contiguous(), attn.scale)
    return attention, [Product(*pair) for pair in zip(rest[::2], rest[1::2], strict=True)]


class _Prepared(torch.autograd.Function):
    """Tensors in a dtype, of which the first ones have heads that are padded with zeros. What is None stays None."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, heads: Sequence[Heads], *tensors: Tensor | None) -> tuple:
        ctx.heads, ctx.dtypes = heads, [None if t is None else t.dtype for t in tensors]
        ctx.set_materialize_grads(False)
        results = _converted(tensors, [dtype] * len(tensors))
        results[: len(heads)] = map(_padded, results, heads)
        return tuple(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:
        cut = [*map(_without_padding, grads, ctx.heads), *grads[len(ctx.heads) :]]
        return None, None, *_converted(cut, ctx.dtypes)


def _converted(tensors: Sequence[Tensor | None], dtypes: Sequence[Any]) -> list[Tensor | None]:
    """Convert tensors to dtypes, those of the same dtypes in one operation."""
    pairs = zip(tensors, dtypes, strict=True)
    results = [t if t is None or t.dtype == dtype else torch.empty_like(t, dtype=dtype) for t, dtype in pairs]
    copies: dict[Any, list[tuple[Tensor, Tensor]]] = defaultdict(list)  # some versions of PyTorch mix up dtypes
    for new, t in zip(results, tensors, strict=True):
        if new is not None and t is not None and new is not t:
            copies[new.dtype, t.dtype].append((new, t))
    for alike in copies.values():
        torch._foreach_copy_([new for new, _ in alike], [t for _, t in alike])
    return results


def _padded(x: Tensor | None, of: Heads) -> Tensor | None:
    dim, count, d = of
    more = -d % HEAD_MULTIPLE
    if x is None or not more:
        return x
    return F.pad(x.unflatten(dim, (count, d)), (0, 0) * (x.ndim - dim - 1) + (0, more)).flatten(dim, dim + 1)


def _without_padding(x: Tensor | None, of: Heads) -> Tensor | None:
    dim, count, d = of
    return None if x is None else x.unflatten(dim, (count, -1)).narrow(dim + 1, 0, d).flatten(dim, dim + 1)
