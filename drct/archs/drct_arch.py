"""DRCT: Dense-Residual-Connected Transformer for image super-resolution.

Source: C.-C. Hsu, C.-M. Lee, Y.-S. Chou, "DRCT: Saving Image Super-resolution away from Information Bottleneck",
CVPR Workshops (NTIRE) 2024, arXiv:2404.00722. The blocks are those of Swin Transformer (arXiv:2103.14030).

The file reads from the attention of a window up to the network. Feature maps are tokens of shape (B, H, W, C)
throughout the body. Everything between two feature maps of a dense group - normalization, attention, MLP and the 1x1
convolution - acts on each window alone. So a block is written once, for *any* group of windows (B, n, N, C), and
the network decides how many windows it hands over at a time: all of them in training; in inference a few, whose
results go straight into the group's feature map, so that of nothing but this map all of the image ever exists. In the
same way the convolutions before and after the body are written for any tile of the image. Names of parameters are
those of the original implementation: its weight files load here, ours load there.

Letters in shapes: B images, H x W tokens, C channels, w = window_size, N = w * w tokens of a window, n windows,
h heads, d channels of a head.
"""

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from typing import Any, NamedTuple, cast

import torch
from einops import rearrange
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file
from timm.layers import DropPath, to_2tuple, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from drct.archs.kernels import attention, in_full_precision, is_traced, linear, linear_of, packed
from drct.archs.windows import (
    read_region,
    regions,
    relative_position_index,
    shift_attention_mask,
    shift_masks,
    window_kinds,
    window_merge,
    window_partition,
    write_region,
)
from drct.errors import did_you_mean

__all__ = ["DRCT"]

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, in [0, 1]
UPSAMPLER_CHANNELS = 64
BEFORE_UPSAMPLER_SLOPE = 0.01  # of a leaky ReLU
DENSE_SLOPE = 0.2  # of a leaky ReLU
DENSE_SCALE = 0.2  # residual scaling of a dense group, as in ESRGAN's dense blocks
SHIFTED_BLOCKS = (2, 4)  # of the five of a dense group
HAT_OPTIONS = {"compress_ratio", "squeeze_factor", "conv_scale", "overlap_ratio"}  # in option files, without effect
HEAD_MULTIPLE = 8  # kernels are made for heads of such sizes
CPU_TOKENS = 4096  # handed to a block at a time in inference, for their activations to stay in the cache
GPU_TOKENS = 65536
TILE_COST = 1000  # what starting the convolutions of a tile takes, in pixels
TILE_HALO = 8  # rows and columns, four at each side, that the convolutions after the body see of a tile's surroundings


# ------------------------------------------------------------------------------------------------------- Swin block


class Product(NamedTuple):
    """Weight and bias of a linear layer, as `products.linear` takes them."""

    weight: Tensor  # (o, i)
    bias: Tensor | None  # (o,)

    def to(self, dtype: torch.dtype) -> "Product":
        """With the weight in the type that is computed in."""
        return Product(self.weight.to(dtype), self.bias)


def layer_of(module: Any) -> Product:
    """The product of an `nn.Linear`, or of an `nn.Conv2d` of single pixels."""
    return Product(module.weight.flatten(1), module.bias)


class AttentionWeights(NamedTuple):
    """Weights of a `WindowAttention` with heads padded by zeros to d' channels, the queries' scaled."""

    qkv: Product  # C -> 3 * h * d'
    proj: Product  # h * d' -> C
    bias: Tensor  # of relative positions: (h, N, N)


def linear_of_norm(x: Tensor, norm: nn.Module, product: Product) -> Tensor:
    """A linear layer of normalized tokens, of which training keeps only x."""
    if not isinstance(norm, nn.LayerNorm):  # anybody's
        return linear(norm(x), *product)

    def normalized(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)

    return linear_of(normalized, x, *product, *norm.parameters())


