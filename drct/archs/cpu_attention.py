"""Window attention in inference on the CPU, of windows in the order of `gpu_windows`.

Softmax omits its shift by the largest logit and takes powers of 2, which are far faster to compute than those of e, so
the weights are prepared for logits in units of log 2 (`FACTOR`). Rows whose logits are too large or too small for that,
which no network is known to have, are computed once more.

Letters in shapes: see `drct.archs.frame`; M keys, m windows of all images.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from drct.archs.gpu_windows import Kinds
from drct.archs.kernels import HAS_ONEDNN, LOG2_E, exact_sums

FACTOR = LOG2_E  # of the logits
LOGITS_AT_A_TIME = 2**20  # of a head, for them to stay in the cache
MANY_LOGITS = 2**15  # of a window and head, which take longer than to start the operations for them
FEW_THREADS = 4  # which are kept busy by the product of a single window and head

Part = tuple[slice, Tensor]  # windows of a kind, and what to add to their logits: (h, N, M)


def attend(qkv: Tensor, heads: int, bias: Tensor, kinds: Kinds) -> Tensor:
    """Compute the attention of each window: softmax(q k^T + bias + mask) v, with q and bias times `FACTOR`.

    Args:
        qkv: Queries, keys and values of each token: (n, B, N, 3 * h * d).
        heads: Number of heads h.
        bias: (h, N, N).
        kinds: Kinds of the n windows.

    Returns:
        (n, B, N, h * d).
    """
    windows, images, tokens, width = qkv.shape
    dtype = torch.float32 if qkv.dtype == torch.float16 else qkv.dtype  # whose powers soon overflow
    by_token = qkv.reshape(windows * images, tokens, 3, heads, width // (3 * heads))
    q, k, v = by_token.permute(2, 3, 0, 1, 4).to(dtype)
    out = attention(q, k, v, list(_parts(bias.to(dtype), kinds, images)))
    return out.view(windows, images, tokens, width // 3).to(qkv.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, parts: list[Part]) -> Tensor:
    """Compute the attention of windows, part by part.

    Args:
        q: (h, m, N, d).
        k, v: (h, m, M, d).
        parts: Windows, which together are all.

    Returns:
        (m, N, h, d).
    """
    heads, windows, tokens, d = q.shape
    out = q.new_empty(windows, tokens, heads, d)
    totals = q.new_empty(heads, windows, tokens, 1)
    compute = _window_by_window
    if not _onednn_is_faster(q, k):
        compute = _head_by_head
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    for part, added in parts:
        compute(q[:, part], k[:, part], v[:, part], added, out[part], totals[:, part])
    if type(q) is not Tensor:  # a stand-in without values
        return out
    if not exact_sums(torch.stack(totals.aminmax())).all():
        beyond = ~exact_sums(totals).permute(1, 2, 0, 3)
        for part, added in parts:
            logits = (q[:, part] @ k[:, part].mT + added[:, None]) / FACTOR
            exact = (logits.softmax(-1) @ v[:, part]).permute(1, 2, 0, 3)
            out[part] = torch.where(beyond[part], exact, out[part])
    return out


def _onednn_is_faster(q: Tensor, k: Tensor) -> bool:
    """Return whether to multiply one by one with oneDNN.

    In float32 PyTorch takes MKL for all windows at a time, which is slow on processors not made by Intel.
    """
    if not HAS_ONEDNN or not torch.backends.mkldnn.enabled or type(q) is not Tensor or q.dtype != torch.float32:
        return False
    return q.shape[2] * k.shape[2] >= MANY_LOGITS and torch.get_num_threads() <= FEW_THREADS


def _window_by_window(q: Tensor, k: Tensor, v: Tensor, added: Tensor, out: Tensor, totals: Tensor) -> None:
    """Compute `out` and the sums of powers, a window and a head at a time."""
    product = torch.ops.mkldnn._linear_pointwise
    for window in range(q.shape[1]):
        queries, keys, values = (t[:, window].contiguous() for t in (q, k, v))  # which stay in the cache
        for head in range(len(q)):
            weights = product.binary(queries[head], added[head], keys[head], None, "add").exp2_()
            total = torch.sum(weights, -1, keepdim=True, out=totals[head, window])
            result = product(weights, values[head].t(), None, "none", [], "")
            torch.div(result, total, out=out[window, :, head])


def _head_by_head(q: Tensor, k: Tensor, v: Tensor, added: Tensor, out: Tensor, totals: Tensor) -> None:
    """Compute `out` and the sums of powers, several windows of a head at a time."""
    heads, windows, tokens, d = q.shape
    keys = k.shape[2]
    at_most = max(1, min(windows, LOGITS_AT_A_TIME // (tokens * keys)))
    buffer, result = q.new_empty(at_most, tokens, keys), q.new_empty(at_most, tokens, d)
    for start in range(0, windows, at_most):
        some = slice(start, min(start + at_most, windows))
        for head in range(heads):
            q_part, k_part, v_part, total = (t[head, some] for t in (q, k, v, totals))
            weights, values = buffer[: len(q_part)], result[: len(q_part)]
            torch.baddbmm(added[head], q_part, k_part.mT, out=weights).exp2_()
            torch.sum(weights, -1, keepdim=True, out=total)
            torch.div(torch.bmm(weights, v_part, out=values), total, out=out[some, :, head])


def _parts(bias: Tensor, kinds: Kinds, images: int) -> Iterator[Part]:
    """Yield the windows of each kind, and what to add to their logits."""
    for kind, start, end in kinds.runs:
        windows = slice(start * images, end * images)
        if kinds.masks is None or not kind:
            yield windows, bias
        else:
            yield windows, torch.add(bias, kinds.masks[kind], alpha=FACTOR)
