"""Names in BasicSR's registries."""

from typing import Any


def registered_name(registry: Any, name: str) -> str:
    """Return the name that a class is registered by: BasicSR adds a suffix to some, and prints when it looks for it."""
    suffixed = f"{name}_basicsr"
    return suffixed if name not in registry and suffixed in registry else name