class WindowAttention(nn.Module):
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
        self.window_size = window_size
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.attn_drop = attn_drop
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def prepare(self, dtype: torch.dtype) -> AttentionWeights:
        """The weights as the products take them. The same for all windows, so it is done once for a feature map."""
        heads, d = self.num_heads, len(self.proj.weight) // self.num_heads
        more = -d % HEAD_MULTIPLE

        def padded(x: Tensor) -> Tensor:
            q, k, v = rearrange(x, "(three h d) ... -> three h d (...)", three=3, h=heads)
            return F.pad(torch.stack([q * self.scale, k, v]), (0, 0, 0, more)).flatten(0, 2).to(dtype)

        index = relative_position_index(self.window_size, self.relative_position_bias_table.device)
        table = self.relative_position_bias_table.t()  # (h, (2w-1)^2)
        bias = table.gather(1, index.flatten().expand(heads, -1)).unflatten(1, index.shape)
        return AttentionWeights(
            Product(padded(self.qkv.weight), None if self.qkv.bias is None else padded(self.qkv.bias).flatten()),
            Product(F.pad(self.proj.weight.unflatten(1, (heads, d)), (0, more)).flatten(1).to(dtype), self.proj.bias),
            bias.to(dtype).contiguous(),
        )

    def forward(self, x: Tensor, norm: nn.Module, weights: AttentionWeights, mask: Tensor | None = None) -> Tensor:
        """Attend within each window: (B, n, N, C) -> (B, n, N, C).

        Args:
            x: Windows.
            norm: Normalizes them first.
            weights: What `prepare` returns.
            mask: (1 or n, N, N), added to the logits, or None.
        """
        qkv = linear_of_norm(x, norm, weights.qkv)
        q, k, v = rearrange(qkv, "b n t (three h d) -> three (b n) h t d", three=3, h=self.num_heads)
        out = attention(q, k, v, weights.bias, mask, self.attn_drop if self.training else 0.0)
        out = rearrange(out, "(b n) h t d -> b n t (h d)", b=x.shape[0])
        return self.proj_drop(linear(out, *weights.proj))


class Mlp(nn.Module):
    """Two linear layers with GELU between them.

    Args:
        dim: Channels C.
        hidden: Channels between the layers.
        drop: Dropout rate after each.
    """

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.drop(linear(self.drop(linear(x, *layer_of(self.fc1), gelu=True)), *layer_of(self.fc2)))


class BlockWeights(NamedTuple):
    """Weights of a block of a dense group, in the type that is computed in."""

    attention: AttentionWeights
    fc1: Product
    adjust: Product  # the 1x1 convolution after the Swin block
    adjusted_fc2: Product  # fc2, then this convolution without its bias

    def packed(self, rows: int) -> "BlockWeights":
        """The same for inference, in the order that is read fastest. See `products.packed`."""
        qkv, proj, fc1, adjust, adjusted_fc2 = (
            Product(packed(p.weight, rows), p.bias) for p in (*self.attention[:2], *self[1:])
        )
        return BlockWeights(AttentionWeights(qkv, proj, self.attention.bias), fc1, adjust, adjusted_fc2)


class SwinBlock(nn.Module):
    """Swin Transformer block without its shift, on any group of windows.

    What follows it in a dense group, a 1x1 convolution to few channels, is linear, as the last layer of its MLP is.
    So `adjusted` applies their product at once, which takes 15 % fewer operations in the linear layers of DRCT, and
    never computes the block's own result. `forward`, which does, is for those who watch the block or its MLP by a hook.

    Args:
        dim: Channels C.
        window_size: Side w of a window, in tokens.
        num_heads: Number of heads.
        mlp_ratio: Hidden channels of the MLP, as a multiple of C.
        qkv_bias, qk_scale, attn_drop: See `WindowAttention`.
        drop: Dropout rate of the MLP and of the attention's output.
        drop_path: Stochastic depth rate.
        norm_layer: Makes a normalization layer from a channel count.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
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
        self.norm1 = norm_layer(dim)
        self.attn = WindowAttention(dim, window_size, num_heads, qkv_bias, qk_scale, attn_drop, drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor, weights: BlockWeights, mask: Tensor | None = None) -> Tensor:
        """(B, n, N, C) -> (B, n, N, C). `mask`: See `WindowAttention`."""
        x = self._attended(x, weights, mask)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def adjusted(self, x: Tensor, weights: BlockWeights, mask: Tensor | None) -> Tensor:
        """The convolution after the block, of the block's result: (B, n, N, C) -> (B, n, N, o)."""
        if _is_watched(self) or _is_watched(self.mlp) or (self.training and self.mlp.drop.p):
            return linear(self(x, weights, mask), *weights.adjust)
        x = self._attended(x, weights, mask)
        if torch.is_grad_enabled():
            through_mlp = linear_of(F.gelu, linear_of_norm(x, self.norm2, weights.fc1), *weights.adjusted_fc2)
        else:
            through_mlp = linear(linear(self.norm2(x), *weights.fc1, gelu=True), *weights.adjusted_fc2)
        return linear(x, *weights.adjust) + self.drop_path(through_mlp)

    def _attended(self, x: Tensor, weights: BlockWeights, mask: Tensor | None) -> Tensor:
        return x + self.drop_path(self.attn(x, self.norm1, weights.attention, mask))


