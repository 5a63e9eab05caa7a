"""The matrix products of the network - linear layers and attention - by the fastest way that this device has."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ATTENTION_BACKWARD_WINDOWS = 4  # recomputed at a time, for their matrices to stay in the cache
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_traced() -> bool:
    """Whether this is recorded by torch.compile, torch.export or torch.jit, which want operations they know."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b: (..., i), (o, i), (o,) -> (..., o)."""
    if is_traced() or not _onednn_is_faster(x):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _OneDNNLinear.apply(x, weight, bias)
    return _onednn(x, weight, bias)


def _onednn_is_faster(x: Tensor) -> bool:
    # PyTorch takes oneDNN for bfloat16 by itself, but MKL for float32, which is slow on processors not made by Intel
    return (
        HAS_ONEDNN
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        flat = grad.flatten(0, -2)
        for_x = _onednn(grad, weight.t().contiguous(), None) if ctx.needs_input_grad[0] else None
        for_weight = flat.t() @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
        for_bias = flat.sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return for_x, for_weight, for_bias


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T + bias + mask) v, without a factor of the logits.

    Args:
        q, k, v: (n, h, N, d): n windows, h heads.
        bias: (h, N, N).
        mask: (m, N, N), where window i takes mask i % m, or None.
        dropout: Rate of dropout of the weights.

    Returns:
        (n, h, N, d). On the CPU it has gradients, but no gradients of gradients.
    """
    on_cpu = q.device.type == "cpu"
    if on_cpu and (dropout or is_traced()):
        return F.dropout(_weights(q, k, bias, mask), dropout) @ v
    if on_cpu and torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, bias)):
        # PyTorch's fused attention on the CPU has no gradient for a bias
        return _RecomputedAttention.apply(q, k, v, bias, mask)
    if on_cpu and q.dtype == torch.bfloat16:  # the fused one converts all to float32
        return _weights(q, k, bias, mask) @ v
    return F.scaled_dot_product_attention(q, k, v, _full_bias(bias, mask, len(q)).to(q.dtype), dropout, scale=1.0)


def _full_bias(bias: Tensor, mask: Tensor | None, n: int) -> Tensor:
    """Bias and mask in four dimensions, as fast kernels take them: (1 or n, h, N, N)."""
    if mask is None:
        return bias[None]
    full = bias + mask[:, None].to(bias.dtype)
    return full if len(full) in (1, n) else full.repeat(n // len(full), 1, 1, 1)


def _weights(q: Tensor, k: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    logits = q @ k.transpose(-2, -1)
    return (logits + _full_bias(bias, mask, len(q)).to(logits.dtype)).softmax(-1)


class _RecomputedAttention(torch.autograd.Function):
    """Attention that keeps no attention matrix for the backward pass, which computes them again, a few at a time."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(q, k, v, bias, *([] if mask is None else [mask]))
        return attention(q, k, v, bias, mask)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, *masks = ctx.saved_tensors
        mask = masks[0] if masks else None
        grads = [torch.empty_like(t) for t in (q, k, v)]
        for_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))  # a sum of many
        for start in range(0, len(q), ATTENTION_BACKWARD_WINDOWS):
            part = slice(start, start + ATTENTION_BACKWARD_WINDOWS)
            some = None if mask is None else mask[torch.arange(len(q))[part] % len(mask)]
            weights = _weights(q[part], k[part], bias, some)
            for_weights = grad[part] @ v[part].transpose(-2, -1)
            grads[2][part] = weights.transpose(-2, -1) @ grad[part]
            mean = (weights * for_weights).sum(-1, keepdim=True)
            for_logits = weights * (for_weights - mean)
            for_bias += for_logits.sum(0)
            grads[0][part] = for_logits @ k[part]
            grads[1][part] = for_logits.transpose(-2, -1) @ q[part]
        return *grads, for_bias.to(bias.dtype), None
