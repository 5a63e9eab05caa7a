"""DRCT, the Dense-Residual-Connected Transformer for image super-resolution, from the network down to its layers.

Source: C.-C. Hsu, C.-M. Lee, Y.-S. Chou, "DRCT: Saving Image Super-resolution away from Information Bottleneck",
CVPR Workshops (NTIRE) 2024, arXiv:2404.00722. The blocks are in `drct.archs.swin`. Parameters
have the names of the original implementation: its weight files load here, and ours load there.

This file is the definition. Every module runs through its own `forward`, so hooks, adapters, quantization, summaries
and tracing work as with any PyTorch network. `drct.archs.execution` computes the same in less time and memory, and
takes over where nobody could tell the difference (`execution.takes_over` has the rule).

Letters in shapes: B images, H x W tokens (one per pixel), C channels, w = window_size, N = w * w tokens of a window,
n windows of an image, h heads, d channels of a head.
"""

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from drct.archs import execution, original_state, progress
from drct.archs.hub import HubMixin
from drct.archs.swin import SwinBlock, trunc_normal_
from drct.archs.traits import NetworkTraits
from drct.errors import did_you_mean

__all__ = ["DRCT"]

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, in [0, 1]
UPSAMPLER_CHANNELS = 64
DENSE_SLOPE = 0.2  # of the leaky ReLU after the first four blocks of a dense group
DENSE_SCALE = 0.2  # of what a dense group adds to its input, as in ESRGAN
SHIFTED_BLOCKS = (2, 4)  # of the five of a dense group
HAT_OPTIONS = {"compress_ratio", "squeeze_factor", "conv_scale", "overlap_ratio"}  # in option files, without effect


class DRCT(
    HubMixin, nn.Module, library_name="drct", pipeline_tag="image-to-image", license="mit", tags=["super-resolution"]
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

    mean: Tensor

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
        super().__init__()
        _check_arguments(depths, num_heads, upsampler, resi_connection, ignored_options)
        self.input_size = _tokens(img_size, patch_size)
        self.window_size, self.shift = _window_and_shift(self.input_size, window_size)
        self.upscale, self.img_range, self.upsampler = upscale, img_range, upsampler
        self.in_chans, self.embed_dim, self.use_checkpoint = in_chans, embed_dim, use_checkpoint
        mean = RGB_MEAN if in_chans == 3 else (0.0,) * in_chans
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)

        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)
        self.patch_embed = nn.Sequential(OrderedDict(norm=norm_layer(embed_dim)) if patch_norm else OrderedDict())
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, math.prod(self.input_size), embed_dim)) if ape else None
        self.pos_drop = nn.Dropout(drop_rate)
        block_options: dict[str, Any] = {"drop": drop_rate, "attn_drop": attn_drop_rate, "norm_layer": norm_layer}
        block_options |= {"mlp_ratio": mlp_ratio, "qkv_bias": qkv_bias, "qk_scale": qk_scale}
        rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        self.layers = nn.ModuleList(
            self.make_group(embed_dim, gc, heads, drop_path=rates[sum(depths[:i])], **block_options)
            for i, heads in enumerate(num_heads)
        )
        self.norm = norm_layer(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, 1, 1) if resi_connection == "1conv" else nn.Identity()
        if upsampler:
            self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, UPSAMPLER_CHANNELS, 3, 1, 1), nn.LeakyReLU())
            self.upsample = _upsampler(upscale, UPSAMPLER_CHANNELS)
            self.conv_last = nn.Conv2d(UPSAMPLER_CHANNELS, in_chans, 3, 1, 1)
        self.apply(_init_linear)
        if self.absolute_pos_embed is not None:
            trunc_normal_(self.absolute_pos_embed)
        self.built_structure = execution.structure(self)  # which `execution` compares with a later one

    def make_group(self, dim: int, growth: int, num_heads: int, **block_options: Any) -> nn.Module:
        """Make one of `layers`. A network of other groups overrides this."""
        return DenseGroup(dim, growth, self.window_size, self.shift, num_heads, **block_options)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale images: (B, in_chans, H, W) -> (B, in_chans, H * upscale, W * upscale), RGB in [0, 1].

        The output is not clamped. H and W must be multiples of `window_size` (`drct.inference` pads any image).

        Raises:
            ValueError: if H or W is not such a multiple, or is not img_size for a network with `ape`.
            RuntimeError: if the network has no reconstruction head (upsampler '').
        """
        self._check_input(x)
        if execution.takes_over(self):
            return execution.run(self, x)
        x = (x - self.mean) * self.img_range
        shallow = self.conv_first(x)  # (B, C, H, W)
        features = self.embed(shallow)  # (B, H, W, C)
        for group in progress.each(self.layers):
            features = _checkpointed(group, features) if self.use_checkpoint else group(features)
        x = self.reconstruct(shallow, features)
        return x / self.img_range + self.mean

    def embed(self, shallow: Tensor) -> Tensor:
        """Turn shallow features into tokens: (B, C, H, W) -> (B, H, W, C)."""
        x = self.patch_embed(tokens_of(shallow))
        if self.absolute_pos_embed is not None:
            x = x + self.absolute_pos_embed.view(1, *self.input_size, -1)
        return self.pos_drop(x)

    def reconstruct(self, shallow: Tensor, features: Tensor) -> Tensor:
        """Make the enlarged image from shallow (B, C, H, W) and deep features (B, H, W, C)."""
        deep = self.conv_after_body(image_of(self.norm(features))) + shallow  # (B, C, H, W)
        return self.conv_last(self.upsample(self.conv_before_upsample(deep)))  # (B, in_chans, H * upscale, ...)

    @property
    def traits(self) -> NetworkTraits:
        """What the network takes and gives."""
        return NetworkTraits(
            scale=self.upscale,
            window=self.window_size,
            channels=self.in_chans,
            only_size=None if self.absolute_pos_embed is None else self.input_size,
            upscales=bool(self.upsampler),
            memory=partial(execution.memory_needed, self),
        )

    def _check_input(self, x: Tensor) -> None:
        if not self.upsampler:
            raise RuntimeError(
                "this DRCT has no reconstruction head (upsampler ''): it has no upscaled image to return. "
                "Set upsampler: pixelshuffle and load weights that have conv_before_upsample, upsample and conv_last."
            )
        height, width = x.shape[-2:]
        if height % self.window_size or width % self.window_size:
            raise ValueError(
                f"DRCT takes images whose sides are multiples of its window of {self.window_size} pixels, "
                f"not {height}x{width}: pad the image, or use drct.inference.upscale, which does"
            )
        if self.absolute_pos_embed is not None and (height, width) != self.input_size:
            raise ValueError(
                f"with ape, DRCT takes {self.input_size[0]}x{self.input_size[1]} images, not {height}x{width}"
            )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        original_state.add_computed_entries(self, destination, prefix)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Before the blocks, which load next, find these entries unexpected
        original_state.remove_computed_entries(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


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


def tokens_of(image: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H, W, C)."""
    return image.permute(0, 2, 3, 1)


