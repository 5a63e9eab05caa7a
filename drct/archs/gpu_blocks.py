"""Blocks of windows in inference on a GPU, in the fewest operations, all of them in the dtype of the feature map.

Weight and bias of a normalization become part of the product that follows it, and no product adds its bias by itself.
Letters in shapes: see `drct.archs.frame`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from drct.archs import gpu_switches
from drct.archs.gpu_attention import attention_by_kind, with_masks
from drct.archs.gpu_windows import Kinds, few_windows, in_few_windows, rows_of
from drct.archs.kernels import in_full_precision
from drct.archs.prepared_weights import Product, attention_weights, gpu_weights, product_of
from drct.archs.swin import Attention
from drct.archs.windows import shift_masks

if TYPE_CHECKING:
    from drct.archs.drct_arch import DenseGroup
    from drct.archs.swin import SwinBlock


class Norm(NamedTuple):
    """A normalization whose weight and bias have become part of a product."""

    module: nn.Module | None  # one that cannot become part of it: of another class than nn.LayerNorm
    shape: tuple[int, ...]
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.module(x) if self.module is not None else F.layer_norm(x, self.shape, None, None, self.eps)


class AttentionPart(NamedTuple):
    """Attention of a block: its normalization and weights, as in `prepared_weights.AttentionWeights`."""

    norm: Norm
    qkv: Product
    proj: Product
    bias: Tensor  # of relative positions, plus the mask of each kind of window: (kinds, h, N, M)


class TwoLayers(NamedTuple):
    """Normalization, linear layer, GELU and linear layer."""

    norm: Norm
    fc1: Product
    fc2: Product


class HybridWeights(NamedTuple):
    """A block of HAT without its convolutions."""

    attention: AttentionPart
    layers: TwoLayers


class DenseWeights(NamedTuple):
    """A block of a dense group and the 1x1 convolution after it."""

    attention: AttentionPart
    layers: TwoLayers  # the second includes the convolution and its bias
    adjust: Tensor  # weight of the convolution: (C, gc or C)


# -------------------------------------------------------------------------------------------------------------- weights


def folded(norm: nn.Module, product: Product, dtype: torch.dtype) -> tuple[Norm, Product]:
    """Make weight and bias of a normalization part of the product after it, and convert that."""
    if type(norm) is not nn.LayerNorm:
        return Norm(norm, (), 0.0), _converted(product, dtype)
    weight, bias = product
    if norm.bias is not None:
        more = weight @ norm.bias.to(weight.dtype)
        bias = more if bias is None else bias + more
    weight = weight if norm.weight is None else weight * norm.weight
    return Norm(None, tuple(norm.normalized_shape), norm.eps), _converted(Product(weight, bias), dtype)


def _converted(product: Product, dtype: torch.dtype) -> Product:
    weight, bias = product
    return Product(weight.to(dtype), None if bias is None else bias.to(dtype))


def attention_part(attn: Attention, norm: nn.Module, masks: Tensor | None, dtype: torch.dtype) -> AttentionPart:
    """Prepare attention and the normalization before it."""
    qkv, proj, bias, _ = attention_weights(attn, _precise(attn.proj.weight))
    plain, qkv = folded(norm, qkv, dtype)
    return AttentionPart(plain, qkv, _converted(proj, dtype), with_masks(bias, masks).to(dtype))


def two_layers_of(norm: nn.Module, fc1: Product, fc2: Product, dtype: torch.dtype) -> TwoLayers:
    """Prepare two linear layers and the normalization before them."""
    plain, fc1 = folded(norm, fc1, dtype)
    return TwoLayers(plain, fc1, _converted(fc2, dtype))


def precise_product(layer: nn.Module) -> Product:
    """Return the product of a layer in a dtype to prepare weights in."""
    product = product_of(layer)
    return _converted(product, _precise(product.weight))


def _precise(x: Tensor) -> torch.dtype:
    """Return the dtype in which to prepare weights."""
    return torch.promote_types(x.dtype, torch.float32)


def _dense_weights(group: "DenseGroup", k: int, x: Tensor) -> DenseWeights:
    """Prepare block k of a group for a feature map."""
    block: SwinBlock = getattr(group, f"swin{k}")
    layers = (getattr(group, f"adjust{k}"), block.mlp.fc1, block.mlp.fc2)
    adjust, fc1, fc2 = (precise_product(layer) for layer in layers)
    biases = [adjust.bias, None if fc2.bias is None else adjust.weight @ fc2.bias]
    present = [bias for bias in biases if bias is not None]
    both = Product(adjust.weight @ fc2.weight, sum(present[1:], present[0]) if present else None)
    masks = shift_masks(block.window_size, block.shift, x.device, torch.float32) if block.shift else None
    attention = attention_part(block.attn, block.norm1, masks, x.dtype)
    return DenseWeights(attention, two_layers_of(block.norm2, fc1, both, x.dtype), adjust.weight.t().to(x.dtype))


def _with_wider_rows(weights: DenseWeights, width: int) -> DenseWeights:
    """Let a block take rows of channels that are padded with zeros to a width, and give such, as between its layers."""
    (norm, qkv, proj, bias), (norm2, fc1, fc2), adjust = weights
    more = width - qkv.weight.shape[1]
    hidden, more_out = (-len(x) % gpu_switches.ROW_MULTIPLE for x in (fc1.weight, fc2.weight))
    layers = TwoLayers(norm2, _padded(fc1, more, hidden), _padded(fc2, hidden, more_out))
    attention = AttentionPart(norm, _padded(qkv, inputs=more), _padded(proj, outputs=more), bias)
    return DenseWeights(attention, layers, F.pad(adjust, (0, more_out, 0, more)))


def _padded(product: Product, inputs: int = 0, outputs: int = 0) -> Product:
    weight, bias = product
    return Product(F.pad(weight, (0, inputs, 0, outputs)), None if bias is None else F.pad(bias, (0, outputs)))


def hybrid_weights(block: Any, attn: Attention, x: Tensor) -> HybridWeights:
    """Return the prepared weights of a hybrid or overlapping block for a feature map."""

    def make() -> HybridWeights:
        shift = getattr(block, "shift", 0)
        masks = shift_masks(block.window_size, shift, x.device, torch.float32) if shift else None
        fc1, fc2 = precise_product(block.mlp.fc1), precise_product(block.mlp.fc2)
        attention = attention_part(attn, block.norm1, masks, x.dtype)
        return HybridWeights(attention, two_layers_of(block.norm2, fc1, fc2, x.dtype))

    return gpu_weights(block, "", attn, x, make)


# ------------------------------------------------------------------------------------------------------------ execution


def dense_block_in_place(group: "DenseGroup", k: int, features: Tensor, target: Tensor, at_most: int) -> None:
    """Run block k of a group on all windows of the feature map of its input, into that of its output.

    Args:
        group: The group.
        k: Number of the block, from 1.
        features: (B, H, W, C + (k-1) gc).
        target: (B, H, W, gc or C).
        at_most: Largest number of windows of an image to compute at a time.
    """
    block: SwinBlock = getattr(group, f"swin{k}")
    if gpu_switches.has_row_kernels(features) and all(type(n) is nn.LayerNorm for n in (block.norm1, block.norm2)):
        _dense_block_by_rows(group, k, features, target, at_most)
        return
    weights = gpu_weights(group, k, block.attn, features, partial(_dense_weights, group, k, features))
    key = (features.shape[-1], target.shape[-1], features.dtype)
    before, after = _function(linear_of_norm, *key), _function(_after_attention, *key)

    def run(windows: Tensor, kinds: Kinds) -> Tensor:
        x = windows.flatten(0, 2)
        with products_as_prepared(x.device, weights.attention.norm, weights.layers.norm):
            qkv = before(x, weights.attention.norm, weights.attention.qkv)
            out = attend(qkv, weights.attention.bias, block.attn.num_heads, kinds)
            return after(x, out, weights, k == 5).view(*windows.shape[:3], -1)

    in_few_windows(features, target, block.window_size, block.shift, at_most, run)


def _dense_block_by_rows(group: "DenseGroup", k: int, features: Tensor, target: Tensor, at_most: int) -> None:
    """Do the work of `dense_block_in_place` with the kernels of `gpu_rows` between the products."""
    from drct.archs import gpu_rows  # Triton comes with PyTorch for CUDA only
    from drct.archs.drct_arch import DENSE_SCALE, DENSE_SLOPE  # which imports this module

    block: SwinBlock = getattr(group, f"swin{k}")
    channels = features.shape[-1]
    width = gpu_switches.row_width(channels)
    attention, layers, adjust = gpu_weights(
        group,
        (k, "rows"),
        block.attn,
        features,
        lambda: _with_wider_rows(_dense_weights(group, k, features), width),
    )
    source, places = rows_of(features), rows_of(target)
    for piece in few_windows(features, block.window_size, block.shift, at_most):
        with in_full_precision(features.device.type):
            x, normed = gpu_rows.gathered(source, piece.tokens, attention.norm.eps)
            out = attend(F.linear(normed, *attention.qkv), attention.bias, block.attn.num_heads, piece.kinds)
            normed = gpu_rows.added(x, F.linear(out, *attention.proj), channels, layers.norm.eps)
            hidden = torch.ops.aten.gelu_(F.linear(normed, *layers.fc1))
            new = F.linear(hidden, *layers.fc2).addmm_(x, adjust)
            # The target of the last block is its input
            gpu_rows.scattered(new, piece.tokens, places, DENSE_SCALE if k == 5 else DENSE_SLOPE, adds=k == 5)


def attended(windows: Tensor, kinds: Kinds, weights: AttentionPart, heads: int) -> Tensor:
    """Add attention to windows: (n, B, N, C) -> (n, B, N, C)."""
    x = windows.flatten(0, 2)
    with products_as_prepared(x.device, weights.norm):
        out = attend(linear_of_norm(x, weights.norm, weights.qkv), weights.bias, heads, kinds)
        return F.linear(out, *weights.proj).add_(x).view(windows.shape)


def linear_of_norm(x: Tensor, norm: Norm, product: Product) -> Tensor:
    """Apply a linear layer to normalized tokens: (..., C) -> (..., C')."""
    return F.linear(norm(x), *product)


def attend(qkv: Tensor, bias: Tensor, heads: int, kinds: Kinds) -> Tensor:
    """Attention of the tokens of whole windows, before its projection: (T, 3 * h * d) -> (T, h * d).

    Args:
        qkv: Queries, keys and values of windows (n, B, N).
        bias: Relative position bias plus the mask of each kind of window: (kinds, h, N, N).
        heads: Number of heads.
        kinds: Kinds of the n windows.
    """
    q, k, v = rearrange(qkv, "(n t) (three h d) -> three n h t d", three=3, h=heads, t=bias.shape[-1])
    return rearrange(attention_by_kind(q, k, v, bias, kinds), "n h t d -> (n t) (h d)")


def two_layers(x: Tensor, weights: TwoLayers) -> Tensor:
    """Linear layer, GELU and linear layer of normalized tokens: (..., C) -> (..., C')."""
    return F.linear(torch.ops.aten.gelu_(linear_of_norm(x, weights.norm, weights.fc1)), *weights.fc2)


def _after_attention(x: Tensor, out: Tensor, weights: DenseWeights, last: bool) -> Tensor:
    """Run what follows attention in a block of a dense group.

    Args:
        x: Input of the block: (T, C + (k-1) gc).
        out: Attention before its projection.
        weights: Weights of the block.
        last: Whether it is the last block of its group.

    Returns:
        (T, gc or C).
    """
    from drct.archs.drct_arch import DENSE_SCALE, DENSE_SLOPE  # which imports this module

    attended = F.linear(out, *weights.attention.proj).add_(x)
    new = two_layers(attended, weights.layers).addmm_(attended, weights.adjust)
    return torch.add(x[:, : new.shape[1]], new, alpha=DENSE_SCALE) if last else F.leaky_relu_(new, DENSE_SLOPE)


def products_as_prepared(device: torch.device, *norms: Norm) -> AbstractContextManager:
    """Within the block, leave everything in the dtype that the weights are prepared in, if no module must be called."""
    if any(norm.module is not None for norm in norms):
        return nullcontext()
    return in_full_precision(device.type)


def _function(function: Callable[..., Tensor], *key: Any) -> Callable[..., Tensor]:
    """Return a function of tokens, compiled if that is wanted; one for each key, whose tensors have the same widths."""
    backend = gpu_switches.present().compiled
    return _compiled(function, backend, *key) if backend else function


@lru_cache
def _compiled(function: Any, backend: Any, *key: Any) -> Callable[..., Tensor]:
    # With code of its own, as torch.compile would take widths that change from call to call for any widths
    own = FunctionType(function.__code__.replace(co_name=function.__name__), function.__globals__)
    compiled = torch.compile(own, backend=backend)

    def run(*args: Any) -> Tensor:
        for tokens in (t for t in args if isinstance(t, Tensor)):
            torch._dynamo.maybe_mark_dynamic(tokens, 0)
        return compiled(*args)

    return run
