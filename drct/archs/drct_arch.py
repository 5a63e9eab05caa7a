"""DRCT, the Dense-Residual-Connected Transformer for image super-resolution, from the network down to its layers.

Source: C.-C. Hsu, C.-M. Lee, Y.-S. Chou, "DRCT: Saving Image Super-resolution away from Information Bottleneck",
CVPR Workshops (NTIRE) 2024, arXiv:2404.00722. What surrounds the groups is in `drct.archs.frame`, which explains the
letters in shapes, and the blocks are in `drct.archs.swin`. Parameters have the names of the original implementation:
its weight files load here, and ours load there.

These files are the definition. Every module runs through its own `forward`, so hooks, adapters, quantization, summaries
and tracing work as with any PyTorch network. `drct.archs.execution` computes the same in less time and memory, and
takes over where nobody could tell the difference (`execution.takes_over` has the rule).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drct.archs import dense_execution, original_state
from drct.archs.frame import Frame, check_arguments, on_tokens, stochastic_depth_rates, warn_of_unknown
from drct.archs.hub import HubMixin
from drct.archs.swin import SwinBlock

__all__ = ["DRCT"]

DENSE_SLOPE = 0.2  # of the leaky ReLU after the first four blocks of a dense group
DENSE_SCALE = 0.2  # of what a dense group adds to its input, as in ESRGAN
SHIFTED_BLOCKS = (2, 4)  # of the five of a dense group
HAT_OPTIONS = {"compress_ratio", "squeeze_factor", "conv_scale", "overlap_ratio"}  # in option files, without effect


class DRCT(
    HubMixin, Frame, library_name="drct", pipeline_tag="image-to-image", license="mit", tags=["super-resolution"]
):
    """Dense-Residual-Connected Transformer. The defaults are the released DRCT x4 (14.1 M parameters).

    `save_pretrained(folder)` and `from_pretrained(folder)` keep arguments and weights as config.json and
    model.safetensors; `push_to_hub` and `from_pretrained("owner/model")` do so on the Hugging Face Hub.

    Args:
        img_size: Side or (height, width), in pixels, of the images the network is trained on. The network takes any
            size; this one turns shifting off where the image is a single window, and shapes `attn_mask` in the
            state dict.
        patch_size: Divides img_size, for the sake of the original; tokens are single pixels whatever it is.
        in_chans: Channels of the input and the output.
        embed_dim: Channels C of the body, a multiple of every entry of `num_heads`.
        depths: One entry per dense group. The entries themselves only spread the stochastic depth rates.
        num_heads: Heads of each group, as many entries as `depths`.
        window_size: Side w of an attention window, in pixels.
        mlp_ratio: Hidden channels of the MLPs in the first three blocks of a group, as a multiple of their width.
        qkv_bias: Whether queries, keys and values have an additive bias.
        qk_scale: Factor of the attention logits; head_dim ** -0.5 if None.
        drop_rate, attn_drop_rate: Dropout rates of features and of attention weights.
        drop_path_rate: Stochastic depth rate of the last block; rates rise linearly from 0.
        norm_layer: Makes a normalization layer from a number of channels.
        ape: Add a learned absolute position embedding; the network then takes img_size x img_size only.
        patch_norm: Normalize the shallow features before the body.
        use_checkpoint: Recompute activations in the backward pass: less memory, more time.
        upscale: Scale factor: 3 or a power of 2.
        img_range: Factor of the pixel values inside the network.
        upsampler: 'pixelshuffle', or '' for a body without reconstruction head, which can be loaded but not run.
        resi_connection: What precedes the long skip connection: '1conv' for a 3x3 convolution, or 'identity'.
        gc: Growth: channels that each block adds within a dense group.
        ignored_options: Options of HAT, which DRCT's option files carry along. Any other name raises a warning.

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
        gc: int = 32,
        **ignored_options: Any,
    ) -> None:
        check_arguments(depths, num_heads, upsampler, resi_connection)
        warn_of_unknown(DRCT, ignored_options, silently=HAT_OPTIONS)
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
        block_options: dict[str, Any] = {"drop": drop_rate, "attn_drop": attn_drop_rate, "norm_layer": norm_layer}
        block_options |= {"mlp_ratio": mlp_ratio, "qkv_bias": qkv_bias, "qk_scale": qk_scale}
        rates = stochastic_depth_rates(drop_path_rate, sum(depths))
        self.layers = nn.ModuleList(
            self.make_group(embed_dim, gc, heads, drop_path=rates[sum(depths[:i])], **block_options)
            for i, heads in enumerate(num_heads)
        )
        self.add_reconstruction(norm_layer, resi_connection)

    def make_group(self, dim: int, growth: int, num_heads: int, **block_options: Any) -> nn.Module:
        """Make one of `layers`. A network of other groups overrides this."""
        return DenseGroup(dim, growth, self.window_size, self.shift, num_heads, **block_options)

    def computed_entries(self) -> Mapping[str, Tensor]:
        """Return what the original's state dict holds besides weights."""
        return original_state.entries_of_drct(self)


