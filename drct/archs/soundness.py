"""Numbers that no network has or computes: NaN, infinity, and those so large that something must have gone wrong."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

LARGEST = 1e10  # magnitude of weights and of results, which are about [0, 1]; real ones are far below


def is_sound(x: Tensor, largest: float = LARGEST) -> bool:
    """Return whether all values of a tensor are finite and smaller than `largest` in magnitude.

    The smallest and the largest value tell this in two passes, since NaN and infinity are passed on to them.
    """
    if not x.numel():
        return True
    low, high = torch.stack([x.amin(), x.amax()]).tolist()  # one transfer from a GPU
    return -largest < low and high < largest


def unsound(tensors: Iterable[tuple[str, Tensor]], largest: float = LARGEST) -> str:
    """Describe the first of some named tensors that is not sound: 'conv_first.weight holds NaN'; '' if all are."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and not is_sound(tensor, largest):
            peak = tensor.detach().abs().max().item()
            what = "NaN" if math.isnan(peak) else "infinity" if math.isinf(peak) else f"values up to {peak:.1e}"
            return f"{name} holds {what}"
    return ""
