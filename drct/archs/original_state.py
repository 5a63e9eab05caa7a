"""Entries that the original's state dicts hold besides weights, though they follow from the network's arguments.

With them, weight files of this project load strictly in the original implementation, and its files here.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from drct.archs.windows import relative_position_index, window_masks

if TYPE_CHECKING:
    from drct.archs.drct_arch import DRCT


def add_computed_entries(network: "DRCT", state_dict: dict[str, Any], prefix: str) -> None:
    """Add the computed entries of a network to its state dict, in place."""
    state_dict.update({prefix + name: value for name, value in _computed_entries(network).items()})


def remove_computed_entries(network: "DRCT", state_dict: dict[str, Any], prefix: str) -> None:
    """Remove the computed entries of a network from a state dict, in place, as far as they are there."""
    for name in _computed_entries(network):
        state_dict.pop(prefix + name, None)


def _computed_entries(network: "DRCT") -> dict[str, Tensor]:
    """Relative position indices of all blocks and attention masks of shifted blocks for images of img_size.

    Entries share two tensors, which `torch.save` writes once.
    """
    index = relative_position_index(network.window_size, torch.device("cpu")).clone()  # its owner may change it
    mask = window_masks(*network.input_size, network.window_size, network.shift, index.device, torch.float32)
    entries: dict[str, Tensor] = {}
    for i, group in enumerate(network.layers):
        for k in range(1, 6):
            entries[f"layers.{i}.swin{k}.attn.relative_position_index"] = index
            if mask is not None and getattr(group, f"swin{k}").shift:
                entries[f"layers.{i}.swin{k}.attn_mask"] = mask
    return entries