class DenseGroup(nn.Module):
    """Residual dense group (the paper's RDG): five Swin blocks, each of which sees the output of all earlier ones.

    Block k runs on the concatenation of the input (C channels) and the k - 1 earlier outputs (gc channels each); a
    1x1 convolution `adjust{k}` reduces its output to gc channels, the fifth to C.

    Args:
        dim: Channels C of the input and the output.
        growth: Channels gc that each of the first four blocks adds.
        window_size: Side w of a window, in tokens.
        shift: Cyclic shift of the second and fourth block, in tokens.
        num_heads: Heads h. A block of width c has h - c % h of them.
        mlp_ratio: MLP ratio of the first three blocks; that of the last two is 1.
        block_options: More arguments of `SwinBlock`.
    """

    execution = dense_execution.EXECUTION

    def __init__(
        self,
        dim: int,
        growth: int,
        window_size: int,
        shift: int,
        num_heads: int,
        mlp_ratio: float,
        **block_options: Any,
    ) -> None:
        super().__init__()
        self.dim, self.growth = dim, growth
        if dim % num_heads:
            raise ValueError(f"embed_dim ({dim}) must be a multiple of num_heads ({num_heads})")
        if int(dim * mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio ({mlp_ratio}) leaves no hidden channels of embed_dim ({dim})")
        for k in range(1, 6):
            width = dim + (k - 1) * growth
            heads = num_heads - width % num_heads
            if width % heads:
                raise ValueError(
                    f"block {k} of a dense group is {width} channels wide, which its {heads} heads do not divide: "
                    f"change embed_dim ({dim}), gc ({growth}) or num_heads ({num_heads})"
                )
            block_shift, ratio = shift if k in SHIFTED_BLOCKS else 0, mlp_ratio if k <= 3 else 1
            block = SwinBlock(width, window_size, block_shift, heads, ratio, **block_options)
            self.add_module(f"swin{k}", block)
            self.add_module(f"adjust{k}", nn.Conv2d(width, growth if k < 5 else dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W multiples of the window."""
        *first_four, last = blocks_of(self)
        features = x
        for block, adjust in first_four:
            new = F.leaky_relu(on_tokens(adjust, block(features)), DENSE_SLOPE)  # (B, H, W, gc)
            features = torch.cat([features, new], dim=-1)  # (B, H, W, C + k * gc)
        block, adjust = last
        return on_tokens(adjust, block(features)) * DENSE_SCALE + x


def blocks_of(group: nn.Module) -> list[tuple[SwinBlock, nn.Conv2d]]:
    """Return the five Swin blocks of a dense group, each with the 1x1 convolution that follows it."""
    return [
        (cast(SwinBlock, getattr(group, f"swin{k}")), cast(nn.Conv2d, getattr(group, f"adjust{k}")))
        for k in range(1, 6)
    ]
