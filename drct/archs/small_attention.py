"""Attention of small windows in training on the CPU: the attention weights are kept, and as little as possible copied.

Letters in shapes: see `drct.archs.frame`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from drct.archs.kernels import is_kept


def keeps_weights(qkv: Tensor, bias: Tensor) -> bool:
    """Return whether `attend` computes the attention of such queries, keys and values with such a bias (h, N, N)."""
    wanted = torch.is_grad_enabled() and qkv.requires_grad
    return wanted and is_kept(bias.numel() * qkv.element_size(), qkv.device)


def attend(qkv: Tensor, heads: int, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Compute softmax(q k^T + bias + mask) v, without a factor of the logits.

    Args:
        qkv: Queries, keys and values of each token: (B, n, N, 3 * h * d).
        heads: Number of heads h.
        bias: (h, N, N).
        mask: (1 or n, N, N), or None.

    Returns:
        (B, n, N, h * d). It has gradients, but no gradients of gradients.
    """
    low_mask = None if mask is None else mask.to(qkv.dtype)
    return _SmallAttention.apply(qkv, heads, bias.to(qkv.dtype), low_mask)


class _SmallAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int, bias: Tensor, mask: Tensor | None) -> Tensor:
        images, windows, tokens, width = qkv.shape
        ctx.parts = parts = (images * windows, tokens, 3, heads, width // (3 * heads))
        by_head = qkv.reshape(parts).permute(2, 3, 0, 1, 4).contiguous()  # (3, h, B * n, N, d)
        q, k, v = by_head.flatten(1, 2)
        logits = torch.bmm(q, k.mT).view(heads, images, windows, tokens, tokens)
        logits += bias[:, None, None] if mask is None else (bias[:, None] + mask)[:, None]
        weights = logits.softmax(-1).view(-1, tokens, tokens)
        ctx.save_for_backward(by_head, weights)
        out = torch.bmm(weights, v, out=torch.empty_like(v)).view(heads, images, windows, tokens, -1)
        return out.permute(1, 2, 3, 0, 4).flatten(3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_head, weights = ctx.saved_tensors
        windows, tokens, _, heads, d = ctx.parts
        q, k, v = by_head.flatten(1, 2)
        for_out = grad.reshape(windows, tokens, heads, d).permute(2, 0, 1, 3).contiguous().flatten(0, 1)
        for_weights = torch.bmm(for_out, v.mT)
        for_logits = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)
        grads = torch.empty_like(by_head)
        for_q, for_k, for_v = grads.flatten(1, 2)
        torch.bmm(for_logits, k, out=for_q)
        torch.bmm(for_logits.mT, q, out=for_k)
        torch.bmm(weights.mT, for_out, out=for_v)
        # As a product, which adds in float32 and is faster than a sum
        ones = for_logits.new_ones(1, 1, windows).expand(heads, -1, -1)
        for_bias = torch.bmm(ones, for_logits.view(heads, windows, -1)).view(heads, tokens, tokens)
        return grads.permute(2, 3, 0, 1, 4).reshape(grad.shape[:-1] + (-1,)), None, for_bias, None
