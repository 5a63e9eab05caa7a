"""Finding weights by name, and making the network that they belong to from the file alone."""

import os
import re
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from drct.archs.drct_arch import DRCT
from drct.archs.traits import NetworkTraits
from drct.errors import DRCTError, did_you_mean
from drct.files import expanded
from drct.inference.arguments import network_arguments, without_prefix
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
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise DRCTError(f"weights are the path or the name of a file, not {name!r}")
    given = expanded(name)
    named = [folder / f"{name}{suffix}" for folder in folders() for suffix in ("", *WEIGHT_SUFFIXES)]
    for path in (given, *named):
        with suppress(OSError, ValueError):  # a name that is too long for a file, or of characters that none has
            if path.is_file() or (path == given and path.exists()):
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
    """Read a DRCT for inference, from a file or folder that `find_weights` finds or from the Hugging Face Hub.

    The file is a BasicSR checkpoint (whose EMA is taken if it has one), a bare state dict or a safetensors file, with
    the network's arguments, as `drct export` writes them, or without; the folder is of `DRCT.save_pretrained`; the name
    on the Hub is `owner/model`.

    Raises:
        DRCTError: if there is no such file, or it does not hold a DRCT; the message says what it looks like.
    """
    if _is_on_hub(str(name)):
        return _saved_network(str(name), partial(hf_hub_download, str(name)))
    path = find_weights(name)
    if path.is_dir():
        return _saved_network(path, path.joinpath)
    return network_from(checkpoint.load(path), path)


def network_from(content: Any, path: Path) -> LoadedNetwork:
    """Make a DRCT from the content of a weight file. Raises `DRCTError` if it is not one."""
    weights, entry = weights_in(content, path)
    metadata = checkpoint.metadata_of(content, path)
    network = _network(weights, metadata.get("drct_config"), path)
    return _loaded(network, path, entry or metadata.get("entry", ""))


def weights_in(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """Pick a DRCT's weights out of the content of a file, as `checkpoint.weights_in` does; their names become ours."""
    weights, entry = checkpoint.weights_in(content, path)
    return without_prefix(weights), entry


def _network(weights: dict[str, Tensor], config: str | None, path: Path) -> DRCT:
    """Make the DRCT of a state dict, with the arguments of its metadata if it has any."""
    try:
        network = DRCT(**network_arguments(weights, config))
    except (ValueError, TypeError) as error:
        raise DRCTError(f"{path}: {error}") from error
    if differences := checkpoint.load_weights(network, weights, False, path):
        raise DRCTError(f"{path} holds weights that do not fit a DRCT: {'; '.join(differences[:3])}. Copy it again")
    return network.eval()


def _loaded(network: DRCT, source: Path | str, entry: str) -> LoadedNetwork:
    return LoadedNetwork(network, network.traits, Path(source).stem, source, entry)


def _is_on_hub(name: str) -> bool:
    """Return whether a name is that of a model on the Hugging Face Hub, and not a path, not even a misspelt one."""
    owner, slash, model = name.partition("/")
    is_name = all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", part) for part in (owner, model))
    is_file = Path(model).suffix.lower() in {*WEIGHT_SUFFIXES, ".ckpt", ".bin", ".onnx", ".pkl", ".zip"}
    return bool(slash) and is_name and not is_file and not Path(owner).exists()


def _saved_network(source: Path | str, find: Callable[[str], str | Path]) -> LoadedNetwork:
    """Read what `DRCT.save_pretrained` wrote: config.json and weights, whose paths `find` returns."""
    try:
        config = Path(find("config.json")).read_text(encoding="utf-8")
        file = Path(find("model.safetensors"))
    except Exception as error:  # of files, or of the Hub's client
        reason = " ".join(str(error).split())
        reason = reason if len(reason) < 300 else f"{reason[:300]}..."
        raise DRCTError(
            f"cannot load {source}: {reason.rstrip('.') or type(error).__name__}. Expected are config.json and "
            "model.safetensors, as DRCT.save_pretrained writes them"
        ) from error
    weights, _ = weights_in(checkpoint.load(file), file)
    return _loaded(_network(weights, config, file), source, "")
