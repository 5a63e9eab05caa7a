"""The average of the weights of several networks that were trained from the same start.

Where the runs differ in their last part only, in loss, data or seed, the average mostly does better than each of them
and costs nothing when it is used (Wortsman et al., "Model soups", ICML 2022).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from drct.archs.families import identity
from drct.errors import DRCTError
from drct.inference.loaded import LoadedNetwork


def average(networks: Sequence[LoadedNetwork]) -> LoadedNetwork:
    """Return the first of several networks with the mean of all weights, computed in float64.

    Raises:
        DRCTError: if they are not the same network with different weights.
    """
    first, *others = networks
    if not others:
        return first
    for other in others:
        if first.traits.place is not None or other.traits.place is not None:
            raise DRCTError("the weights of ONNX models cannot be averaged")
        if _shape(first.network) != _shape(other.network) or identity(first.network) != identity(other.network):
            raise DRCTError(f"{other.source} is not the network of {first.source}: only weights of one are averaged")
    states = [loaded.network.state_dict() for loaded in networks]
    mean = {
        name: sum(state[name].double() for state in states).div(len(states)).to(value.dtype)
        for name, value in states[0].items()
        if value.is_floating_point()  # others are indices and counts
    }
    network = copy.deepcopy(first.network)
    network.load_state_dict(states[0] | mean)
    return replace(first, network=network, source=" + ".join(Path(loaded.source).name for loaded in networks))


def _shape(network: nn.Module) -> dict[str, object]:
    return {name: value.shape for name, value in network.state_dict().items()}
