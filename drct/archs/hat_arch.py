"""HAT, the Hybrid Attention Transformer for image super-resolution, from the network down to its layers.

Source: X. Chen, X. Wang, J. Zhou, Y. Qiao, C. Dong, "Activating More Pixels in Image Super-Resolution Transformer",
CVPR 2023, arXiv:2205.04437. What surrounds the groups is in `drct.archs.frame`, which explains the letters in shapes,
and window attention is in `drct.archs.swin`. Parameters have the names of the original implementation: its weight files
load here, and ours load there.

These files are the definition, as `drct.archs.drct_arch` is DRCT's; `drct.archs.hybrid_execution` computes the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from drct.archs import hybrid_execution, original_state
from drct.archs.frame import (
    Frame,
    check_arguments,
    image_of,
    on_tokens,
    stochastic_depth_rates,
    warn_of_unknown,
)
from drct.archs.hub import HubMixin
from drct.archs.swin import (
    Attention,
    DropPath,
    Mlp,
    WindowAttention,
    attend_in_windows,
    bias_of_positions,
    trunc_normal_,
)
from drct.archs.windows import overlapping_position_index, window_merge, window_partition

__all__ = ["HAT"]


class HAT(HubMixin, Frame, library_name="drct", pipeline_tag="image-to-image", tags=["super-resolution"]):
    """Hybrid Attention Transformer. The defaults are the released HAT x4 (20.8 M parameters).

    `save_pretrained(folder)` and `from_pretrained(folder)` keep arguments and weights as config.json and
    model.safetensors.

    Args:
        img_size: Side or (height, width), in pixels, of the images the network is trained on, at least `window_size`.
            The network takes any size; this one turns shifting off where the image is a single window.
        patch_size: Divides img_size, for the sake of the original; tokens are single pixels whatever it is.
        in_chans: Channels of the input and the output.
        embed_dim: Channels C of the body, a multiple of every entry of `num_heads`.
        depths: Hybrid blocks of each group.
        num_heads: Heads of each group, as many entries as `depths`.
        window_size: Side w of an attention window, in pixels.
        compress_ratio: The convolutions of a hybrid block have C / compress_ratio channels between them.
        squeeze_factor: The channel attention of a hybrid block has C / squeeze_factor hidden channels.
        conv_scale: Factor of what the convolutions of a hybrid block add.
        overlap_ratio: Windows of keys in overlapping attention are larger by this share of w; the difference is even.
        mlp_ratio: Hidden channels of the MLPs, as a multiple of C.
        qkv_bias: Whether queries, keys and values have an additive bias.
        qk_scale: Factor of the attention logits; head_dim ** -0.5 if None.
        drop_rate, attn_drop_rate: Dropout rates of features and of attention weights, in hybrid blocks.
        drop_path_rate: Stochastic depth rate of the last hybrid block; rates rise linearly from 0.
        norm_layer: Makes a normalization layer from a number of channels.
        ape: Add a learned absolute position embedding; the network then takes img_size x img_size only.
        patch_norm: Normalize the shallow features before the body.
        use_checkpoint: Recompute activations in the backward pass: less memory, more time.
        upscale: Scale factor: 3 or a power of 2.
        img_range: Factor of the pixel values inside the network.
        upsampler: 'pixelshuffle', or '' for a body without reconstruction head, which can be loaded but not run.
        resi_connection: The last layer of each group and of the body: '1conv' for a 3x3 convolution, or 'identity'.
        ignored_options: Any other name raises a warning.

    Raises:
        ValueError: for arguments that do not make a network; the message says which and why.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 64,
        patch_size: int | tuple[int, int] = 1,
        in_chans: int = 3,
        embed_dim: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window_size: int = 16,
        compress_ratio: float = 3,
        squeeze_factor: float = 30,
        conv_scale: float = 0.01,
        overlap_ratio: float = 0.5,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        norm_layer: Callable[[int], nn.Module] = nn.LayerNorm,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 4,
        img_range: float = 1.0,
        upsampler: str = "pixelshuffle",
        resi_connection: str = "1conv",
        **ignored_options: Any,
    ) -> None:
        check_arguments(depths, num_heads, upsampler, resi_connection)
        warn_of_unknown(HAT, ignored_options)
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            window_size=window_size,
            drop_rate=drop_rate,
            norm_layer=norm_layer,
            ape=ape,
            patch_norm=patch_norm,
            use_checkpoint=use_checkpoint,
            upscale=upscale,
            img_range=img_range,
            upsampler=upsampler,
        )
        if self.window_size != window_size:
            raise ValueError(f"img_size ({img_size}) must be at least window_size ({window_size})")
        for heads in num_heads:
            if embed_dim % heads:
                raise ValueError(f"embed_dim ({embed_dim}) must be a multiple of num_heads ({heads})")
        if int(embed_dim * mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio ({mlp_ratio}) leaves no hidden channels of embed_dim ({embed_dim})")
        hidden = _hidden_channels(embed_dim, compress_ratio, squeeze_factor)
        self.overlap = _overlap(window_size, overlap_ratio)
        options: dict[str, Any] = {"mlp_ratio": mlp_ratio, "qkv_bias": qkv_bias, "qk_scale": qk_scale}
        options |= {"drop": drop_rate, "attn_drop": attn_drop_rate, "norm_layer": norm_layer}
        rates = stochastic_depth_rates(drop_path_rate, sum(depths))
        self.layers = nn.ModuleList()
        for heads, depth in zip(num_heads, depths, strict=True):
            blocks = [
                HybridBlock(embed_dim, window_size, self.shift if j % 2 else 0, heads, *hidden, conv_scale,
                            drop_path=rates.pop(0), **options)
                for j in range(depth)
            ]  # fmt: skip
            last = OverlapBlock(embed_dim, window_size, self.overlap, heads, mlp_ratio, qkv_bias, qk_scale, norm_layer)
            self.layers.append(HybridGroup(embed_dim, blocks, last, resi_connection))
        self.add_reconstruction(norm_layer, resi_connection)

    def computed_entries(self) -> Mapping[str, Tensor]:
        """Return what the original's state dict holds besides weights."""
        return original_state.entries_of_hat(self)


class HybridGroup(nn.Module):
    """Residual group (the paper's RHAG): hybrid blocks, an overlapping attention block and a convolution.

    Args:
        dim: Channels C.
        blocks: The hybrid blocks.
        overlap_attn: The overlapping attention block.
        resi_connection: '1conv' or 'identity': the last layer.
    """

    execution = hybrid_execution.EXECUTION

    def __init__(
        self, dim: int, blocks: Sequence["HybridBlock"], overlap_attn: "OverlapBlock", resi_connection: str
    ) -> None:
        super().__init__()
        self.dim = dim
        self.residual_group = HybridBlocks(blocks, overlap_attn)
        self.conv = nn.Conv2d(dim, dim, 3, 1, 1) if resi_connection == "1conv" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W multiples of the window."""
        return on_tokens(self.conv, self.residual_group(x)) + x


class HybridBlocks(nn.Module):
    """The attention blocks of a group, one after the other."""

    def __init__(self, blocks: Sequence["HybridBlock"], overlap_attn: "OverlapBlock") -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.overlap_attn = overlap_attn

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W multiples of the window."""
        for block in self.blocks:
            x = block(x)
        return self.overlap_attn(x)


class HybridBlock(nn.Module):
    """Hybrid attention block (the paper's HAB): a Swin block with convolutions beside its window attention.

    Args:
        dim: Channels C.
        window_size: Side w of a window, in tokens.
        shift: Cyclic shift of the feature map before it is cut into windows, in tokens.
        num_heads: Number of heads.
        compressed, squeezed: Hidden channels of the convolutions and of their channel attention.
        conv_scale: Factor of what the convolutions add.
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
        compressed: int,
        squeezed: int,
        conv_scale: float,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop: float,
        attn_drop: float,
        drop_path: float,
        norm_layer: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.window_size, self.shift, self.conv_scale = window_size, shift, conv_scale
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.conv_block = ChannelAttentionBlock(dim, compressed, squeezed)
        self.drop_path = DropPath(drop_path)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W multiples of the window."""
        normalized = self.norm1(x)
        attended = attend_in_windows(self.attn, normalized, self.window_size, self.shift)
        x = x + self.drop_path(attended) + self.conv_scale * on_tokens(self.conv_block, normalized)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ChannelAttentionBlock(nn.Module):
    """Two convolutions and channel attention (the paper's CAB): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, compressed: int, squeezed: int) -> None:
        super().__init__()
        self.cab = nn.Sequential(
            nn.Conv2d(dim, compressed, 3, 1, 1),
            nn.GELU(),
            nn.Conv2d(compressed, dim, 3, 1, 1),
            ChannelAttention(dim, squeezed),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.cab(x)


class ChannelAttention(nn.Module):
    """Scale channels by weights from their means over the image (Y. Zhang et al., ECCV 2018, RCAN)."""

    def __init__(self, dim: int, squeezed: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, dim, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x * self.attention(x)


class OverlapBlock(Attention):
    """Overlapping cross-attention block (the paper's OCAB): queries of a window, keys of a larger one around it; MLP.

    Beyond the image, keys and values are zeros.

    Args:
        dim: Channels C, a multiple of `num_heads`.
        window_size: Side w of a window of queries, in tokens.
        overlap: Tokens by which the window of keys is larger, on both sides together.
        num_heads: Number of heads h.
        mlp_ratio: Hidden channels of the MLP, as a multiple of C.
        qkv_bias, qk_scale: See `WindowAttention`.
        norm_layer: Makes a normalization layer from a number of channels.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        overlap: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        norm_layer: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.window_size, self.overlap, self.num_heads = window_size, overlap, num_heads
        self.keys = (window_size + overlap) ** 2  # M in shapes
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size + overlap - 1) ** 2, num_heads))
        self.norm1 = norm_layer(dim)
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=0)
        trunc_normal_(self.relative_position_bias_table)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W multiples of the window."""
        x = x + self.proj(self._attend(self.norm1(x)))
        return x + self.mlp(self.norm2(x))

    def _attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        w, m = self.window_size, self.window_size + self.overlap
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # (B, H, W, C)
        q = rearrange(window_partition(q, w), "b t (h d) -> b h t d", h=self.num_heads)  # (B * n, h, N, d)
        k, v = (F.unfold(image_of(t), m, padding=self.overlap // 2, stride=w) for t in (k, v))  # (B, C * M, n)
        k, v = (t.transpose(1, 2).contiguous().flatten(0, 1) for t in (k, v))  # (B * n, C * M)
        k, v = (rearrange(t, "b (h d m) -> b h m d", h=self.num_heads, m=m * m) for t in (k, v))
        logits = (q * self.scale) @ k.transpose(-2, -1) + self.relative_position_bias()  # (B * n, h, N, M)
        x = rearrange(logits.softmax(-1) @ v, "b h t d -> b t (h d)")
        return window_merge(x, w, height, width)

    def relative_position_bias(self) -> Tensor:
        """Bias of the logits of each pair of tokens: (h, N, M)."""
        table = self.relative_position_bias_table
        index = overlapping_position_index(self.window_size, self.overlap, table.device)  # (N, M)
        return bias_of_positions(table, index % len(table))


def _hidden_channels(dim: int, compress_ratio: float, squeeze_factor: float) -> tuple[int, int]:
    """Return the hidden channels of the convolutions and of the channel attention of a hybrid block."""
    for name, ratio in (("compress_ratio", compress_ratio), ("squeeze_factor", squeeze_factor)):
        if not 0 < ratio <= dim:
            raise ValueError(f"{name} must be above 0 and at most embed_dim ({dim}), not {ratio}")
    return int(dim // compress_ratio), int(dim // squeeze_factor)


def _overlap(window_size: int, overlap_ratio: float) -> int:
    """Return by how many tokens the windows of keys are larger than those of queries, on both sides together."""
    overlap = int(window_size * overlap_ratio)
    if overlap < 0 or overlap % 2:
        raise ValueError(
            f"overlap_ratio ({overlap_ratio}) times window_size ({window_size}) must make an even number of pixels"
        )
    return overlap
