"""Networks to analyze: by name with initial weights, or from weight files and training runs."""

import importlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from drct.archs.families import NAMED, family_of_weights
from drct.archs.traits import NetworkTraits, traits_of
from drct.errors import DRCTError, did_you_mean
from drct.files import expanded
from drct.inference.weights import LoadedNetwork, network_from, read_network, weights_in
from drct.runs.yaml_file import load_yaml
from drct.runtime import checkpoint

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
    _needs_spandrel(name)
    module = importlib.import_module(f"spandrel.architectures.{kind}")
    network = getattr(module, kind)(**arguments, **options).eval()
    return LoadedNetwork(network, NetworkTraits(4, arguments["window_size"]), name, name)


def load(source: str | os.PathLike) -> LoadedNetwork:
    """Load the network of a weight file or a training run.

    Args:
        source: Weights as `drct upscale --weights` takes them; a weight file of any network that spandrel supports, if
            that is installed; or the folder of a training run of any architecture in BasicSR's registry, of which the
            newest weights are loaded (the EMA where there is one).

    Raises:
        DRCTError: if there is no such file, or its network is not known.
    """
    path = expanded(source)
    if path.is_dir() and (path / "models").is_dir():
        return _load_run(path)
    if path.is_file():
        content = checkpoint.load(path)
        state, _ = weights_in(content, path)
        try:
            family_of_weights(state)
        except ValueError as error:
            return _load_with_spandrel(path, state, str(error))
        return network_from(content, path)
    return read_network(source)


def load_all(sources: Sequence[str]) -> list[LoadedNetwork]:
    """Load several networks; those that would have the same name are named by their source."""
    loaded = [load(source) for source in sources]
    uses = Counter(one.name for one in loaded)
    named = zip(sources, loaded, strict=True)
    return [replace(one, name=source) if uses[one.name] > 1 else one for source, one in named]


def _load_run(folder: Path) -> LoadedNetwork:
    from basicsr.archs import build_network  # takes seconds to import, and only runs need it

    options = sorted(folder.glob("*.yml"))
    if len(options) != 1:
        raise DRCTError(f"{folder} has {len(options)} option files (*.yml); the one of a training run is expected")
    files = [file for file in (folder / "models").glob("net_g_*.pth") if file.stem.split("_")[-1].isdigit()]
    if not files:
        raise DRCTError(f"{folder}/models has no weights net_g_<iteration>.pth")
    newest = max(files, key=lambda file: int(file.stem.split("_")[-1]))
    opt = load_yaml(options[0])["network_g"]
    network = build_network(dict(opt)).eval()
    state, _ = checkpoint.read_weights(newest)
    checkpoint.load_weights(network, state, True, newest)
    return LoadedNetwork(network, traits_of(network, int(opt.get("upscale", 4)), opt), folder.name, folder)


def _load_with_spandrel(path: Path, state: dict[str, Any], reason: str) -> LoadedNetwork:
    """Load another network; `reason` is why its weights are not those of a DRCT or HAT."""
    _needs_spandrel(f"{path} ({reason})")
    from spandrel import ImageModelDescriptor, ModelLoader

    checkpoint.check_sound(state.items(), path)
    try:
        found = ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except Exception as error:  # spandrel raises errors of any type for weights that are almost those of a network
        raise DRCTError(f"{path}: {reason}, and spandrel does not know them either") from error
    if not isinstance(found, ImageModelDescriptor):
        raise DRCTError(f"{path}: a network of {found.architecture.name} takes more than an image")
    # Networks of windows pad by themselves in spandrel, but with zeros
    window = getattr(found.model, "window_size", None) or found.size_requirements.multiple_of
    traits = NetworkTraits(found.scale, int(window), found.input_channels)
    return LoadedNetwork(found.model.eval(), traits, path.stem, path)


def _needs_spandrel(what: str) -> None:
    try:
        import spandrel  # noqa: F401
    except ImportError as error:
        raise DRCTError(f"{what} needs spandrel: pip install spandrel") from error