def _is_watched(module: nn.Module) -> bool:
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return any(hooks)


# ------------------------------------------------------------------------------------------------------ dense group


class DenseGroup(nn.Module):
    """Residual dense group (the paper's RDG): five Swin blocks, each of which sees what all earlier ones made.

    Block k runs on the concatenation of the input (C channels) and the k - 1 earlier outputs (gc channels each); a
    1x1 convolution `adjust{k}` reduces its output to gc channels, the fifth to C.

    Args:
        dim: Channels C of the input and the output.
        growth: Channels gc that each of the first four blocks adds.
        num_heads: Heads h. A block of width c has h - c % h of them.
        mlp_ratio: Of the first three blocks; it is 1 in the last two.
        window_size: Side w of a window, in tokens.
        shift: Cyclic shift of the second and fourth block, in tokens.
        block_options: See `SwinBlock`.
    """

    def __init__(
        self,
        dim: int,
        growth: int,
        window_size: int,
        shift: int,
        num_heads: int,
        mlp_ratio: float,
        **block_options,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.growth = growth
        self.window_size = window_size
        self.shift = shift
        if dim % num_heads:
            raise ValueError(f"embed_dim ({dim}) must be a multiple of num_heads ({num_heads})")
        for k in range(1, 6):
            width = self.width(k)
            heads = num_heads - width % num_heads
            if width % heads:
                raise ValueError(
                    f"block {k} of a dense group is {width} channels wide, which its {heads} heads do not divide: "
                    f"change embed_dim ({dim}), gc ({growth}) or num_heads ({num_heads})"
                )
            block = SwinBlock(width, window_size, heads, mlp_ratio if k <= 3 else 1, **block_options)
            self.add_module(f"swin{k}", block)
            self.add_module(f"adjust{k}", nn.Conv2d(width, growth if k < 5 else dim, 1))

    def width(self, k: int) -> int:
        """Channels of block k."""
        return self.dim + (k - 1) * self.growth

    def forward(self, x: Tensor, use_checkpoint: bool = False) -> Tensor:
        """All windows at a time: (B, H, W, C) -> (B, H, W, C), H and W multiples of the window.

        Args:
            x: Feature map.
            use_checkpoint: Recompute the blocks in the backward pass instead of storing their activations.
        """
        for k in range(1, 5):
            x = torch.cat([x, self._run_block(k, x, use_checkpoint)], dim=-1)
        return self._run_block(5, x, use_checkpoint)

    def _run_block(self, k: int, x: Tensor, use_checkpoint: bool) -> Tensor:
        """What block k adds, from all windows at a time: (B, H, W, width) -> (B, H, W, gc); the fifth: the output."""
        w, shift = self.window_size, self._shift(k)
        rolled = torch.roll(x, (-shift, -shift), dims=(1, 2)) if shift else x
        mask = self._masks(x)[window_kinds(x.shape[1] // w, x.shape[2] // w, x.device)] if shift else None
        arguments = (k, window_partition(rolled, w), self._weights(k, x.dtype), mask)
        if use_checkpoint:
            new = checkpoint(self._apply_block, *arguments, use_reentrant=False)
        else:
            new = self._apply_block(*arguments)
        new = window_merge(new, w, x.shape[2])
        return torch.roll(new, (shift, shift), dims=(1, 2)) if shift else new

    def run_in_place(self, features: Tensor, tokens: int) -> None:
        """The same for inference: a few windows at a time, each through a whole block, without another feature map.

        Args:
            features: (B, H, W, C + 4 gc), whose first C channels are the input and become the output. The others are
                overwritten.
            tokens: How many tokens to compute at a time. Does not change the result.
        """
        w = self.window_size
        batch, height, width, _ = features.shape
        at_most = max(1, tokens // (w * w * batch))
        for k in range(1, 6):
            shift = self._shift(k)
            end = self.dim + (k - 1) * self.growth
            # What a window's tokens are written to, no other window reads: block 5, which replaces the input, has
            # no shift, and the others write channels that no block has read yet
            target = features[..., end : end + self.growth] if k < 5 else features[..., : self.dim]
            weights = self._weights(k, features.dtype).packed(at_most * w * w * batch)
            for region in regions(height // w, width // w, shift > 0, at_most, features.device.type == "cpu"):
                mask = self._masks(features)[region.kind, None] if region.kind else None
                windows = read_region(features[..., :end], region, w, shift)
                write_region(target, self._apply_block(k, windows, weights, mask), region, w, shift)

    def _apply_block(self, k: int, windows: Tensor, weights: BlockWeights, mask: Tensor | None) -> Tensor:
        """What block k adds, (B, n, N, C + (k-1) gc) -> (B, n, N, gc); the fifth: the output, (B, n, N, C)."""
        block: SwinBlock = getattr(self, f"swin{k}")
        new = block.adjusted(windows, weights, mask)
        return F.leaky_relu(new, DENSE_SLOPE) if k < 5 else new * DENSE_SCALE + windows[..., : self.dim]

    def _weights(self, k: int, dtype: torch.dtype) -> BlockWeights:
        block: SwinBlock = getattr(self, f"swin{k}")
        adjust = layer_of(getattr(self, f"adjust{k}"))
        with in_full_precision(adjust.weight.device.type):
            adjusted_fc2 = Product(adjust.weight @ block.mlp.fc2.weight, adjust.weight @ block.mlp.fc2.bias)
        fc1 = layer_of(block.mlp.fc1)
        return BlockWeights(block.attn.prepare(dtype), *(p.to(dtype) for p in (fc1, adjust, adjusted_fc2)))

    def _shift(self, k: int) -> int:
        return self.shift if k in SHIFTED_BLOCKS else 0

    def _masks(self, like: Tensor) -> Tensor:
        return shift_masks(self.window_size, self.shift, like.device, like.dtype)


# ---------------------------------------------------------------------------------------------------------- network


# Computes a part of an image, of which it is told the first row, the first column, the number of rows and of columns:
# (B, C, rows, columns). It may reach beyond the image, where there are zeros, as convolutions pad. Told nothing, it
# computes the whole image, without a look at its size, which a recorded program does not know.
Tile = Callable[..., Tensor]


def _inside(
    top: int, left: int, rows: int, columns: int, height: int, width: int
) -> tuple[tuple[slice, slice], tuple[int, int, int, int]]:
    """What of a tile lies inside the image, and how much beyond, in the order that `F.pad` takes."""
    above, before = max(0, -top), max(0, -left)
    below, after = max(0, top + rows - height), max(0, left + columns - width)
    inside = slice(top + above, top + rows - below), slice(left + before, left + columns - after)
    return inside, (before, after, above, below)


def _tile_of(x: Tensor) -> Tile:
    def tile(*place: int) -> Tensor:
        if not place:
            return x
        inside, beyond = _inside(*place, *x.shape[2:])
        return _padded(x[:, :, inside[0], inside[1]], beyond)

    return tile


def _padded(x: Tensor, beyond: tuple[int, int, int, int]) -> Tensor:
    return F.pad(x, beyond) if any(beyond) else x


def _convolved(conv: Any, tile: Tile, height: int, width: int) -> Tile:
    """Tiles of a 3x3 convolution of an image of a given size."""

    def convolved(*place: int) -> Tensor:
        if not place or place == (0, 0, height, width):
            return F.conv2d(tile(*place), conv.weight, conv.bias, padding=1)
        top, left, rows, columns = place
        x = F.conv2d(tile(top - 1, left - 1, rows + 2, columns + 2), conv.weight, conv.bias)
        _, (before, after, above, below) = _inside(top, left, rows, columns, height, width)
        x[:, :, :above] = 0
        x[:, :, rows - below :] = 0
        x[..., :before] = 0
        x[..., columns - after :] = 0
        return x

    return convolved


def _upscaled(factor: int, tile: Tile) -> Tile:
    """Tiles of a sub-pixel shuffled image."""

    def upscaled(*place: int) -> Tensor:
        if not place:
            return F.pixel_shuffle(tile(), factor)
        top, left, rows, columns = place
        first_row, first_column = top // factor, left // factor
        source_rows = -(-(top + rows) // factor) - first_row
        source_columns = -(-(left + columns) // factor) - first_column
        x = F.pixel_shuffle(tile(first_row, first_column, source_rows, source_columns), factor)
        above, before = top - first_row * factor, left - first_column * factor
        return x[:, :, above : above + rows, before : before + columns]

    return upscaled


def _autocast_dtype(x: Tensor) -> torch.dtype:
    """What the body computes in: autocast's type where that is enabled."""
    kind = x.device.type
    enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if enabled else x.dtype


def _tile_side(height: int, width: int, tokens: int) -> int:
    """Side of the tiles for the convolutions: of those with so many tokens, the one that makes the least work.

    It is always one of a few: every size of a convolution leaves some 100 KB in PyTorch's caches of the CPU.
    """
    sides = [side for side in (2**i for i in range(4, 12)) if side**2 <= tokens] or [16]
    return min(sides, key=lambda side: -(-height // side) * -(-width // side) * ((side + TILE_HALO) ** 2 + TILE_COST))


def _upsampler(scale: int, channels: int) -> nn.Sequential:
    """Sub-pixel upsampling (Shi et al. 2016): (B, channels, H, W) -> (B, channels, H * scale, W * scale)."""
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


class DRCT(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="drct",
    pipeline_tag="image-to-image",
    license="mit",
    tags=["super-resolution"],
):
    """Dense-Residual-Connected Transformer. The defaults are the released DRCT x4 (14.1 M parameters).

    `save_pretrained(folder)` and `from_pretrained(folder)` keep arguments and weights as config.json and
    model.safetensors; `push_to_hub` and `from_pretrained("owner/model")` do so on the Hugging Face Hub.

    Args:
        img_size: Side or (height, width), in pixels, of the images that the network is trained on. It takes any size;
            this one only decides that nothing is shifted when an image is a single window, and shapes the `attn_mask`
            of the state dict.
        patch_size: Pixels per token side. The network embeds single pixels, so anything but 1 only divides img_size.
        in_chans: Channels of the input and the output.
        embed_dim: Channels C of the body, a multiple of every entry of `num_heads`.
        depths: One entry per dense group. The entries themselves only spread the stochastic depth rates.
        num_heads: Heads of each group, as many entries as `depths`.
        window_size: Side of an attention window.
        mlp_ratio: Hidden channels of the MLPs in the first three blocks of a group, as a multiple of their width.
        qkv_bias: Whether queries, keys and values have an additive bias.
        qk_scale: Factor of the attention logits; head_dim ** -0.5 if None.
        drop_rate, attn_drop_rate: Dropout rates of features and of attention weights.
        drop_path_rate: Stochastic depth rate of the last block; rates rise linearly from 0.
        norm_layer: Makes a normalization layer from a channel count.
        ape: Add a learned absolute position embedding; the network then takes img_size x img_size only.
        patch_norm: Normalize the shallow features before the body.
        use_checkpoint: Recompute activations in the backward pass: less memory, more time.
        upscale: Scale factor: 3 or a power of 2.
        img_range: The network works on values times this number.
        upsampler: 'pixelshuffle', or '' for a body without reconstruction head, which can be loaded but not run.
        resi_connection: Before the long skip connection: '1conv' for a 3x3 convolution, or 'identity'.
        gc: Growth: channels that each block adds within a dense group.
        ignored_options: Options of HAT that DRCT's option files carry along. Any other name is warned about.

    Raises:
        ValueError: for arguments that do not make a network; the message says which and why.
    """

    group = DenseGroup
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
        **ignored_options,
    ) -> None:
        super().__init__()
        if unknown := sorted(ignored_options.keys() - HAT_OPTIONS):
            known = signature(DRCT).parameters
            named = ", ".join(f"{name}{did_you_mean(name, known)}" for name in unknown)
            warnings.warn(f"DRCT ignores options it does not know: {named}", stacklevel=2)
        if len(num_heads) != len(depths):
            raise ValueError(f"num_heads has {len(num_heads)} entries and depths {len(depths)}: one of each per group")
        if upsampler not in ("pixelshuffle", ""):
            raise ValueError(f"upsampler must be 'pixelshuffle' or '', not {upsampler!r}")
        if resi_connection not in ("1conv", "identity"):
            raise ValueError(f"resi_connection must be '1conv' or 'identity', not {resi_connection!r}")

        (height, width), (patch_height, patch_width) = to_2tuple(img_size), to_2tuple(patch_size)
        self.input_size = (height // patch_height, width // patch_width)
        shift = window_size // 2
        if min(self.input_size) <= window_size:  # the image is a single window, or a single row of them
            window_size, shift = min(self.input_size), 0
        self.window_size, self.shift = window_size, shift
        self.num_heads = tuple(num_heads)
        self.upscale = upscale
        self.img_range = img_range
        self.upsampler = upsampler
        self.use_checkpoint = use_checkpoint
        self.tokens_at_a_time: int | None = None  # in inference; None: by device
        self.growth = gc
        mean = RGB_MEAN if in_chans == 3 else (0.0,) * in_chans
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)

        # shallow features
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, 1, 1)

        # deep features
        self.patch_embed = nn.Sequential(OrderedDict(norm=norm_layer(embed_dim)) if patch_norm else OrderedDict())
        self.absolute_pos_embed = nn.Parameter(torch.zeros(1, math.prod(self.input_size), embed_dim)) if ape else None
        self.pos_drop = nn.Dropout(drop_rate)
        drop_path_rates = torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()
        self.layers = nn.ModuleList(
            self.group(
                dim=embed_dim,
                growth=gc,
                window_size=window_size,
                shift=shift,
                num_heads=heads,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                drop=drop_rate,
                attn_drop=attn_drop_rate,
                drop_path=drop_path_rates[sum(depths[:i])],
                norm_layer=norm_layer,
            )
            for i, heads in enumerate(num_heads)
        )
        self.norm = norm_layer(embed_dim)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, 1, 1) if resi_connection == "1conv" else nn.Identity()

        # reconstruction
        if upsampler:
            self.conv_before_upsample = nn.Sequential(
                nn.Conv2d(embed_dim, UPSAMPLER_CHANNELS, 3, 1, 1), nn.LeakyReLU(BEFORE_UPSAMPLER_SLOPE, inplace=True)
            )
            self.upsample = _upsampler(upscale, UPSAMPLER_CHANNELS)
            self.conv_last = nn.Conv2d(UPSAMPLER_CHANNELS, in_chans, 3, 1, 1)

        self.apply(self._init_weights)
        if self.absolute_pos_embed is not None:
            trunc_normal_(self.absolute_pos_embed, std=0.02)

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        # Hugging Face's would leave random what the file lacks, as a matter of course
        model.load_state_dict(load_file(model_file), strict=True)
        return model.to(map_location).eval()

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        model.load_state_dict(torch.load(model_file, "cpu", weights_only=True), strict=True)
        return model.to(map_location).eval()

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale images: (B, in_chans, H, W) -> (B, in_chans, H * upscale, W * upscale), RGB in [0, 1].

        The output is not clamped. H and W must be multiples of `window_size` (`drct.inference` pads any image).

        Raises:
            ValueError: if H or W is not such a multiple, or is not img_size for a network with `ape`.
            RuntimeError: if the network has no reconstruction head (upsampler '').
        """
        self._check_input(x)
        if torch.is_grad_enabled() or self.training or is_traced():
            return self._run_at_once(x)
        return self._run_in_place(x)

    def memory_needed(self, height: int, width: int, dtype: torch.dtype, device: torch.device) -> int:
        """Bytes that inference on one image needs at its peak besides weights and image. Rather too many than too few.

        Args:
            height, width: Of the image, in pixels.
            dtype: What is computed in: float32, or that of autocast.
            device: Where it is computed.
        """
        window = self.window_size
        height, width = (-(-side // window) * window for side in (height, width))
        channels = self.conv_first.out_channels + 4 * self.growth
        tokens = max(min(self._tokens(device), height * width), window**2)
        block = 8 * channels * tokens  # queries, keys and values are three of these, the hidden layer of the MLP two
        if device.type == "cpu" and dtype == torch.bfloat16:  # attention matrices of all windows at a time, three times
            block += 3 * tokens * window**2 * max(self.num_heads)
        tile = (_tile_side(height, width, tokens) + TILE_HALO) ** 2
        tile *= 5 * UPSAMPLER_CHANNELS * self.upscale**2 // 2  # of the largest feature maps there are about 2.5
        image = self.conv_first.in_channels * height * width * 4
        tensors = (height * width * channels + max(block, tile)) * dtype.itemsize + image * (2 + self.upscale**2)
        weights = sum(p.nbytes for p in self.parameters())
        # Not all that is freed is used again, and kernels keep weights in orders of their own
        return int(1.3 * tensors) + weights + 64 * 2**20

    def operations(self, height: int, width: int) -> int:
        """Floating point operations that inference on one image takes: two for each term of a product of matrices.

        Those of the definition, as `torch.utils.flop_counter` counts them; not what padding of heads or tiles adds.

        Args:
            height, width: Of the image, in pixels.
        """
        area = self.window_size**2
        pixels = -(-height // self.window_size) * -(-width // self.window_size) * area
        total = 0
        for module in self.modules():  # in the order of computation
            if isinstance(module, nn.Linear | nn.Conv2d):
                total += 2 * pixels * module.weight.numel()
            elif isinstance(module, WindowAttention):
                total += 4 * pixels * area * module.qkv.in_features  # queries with keys, weights with values
            elif isinstance(module, nn.PixelShuffle):
                pixels *= module.upscale_factor**2
        return total

    def _tokens(self, device: torch.device) -> int:
        return self.tokens_at_a_time or (CPU_TOKENS if device.type == "cpu" else GPU_TOKENS)

    def _run_at_once(self, x: Tensor) -> Tensor:
        """The whole image, module after module."""
        shallow = self._shallow((x - self.mean) * self.img_range)()
        features = self._embed(shallow)
        for group in self.layers:
            features = group(features, self.use_checkpoint and torch.is_grad_enabled())
        return self._reconstruct(lambda: shallow, features)() / self.img_range + self.mean

    def _run_in_place(self, x: Tensor) -> Tensor:
        """The same for inference, in the memory of one dense feature map and a few rows of the reconstruction."""
        batch, channels, height, width = x.shape
        tokens = self._tokens(x.device)
        side, scale = _tile_side(height, width, tokens // max(1, batch)), self.upscale
        tiles = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
        centred = (x - self.mean) * self.img_range
        shallow = self._shallow(centred)
        dense = self.conv_first.out_channels + 4 * self.growth
        features = x.new_empty((batch, height, width, dense), dtype=_autocast_dtype(x))
        body = features[..., : self.conv_first.out_channels]
        for top, left in tiles:
            part = body[:, top : top + side, left : left + side]
            part.copy_(self._embed(shallow(top, left, side, side)[:, :, : part.shape[1], : part.shape[2]], top, left))
        for group in cast(Iterable[DenseGroup], self.layers):
            group.run_in_place(features, tokens)
        out = x.new_empty((batch, channels, height * scale, width * scale))
        reconstruct = self._reconstruct(shallow, body)
        for top, left in ((top * scale, left * scale) for top, left in tiles):
            part = out[:, :, top : top + side * scale, left : left + side * scale]
            upscaled = reconstruct(top, left, side * scale, side * scale)[:, :, : part.shape[2], : part.shape[3]]
            part.copy_(upscaled / self.img_range + self.mean)
        return out

    def _shallow(self, x: Tensor) -> "Tile":
        """Shallow features (B, C, rows, columns) of a centred image."""
        return _convolved(self.conv_first, _tile_of(x), *x.shape[2:])

    def _embed(self, x: Tensor, top: int = 0, left: int = 0) -> Tensor:
        """Tokens of shallow features, of which it is told where they lie: (B, C, H, W) -> (B, H, W, C)."""
        x = self.patch_embed(x.permute(0, 2, 3, 1))
        if self.absolute_pos_embed is not None:
            embedding = self.absolute_pos_embed.view(1, *self.input_size, -1)
            x = x + embedding[:, top : top + x.shape[1], left : left + x.shape[2]]
        return self.pos_drop(x)

    def _reconstruct(self, shallow: "Tile", features: Tensor) -> "Tile":
        """Upscaled image (B, in_chans, H * upscale, W * upscale) from shallow and deep features."""
        size = features.shape[1:3]

        def normalized(*place: int) -> Tensor:
            if not place:
                return self.norm(features).permute(0, 3, 1, 2)
            inside, beyond = _inside(*place, *size)
            return _padded(self.norm(features[:, inside[0], inside[1]]).permute(0, 3, 1, 2), beyond)

        conv = self.conv_after_body
        after_body = _convolved(conv, normalized, *size) if isinstance(conv, nn.Conv2d) else normalized

        def deep(*place: int) -> Tensor:
            return after_body(*place) + shallow(*place)

        before_upsample = _convolved(self.conv_before_upsample[0], deep, *size)

        def activated(*place: int) -> Tensor:
            return F.leaky_relu(before_upsample(*place), BEFORE_UPSAMPLER_SLOPE)

        tile: Tile = activated
        height, width = size
        for i in range(0, len(self.upsample), 2):
            shuffle: Any = self.upsample[i + 1]
            tile = _upscaled(shuffle.upscale_factor, _convolved(self.upsample[i], tile, height, width))
            height, width = height * shuffle.upscale_factor, width * shuffle.upscale_factor
        return _convolved(self.conv_last, tile, height, width)

    def _computed_entries(self) -> dict[str, Tensor]:
        """What the original's state dict holds besides weights, though it follows from the arguments.

        Entries share two tensors, which `torch.save` writes once.
        """
        index = relative_position_index(self.window_size, torch.device("cpu")).clone()  # may be changed by its owner
        entries: dict[str, Tensor] = {}
        mask = shift_attention_mask(*self.input_size, self.window_size, self.shift) if self.shift else None
        for i in range(len(self.layers)):
            for k in range(1, 6):
                entries[f"layers.{i}.swin{k}.attn.relative_position_index"] = index
                if mask is not None and k in SHIFTED_BLOCKS:
                    entries[f"layers.{i}.swin{k}.attn_mask"] = mask
        return entries

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({prefix + name: value for name, value in self._computed_entries().items()})

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name in self._computed_entries():
            state_dict.pop(prefix + name, None)  # before the blocks, which come next, find them unexpected
        super()._load_from_state_dict(state_dict, prefix, *args)

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
                f"not {height}x{width}: pad the image, or use drct.inference.tiling, which does"
            )
        if self.absolute_pos_embed is not None and (height, width) != self.input_size:
            raise ValueError(
                f"with ape, DRCT takes {self.input_size[0]}x{self.input_size[1]} images, not {height}x{width}"
            )
