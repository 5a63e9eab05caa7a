"""Linear layers and window attention, computed in the fastest way that the device has."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from drct.archs import gpu_switches
from drct.archs.gpu_attention import attention_by_kind
from drct.archs.gpu_windows import Kinds
from drct.archs.regions import autocast_dtype

LOGITS_AT_A_TIME = 2**20  # of a head, for them to stay in the cache
KEPT_BYTES = 2**16  # of a window's: what takes more is recomputed in the backward pass where that is cheap
LOG2_E = math.log2(math.e)
LARGE = 2.0**60  # a sum of powers that is neither larger nor smaller than the inverse has all its digits
Gradients = Callable[[Tensor, Sequence[bool]], tuple[Tensor | None, ...]]  # of a result's, those that are wanted
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_kept(bytes_of_window: int, device: torch.device) -> bool:
    """Return whether training keeps what takes so many bytes for a window, instead of computing it again.

    Never on a GPU, where that has not been measured.

    Small networks gain time, and large ones, which memory holds up, keep little. The rule does not depend on how many
    windows there are, so that an image has the same gradients in any batch.
    """
    return bytes_of_window <= KEPT_BYTES and not gpu_switches.is_gpu(device)


def packed(weight: Tensor, rows: int) -> Tensor:
    """Reorder a weight (o, i) for `linear` to read it fastest in inference, on devices that have such an order.

    Args:
        weight: A weight in the dtype of the computation.
        rows: How many rows most products will have.
    """
    if not _onednn_computes(weight):
        return weight
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), rows)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """Compute x W^T + b, and GELU of it if wanted: (..., i), (o, i), (o,) -> (..., o). `weight` may be `packed`."""
    if weight.is_mkldnn:
        return _onednn(x.to(weight.dtype), weight, None if bias is None else bias.to(weight.dtype), gelu)
    if torch.is_grad_enabled() and _onednn_computes_low(x):
        y = _Linear.apply(x, weight, bias)
    elif _onednn_is_faster(x):
        return _onednn(x, weight, bias, gelu)
    else:
        y = F.linear(x, weight, bias)
    return F.gelu(y) if gelu else y


class Recomputed(NamedTuple):
    """A function that is cheap to compute again, of a tensor and parameters, each of which may be None."""

    compute: Callable[..., Tensor]
    again: Callable[..., tuple[Tensor, Gradients]]  # the same, in the backward pass: its result, and its gradients


def _gelu_again(x: Tensor) -> tuple[Tensor, Gradients]:
    return F.gelu(x), lambda grad, wanted: (torch.ops.aten.gelu_backward(grad, x),)


GELU = Recomputed(F.gelu, _gelu_again)


def layer_norm(shape: Sequence[int], eps: float) -> Recomputed:
    """Return layer normalization, whose parameters are its weight and bias."""

    def compute(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.layer_norm(x, shape, weight, bias, eps)

    def again(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Gradients]:
        # As autocast does on a GPU, which normalizes in float32
        weight, bias = (t if t is None else t.to(torch.promote_types(t.dtype, x.dtype)) for t in (weight, bias))
        y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)

        def gradients(grad: Tensor, wanted: Sequence[bool]) -> tuple[Tensor | None, ...]:
            backward = torch.ops.aten.native_layer_norm_backward
            return backward(grad, x, shape, mean, rstd, weight, bias, wanted)

        return y, gradients

    return Recomputed(compute, again)


def linear_of(f: Recomputed, x: Tensor, weight: Tensor, bias: Tensor | None, *parameters: Tensor | None) -> Tensor:
    """Compute `linear(f(x, *parameters), weight, bias)`, keeping x for the backward pass instead of f(x).

    The result has gradients, but no gradients of gradients.

    Args:
        f: The function.
        x: Its input, windows (B, n, N, i), or on a GPU their tokens (T, i).
        weight, bias: Those of the linear layer.
        parameters: More arguments of the function.
    """
    if not torch.is_grad_enabled() or is_kept(x.shape[-2:].numel() * x.element_size(), x.device):
        return linear(f.compute(x, *parameters), weight, bias)
    return _LinearOf.apply(f, x, weight, bias, *parameters)


def _onednn_computes(x: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Return whether oneDNN computes the products of a tensor, in a dtype or in its own."""
    kinds = (torch.float32, torch.bfloat16)
    return HAS_ONEDNN and x.device.type == "cpu" and (dtype or x.dtype) in kinds and bool(torch.backends.mkldnn.enabled)


