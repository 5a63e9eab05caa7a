"""Making a network from its weight file alone."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from torch import Tensor, nn

from drct.archs.families import family_of_weights
from drct.archs.frame import Frame
from drct.archs.traits import NetworkTraits
from drct.errors import DRCTError
from drct.inference.arguments import network_arguments, without_prefix
from drct.inference.card import card_in
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
    card: Mapping[str, str] = field(default_factory=dict)  # what the file says of its training: licence, data, ...


def read_network(name: str | os.PathLike = DEFAULT_WEIGHTS) -> LoadedNetwork:
    """Read a DRCT or HAT for inference, from a file or folder that `find_weights` finds or from the Hugging Face Hub.

    The file is a BasicSR checkpoint (whose EMA is taken if it has one), a bare state dict or a safetensors file, with
    the network's arguments, as `drct export` writes them, or without; the folder is of `save_pretrained`; the name
    on the Hub is `owner/model`.

    Raises:
        DRCTError: if there is no such file, or it holds another network; the message says what it looks like.
    """
    if is_on_hub(str(name)):
        return _saved_network(str(name), partial(hf_hub_download, str(name)))
    path = find_weights(name)
    if path.is_dir():
        return _saved_network(path, path.joinpath)
    return network_from(checkpoint.load(path), path)


def network_from(content: Any, path: Path) -> LoadedNetwork:
    """Make a DRCT or HAT from the content of a weight file. Raises `DRCTError` if it is neither."""
    weights, entry = weights_in(content, path)
    metadata = checkpoint.metadata_of(content, path)
    network = _network(weights, metadata.get("drct_config"), path)
    return _loaded(network, path, entry or metadata.get("entry", ""), card_in(metadata))


def weights_in(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """Pick the weights out of the content of a file, as `checkpoint.weights_in` does; their names become ours."""
    weights, entry = checkpoint.weights_in(content, path)
    return without_prefix(weights), entry


def _network(weights: dict[str, Tensor], config: str | None, path: Path) -> Frame:
    """Make the network of a state dict, with the arguments of its metadata if it has any."""
    try:
        family = family_of_weights(weights)
        network = family.network(**network_arguments(family, weights, config))
    except (ValueError, TypeError) as error:
        raise DRCTError(f"{path}: {error}") from error
    if differences := checkpoint.load_weights(network, weights, False, path):
        raise DRCTError(
            f"{path} holds weights that do not fit a {family.name}: {'; '.join(differences[:3])}. Copy it again"
        )
    return network.eval()


def _loaded(network: Frame, source: Path | str, entry: str, card: Mapping[str, str]) -> LoadedNetwork:
    return LoadedNetwork(network, network.traits, Path(source).stem, source, entry, card)


def _saved_network(source: Path | str, find: Callable[[str], str | Path]) -> LoadedNetwork:
    """Read what `save_pretrained` wrote: config.json and weights, whose paths `find` returns."""
    try:
        config = Path(find("config.json")).read_text(encoding="utf-8")
        file = Path(find("model.safetensors"))
    except Exception as error:  # of files, or of the Hub's client
        reason = " ".join(str(error).split())
        reason = reason if len(reason) < 300 else f"{reason[:300]}..."
        raise DRCTError(
            f"cannot load {source}: {reason.rstrip('.') or type(error).__name__}. Expected are config.json and "
            "model.safetensors, as save_pretrained writes them"
        ) from error
    weights, _ = weights_in(checkpoint.load(file), file)
    return _loaded(_network(weights, config, file), source, "", {})
