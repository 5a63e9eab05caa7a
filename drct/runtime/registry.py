"""Names in BasicSR's registries."""

from typing import Any

SUFFIX = "_basicsr"  # which BasicSR adds to some names; `Registry.get` finds them without it, and prints


def registered_name(registry: Any, name: str) -> str:
    """Return the name that a class is registered by."""
    suffixed = f"{name}{SUFFIX}"
    return suffixed if name not in registry and suffixed in registry else name


def names_in(registry: Any) -> set[str]:
    """Return the names by which option files may name the classes of a registry."""
    return {name.removesuffix(SUFFIX) for name, _ in registry}