def image_of(tokens: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H, W)."""
    return tokens.permute(0, 3, 1, 2)


def on_tokens(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution to a feature map of tokens: (B, H, W, C) -> (B, H, W, C')."""
    return tokens_of(conv(image_of(x)))


def blocks_of(group: nn.Module) -> list[tuple[SwinBlock, nn.Conv2d]]:
    """Return the five Swin blocks of a dense group, each with the 1x1 convolution that follows it."""
    return [
        (cast(SwinBlock, getattr(group, f"swin{k}")), cast(nn.Conv2d, getattr(group, f"adjust{k}")))
        for k in range(1, 6)
    ]


def _checkpointed(group: nn.Module, features: Tensor) -> Tensor:
    return cast(Tensor, checkpoint(group, features, use_reentrant=False))


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _upsampler(scale: int, channels: int) -> nn.Sequential:
    """Make a sub-pixel upsampler (Shi et al. 2016): (B, channels, H, W) -> (B, channels, H * scale, W * scale)."""
    if scale == 3:
        factors = [3]
    elif scale >= 1 and scale & (scale - 1) == 0:
        factors = [2] * int(math.log2(scale))
    else:
        raise ValueError(f"upscale must be 3 or a power of 2, not {scale}")
    layers: list[nn.Module] = []
    for factor in factors:
        layers += [nn.Conv2d(channels, factor**2 * channels, 3, 1, 1), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


def _tokens(img_size: int | tuple[int, int], patch_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of an image in tokens."""
    sizes, patches = ((v, v) if isinstance(v, int) else tuple(v) for v in (img_size, patch_size))
    return sizes[0] // patches[0], sizes[1] // patches[1]


def _window_and_shift(input_size: tuple[int, int], window_size: int) -> tuple[int, int]:
    """Return the side of a window and the shift of shifted blocks; an image within one window is not shifted."""
    if min(input_size) <= window_size:
        return min(input_size), 0
    return window_size, window_size // 2


def _check_arguments(
    depths: Sequence[int],
    num_heads: Sequence[int],
    upsampler: str,
    resi_connection: str,
    ignored_options: dict[str, Any],
) -> None:
    if unknown := sorted(ignored_options.keys() - HAT_OPTIONS):
        known = signature(DRCT).parameters
        named = ", ".join(f"{name}{did_you_mean(name, known)}" for name in unknown)
        warnings.warn(f"DRCT ignores options it does not know: {named}", stacklevel=3)
    if len(num_heads) != len(depths):
        raise ValueError(f"num_heads has {len(num_heads)} entries and depths {len(depths)}: one of each per group")
    if upsampler not in ("pixelshuffle", ""):
        raise ValueError(f"upsampler must be 'pixelshuffle' or '', not {upsampler!r}")
    if resi_connection not in ("1conv", "identity"):
        raise ValueError(f"resi_connection must be '1conv' or 'identity', not {resi_connection!r}")
