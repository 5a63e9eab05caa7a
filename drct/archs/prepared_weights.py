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
from torch._utils import _flatten_dense_tensors as flatten_dense_tensors
from torch.nn import functional as F

from drct.archs import gpu_switches
from drct.archs.kernels import in_full_precision, packed
from drct.archs.regions import autocast_dtype
from drct.archs.swin import Attention

HEAD_MULTIPLE = 8  # kernels are made for heads of such sizes
INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size
WEIGHTS = ("weight", "bias", "relative_position_bias_table")
TABLE_COLUMNS = 4096  # of the bits of all parameters
Weights = TypeVar("Weights")


class Product(NamedTuple):
    """Weight and bias of a linear layer, as `kernels.linear` takes them."""

    weight: Tensor  # (o, i)
    bias: Tensor | None  # (o,)

    def to(self, dtype: torch.dtype) -> "Product":
        """Convert the weight to the dtype of the computation."""
        return Product(self.weight.to(dtype), self.bias)


class AttentionWeights(NamedTuple):
    """Weights of attention. Heads are padded with zeros to d' channels."""

    qkv: Product  # C -> 3 * h * d'
    proj: Product  # h * d' -> C
    bias: Tensor  # of relative positions: (h, N, M) for N queries and M keys
    scale: float = 1.0  # of the products of queries and keys, where the weights of queries are not scaled


def attention_weights(attn: Attention, dtype: torch.dtype, factor: float = 1.0) -> AttentionWeights:
    """Prepare the weights of attention, with a factor of its logits. They are the same for all windows."""
    heads, d = attn.num_heads, len(attn.proj.weight) // attn.num_heads
    more = -d % HEAD_MULTIPLE

    def padded(x: Tensor) -> Tensor:
        q, k, v = rearrange(x, "(three h d) ... -> three h d (...)", three=3, h=heads)
        return F.pad(torch.stack([q * (attn.scale * factor), k, v]), (0, 0, 0, more)).flatten(0, 2).to(dtype)

    qkv = Product(padded(attn.qkv.weight), None if attn.qkv.bias is None else padded(attn.qkv.bias).flatten())
    weight = F.pad(attn.proj.weight.unflatten(1, (heads, d)), (0, more)).flatten(1).to(dtype)
    bias = attn.relative_position_bias()
    bias = (bias if factor == 1 else bias * factor).to(dtype).contiguous()
    return AttentionWeights(qkv, Product(weight, attn.proj.bias), bias)