def _onednn_is_faster(x: Tensor) -> bool:
    # PyTorch takes oneDNN for bfloat16 by itself, but MKL for float32, which is slow on processors not made by Intel
    return _onednn_computes(x) and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def _onednn_computes_low(x: Tensor) -> bool:
    """Return whether oneDNN computes the products of a tensor in the dtype of autocast."""
    return not gpu_switches.is_gpu(x.device) and _onednn_computes(x, autocast_dtype(x))


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> Tensor:
    after, exactly = ("gelu", "none") if gelu else ("none", "")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], exactly)


class _Linear(torch.autograd.Function):
    """`linear` by oneDNN, in the dtype of autocast, from which the backward pass converts nothing again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dtype = autocast_dtype(x)
        low_x, low_weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(low_x, low_weight)
        ctx.dtypes = x.dtype, weight.dtype
        ctx.has_bias = bias is not None
        return _onednn(low_x, low_weight, None if bias is None else bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = (*ctx.needs_input_grad[:2], ctx.has_bias and ctx.needs_input_grad[2])
        return _linear_gradients(x, weight, grad, wanted, *ctx.dtypes)


class _LinearOf(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, f: Recomputed, x: Tensor, weight: Tensor, bias: Tensor | None, *parameters: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, weight, *parameters)
        ctx.f, ctx.has_bias = f, bias is not None
        y = f.compute(x, *parameters)
        ctx.dtype = y.dtype  # which autocast may have chosen
        return linear(y, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *parameters = ctx.saved_tensors
        _, for_x, *for_linear = ctx.needs_input_grad[:4]
        wanted = for_x, *ctx.needs_input_grad[4:]
        y, gradients = ctx.f.again(x.to(ctx.dtype), *parameters)
        for_y, for_weight, for_bias = _linear_gradients(
            y, weight, grad, (any(wanted), for_linear[0], for_linear[1] and ctx.has_bias), y.dtype, weight.dtype
        )
        found = (None,) * len(wanted) if for_y is None else gradients(for_y, wanted)
        return None, found[0], for_weight, for_bias, *found[1:]


def in_full_precision(device: str) -> AbstractContextManager:
    """Within the block, compute products in the dtype of their operands, even under autocast."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _linear_gradients(
    x: Tensor, weight: Tensor, grad: Tensor, wanted: tuple[bool, bool, bool], of_x: torch.dtype, of_weight: torch.dtype
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Compute the gradients of a linear layer for its input, weight and bias, in the dtypes `of_x` and `of_weight`."""
    dtype = grad.dtype  # what autocast computed in
    low_x, low_weight = x.to(dtype), weight.to(dtype)
    if _onednn_computes(grad) and dtype == torch.float32:  # of bfloat16, PyTorch takes oneDNN for plain products too
        for_x = _onednn(grad, low_weight.t(), None) if wanted[0] else None
        for_weight = _product_of_rows(grad.flatten(0, -2), low_x.flatten(0, -2)) if wanted[1] else None
        for_bias = grad.flatten(0, -2).sum(0) if wanted[2] else None
    else:
        rows = grad.flatten(0, -2)
        for_x = grad @ low_weight if wanted[0] else None
        for_weight = _weight_gradient(rows, low_x.flatten(0, -2)) if wanted[1] else None
        for_bias = rows.sum(0) if wanted[2] else None
    return (
        for_x.to(of_x) if for_x is not None else None,
        for_weight.to(of_weight) if for_weight is not None else None,
        for_bias.to(of_weight) if for_bias is not None and wanted[2] else None,
    )


def _weight_gradient(rows: Tensor, x: Tensor) -> Tensor:
    """Compute rows^T x: (T, i), (T, j) -> (i, j). On the CPU in the other order, which is faster there."""
    return rows.t() @ x if gpu_switches.is_gpu(x.device) else (x.t() @ rows).t()


def _product_of_rows(a: Tensor, b: Tensor) -> Tensor:
    """Compute a^T b by oneDNN: (T, i), (T, j) -> (i, j)."""
    if a.shape[1] > b.shape[1]:  # the first one is copied in another order, and the fewer columns the better
        return _product_of_rows(b, a).t()
    return _onednn(a.t(), b.t(), None)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    mask: Tensor | Kinds | None,
    dropout: float = 0.0,
    scale: float = 1.0,
) -> Tensor:
    """Compute softmax(scale q k^T + bias + mask) v.

    Args:
        q: (n, h, N, d): n windows, h heads.
        k, v: (n, h, M, d).
        bias: (h, N, M).
        mask: (m, N, M), or None. Window i takes mask i % m. Or `Kinds`: windows are in the order of `gpu_windows`, and
            then the bias may be (kinds, h, N, M).
        dropout: Dropout rate of the attention weights.
        scale: Factor of the products of queries and keys.

    Returns:
        (n, h, N, d). On the CPU it has gradients, but no gradients of gradients.
    """
    if isinstance(mask, Kinds):
        return attention_by_kind(q, k, v, bias, mask, dropout, scale)
    on_cpu = q.device.type == "cpu"
    if on_cpu and scale != 1:
        q = q * scale
    if on_cpu and dropout:
        return F.dropout(_weights(q, k, bias, mask), dropout) @ v
    if on_cpu and _has_gradient(q, k, v, bias):
        # Fused attention on the CPU has no gradient for a bias
        return _recomputed_attention(bias, mask, q, k, v)
    if on_cpu and q.dtype == torch.float32 and type(q) is Tensor:  # no stand-in without values
        return _attention_by_heads(q, k, v, bias, mask)
    if on_cpu and q.dtype == torch.bfloat16:  # the fused one converts all to float32
        return _weights(q, k, bias, mask) @ v
    return F.scaled_dot_product_attention(q, k, v, _full_bias(bias, mask, len(q)).to(q.dtype), dropout, scale=scale)


def self_attention(qkv: Tensor, bias: Tensor, mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Compute `attention` of queries, keys and values in one tensor, (3, n, h, N, d), which has one gradient."""
    if qkv.device.type == "cpu" and not dropout and _has_gradient(qkv, bias):
        return _recomputed_attention(bias, mask, qkv)
    q, k, v = qkv
    return attention(q, k, v, bias, mask, dropout)


