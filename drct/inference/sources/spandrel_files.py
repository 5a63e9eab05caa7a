"""Weights of the networks that the package spandrel knows, which is optional."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drct.archs.traits import NetworkTraits
from drct.errors import DRCTError
from drct.inference.loaded import LoadedNetwork, enlargement
from drct.runtime import checkpoint

INSTALL = "pip install spandrel"
# Networks that pad images by reflection to whole windows themselves, so that nothing changes if it is done before
WINDOWED = ("SwinIR", "Swin2SR", "HAT")
PURPOSES = {"FaceSR": "faces", "Restoration": "restoration at the size of the image", "Inpainting": "inpainting"}


def needs_spandrel(what: str) -> None:
    """Raise `DRCTError` if spandrel is not installed."""
    try:
        import spandrel  # noqa: F401
    except ImportError as error:
        raise DRCTError(f"{what} needs spandrel: {INSTALL}") from error


def read(weights: dict[str, Tensor], path: Path, entry: str, reason: str) -> LoadedNetwork:
    """Make the network of a state dict; `reason` is why it is of no network that is known without spandrel.

    Raises:
        DRCTError: if spandrel is not installed or does not know the network, or it is none that enlarges any image.
    """
    needs_spandrel(f"{path} ({reason})")
    from spandrel import ImageModelDescriptor, ModelLoader

    checkpoint.check_sound(weights.items(), path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about calls that its networks make
            found = ModelLoader(device="cpu").load_from_state_dict(dict(weights))
    except Exception as error:  # spandrel raises errors of any type for weights that are almost those of a network
        raise DRCTError(
            f"{path}: {reason}, and spandrel does not know them either. A network of ARCH_REGISTRY is read with its "
            "option file, by --network"
        ) from error
    name = found.architecture.name
    if not isinstance(found, ImageModelDescriptor):
        raise DRCTError(f"{path}: a network of {name} takes more than an image")
    if found.purpose != "SR" or found.input_channels != found.output_channels:
        purpose = PURPOSES.get(found.purpose, f"images of {found.input_channels} channels")
        raise DRCTError(f"{path}: a network of {name} for {purpose}, which is no super-resolution of pictures")
    sizes = found.size_requirements
    window = found.model.window_size if name in WINDOWED else sizes.multiple_of
    traits = NetworkTraits(
        found.scale,
        int(window),
        found.input_channels,
        minimum=max(1, sizes.minimum),
        square=sizes.square,
        precision="fp32",  # others have not been compared
    )
    network = _runnable(found, traits, path)
    kind = f"{name} ({', '.join(found.tags)})" if found.tags else name
    return LoadedNetwork(network, traits, path.stem, path, entry, kind)


def _runnable(found: Any, traits: NetworkTraits, path: Path) -> nn.Module:
    """Return the network itself if it maps an image to an image, or else with what spandrel does around it."""
    model = found.model.eval()
    try:
        if enlargement(model, traits, path) == traits.scale:
            return model
    except DRCTError:
        pass
    wrapped = _Called(found)
    enlargement(wrapped, traits, path)
    return wrapped


class _Called(nn.Module):
    """A network that spandrel calls in a way of its own."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.model = descriptor.model
        self._descriptor = descriptor

    def forward(self, x: Tensor) -> Tensor:
        """Upscale images, (B, C, H, W). The result is clamped, and has no gradient."""
        return torch.cat([self._descriptor(image[None]) for image in x])
