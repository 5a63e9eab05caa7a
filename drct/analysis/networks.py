"""Networks that analyses look at: those that have a name, with initial weights, and those of files and runs."""

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from drct.archs.drct_arch import DRCT
from drct.archs.traits import traits_of
from drct.archs.variants import VARIANTS, drct_options
from drct.errors import DRCTError, did_you_mean
from drct.files import expanded
from drct.inference import weights
from drct.runs.yaml_file import load_yaml
from drct.runtime import checkpoint

_COMMON: dict[str, Any] = {
    "upscale": 4,
    "img_size": 64,
    "img_range": 1.0,
    "upsampler": "pixelshuffle",
    "resi_connection": "1conv",
    "mlp_ratio": 2,
}
_HAT: dict[str, Any] = {"conv_scale": 0.01, "overlap_ratio": 0.5, "window_size": 16}
# Networks that spandrel carries: class, and the arguments of the x4 networks of their papers
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SwinIR-M": ("SwinIR", {"embed_dim": 180, "depths": (6,) * 6, "num_heads": (6,) * 6, "window_size": 8}),
    "HAT-S": (
        "HAT",
        _HAT
        | {"embed_dim": 144, "depths": (6,) * 6, "num_heads": (6,) * 6, "compress_ratio": 24, "squeeze_factor": 24},
    ),
    "HAT": (
        "HAT",
        _HAT | {"embed_dim": 180, "depths": (6,) * 6, "num_heads": (6,) * 6, "compress_ratio": 3, "squeeze_factor": 30},
    ),
    "HAT-L": (
        "HAT",
        _HAT
        | {"embed_dim": 180, "depths": (6,) * 12, "num_heads": (6,) * 12, "compress_ratio": 3, "squeeze_factor": 30},
    ),
    "original DRCT": (
        "DRCT",
        {"embed_dim": 180, "depths": (6,) * 6, "num_heads": (6,) * 6, "window_size": 16, "gc": 32},
    ),
}


class Loaded(NamedTuple):
    """A network with its weights, in evaluation mode, and what it is called."""

    name: str
    network: nn.Module
    scale: int
    window: int  # sides of its input must be multiples of this


def make(name: str, **options: Any) -> nn.Module:
    """The x4 network of this name, of `VARIANTS` or `PEERS`, with initial weights, in evaluation mode.

    Args:
        name: Of the network.
        options: More arguments of it.

    Raises:
        DRCTError: if there is none, or it is a peer and spandrel is not installed.
    """
    if name in VARIANTS:
        return DRCT(**VARIANTS[name], **options).eval()
    if name not in PEERS:
        raise DRCTError(f"no network {name}{did_you_mean(name, (*VARIANTS, *PEERS))}")
    kind, arguments = PEERS[name]
    _needs_spandrel(name)
    module = importlib.import_module(f"spandrel.architectures.{kind}")
    return getattr(module, kind)(**_COMMON, **arguments, **options).eval()


def load(source: str | os.PathLike) -> Loaded:
    """The network of a file or a run, with its weights.

    Args:
        source: What `drct upscale --weights` takes; or a weight file of SwinIR, HAT or anything else that spandrel
            knows, if that is installed; or the folder of a training run, whose newest weights are taken (the EMA
            where there is one), of any architecture in BasicSR's registry.

    Raises:
        DRCTError: if there is no such file, or its network is not known.
    """
    path = expanded(source)
    if path.is_dir() and (path / "models").is_dir():
        return _of_run(path)
    if path.is_file():
        content = checkpoint.load(path)
        state, _ = checkpoint.weights_in(content, path)
        try:
            drct_options(state)
        except ValueError as error:
            return _by_spandrel(path, state, str(error))
        network = weights.network_from(content, path).network
    else:
        network = weights.read_network(source).network
    return Loaded(path.stem, network, network.upscale, network.window_size)


def _of_run(folder: Path) -> Loaded:
    from basicsr.archs import build_network

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
    return Loaded(
        folder.name, network, int(opt.get("upscale", 4)), traits_of(network, int(opt.get("upscale", 4)), opt).window
    )


def _by_spandrel(path: Path, state: dict[str, Any], reason: str) -> Loaded:
    _needs_spandrel(f"{path} ({reason})")
    from spandrel import ImageModelDescriptor, ModelLoader

    try:
        found = ModelLoader(device="cpu").load_from_state_dict(dict(state))
    except Exception as error:  # of weights that are almost of its networks, it raises anything
        raise DRCTError(f"{path}: {reason}, and spandrel does not know them either") from error
    if not isinstance(found, ImageModelDescriptor):
        raise DRCTError(f"{path}: a network of {found.architecture.name} takes more than an image")
    window = getattr(found.model, "window_size", found.size_requirements.multiple_of)  # it would pad by itself
    return Loaded(path.stem, found.model.eval(), found.scale, window)


def _needs_spandrel(what: str) -> None:
    try:
        import spandrel  # noqa: F401
    except ImportError as error:
        raise DRCTError(f"{what} needs spandrel: pip install spandrel") from error
