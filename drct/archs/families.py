"""The kinds of networks that are recognized by their weights alone. A new one is one more row of `FAMILIES`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch import Tensor, nn

from drct.archs import hat_variants, variants
from drct.archs.drct_arch import DRCT
from drct.archs.frame import Frame
from drct.archs.hat_arch import HAT


@dataclass(frozen=True)
class Family:
    """Networks of one class.

    Attributes:
        network: The class.
        mark: Name of a weight that only these networks have.
        variants: Arguments of the named networks.
        options: Returns the arguments of the network of a state dict, or raises a `ValueError`.
        variant: Returns the name of the network with some arguments, or describes it.
    """

    network: type[Frame]
    mark: str
    variants: Mapping[str, dict[str, Any]]
    options: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    variant: Callable[[Mapping[str, Any]], str]

    @property
    def name(self) -> str:
        """Name of the class, which is the `type` in option files."""
        return self.network.__name__

    @property
    def defaults(self) -> dict[str, Any]:
        """Arguments of the class and their defaults."""
        return {name: parameter.default for name, parameter in signature(self.network).parameters.items()}


FAMILIES = (
    Family(DRCT, variants.MARK, variants.VARIANTS, variants.drct_options, variants.variant),
    Family(HAT, hat_variants.MARK, hat_variants.VARIANTS, hat_variants.hat_options, hat_variants.hat_variant),
)
NAMED = {name: family for family in FAMILIES for name in family.variants}


def family_of_weights(weights: Mapping[str, Any]) -> Family:
    """Return the family of a state dict. Raises `ValueError` that says what the weights look like if it has none."""
    for family in FAMILIES:
        if family.mark in weights and "conv_first.weight" in weights:
            return family
    known = " or a ".join(family.name for family in FAMILIES)
    raise ValueError(f"not weights of a {known}: {variants.looks_like(weights)}")


def family_of(network: nn.Module) -> Family | None:
    """Return the family of a network, or None."""
    return next((family for family in FAMILIES if type(network) is family.network), None)


def identity(network: nn.Module) -> dict[str, str]:
    """Return the family, name and arguments of a network, as metadata of files has them; empty if it has no family."""
    family = family_of(network)
    if family is None:
        return {}
    config: dict[str, Any] = network._hub_mixin_config  # type: ignore[assignment]  # that of save_pretrained
    name = family.variant(config)
    return {"drct_config": json.dumps(config, sort_keys=True), "network": family.name, "name": name}


def name_of(network_g: Mapping[str, Any]) -> str:
    """Return the name of the network in section `network_g` of an option file: of its variant, or of its class."""
    kind = network_g["type"]
    family = next((family for family in FAMILIES if family.name == kind), None)
    if family is None:
        return kind
    name = family.variant(network_g)
    return name if name in family.variants else kind
