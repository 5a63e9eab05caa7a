"""Tests whose options leave out network_g: the network and its scale are those of the weights."""

from typing import Any

from drct.archs.families import family_of
from drct.errors import DRCTError, did_you_mean
from drct.evaluation.metrics import NEED_BORDER
from drct.inference.weights import LoadedNetwork, read_network
from drct.schema.options import known_keys
from drct.text import brief


def network_of_weights(given: dict[str, Any], file: str, network: str | None = None) -> LoadedNetwork | None:
    """Read the network of a test from its weights, unless the options have a `network_g`, and complete the options.

    The options get the network's arguments as far as they are known, the scale, and the scale as the border of
    metrics that need one. The returned network is the one to test; it need not be in a registry.

    Args:
        given: Options of a test run, which are changed.
        file: Name of the option file, for errors.
        network: Option file that names the architecture of weights that do not tell it.

    Raises:
        DRCTError: if there are no weights, they hold no network that is known, or its scale is not that of the options.
    """
    hints = {key: did_you_mean(key, given.keys() - known_keys()) for key in ("network_g", "scale")}
    if given.get("network_g") is not None:
        if network is not None:
            raise DRCTError(f"{file}: --network and network_g both name the network: leave out one of them")
        if given.get("scale") is None:
            raise DRCTError(f"{file} has no 'scale'{hints['scale']}")
        return None
    if hints["network_g"]:
        raise DRCTError(f"{file} has no 'network_g'{hints['network_g']}")
    path = given.get("path")
    weights = path.get("pretrain_network_g") if isinstance(path, dict) else None
    if not isinstance(path, dict) or weights is None:
        raise DRCTError(f"{file} has no 'network_g', and no path.pretrain_network_g to read it from: set one of them")
    if not isinstance(weights, str):
        raise DRCTError(f"{file}: path.pretrain_network_g must be the path of one file, not {brief(weights)}")
    loaded = read_network(weights, network)
    scale = loaded.traits.scale
    if given.get("scale") not in (None, scale):
        raise DRCTError(f"{file}: scale is {brief(given['scale'])}, but the network of {weights} upscales by {scale}")
    given |= {"scale": scale, "network_g": _described(loaded)}
    path["pretrain_network_g"] = str(loaded.source)
    if path.get("param_key_g") is None and loaded.entry in ("params", "params_ema"):
        path["param_key_g"] = loaded.entry
    _complete_borders(given, scale)
    return loaded


def _described(loaded: LoadedNetwork) -> dict[str, Any]:
    """Return the section `network_g` of a network, for the log and the report."""
    network = loaded.network
    if family := family_of(network):
        return {"type": family.name, **family.options(network.state_dict())}
    return {"type": type(network).__name__, "upscale": loaded.traits.scale}


def _complete_borders(given: dict[str, Any], scale: int) -> None:
    val = given.get("val")
    metrics = val.get("metrics") if isinstance(val, dict) else None
    for metric in metrics.values() if isinstance(metrics, dict) else ():
        if isinstance(metric, dict) and metric.get("type") in NEED_BORDER and metric.get("crop_border") is None:
            metric["crop_border"] = scale
