"""Running the hybrid groups of HAT in less time and memory.

In inference, three feature maps exist for the whole image: the input of the group, the features, and what a pass over
the image prepares for the next one. A hybrid block is three passes. The first computes the hidden layer of its
convolutions, from whose sums follow the means that channel attention needs; the second adds window attention; the third
adds the second convolution and the MLP.

Letters in shapes: see `drct.archs.frame`.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from drct.archs import cpu_attention, gpu_blocks, gpu_switches, progress
from drct.archs.block_execution import (
    GroupExecution,
    Mask,
    attend,
    attended,
    in_all_windows,
    linear_of_norm,
    two_layers,
    windows_at_a_time,
)
from drct.archs.gpu_windows import Kinds, in_few_windows
from drct.archs.kernels import attention, in_full_precision, linear
from drct.archs.prepared_weights import (
    AttentionWeights,
    Product,
    attention_weights,
    prepared_weights,
    product_of,
    weight_dtype,
)
from drct.archs.regions import Region, pad
from drct.archs.swin import Attention
from drct.archs.training_weights import training_weights
from drct.archs.windows import overlapping_windows, pieces, window_merge, window_partition

if TYPE_CHECKING:
    from drct.archs.hat_arch import HybridBlock, HybridGroup, OverlapBlock


class BlockWeights(NamedTuple):
    """Weights of a hybrid or overlapping block, prepared for the products they enter."""

    attention: AttentionWeights
    fc1: Product
    fc2: Product


AnyWeights = BlockWeights | gpu_blocks.HybridWeights


class HybridExecution(GroupExecution):
    """Execution of `HybridGroup`."""

    def at_once(self, group: "HybridGroup", x: Tensor, recompute: bool) -> Tensor:
        """See `GroupExecution.at_once`."""
        residual = x
        steps: list[tuple[Callable[..., Tensor], Any]] = [(_hybrid_at_once, block) for block in _blocks(group)]
        for run, block in (*steps, (_overlap_at_once, group.residual_group.overlap_attn)):
            x = checkpoint(run, block, x, use_reentrant=False) if recompute else run(block, x)
        return group.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + residual

    def in_place(self, group: "HybridGroup", features: Tensor, tokens: int) -> None:
        """See `GroupExecution.in_place`."""
        dim = group.dim
        residual, x, other = features[..., :dim], features[..., dim : 2 * dim], features[..., 2 * dim :]
        x.copy_(residual)
        blocks = _blocks(group)
        for i, block in enumerate(blocks):
            with progress.part(i, len(blocks) + 1):
                _hybrid_in_place(block, x, other, tokens)
        with progress.part(len(blocks), len(blocks) + 1):
            last = group.residual_group.overlap_attn
            with progress.part(0, 2):
                _overlap_in_place(last, x, other[..., :dim], tokens)
            with progress.part(1, 2):
                for region in _regions(x, last.window_size, tokens):
                    region.of_tokens(residual).add_(_convolved(group.conv, other[..., :dim], region))

    def channels(self, group: "HybridGroup") -> int:
        """Return the channels of three feature maps, of which one may hold a hidden layer of convolutions."""
        hidden = [block.conv_block.cab[0].out_channels for block in _blocks(group)]
        return 2 * group.dim + max(group.dim, *hidden)


EXECUTION = HybridExecution()


def _blocks(group: "HybridGroup") -> list[Any]:
    return list(group.residual_group.blocks)


def _block_weights(block: Any, attn: Attention, dtype: torch.dtype, factor: float = 1.0) -> BlockWeights:
    """Prepare the weights of a block and its attention, with a factor of the logits, for all windows."""
    fc1, fc2 = product_of(block.mlp.fc1), product_of(block.mlp.fc2)
    if gpu_switches.is_gpu(fc1.weight.device):
        attention, products = training_weights(attn, (fc1, fc2), dtype)
        return BlockWeights(attention, *products)
    return BlockWeights(attention_weights(attn, dtype, factor), fc1.to(dtype), fc2.to(dtype))


def _prepared(block: Any, attn: Attention, x: Tensor, tokens: int, factor: float = 1.0) -> AnyWeights:
    """Return the packed weights of a block, with a factor of the attention logits on the CPU."""
    if gpu_switches.is_gpu(x.device):
        return gpu_blocks.hybrid_weights(block, attn, x)
    layers, make = (block.mlp.fc1, block.mlp.fc2), partial(_block_weights, block, attn, factor=factor)
    w = block.window_size
    rows = windows_at_a_time(tokens, w, len(x)) * w * w * len(x)
    return prepared_weights(block, "", attn, layers, x, rows, make)


def _mlp(block: Any, x: Tensor, weights: AnyWeights) -> Tensor:
    """Return the MLP of normalized tokens: (..., C) -> (..., C)."""
    if isinstance(weights, gpu_blocks.HybridWeights):
        with gpu_blocks.products_as_prepared(x.device, weights.layers.norm):
            return gpu_blocks.two_layers(x, weights.layers)
    if block.mlp.drop.training and block.mlp.drop.p:
        return block.mlp(block.norm2(x))
    return two_layers(x, block.norm2, weights.fc1, weights.fc2)


# -------------------------------------------------------------------------------------------------------- hybrid blocks


def _hybrid_at_once(block: "HybridBlock", x: Tensor) -> Tensor:
    """Run a hybrid block: (B, H, W, C) -> (B, H, W, C)."""
    weights = _block_weights(block, block.attn, weight_dtype(x))

    def run(windows: Tensor, mask: Mask) -> Tensor:
        return attend(block.attn, block.norm1, windows, weights.attention, mask)

    attended = in_all_windows(x, block.window_size, block.shift, False, run)
    convolved = block.conv_block(block.norm1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    x = x + block.drop_path(attended) + block.conv_scale * convolved
    return x + block.drop_path(_mlp(block, x, weights))


def _hybrid_in_place(block: "HybridBlock", x: Tensor, other: Tensor, tokens: int) -> None:
    """Run a hybrid block on a feature map (B, H, W, C), in place, using another."""
    weights = _prepared(block, block.attn, x, tokens, cpu_attention.FACTOR)
    first, activation, second, channel_attention = cast(Any, block.conv_block.cab)
    hidden = other[..., : first.out_channels]
    total: Any = 0
    with progress.part(0, 3):
        for region in _regions(x, block.window_size, tokens):
            part = activation(_convolved(first, x, region, block.norm1))
            region.of_tokens(hidden).copy_(part)
            total = total + part.sum((1, 2), dtype=_precise(part))
    factors = _channel_weights(channel_attention, _mean_convolved(second, hidden, total))
    factors = (block.conv_scale * factors).to(x.dtype)

    def run(windows: Tensor, mask: Mask) -> Tensor:
        if isinstance(weights, gpu_blocks.HybridWeights):
            return gpu_blocks.attended(windows, cast(Kinds, mask), weights.attention, block.attn.num_heads)
        return attended(block.attn, block.norm1, windows, weights.attention, cast(Kinds, mask))

    at_most = windows_at_a_time(tokens, block.window_size, len(x))
    with progress.part(1, 3):
        in_few_windows(x, x, block.window_size, block.shift, at_most, run)
    with progress.part(2, 3):
        for region in _regions(x, block.window_size, tokens):
            part = torch.addcmul(region.of_tokens(x), _convolved(second, hidden, region), factors)
            region.of_tokens(x).copy_(part + _mlp(block, part, weights))


def _mean_convolved(conv: nn.Conv2d, x: Tensor, total: Tensor) -> Tensor:
    """Return the means over the image of a zero-padded 3x3 convolution, from sums of its input.

    The entry of its kernel for the pixels above, for example, meets all of the image but the last row.

    Args:
        conv: The convolution.
        x: Its input: (B, H, W, C).
        total: Sum of its input over the image: (B, C).

    Returns:
        (B, C'), in the dtype of `total`.
    """
    sums = total[:, None, None].repeat(1, 3, 3, 1)  # of what each entry of the kernel meets
    rows, columns = _ends(x, 1), _ends(x, 2)
    sums[:, ::2] -= rows.sum(2, dtype=sums.dtype)[:, :, None]
    sums[:, :, ::2] -= columns.sum(1, dtype=sums.dtype)[:, None]
    sums[:, ::2, ::2] += _ends(rows, 2)
    with in_full_precision(x.device.type):
        mean = torch.einsum("bhwi,oihw->bo", sums, conv.weight.to(sums.dtype)) / math.prod(x.shape[1:3])
    return mean if conv.bias is None else mean + conv.bias


def _ends(x: Tensor, dim: int) -> Tensor:
    """Return the last and the first entry along a dimension. A list as an index would wait for a GPU."""
    return torch.cat([x.narrow(dim, x.shape[dim] - 1, 1), x.narrow(dim, 0, 1)], dim)


def _channel_weights(channel_attention: nn.Module, mean: Tensor) -> Tensor:
    """Return the factors of channel attention for the means (B, C) of an image: (B, 1, 1, C)."""
    _, *layers = channel_attention.attention  # type: ignore[misc]
    x = mean[:, :, None, None].to(layers[0].weight.dtype)
    with in_full_precision(x.device.type):
        for layer in layers:
            x = layer(x)
    return x.permute(0, 2, 3, 1)


def _precise(x: Tensor) -> torch.dtype:
    """Return the dtype in which to sum many numbers."""
    return torch.promote_types(x.dtype, torch.float32)


# --------------------------------------------------------------------------------------------------- overlapping blocks


def _overlap_at_once(block: "OverlapBlock", x: Tensor) -> Tensor:
    """Run an overlapping block: (B, H, W, C) -> (B, H, W, C)."""
    weights = _block_weights(block, block, weight_dtype(x))
    x = x + _attend_overlapping(block, x, Region(0, 0, x.shape[1], x.shape[2]), weights.attention)
    return x + _mlp(block, x, weights)


def _overlap_in_place(block: "OverlapBlock", x: Tensor, target: Tensor, tokens: int) -> None:
    """Run an overlapping block on a feature map, into another: (B, H, W, C) both."""
    weights = _prepared(block, block, x, tokens)
    for region in _regions(x, block.window_size, tokens):
        part = region.of_tokens(x) + _attend_overlapping(block, x, region, weights.attention)
        region.of_tokens(target).copy_(part + _mlp(block, part, weights))


def _attend_overlapping(
    block: "OverlapBlock", x: Tensor, region: Region, weights: AttentionWeights | gpu_blocks.AttentionPart
) -> Tensor:
    """Overlapping attention of whole windows of a normalized feature map (B, H, W, C): (B, region's sides, C)."""
    w, m = block.window_size, block.window_size + block.overlap
    surroundings = region.grow(block.overlap // 2)
    inside = surroundings.clip(x.shape[1], x.shape[2])
    if isinstance(weights, gpu_blocks.AttentionPart):
        with gpu_blocks.products_as_prepared(x.device, weights.norm):
            qkv = gpu_blocks.linear_of_norm(inside.of_tokens(x), weights.norm, weights.qkv)
    else:
        qkv = linear_of_norm(inside.of_tokens(x), block.norm1, weights.qkv)
    width = qkv.shape[-1] // 3
    queries = region.relative_to(inside).of_tokens(qkv[..., :width])
    keys_and_values = pad(qkv[..., width:].permute(0, 3, 1, 2), inside, surroundings).permute(0, 2, 3, 1)
    q = rearrange(window_partition(queries, w), "n t (h d) -> n h t d", h=block.num_heads)
    windows = overlapping_windows(keys_and_values, w, m)
    k, v = rearrange(windows, "n t (two h d) -> two n h t d", two=2, h=block.num_heads)
    scale = weights.scale if isinstance(weights, AttentionWeights) else 1.0
    bias = weights.bias[0] if weights.bias.ndim == 4 else weights.bias  # there is one kind of windows
    out = rearrange(attention(q, k, v, bias, None, scale=scale), "n h t d -> n t (h d)")
    return window_merge(linear(out, *weights.proj), w, region.height, region.width)


# -------------------------------------------------------------------------------------------------------------- regions


def _regions(x: Tensor, w: int, tokens: int) -> Iterator[Region]:
    """Cut a feature map (B, H, W, C) into rectangles of whole windows, nearly squares, of about so many tokens.

    Reports the progress of what is done with them.

    Their sides are powers of two of windows: every size of a convolution or product leaves something in PyTorch's
    caches on the CPU.
    """
    at_most = math.isqrt(windows_at_a_time(tokens, w, len(x)))
    windows, done = (x.shape[1] // w) * (x.shape[2] // w), 0
    for row, rows in pieces(0, x.shape[1] // w, at_most, powers_of_two=True):
        for column, columns in pieces(0, x.shape[2] // w, at_most, powers_of_two=True):
            yield Region(row * w, column * w, rows * w, columns * w)
            done += rows * columns
            progress.report(done / windows)


def _convolved(conv: nn.Module, x: Tensor, region: Region, norm: nn.Module | None = None) -> Tensor:
    """Compute a region of a 3x3 convolution, or the identity, of a (normalized) feature map.

    Args:
        conv: The convolution, or `nn.Identity`.
        x: Feature map: (B, H, W, C).
        region: What to compute.
        norm: Normalization of the feature map first.

    Returns:
        (B, region.height, region.width, C').
    """
    if isinstance(conv, nn.Identity):
        return region.of_tokens(x)
    surroundings = region.grow(1)
    inside = surroundings.clip(x.shape[1], x.shape[2])
    source = inside.of_tokens(x) if norm is None else norm(inside.of_tokens(x))
    image = pad(source.permute(0, 3, 1, 2), inside, surroundings)
    return F.conv2d(image, conv.weight, conv.bias).permute(0, 2, 3, 1)  # type: ignore[arg-type]