def _has_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _attention_by_heads(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Attention in float32 on the CPU, without gradients, where fused attention is slower than plain products.

    Softmax omits its shift by the largest logit and takes powers of 2, which are far faster to compute. Rows whose
    logits are too large or too small for that, which no network is known to have, are computed once more.
    """
    n, heads, tokens, d = q.shape
    keys = k.shape[2]
    out = q.new_empty(n, tokens, heads, d).transpose(1, 2)  # so that the heads lie beside each other
    totals = q.new_empty(n, heads, tokens, 1)
    at_most = min(n, _at_a_time(bias))
    buffer, result = q.new_empty(at_most, tokens, keys), q.new_empty(at_most, tokens, d)
    for part, added in _parts(n, bias, mask):
        q_part, k_part, v_part, out_part, total = (t[part] for t in (q, k, v, out, totals))
        weights, values = buffer[: len(q_part)], result[: len(q_part)]
        torch.baddbmm(added, q_part, k_part.mT, beta=LOG2_E, alpha=LOG2_E, out=weights).exp2_()
        torch.sum(weights, -1, keepdim=True, out=total)
        torch.div(torch.bmm(weights, v_part, out=values), total, out=out_part)
    beyond = ~exact_sums(totals)
    if beyond.any():
        out.copy_(torch.where(beyond, _weights(q, k, bias, mask) @ v, out))
    return out


def exact_sums(totals: Tensor) -> Tensor:
    """Return which sums of powers have all their digits, as they have unless logits are very large or small."""
    return (totals > 1 / LARGE) & (totals < LARGE)


def _at_a_time(bias: Tensor) -> int:
    """Return how many windows to compute at a time for the logits of a head to stay in the cache."""
    return max(1, LOGITS_AT_A_TIME // bias[0].numel())


def _parts(n: int, bias: Tensor, mask: Tensor | None) -> Iterator[tuple[tuple[slice, int], Tensor]]:
    """Yield the windows and the head to compute at a time, and what to add to their logits: (N, M) or (n, N, M)."""
    at_most = _at_a_time(bias)
    for start in range(0, n, at_most):
        windows = slice(start, min(start + at_most, n))
        masks = mask
        if mask is not None and len(mask) > 1:
            masks = mask[torch.arange(windows.start, windows.stop, device=mask.device) % len(mask)]
        for head, of_head in enumerate(bias):
            yield (windows, head), of_head if masks is None else of_head + masks


def _full_bias(bias: Tensor, mask: Tensor | None, n: int) -> Tensor:
    """Combine bias and mask in four dimensions, as fused kernels take them: (1 or n, h, N, M)."""
    if mask is None:
        return bias[None]
    full = bias + mask[:, None].to(bias.dtype)
    return full if len(full) in (1, n) else full.repeat(n // len(full), 1, 1, 1)


def _weights(q: Tensor, k: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Compute the attention weights: (n, h, N, M)."""
    logits = q @ k.transpose(-2, -1)
    return logits.add_(_full_bias(bias, mask, len(q))).softmax(-1)  # the product's gradient does not need its result


def _recomputed_attention(bias: Tensor, mask: Tensor | None, *qkv: Tensor) -> Tensor:
    """Attention whose backward pass computes the attention weights again. Three tensors, or one of all."""
    low_mask = None if mask is None else mask.to(qkv[0].dtype)
    return _RecomputedAttention.apply(bias.to(qkv[0].dtype), low_mask, *qkv)


class _RecomputedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bias: Tensor, mask: Tensor | None, *qkv: Tensor) -> Tensor:
        q, k, v = qkv if len(qkv) == 3 else qkv[0]
        out = attention(q, k, v, bias.detach(), mask)  # with a bias that requires a gradient, SDPA would be slow
        ctx.has_mask = mask is not None
        ctx.save_for_backward(out, bias, *([] if mask is None else [mask]), *qkv)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        out, bias, *others = ctx.saved_tensors
        mask, qkv = (others[0], others[1:]) if ctx.has_mask else (None, others)
        grads = [torch.empty_like(t) for t in qkv]
        parts, inputs = (grads, qkv) if len(qkv) == 3 else (grads[0].unbind(), qkv[0].unbind())
        for_bias = None
        if grad.dtype == torch.float32:
            for_bias = _gradients_by_powers(parts, grad, out, inputs, bias, mask)
        if for_bias is None:
            for_bias = _gradients_by_softmax(parts, grad, inputs, bias, mask)
        return for_bias, None, *grads


