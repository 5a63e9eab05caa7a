"""Making a network from its weight file alone."""

import io
import json
import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from drct.archs.drct_arch import DRCT
from drct.archs.traits import NetworkTraits
from drct.archs.variants import drct_options
from drct.errors import DRCTError
from drct.runtime import checkpoint
from drct.runtime.weight_files import DEFAULT_WEIGHTS, find_weights, is_on_hub


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
    if is_on_hub(str(name)):
        return _loaded(_from_pretrained(str(name)), str(name), "")
    path = find_weights(name)
    if path.is_dir():
        return _loaded(_from_pretrained(str(path)), path, "")
    return network_from(checkpoint.load(path), path)


def network_from(content: Any, path: Path) -> LoadedNetwork:
    """Make a DRCT from the content of a weight file. Raises `DRCTError` if it is not one."""
    weights, entry = checkpoint.weights_in(content, path)
    metadata = checkpoint.metadata_of(content, path)
    try:
        network = DRCT(**(json.loads(metadata["drct_config"]) if metadata else drct_options(weights)))
    except (ValueError, TypeError) as error:
        raise DRCTError(f"{path}: {error}") from error
    if differences := checkpoint.load_weights(network, weights, False, path):
        raise DRCTError(f"{path} holds weights that do not fit a DRCT: {'; '.join(differences[:3])}. Copy it again")
    return _loaded(network.eval(), path, entry or metadata.get("entry", ""))


def _loaded(network: DRCT, source: Path | str, entry: str) -> LoadedNetwork:
    return LoadedNetwork(network, network.traits, Path(source).stem, source, entry)


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
