"""What the executions of all groups of attention blocks have in common.

Everything that a block does to its windows acts on each of them alone. So it is written once, for any set of windows
(B, n, N, C), and one computes as many at a time as one likes: in training all of them, and what is cheap is recomputed
in the backward pass; in inference a few, whose result goes straight into a feature map.

Letters in shapes: see `drct.archs.frame`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from drct.archs import cpu_attention, gpu_switches, gpu_windows, small_attention
from drct.archs.gpu_windows import Kinds
from drct.archs.kernels import GELU, attention, layer_norm, linear, linear_of, self_attention
from drct.archs.prepared_weights import AttentionWeights, Product
from drct.archs.windows import window_masks, window_merge, window_partition

Mask = Tensor | Kinds | None  # of windows: (1 or n, N, N); of windows in the order of `gpu_windows`, their kinds


class GroupExecution(ABC):
    """How the groups of a class are executed: the value of their class attribute `execution`."""

    @abstractmethod
    def at_once(self, group: Any, x: Tensor, recompute: bool) -> Tensor:
        """Run a group on all windows at a time: (B, H, W, C) -> (B, H, W, C).

        Args:
            group: The group.
            x: Its input.
            recompute: Recompute the blocks in the backward pass instead of storing their activations.
        """

    @abstractmethod
    def in_place(self, group: Any, features: Tensor, tokens: int) -> None:
        """Run a group a few windows or a tile at a time, in inference, without another feature map.

        Args:
            group: The group.
            features: (B, H, W, `channels(group)`). The first C channels are the input and become the output; the others
                are overwritten.
            tokens: How many tokens to compute at a time. Does not change the result.
        """

    @abstractmethod
    def channels(self, group: Any) -> int:
        """Return the channels of the feature map of `in_place`."""


def in_all_windows(x: Tensor, w: int, shift: int, recompute: bool, run: Callable[..., Tensor], *args: Any) -> Tensor:
    """Compute `run(windows, mask, *args)` of all windows of a feature map: (B, H, W, C) -> (B, H, W, C').

    Args:
        x: The feature map.
        w: Side of a window.
        shift: Cyclic shift of the feature map before it is cut into windows.
        recompute: Recompute `run` in the backward pass instead of storing its activations.
        run: What to compute, as `OfWindows`.
        args: More arguments for `run`.
    """
    if gpu_switches.is_gpu(x.device):
        return gpu_windows.in_all_windows(x, w, shift, recompute, run, *args)
    height, width = x.shape[1:3]
    mask = window_masks(height, width, w, shift, x.device, x.dtype)
    rolled = torch.roll(x, (-shift, -shift), dims=(1, 2)) if shift else x
    windows = window_partition(rolled, w).unflatten(0, (len(x), -1))
    new = checkpoint(run, windows, mask, *args, use_reentrant=False) if recompute else run(windows, mask, *args)
    new = window_merge(new.flatten(0, 1), w, height, width)
    return torch.roll(new, (shift, shift), dims=(1, 2)) if shift else new


def windows_at_a_time(tokens: int, w: int, batch: int) -> int:
    """Return how many windows of each image of a batch to compute at a time, for about so many tokens."""
    return max(1, tokens // (w * w * max(1, batch)))


def attend(attn: Any, norm: nn.Module, x: Tensor, weights: AttentionWeights, mask: Mask) -> Tensor:
    """Attention of normalized windows by a `WindowAttention`: (B, n, N, C), or on a GPU tokens (T, C) -> the same."""
    qkv = linear_of_norm(x, norm, weights.qkv)
    dropout = attn.attn_drop.p if attn.attn_drop.training else 0.0
    if isinstance(mask, Kinds):  # in the order of axes in which the gradients of three tensors become one
        by_token = qkv.view(-1, attn.keys, 3, attn.num_heads, qkv.shape[-1] // (3 * attn.num_heads))
        q, k, v = (t.transpose(1, 2) for t in by_token.unbind(2))
        out = attention(q, k, v, weights.bias, mask, dropout, weights.scale).transpose(1, 2)
        return attn.proj_drop(linear(out.reshape(*x.shape[:-1], -1), *weights.proj))
    if not dropout and small_attention.keeps_weights(qkv, weights.bias):
        out = small_attention.attend(qkv, attn.num_heads, weights.bias, mask)
        return attn.proj_drop(linear(out, *weights.proj))
    by_head = rearrange(qkv, "b n t (three h d) -> three (b n) h t d", three=3, h=attn.num_heads)
    out = self_attention(by_head, weights.bias, mask, dropout)
    out = rearrange(out, "(b n) h t d -> b n t (h d)", b=x.shape[0])
    return attn.proj_drop(linear(out, *weights.proj))


def attended(attn: Any, norm: nn.Module, x: Tensor, weights: AttentionWeights, kinds: Kinds) -> Tensor:
    """Add attention to windows in inference on the CPU, by weights with its factor: (n, B, N, C) -> (n, B, N, C)."""
    out = cpu_attention.attend(linear_of_norm(x, norm, weights.qkv), attn.num_heads, weights.bias, kinds)
    return linear(out, *weights.proj).add_(x)


def two_layers(x: Tensor, norm: nn.Module, fc1: Product, fc2: Product) -> Tensor:
    """Linear layer, GELU and linear layer of normalized tokens: (..., C) -> (..., C')."""
    if torch.is_grad_enabled():
        return linear_of(GELU, linear_of_norm(x, norm, fc1), *fc2)
    return linear(linear(norm(x), *fc1, gelu=True), *fc2)


def linear_of_norm(x: Tensor, norm: nn.Module, product: Product) -> Tensor:
    """Apply a linear layer to normalized tokens, of which training keeps only x."""
    if type(norm) is not nn.LayerNorm:  # a norm_layer of one's own
        return linear(norm(x), *product)
    # Not `parameters()`: the replicas of DataParallel have none
    return linear_of(layer_norm(norm.normalized_shape, norm.eps), x, *product, norm.weight, norm.bias)