def weight_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which to prepare weights for training on a feature map.

    On a GPU it is that of autocast, which would otherwise convert them in every product, forward and backward.
    """
    return autocast_dtype(x) if gpu_switches.is_gpu(x.device) else x.dtype


def product_of(layer: Any) -> Product:
    """Return the product of an `nn.Linear`, or of an `nn.Conv2d` of single pixels."""
    return Product(layer.weight.flatten(1), layer.bias)


# Prepared weights by module and part of it, with what they were made from. PyTorch counts the changes of a tensor,
# but not those through `.data`, as BasicSR's EMA makes them, so its count does not tell whether they still hold
_prepared: "WeakKeyDictionary[nn.Module, dict[Hashable, tuple[Any, Any]]]" = WeakKeyDictionary()
_dependent: "WeakKeyDictionary[nn.Module, dict[Hashable, Any]]" = WeakKeyDictionary()  # of networks: see `kept_for`
_fingerprints: "WeakKeyDictionary[nn.Module, Any]" = WeakKeyDictionary()  # of networks, as they were last on a GPU


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
    tensors = [*weights_of([attn.qkv, attn.proj, *layers]), attn.relative_position_bias_table]
    settings = (rows, attn.scale)
    return kept_weights(module, part, tensors, settings, features, lambda: _packed(make(features.dtype), rows))


def weights_of(layers: Iterable[Any]) -> list[Tensor | None]:
    """Return weight and bias of each layer."""
    return [t for layer in layers for t in (layer.weight, layer.bias)]


def kept_weights(
    module: nn.Module,
    part: Hashable,
    tensors: list[Tensor | None],
    settings: Hashable,
    features: Tensor,
    make: Callable[[], Weights],
) -> Weights:
    """Return weights prepared for inference on the CPU; those of earlier images if they still hold.

    Args:
        module: The module that owns the weights.
        part: Which of its weights these are.
        tensors: What they are made from.
        settings: What else they depend on.
        features: Feature map to run on, in whose dtype they are made.
        make: Prepares the weights.
    """
    # Comparing weights would make a GPU wait, and stand-ins for tensors have no values to compare
    if features.device.type != "cpu" or type(features) is not Tensor:
        return make()
    made_from = (features.dtype, settings, [None if t is None else _fingerprint(t) for t in tensors])
    kept = _prepared.setdefault(module, {})
    found = kept.get(part)
    if found is None or found[0] != made_from:
        found = kept[part] = made_from, make()
    return found[1]


def gpu_weights(
    module: nn.Module, part: Hashable, attn: Attention, features: Tensor, make: Callable[[], Weights]
) -> Weights:
    """Return weights prepared for a GPU; those of earlier images, which hold as `forget_stale_weights` has found.

    Args:
        module: The module that owns the weights.
        part: Which of its weights these are.
        attn: The attention among them.
        features: Feature map to run on.
        make: Prepares the weights.
    """
    made_from = (features.device, features.dtype, attn.scale)
    kept = _prepared.setdefault(module, {}) if _has_values(features) else {}
    found = kept.get(part)
    if found is None or found[0] != made_from:
        with in_full_precision(features.device.type):
            found = kept[part] = made_from, make()
    return found[1]


def forget_stale_weights(network: nn.Module, x: Tensor) -> None:
    """Forget what was prepared for a GPU if weights have changed since.

    Waits for the GPU, once per image: comparing each block's weights where they are used would have it wait each time.

    Args:
        network: The network.
        x: Its input, on the GPU.
    """
    if not _has_values(x):
        return
    tensors = [getattr(module, name, None) for module in network.modules() for name in WEIGHTS]
    present = [t.detach() for t in tensors if isinstance(t, Tensor)]
    # Their places in memory, too: recorded graphs read them there
    kinds = [None if t is None else (t.shape, t.dtype, t.device, t.data_ptr()) for t in tensors]
    fingerprint = kinds, _sums_of_bits(present)
    if _fingerprints.get(network) != fingerprint:
        forget_prepared_weights(network)
        _fingerprints[network] = fingerprint


def kept_for(network: nn.Module) -> dict[Hashable, Any]:
    """Return a dictionary for what depends on the prepared weights of a network, and is forgotten with them."""
    return _dependent.setdefault(network, {})


def prepared_tensors(network: nn.Module) -> list[Any]:
    """Return all that is prepared for a network's modules."""
    return [entry for module in network.modules() for _, entry in _prepared.get(module, {}).values()]


def forget_prepared_weights(network: nn.Module) -> None:
    """Free the weights that inference has prepared, of a network that is not run again soon."""
    _dependent.pop(network, None)
    for module in network.modules():
        _prepared.pop(module, None)


def _has_values(x: Tensor) -> bool:
    return type(x) is Tensor and not x.is_meta


def _sums_of_bits(tensors: list[Tensor]) -> list[int]:
    """Return sums over the bits of tensors on a GPU, of which some mind their places, with one copy from there."""
    sums: list[Tensor] = []
    for dtype in sorted({t.dtype for t in tensors}, key=str):
        own = [t for t in tensors if t.dtype == dtype]
        rest = own[0].new_zeros(-sum(t.numel() for t in own) % TABLE_COLUMNS)
        table = flatten_dense_tensors([*own, rest]).view(INTEGERS[dtype.itemsize]).view(-1, TABLE_COLUMNS)
        for dim in (0, 1):
            along = table.sum(dim, dtype=torch.int64)
            odd = torch.arange(1, 2 * len(along), 2, device=along.device)
            sums += [along.sum(), (along * odd).sum()]
    return torch.stack(sums).tolist() if sums else []


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
        bias = None if weights.bias is None else weights.bias.detach().to(weights.weight.dtype)
        return cast(Weights, Product(packed(weights.weight, rows), bias))
    if not isinstance(weights, tuple):
        return weights
    return type(weights)(*(_packed(entry, rows) for entry in cast(tuple, weights)))
