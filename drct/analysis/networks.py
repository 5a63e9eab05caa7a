"""Networks to analyze: by name with initial weights, or from weight files and training runs."""

import importlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from drct.archs.families import NAMED
from drct.archs.traits import NetworkTraits
from drct.errors import DRCTError, did_you_mean
from drct.inference.sources.spandrel_files import needs_spandrel
from drct.inference.upscaler import Upscaler
from drct.inference.weights import LoadedNetwork, read_network

Peer = tuple[str, dict[str, Any]]  # class of the package spandrel, and its arguments


def _peer(kind: str, groups: int = 6, **arguments: Any) -> Peer:
    """Return class and arguments of a x4 network of groups of six blocks with six heads."""
    common = {"upscale": 4, "img_size": 64, "img_range": 1.0, "upsampler": "pixelshuffle", "resi_connection": "1conv"}
    return kind, common | {"depths": (6,) * groups, "num_heads": (6,) * groups, "mlp_ratio": 2, **arguments}


_HAT: dict[str, Any] = {"conv_scale": 0.01, "overlap_ratio": 0.5, "window_size": 16}
PEERS: dict[str, Peer] = {  # with the dimensions of their papers
    "SwinIR-M": _peer("SwinIR", embed_dim=180, window_size=8),
    "original HAT": _peer("HAT", embed_dim=180, compress_ratio=3, squeeze_factor=30, **_HAT),
    "original DRCT": _peer("DRCT", embed_dim=180, window_size=16, gc=32),
}


def make(name: str, **options: Any) -> LoadedNetwork:
    """Build the x4 network of a name in `families.NAMED` or `PEERS`, with initial weights, in evaluation mode.

    Raises:
        DRCTError: if there is no network of this name, or it is a peer and spandrel is not installed.
    """
    if name in NAMED:
        ours = NAMED[name].network(**NAMED[name].variants[name], **options).eval()
        return LoadedNetwork(ours, ours.traits, name, name)
    if name not in PEERS:
        raise DRCTError(f"no network {name}{did_you_mean(name, (*NAMED, *PEERS))}")
    kind, arguments = PEERS[name]
    needs_spandrel(name)
    module = importlib.import_module(f"spandrel.architectures.{kind}")
    network = getattr(module, kind)(**arguments, **options).eval()
    return LoadedNetwork(network, NetworkTraits(4, arguments["window_size"]), name, name)


def load(source: str | os.PathLike, network: str | os.PathLike | None = None) -> LoadedNetwork:
    """Load a network to analyze, as `read_network` does.

    Raises:
        DRCTError: as `read_network`, or if it is a model whose layers cannot be seen.
    """
    loaded = read_network(source, network)
    if loaded.traits.place is not None:
        raise DRCTError(f"{source}: the layers of an ONNX model are not visible: give the weights it was made of")
    return loaded


def load_all(sources: Sequence[str], network: str | os.PathLike | None = None) -> list[LoadedNetwork]:
    """Load several networks; those that would have the same name are named by their source."""
    loaded = [load(source, network) for source in sources]
    uses = Counter(one.name for one in loaded)
    named = zip(sources, loaded, strict=True)
    return [replace(one, name=source) if uses[one.name] > 1 else one for source, one in named]


def check_pictures(upscaler: Upscaler) -> None:
    """Raise `DRCTError` if a network takes no RGB pictures of any size."""
    upscaler.check_pictures()
    if upscaler.traits.only_size is not None:
        raise DRCTError("these weights are of a network with ape, which takes images of one size only")
    if upscaler.traits.channels != 3:
        raise DRCTError(f"the network takes {upscaler.traits.channels} channels, pictures have 3")
