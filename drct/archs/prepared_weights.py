"""Weights of attention blocks, prepared for the products that the execution of a network computes with them.

Letters in shapes: see `drct.archs.frame`.
"""

from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from drct.archs.kernels import packed
from drct.archs.swin import Attention

HEAD_MULTIPLE = 8  # kernels are made for heads of such sizes
Weights = TypeVar("Weights")


class Product(NamedTuple):
    """Weight and bias of a linear layer, as `kernels.linear` takes them."""

    weight: Tensor  # (o, i)
    bias: Tensor | None  # (o,)

    def to(self, dtype: torch.dtype) -> "Product":
        """Convert the weight to the dtype of the computation."""
        return Product(self.weight.to(dtype), self.bias)


class AttentionWeights(NamedTuple):
    """Weights of attention. Heads are padded with zeros to d' channels, and those of the queries are scaled."""

    qkv: Product  # C -> 3 * h * d'
    proj: Product  # h * d' -> C
    bias: Tensor  # of relative positions: (h, N, M) for N queries and M keys


def attention_weights(attn: Attention, dtype: torch.dtype) -> AttentionWeights:
    """Prepare the weights of attention. They are the same for all windows."""
    heads, d = attn.num_heads, len(attn.proj.weight) // attn.num_heads
    more = -d % HEAD_MULTIPLE

    def padded(x: Tensor) -> Tensor:
        q, k, v = rearrange(x, "(three h d) ... -> three h d (...)", three=3, h=heads)
        return F.pad(torch.stack([q * attn.scale, k, v]), (0, 0, 0, more)).flatten(0, 2).to(dtype)

    qkv = Product(padded(attn.qkv.weight), None if attn.qkv.bias is None else padded(attn.qkv.bias).flatten())
    weight = F.pad(attn.proj.weight.unflatten(1, (heads, d)), (0, more)).flatten(1).to(dtype)
    bias = attn.relative_position_bias().to(dtype).contiguous()
    return AttentionWeights(qkv, Product(weight, attn.proj.bias), bias)


def product_of(layer: Any) -> Product:
    """Return the product of an `nn.Linear`, or of an `nn.Conv2d` of single pixels."""
    return Product(layer.weight.flatten(1), layer.bias)


# Prepared weights by module and part of it, with what they were made from. PyTorch counts the changes of a tensor,
# but not those through `.data`, as BasicSR's EMA makes them, so its count does not tell whether they still hold
_prepared: "WeakKeyDictionary[nn.Module, dict[Hashable, tuple[Any, Any]]]" = WeakKeyDictionary()


def prepared_weights(
    module: nn.Module,
    part: Hashable,
    attn: Attention,
    layers: Iterable[Any],
    features: Tensor,
    rows: int,
    make: Callable[[torch.dtype], Weights],
) -> Weights:
    """Return weights packed for inference; those of earlier images if they still hold.

    Args:
        module: The module that owns the weights.
        part: Which of its weights these are.
        attn: The attention among them.
        layers: The other linear layers and convolutions among them.
        features: Feature map to run on.
        rows: How many tokens most products have.
        make: Prepares the weights: a (nested) named tuple of products and tensors, in a dtype.
    """
    # Comparing weights would make a GPU wait, and stand-ins for tensors have no values to compare
    if features.device.type != "cpu" or type(features) is not Tensor:
        return _packed(make(features.dtype), rows)
    tensors = [t for layer in (attn.qkv, attn.proj, *layers) for t in (layer.weight, layer.bias)]
    tensors.append(attn.relative_position_bias_table)
    made_from = (features.dtype, rows, attn.scale, [None if t is None else _fingerprint(t) for t in tensors])
    kept = _prepared.setdefault(module, {})
    found = kept.get(part)
    if found is None or found[0] != made_from:
        found = kept[part] = made_from, _packed(make(features.dtype), rows)
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


def _packed(weights: Weights, rows: int) -> Weights:
    """Bring all products into the order that is read fastest (see `kernels.packed`)."""
    if isinstance(weights, Product):
        return cast(Weights, Product(packed(weights.weight, rows), weights.bias))
    if isinstance(weights, Tensor):
        return weights
    return type(weights)(*(_packed(entry, rows) for entry in cast(tuple, weights)))
