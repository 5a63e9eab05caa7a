"""What a super-resolution network takes and gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class NetworkTraits:
    """What a super-resolution network takes and gives, declared where it is made or loaded.

    A network class declares it in a property `traits`; what other classes need follows from their option file.

    Attributes:
        scale: Pixels of the output per pixel of the input, along each axis.
        window: Height and width of the input must be multiples of this number of pixels.
        channels: Channels of input and output.
        only_size: The one (height, width) the network takes; None if it takes any.
        minimum: Height and width of the input must be at least this.
        square: Whether height and width of the input must be equal.
        upscales: False for a network without reconstruction head, which can be loaded but not run.
        memory: Bytes that inference on one image needs besides weights and image, as a function of its height, width,
            the dtype of the computation and the device; None if this is not known.
        precision: Number format that 'auto' stands for; None for the fastest that suits the device.
        place: Choose where to compute, for networks that PyTorch does not run: returns the device of images and results
            for one that the user names, or None. Such a network computes in `precision` only.
    """

    scale: int
    window: int = 1
    channels: int = 3
    only_size: tuple[int, int] | None = None
    minimum: int = 1
    square: bool = False
    upscales: bool = True
    memory: Callable[[int, int, torch.dtype, torch.device], int] | None = None
    precision: str | None = None
    place: Callable[[str | torch.device | None], torch.device] | None = None

    def at_least(self, height: int, width: int) -> tuple[int, int]:
        """Return a height and width that are no smaller than the network takes."""
        sides = max(height, self.minimum), max(width, self.minimum)
        return (max(sides), max(sides)) if self.square else sides

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """Return the smallest height and width that the network takes and that hold an image of this size."""
        height, width = self.at_least(height, width)
        return -(-height // self.window) * self.window, -(-width // self.window) * self.window


def declared_traits(network: nn.Module) -> NetworkTraits:
    """Return what a network declares of itself.

    Raises:
        ValueError: if it declares nothing.
    """
    traits = getattr(network, "traits", None)
    if not isinstance(traits, NetworkTraits):
        raise ValueError(f"{type(network).__name__} declares no traits: pass NetworkTraits(scale=..., window=...)")
    return traits


def traits_of(network: nn.Module, scale: int, network_options: Mapping[str, Any]) -> NetworkTraits:
    """Return what a network declares of itself, or else what its option file tells.

    Args:
        network: The network.
        scale: Scale of the option file.
        network_options: Section `network_g` of the option file: arguments of the network.
    """
    try:
        return declared_traits(network)
    except ValueError:
        channels = next((network_options[key] for key in ("in_chans", "num_in_ch") if key in network_options), 3)
        return NetworkTraits(scale, int(network_options.get("window_size") or 1), int(channels))
