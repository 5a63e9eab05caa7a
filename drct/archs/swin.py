"""The Swin Transformer block (Z. Liu et al., ICCV 2021, arXiv:2103.14030), on feature maps of tokens.

Letters in shapes: see `drct.archs.frame`.
"""

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from drct.archs.windows import relative_position_index, window_masks, window_merge, window_partition


class SwinBlock(nn.Module):
    """Swin Transformer block: attention within (shifted) windows and an MLP, each normalized first and added.

    Args:
        dim: Channels C.
        window_size: Side w of a window, in tokens.
        shift: Cyclic shift of the feature map before it is cut into windows, in tokens.
        num_heads: Number of heads.
        mlp_ratio: Hidden channels of the MLP, as a multiple of C.
        qkv_bias, qk_scale, attn_drop: See `WindowAttention`.
        drop: Dropout rate of the MLP and of the attention's output.
        drop_path: Stochastic depth rate.
        norm_layer: Makes a normalization layer from a number of channels.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        shift: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop: float,
        attn_drop: float,
        drop_path: float,
        norm_layer: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.dim, self.window_size, self.shift = dim, window_size, shift
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W multiples of the window."""
        x = x + self.drop_path(attend_in_windows(self.attn, self.norm1(x), self.window_size, self.shift))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def attend_in_windows(attn: nn.Module, x: Tensor, w: int, shift: int) -> Tensor:
    """Attend within the windows of a feature map that is cyclically shifted first: (B, H, W, C) -> (B, H, W, C)."""
    height, width = x.shape[1:3]
    mask = window_masks(height, width, w, shift, x.device, x.dtype)  # (n, N, N) or None
    x = torch.roll(x, (-shift, -shift), dims=(1, 2)) if shift else x
    windows = attn(window_partition(x, w), mask)  # (B * n, N, C)
    x = window_merge(windows, w, height, width)
    return torch.roll(x, (shift, shift), dims=(1, 2)) if shift else x


class Attention(nn.Module):
    """Multi-head attention with a learned bias per relative position of query and key, in windows of any kind."""

    num_heads: int
    keys: int  # that each query sees
    scale: float  # of the logits
    relative_position_bias_table: nn.Parameter  # (relative positions, h)
    qkv: nn.Linear
    proj: nn.Linear

    def relative_position_bias(self) -> Tensor:
        """Bias of the logits of each pair of tokens: (h, N, M) for N queries and M keys."""
        raise NotImplementedError


class WindowAttention(Attention):
    """Multi-head self-attention within windows, with a learned bias per relative position (Swin Transformer, 3.2).

    Args:
        dim: Channels C, a multiple of `num_heads`.
        window_size: Side w of a window, in tokens.
        num_heads: Number of heads h.
        qkv_bias: Whether queries, keys and values have an additive bias.
        qk_scale: Factor of the logits; (C / h) ** -0.5 if None or 0.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the output.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size, self.num_heads, self.keys = window_size, num_heads, window_size**2
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        trunc_normal_(self.relative_position_bias_table)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend within each window: (B * n, N, C) -> (B * n, N, C); `mask` (n, N, N) is added to the logits."""
        q, k, v = rearrange(self.qkv(x), "b t (three h d) -> three b h t d", three=3, h=self.num_heads)
        logits = (q * self.scale) @ k.transpose(-2, -1) + self.relative_position_bias()  # (B * n, h, N, N)
        if mask is not None:
            logits = (logits.unflatten(0, (-1, mask.shape[0])) + mask[:, None]).flatten(0, 1)
        x = self.attn_drop(logits.softmax(-1)) @ v  # (B * n, h, N, d)
        return self.proj_drop(self.proj(rearrange(x, "b h t d -> b t (h d)")))

    def relative_position_bias(self) -> Tensor:
        """Bias of the logits of each pair of tokens: (h, N, N)."""
        index = relative_position_index(self.window_size, self.relative_position_bias_table.device)  # (N, N)
        return bias_of_positions(self.relative_position_bias_table, index)


def bias_of_positions(table: Tensor, index: Tensor) -> Tensor:
    """Look up the bias of pairs of tokens: table (rows, h) and rows of it (N, M) -> (h, N, M)."""
    return table.t().gather(1, index.flatten().expand(table.shape[1], -1)).unflatten(1, index.shape)


class Mlp(nn.Module):
    """Two linear layers with GELU between them and dropout after each: (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): in training, drop what a layer adds to a sample at this rate."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or not self.drop_prob:
            return x
        from timm.layers import drop_path  # takes seconds to import, and only training needs it

        return drop_path(x, self.drop_prob, training=True)


def trunc_normal_(x: Tensor, std: float = 0.02) -> None:
    """Fill a tensor from a normal distribution cut off at -2 and 2, as timm's function of this name does."""
    with torch.no_grad():
        x.uniform_(-1, 1).erfinv_().mul_(std * math.sqrt(2)).clamp_(-2, 2)
