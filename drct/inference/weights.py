"""The one door to networks: from the name of weights, of whatever kind, to a network that is ready to run."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from torch import Tensor

from drct.archs.families import Family, family_of_weights
from drct.archs.frame import Frame
from drct.errors import DRCTError
from drct.inference.arguments import network_arguments, without_prefix
from drct.inference.card import card_in
from drct.inference.loaded import LoadedNetwork
from drct.inference.sources import onnx_files, registry_networks, run_folders, spandrel_files
from drct.runtime import checkpoint
from drct.runtime.weight_files import DEFAULT_WEIGHTS, find_weights, is_on_hub


def read_network(
    name: str | os.PathLike = DEFAULT_WEIGHTS, network: str | os.PathLike | Mapping[str, Any] | None = None
) -> LoadedNetwork:
    """Read a network for inference.

    Args:
        name: What `find_weights` finds: a weight file, an ONNX model, a folder of `save_pretrained`, or that of a
            training run; or a model on the Hugging Face Hub, `owner/model`. A weight file is a BasicSR checkpoint
            (whose EMA is taken if it has one), a bare state dict or a safetensors file.
        network: Option file, or mapping of the same content, whose `network_g` is the architecture of the weights.
            None for that of the run that the file lies in, or else of its metadata, or else the one that its weights
            look like: DRCT, HAT, or any that spandrel knows.

    Raises:
        DRCTError: if there is no such file, or it holds no network that enlarges images; the message says what it
            looks like, and what is missing.
    """
    if is_on_hub(str(name)):
        needs_no_options(network, name)
        return _saved_network(str(name), partial(hf_hub_download, str(name)))
    path = find_weights(name)
    file, title = run_folders.weights_of_run(path) or (path, path.stem) if path.is_dir() else (path, path.stem)
    if file.is_dir() and not (file / "config.json").is_file():
        raise DRCTError(
            f"{file} is no folder of weights: expected is that of a training run, with models/net_g_<iteration>.pth, "
            "or of save_pretrained, with config.json and model.safetensors"
        )
    if file.is_dir() or file.suffix.lower() == ".onnx":
        needs_no_options(network, name)
        return _saved_network(file, file.joinpath) if file.is_dir() else onnx_files.read(file)
    options = run_folders.options_of_run(file) if network is None else registry_networks.network_options(network)
    content = checkpoint.load(file)
    metadata = checkpoint.metadata_of(content, file)
    return replace(_network_from(content, metadata, file, options), name=title, card=card_in(metadata))


def needs_no_options(network: object, name: object) -> None:
    """Raise `DRCTError` if options are given for a file that tells itself which network it is."""
    if network is not None:
        raise DRCTError(f"{name} tells itself which network it is: leave out --network")


def weights_in(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """Pick the weights out of the content of a file, as `checkpoint.weights_in` does; their names become ours."""
    weights, entry = checkpoint.weights_in(content, path)
    return without_prefix(weights), entry


def _network_from(
    content: Any, metadata: Mapping[str, str], path: Path, options: registry_networks.NetworkOptions | None
) -> LoadedNetwork:
    """Make the network of a weight file, by its options if there are any."""
    weights, entry = weights_in(content, path)
    if options is not None:
        return registry_networks.read(options, weights, path, entry)
    try:
        family = family_of_weights(weights)
    except ValueError as error:
        if "network_g" in metadata:
            return registry_networks.read_named(metadata, weights, path, entry)
        return spandrel_files.read(weights, path, entry, str(error))
    network = _network(family, weights, metadata.get("drct_config"), path)
    return _loaded(network, path, entry or metadata.get("entry", ""))


def _network(family: Family, weights: dict[str, Tensor], config: str | None, path: Path) -> Frame:
    """Make the network of a state dict, with the arguments of its metadata if it has any."""
    try:
        network = family.network(**network_arguments(family, weights, config))
    except (ValueError, TypeError) as error:
        raise DRCTError(f"{path}: {error}") from error
    if differences := checkpoint.load_weights(network, weights, False, path):
        raise DRCTError(
            f"{path} holds weights that do not fit a {family.name}: {'; '.join(differences[:3])}. Copy it again"
        )
    return network.eval()


def _loaded(network: Frame, source: Path | str, entry: str) -> LoadedNetwork:
    return LoadedNetwork(network, network.traits, Path(source).stem, source, entry)


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
    try:
        family = family_of_weights(weights)
    except ValueError as error:
        raise DRCTError(f"{file}: {error}") from error
    return _loaded(_network(family, weights, config, file), source, "")