def _gradients_by_powers(
    grads: Sequence[Tensor],
    grad: Tensor,
    out: Tensor,
    qkv: Sequence[Tensor],
    bias: Tensor,
    mask: Tensor | None,
) -> Tensor | None:
    """Compute the gradients of attention without its softmax: what that divides by is left to smaller matrices.

    Args:
        grads: Where to write those of queries, keys and values.
        grad: That of the result, (n, h, N, d).
        out: The result, (n, h, N, d).
        qkv: Queries, keys and values.
        bias, mask: See `attention`.

    Returns:
        That of the bias; None, and wrong gradients, if logits are too large or too small for plain powers.
    """
    q, k, v = qkv
    transposed = bias.mT.contiguous()  # (h, M, N): so are all large matrices
    for_bias = torch.zeros_like(transposed)
    totals = grad.new_empty(grad.shape[:3])
    for part, added in _parts(len(q), transposed, None if mask is None else mask.mT.contiguous()):
        q_part, k_part, v_part, grad_part, out_part, total = (t[part] for t in (q, k, v, grad, out, totals))
        powers = torch.baddbmm(added, k_part, q_part.mT, beta=LOG2_E, alpha=LOG2_E).exp2_()
        torch.sum(powers, 1, out=total)
        grad_part = grad_part / total[..., None]
        grads[2][part] = torch.bmm(powers, grad_part)
        through_total = (grad_part * out_part).sum(-1)[:, None]
        for_logits = powers.mul_(torch.baddbmm(through_total, v_part, grad_part.mT, beta=-1))
        for_bias[part[1]] += for_logits.sum(0)
        grads[1][part] = torch.bmm(for_logits, q_part)
        grads[0][part] = torch.bmm(for_logits.mT, k_part)
    return for_bias.mT if bool(exact_sums(totals).all()) else None


def _gradients_by_softmax(
    grads: Sequence[Tensor], grad: Tensor, qkv: Sequence[Tensor], bias: Tensor, mask: Tensor | None
) -> Tensor:
    """See `_gradients_by_powers`; for all logits and precisions."""
    q, k, v = qkv
    for_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))  # a sum of many
    for part, added in _parts(len(q), bias, mask):
        q_part, k_part, v_part, grad_part = (t[part] for t in (q, k, v, grad))
        weights = torch.baddbmm(added, q_part, k_part.mT).softmax(-1)
        for_weights = torch.bmm(grad_part, v_part.mT)
        grads[2][part] = torch.bmm(weights.mT, grad_part)
        for_logits = torch._softmax_backward_data(for_weights, weights, -1, weights.dtype)
        for_bias[part[1]] += for_logits.sum(0)
        grads[0][part] = torch.bmm(for_logits, k_part)
        grads[1][part] = torch.bmm(for_logits.mT, q_part)
    return for_bias.to(bias.dtype)
