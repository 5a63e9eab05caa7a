"""Finding weights by name, and making the network that they belong to from the file alone."""

import io
import json
import os
import re
import sysconfig
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from drct.archs.drct_arch import DRCT
from drct.archs.families import family_of_weights
from drct.archs.frame import Frame
from drct.archs.traits import NetworkTraits
from drct.errors import DRCTError, did_you_mean
from drct.files import expanded
from drct.runtime import checkpoint

DEFAULT_WEIGHTS = "DRCT-XS_SRx4"  # comes with the project
WEIGHT_SUFFIXES = (".pth", ".safetensors", ".pt")
_PRETRAINED = Path("experiments", "pretrained_models")


def folders() -> list[Path]:
    """Return the folders searched for weights: in the working directory, the repository and the installation."""
    repository = Path(__file__).resolve().parents[2]
    return [Path.cwd() / _PRETRAINED, repository / _PRETRAINED, Path(sysconfig.get_path("data"), "share", "drct")]


def available() -> list[str]:
    """Return the names of the weights in `folders`."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*") if path.suffix in WEIGHT_SUFFIXES})


def find_weights(name: str | os.PathLike) -> Path:
    """Find weights by a path, or by the name of a file in one of `folders`, with or without suffix.

    Raises:
        DRCTError: if there are no such weights; the message lists those that exist.
    """
    if (path := expanded(name)).exists():
        return path
    for folder in folders():
        for suffix in ("", *WEIGHT_SUFFIXES):
            if (path := folder / f"{name}{suffix}").is_file():
                return path
    known = available()
    raise DRCTError(
        f"no weights {name}{did_you_mean(name, known)}. Give a path, the name of a file in "
        f"experiments/pretrained_models ({', '.join(known) or 'there is none'}), or owner/model of the Hugging Face Hub"
    )


@dataclass(frozen=True)
class LoadedNetwork:
    """A network with its weights, in evaluation mode."""

    network: nn.Module
    traits: NetworkTraits
    name: str  # of its file or folder, without suffix
    source: Path | str  # file or folder that it was read from, or its name on the Hugging Face Hub
    entry: str = ""  # of the file: 'params', 'params_ema', or '' where the file has no entries


def read_network(name: str | os.PathLike = DEFAULT_WEIGHTS) -> LoadedNetwork:
    """Read a DRCT or HAT for inference, from a file or folder that `find_weights` finds or from the Hugging Face Hub.

    The file is a BasicSR checkpoint (whose EMA is taken if it has one), a bare state dict or a safetensors file, with
    the network's arguments, as `drct export` writes them, or without; the folder is of `DRCT.save_pretrained`; the name
    on the Hub is `owner/model`.

    Raises:
        DRCTError: if there is no such file, or it holds another network; the message says what it looks like.
    """
    if _is_on_hub(str(name)):
        return _loaded(_from_pretrained(str(name)), str(name), "")
    path = find_weights(name)
    if path.is_dir():
        return _loaded(_from_pretrained(str(path)), path, "")
    return network_from(checkpoint.load(path), path)


def network_from(content: Any, path: Path) -> LoadedNetwork:
    """Make a DRCT or HAT from the content of a weight file. Raises `DRCTError` if it is neither."""
    weights, entry = checkpoint.weights_in(content, path)
    metadata = checkpoint.metadata_of(content, path)
    try:
        family = family_of_weights(weights)
        network = family.network(**(json.loads(metadata["drct_config"]) if metadata else family.options(weights)))
    except (ValueError, TypeError) as error:
        raise DRCTError(f"{path}: {error}") from error
    if differences := checkpoint.load_weights(network, weights, False, path):
        raise DRCTError(
            f"{path} holds weights that do not fit a {family.name}: {'; '.join(differences[:3])}. Copy it again"
        )
    return _loaded(network.eval(), path, entry or metadata.get("entry", ""))


def _loaded(network: Frame, source: Path | str, entry: str) -> LoadedNetwork:
    return LoadedNetwork(network, network.traits, Path(source).stem, source, entry)


def _is_on_hub(name: str) -> bool:
    """Return whether a name is that of a model on the Hugging Face Hub, and not a path, not even a misspelt one."""
    owner, slash, model = name.partition("/")
    is_name = all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", part) for part in (owner, model))
    is_file = Path(model).suffix.lower() in {*WEIGHT_SUFFIXES, ".ckpt", ".bin", ".onnx", ".pkl", ".zip"}
    return bool(slash) and is_name and not is_file and not Path(owner).exists()


def _from_pretrained(name: str) -> DRCT:
    try:
        with redirect_stdout(io.StringIO()):  # it prints where it looks
            return DRCT.from_pretrained(name).eval()
    except Exception as error:  # the network's, or that of a missing or damaged file
        reason = " ".join(str(error).split())
        reason = reason if len(reason) < 300 else f"{reason[:300]}..."
        raise DRCTError(
            f"cannot load {name}: {reason.rstrip('.') or type(error).__name__}. Expected are config.json and "
            "model.safetensors, as DRCT.save_pretrained writes them"
        ) from error
