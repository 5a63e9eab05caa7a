"""A network with its weights, whatever it was read from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from drct.archs.traits import NetworkTraits
from drct.errors import DRCTError
from drct.text import first_line

SMALL = (16, 24)  # pixels; of the image that a network is tried with


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with its weights, in evaluation mode."""

    network: nn.Module
    traits: NetworkTraits
    name: str  # of its file or folder, without suffix
    source: Path | str  # file or folder that it was read from, or its name on the Hugging Face Hub
    entry: str = ""  # of the file: 'params', 'params_ema', or '' where the file has no entries
    kind: str = ""  # of networks other than those of `families`: name of the architecture
    card: Mapping[str, str] = field(default_factory=dict)  # what the file says of its training: licence, data, ...


def enlargement(network: nn.Module, traits: NetworkTraits, what: object, size: tuple[int, int] | None = None) -> int:
    """Return the scale of a network, found by running it on a small image.

    The height and width are `size`, or by default small ones that the traits say it takes.

    Raises:
        DRCTError: about `what`, if it does not run, or returns anything but an image that is enlarged by a whole
            number of times.
    """
    height, width = size or traits.only_size or traits.fitting(*SMALL)
    x = torch.full((1, traits.channels, height, width), 0.5)
    try:
        with torch.no_grad():
            result = network(x)
    except Exception as error:  # of any kind of network
        raise DRCTError(f"{what} cannot compute an image of {width}x{height}: {first_line(error)}") from error
    if not isinstance(result, Tensor):
        raise DRCTError(f"{what} gives a {type(result).__name__} for an image, where an enlarged image is expected")
    scale = result.shape[-1] // x.shape[-1] if result.ndim == 4 else 0
    expected = (*x.shape[:2], *(side * scale for side in x.shape[2:]))
    if scale < 1 or tuple(result.shape) != expected:
        shapes = " gives ".join("x".join(map(str, tensor.shape)) for tensor in (x, result))
        raise DRCTError(f"{what}: {shapes}, which is no image enlarged by a whole number of times")
    return scale
