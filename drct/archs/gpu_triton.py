"""Window attention with a bias for each kind of window as one Triton kernel, without gradients.

It starts once for all kinds, where PyTorch's attention starts once for each and their results are copied together. It
is off (`gpu_switches`), as cuDNN's attention was faster on an H100.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from drct.archs.gpu_windows import Run

QUERIES = 64  # that a program computes, all keys of a window one after the other, so many at a time
KEYS = 64
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _attention(  # type: ignore[no-untyped-def]
    q, k, v, bias, out, first_1, first_2, first_3, tokens, keys, d,
    q_window, q_head, q_token, k_window, k_head, k_token, v_window, v_head, v_token,
    bias_kind, bias_head, bias_row, out_window, out_head, out_token,
    block_q: tl.constexpr, block_k: tl.constexpr, block_d: tl.constexpr,
):  # fmt: skip
    window, head = tl.program_id(0).to(tl.int64), tl.program_id(2)  # windows first: those of a kind share their bias
    kind = (window >= first_1).to(tl.int32) + (window >= first_2).to(tl.int32) + (window >= first_3).to(tl.int32)
    rows, channels = tl.program_id(1) * block_q + tl.arange(0, block_q), tl.arange(0, block_d)
    inside, present = rows[:, None] < tokens, channels[None, :] < d
    queries = tl.load(
        q + window * q_window + head * q_head + rows[:, None] * q_token + channels[None, :],
        mask=inside & present, other=0.0,
    )  # fmt: skip
    largest = tl.full([block_q], float("-inf"), tl.float32)
    total = tl.zeros([block_q], tl.float32)
    result = tl.zeros([block_q, block_d], tl.float32)
    for start in range(0, keys, block_k):
        columns = start + tl.arange(0, block_k)
        seen = columns < keys
        key = tl.load(
            k + window * k_window + head * k_head + columns[None, :] * k_token + channels[:, None],
            mask=seen[None, :] & (channels[:, None] < d), other=0.0,
        )  # fmt: skip
        added = tl.load(
            bias + kind * bias_kind + head * bias_head + rows[:, None] * bias_row + columns[None, :],
            mask=inside & seen[None, :], other=0.0,
        )  # fmt: skip
        logits = (tl.dot(queries, key, input_precision="ieee") + added.to(tl.float32)) * LOG2_E
        logits = tl.where(seen[None, :], logits, float("-inf"))
        larger = tl.maximum(largest, tl.max(logits, 1))
        weights, shrunk = tl.exp2(logits - larger[:, None]), tl.exp2(largest - larger)
        value = tl.load(
            v + window * v_window + head * v_head + columns[:, None] * v_token + channels[None, :],
            mask=seen[:, None] & present, other=0.0,
        )  # fmt: skip
        result = result * shrunk[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        total = total * shrunk + tl.sum(weights, 1)
        largest = larger
    tl.store(
        out + window * out_window + head * out_head + rows[:, None] * out_token + channels[None, :],
        (result / total[:, None]).to(out.dtype.element_ty), mask=inside & present,
    )  # fmt: skip


def window_attention(q: Tensor, k: Tensor, v: Tensor, biases: Tensor, runs: Sequence[Run]) -> Tensor:
    """Compute softmax(q k^T + bias) v.

    Args:
        q: (n * B, h, N, d), the channels of a head beside each other, as in all of these.
        k, v: (n * B, h, M, d).
        biases: Bias of each kind of window: (at most 4, h, N, M).
        runs: Runs of the n windows.

    Returns:
        (n * B, h, N, d), of which the heads of a token lie beside each other.
    """
    windows, heads, tokens, d = q.shape
    out = q.new_empty(windows, tokens, heads, d).transpose(1, 2)
    images = windows // max(1, runs[-1][2])
    firsts = [min((first * images for kind, first, _ in runs if kind >= least), default=windows) for least in (1, 2, 3)]
    strides: list[Any] = [stride for t in (q, k, v, biases, out) for stride in t.stride()[:3]]
    if windows:
        grid = (windows, triton.cdiv(tokens, QUERIES), heads)
        channels = max(16, triton.next_power_of_2(d))
        sizes = (tokens, k.shape[2], d)
        with torch.cuda.device_of(q):  # unlike PyTorch, Triton runs on the current device
            _attention[grid](q, k, v, biases, out, *firsts, *sizes, *strides, QUERIES, KEYS, channels, num_warps=4)
    return out
