"""Networks of any architecture in BasicSR's registry, from the options that name it."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drct.archs.families import family_of
from drct.archs.traits import NetworkTraits, traits_of
from drct.errors import DRCTError, did_you_mean, reason_of
from drct.inference.loaded import LoadedNetwork, enlargement
from drct.runtime import checkpoint
from drct.runtime.registry import names_in
from drct.runtime.yaml_file import load_yaml
from drct.text import brief

LARGEST_ARGUMENT = 1024  # in the metadata of files; a larger one must be the size of a tensor


@dataclass(frozen=True)
class NetworkOptions:
    """Section `network_g` of an option file, and what belongs to it."""

    network_g: dict[str, Any]
    scale: int | None  # of the option file, if it says one
    where: str  # name of the file, for messages


def network_options(network: str | os.PathLike | Mapping[str, Any], where: str = "network") -> NetworkOptions:
    """Return the network that an option file names, or a mapping of the same content, or of that of its `network_g`.

    Messages about a mapping name it `where`.

    Raises:
        DRCTError: if the file cannot be read, or names no network.
    """
    if isinstance(network, Mapping):
        options = network
    elif isinstance(network, str | os.PathLike):
        where, options = str(network), load_yaml(network)
    else:
        raise DRCTError(f"a network is an option file, or a mapping of its content, not {brief(network, 40)}")
    found = options.get("network_g", options)
    if not isinstance(found, Mapping) or not isinstance(found.get("type"), str):
        raise DRCTError(f"{where} names no network: expected is network_g with a type, as option files have it")
    scale = options.get("scale") if found is not options else None
    if scale is not None and (not isinstance(scale, int) or isinstance(scale, bool) or scale < 1):
        raise DRCTError(f"{where}: scale must be a whole number, not {brief(scale, 40)}")
    return NetworkOptions(dict(found), scale, where)


def read_named(metadata: Mapping[str, str], weights: dict[str, Tensor], path: Path, entry: str) -> LoadedNetwork:
    """Read a network that the metadata of its weights names, which may come from anywhere: see `read`.

    Raises:
        DRCTError: as `read`, or if the metadata is damaged, or asks for files, or for numbers that have nothing to do
            with the weights and could take any amount of time or memory.
    """
    try:
        found = json.loads(metadata["network_g"])
        scale = int(metadata["scale"]) if "scale" in metadata else None
    except (ValueError, RecursionError) as error:
        raise DRCTError(f"{path}: its metadata is damaged. Name the network by --network") from error
    where = f"the metadata of {path}"
    options = replace(network_options({"network_g": found}, where), scale=scale)
    sides = (side for tensor in weights.values() for side in tensor.shape)
    largest = max(LARGEST_ARGUMENT, len(weights), *sides)
    for key, value in _plain_values(options.network_g):
        if "path" in key or "file" in key or (isinstance(value, int | float) and not abs(value) <= largest):
            raise DRCTError(f"{where} says {key} is {brief(value, 40)}: not built. Name the network by --network")
    with suppress(NotImplementedError, RuntimeError), torch.device("meta"):  # not all can be built without memory
        parameters = build(options).parameters()
        if sum(p.numel() for p in parameters) > sum(tensor.numel() for tensor in weights.values()):
            raise DRCTError(f"{path} does not fit the network of {where}: it has fewer weights")
    return read(options, weights, path, entry)


def _plain_values(section: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values of a section and of the lists in it, and the sums and lengths of these."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _plain_values(value)
        elif isinstance(value, list):
            numbers = [entry for entry in value if isinstance(entry, int | float)]
            yield key, len(value)
            yield key, sum(map(abs, numbers))
            for entry in value:
                yield from _plain_values({key: entry})
        else:
            yield key, value


def read(options: NetworkOptions, weights: dict[str, Tensor], path: Path, entry: str) -> LoadedNetwork:
    """Build a network, and load weights of the file `path` into it, which must fit exactly.

    Raises:
        DRCTError: if the network cannot be built, does not fit the weights, or has another scale than the options say.
    """
    network = build(options)
    if differences := checkpoint.load_weights(network, weights, False, path):
        raise DRCTError(
            f"{path} does not fit the network of {options.where}, {options.network_g['type']}, {len(differences)} "
            f"differences: {'; '.join(differences[:3])}{'; ...' if len(differences) > 3 else ''}"
        )
    network.eval()
    traits = _traits(network, options)
    kind = "" if family_of(network) else options.network_g["type"]
    return LoadedNetwork(network, traits, path.stem, path, entry, kind)


def build(options: NetworkOptions) -> nn.Module:
    """Build a network with initial weights. Raises `DRCTError` if there is no such network, or no such arguments."""
    from basicsr.archs import build_network  # takes seconds to import, and only these networks need it
    from basicsr.utils.registry import ARCH_REGISTRY

    kind, known = options.network_g["type"], names_in(ARCH_REGISTRY)
    if kind not in known:
        raise DRCTError(f"{options.where}: there is no network {kind}{did_you_mean(kind, known)} in ARCH_REGISTRY")
    try:
        return build_network(options.network_g)
    except DRCTError:
        raise
    except Exception as error:  # anybody's class
        raise DRCTError(f"{options.where}: network_g ({kind}) cannot be built: {reason_of(error)}") from error


def _traits(network: nn.Module, options: NetworkOptions) -> NetworkTraits:
    """Return what a network declares, or what its options and a small image tell."""
    traits = traits_of(network, options.scale or 1, options.network_g)
    if not isinstance(getattr(network, "traits", None), NetworkTraits):
        scale = enlargement(network, traits, f"the network of {options.where}")
        traits = replace(traits, scale=scale)
    if options.scale not in (None, traits.scale):
        raise DRCTError(f"{options.where}: scale is {options.scale}, but the network enlarges {traits.scale} times")
    return traits
