"""Weights of a block of a dense group, prepared for the products that `drct.archs.execution` computes with them.

Letters in shapes: see `drct.archs.drct_arch`.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from drct.archs.kernels import in_full_precision, packed

if TYPE_CHECKING:
    from drct.archs.drct_arch import DenseGroup
    from drct.archs.swin import SwinBlock, WindowAttention

HEAD_MULTIPLE = 8  # kernels are made for heads of such sizes


class Product(NamedTuple):
    """Weight and bias of a linear layer, as `kernels.linear` takes them."""

    weight: Tensor  # (o, i)
    bias: Tensor | None  # (o,)

    def to(self, dtype: torch.dtype) -> "Product":
        """Convert the weight to the dtype of the computation."""
        return Product(self.weight.to(dtype), self.bias)


class BlockWeights(NamedTuple):
    """Weights of a block and the 1x1 convolution after it, prepared for the products they enter.

    Heads are padded with zeros to d' channels, and those of the queries are scaled.
    """

    qkv: Product  # C -> 3 * h * d'
    proj: Product  # h * d' -> C
    fc1: Product
    adjust: Product  # the 1x1 convolution after the block
    adjusted_fc2: Product  # fc2, followed by this convolution without its bias
    bias: Tensor  # of relative positions: (h, N, N)


def block_weights(group: "DenseGroup", k: int, dtype: torch.dtype) -> BlockWeights:
    """Prepare the weights of block k of a group. They are the same for all windows."""
    block: SwinBlock = getattr(group, f"swin{k}")
    adjust = _layer(getattr(group, f"adjust{k}"))
    fc2 = block.mlp.fc2
    with in_full_precision(adjust.weight.device.type):
        adjusted_weight = adjust.weight @ fc2.weight
        adjusted_fc2 = Product(adjusted_weight, None if fc2.bias is None else adjust.weight @ fc2.bias)
    qkv, proj = _padded_heads(block.attn, dtype)
    fc1 = _layer(block.mlp.fc1)
    bias = block.attn.relative_position_bias().to(dtype).contiguous()
    return BlockWeights(qkv, proj, fc1.to(dtype), adjust.to(dtype), adjusted_fc2.to(dtype), bias)


def _padded_heads(attn: "WindowAttention", dtype: torch.dtype) -> tuple[Product, Product]:
    heads, d = attn.num_heads, len(attn.proj.weight) // attn.num_heads
    more = -d % HEAD_MULTIPLE

    def padded(x: Tensor) -> Tensor:
        q, k, v = rearrange(x, "(three h d) ... -> three h d (...)", three=3, h=heads)
        return F.pad(torch.stack([q * attn.scale, k, v]), (0, 0, 0, more)).flatten(0, 2).to(dtype)

    qkv = Product(padded(attn.qkv.weight), None if attn.qkv.bias is None else padded(attn.qkv.bias).flatten())
    weight = F.pad(attn.proj.weight.unflatten(1, (heads, d)), (0, more)).flatten(1).to(dtype)
    return qkv, Product(weight, attn.proj.bias)


# Prepared weights by group and number of block, with what they were made from. PyTorch counts the changes of a tensor,
# but not those through `.data`, as BasicSR's EMA makes them, so its count does not tell whether they still hold
_prepared: "WeakKeyDictionary[nn.Module, dict[int, tuple[Any, BlockWeights]]]" = WeakKeyDictionary()


def prepared_weights(group: "DenseGroup", k: int, features: Tensor, rows: int) -> BlockWeights:
    """Return the weights of block k of a group, packed for inference; those of earlier images if they still hold.

    Args:
        group: The group.
        k: Number of the block, from 1.
        features: Feature map to run on.
        rows: How many tokens most products have.
    """
    # Comparing weights would make a GPU wait, and stand-ins for tensors have no values to compare
    if features.device.type != "cpu" or type(features) is not Tensor:
        return _packed(block_weights(group, k, features.dtype), rows)
    block: SwinBlock = getattr(group, f"swin{k}")
    layers = (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2, getattr(group, f"adjust{k}"))
    tensors = [t for layer in layers for t in (layer.weight, layer.bias)] + [block.attn.relative_position_bias_table]
    made_from = (features.dtype, rows, block.attn.scale, [None if t is None else _fingerprint(t) for t in tensors])
    kept = _prepared.setdefault(group, {})
    found = kept.get(k)
    if found is None or found[0] != made_from:
        found = kept[k] = made_from, _packed(block_weights(group, k, features.dtype), rows)
    return found[1]


def forget_prepared_weights(network: nn.Module) -> None:
    """Free the weights that inference has prepared, of a network that is not run again soon."""
    for module in network.modules():
        _prepared.pop(module, None)


def _fingerprint(x: Tensor) -> tuple[torch.dtype, int, int]:
    """Return the dtype of a tensor, and two sums over its bits, modulo 2 ** 64, of which one minds their places."""
    bits = x.detach().flatten().view(torch.uint8).numpy()
    words = bits.view(np.int64 if len(bits) % 8 == 0 else np.int16 if len(bits) % 2 == 0 else np.int8)
    words = words.astype(np.int64, copy=False)
    return x.dtype, int(words.sum()), int(np.dot(words, _odd_numbers(len(words))))


@lru_cache(maxsize=64)
def _odd_numbers(count: int) -> np.ndarray:
    return np.arange(1, 2 * count, 2, dtype=np.int64)


def _packed(weights: BlockWeights, rows: int) -> BlockWeights:
    """Bring the weights into the order that is read fastest (see `kernels.packed`)."""

    def packed_product(product: Product) -> Product:
        return Product(packed(product.weight, rows), product.bias)

    return BlockWeights(
        packed_product(weights.qkv),
        packed_product(weights.proj),
        packed_product(weights.fc1),
        packed_product(weights.adjust),
        packed_product(weights.adjusted_fc2),
        weights.bias,
    )


def _layer(module: Any) -> Product:
    """Return the product of an `nn.Linear`, or of an `nn.Conv2d` of single pixels."""
    return Product(module.weight.flatten(1), module.bias)
