"""Entries that the original's state dicts hold besides weights, though they follow from the network's arguments.

With them, weight files of this project load strictly in the original implementation, and its files here.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from drct.archs.windows import overlapping_position_index, relative_position_index, window_masks

if TYPE_CHECKING:
    from drct.archs.drct_arch import DRCT
    from drct.archs.hat_arch import HAT


def entries_of_drct(network: "DRCT") -> dict[str, Tensor]:
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


def entries_of_hat(network: "HAT") -> dict[str, Tensor]:
    """Indices of relative positions in self-attention (SA) and overlapping cross-attention (OCA), of all groups."""
    w, cpu = network.window_size, torch.device("cpu")
    return {
        "relative_position_index_SA": relative_position_index(w, cpu).clone(),  # their owner may change them
        "relative_position_index_OCA": overlapping_position_index(w, network.overlap, cpu).clone(),
    }
