"""Running networks on images of any size, from weights by name to pictures and exported programs."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drct.inference.memory import choose_tile, free_memory
    from drct.inference.tiling import pad_to_multiple, upscale, upscale_tiled

__all__ = ["choose_tile", "free_memory", "pad_to_multiple", "upscale", "upscale_tiled"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that planning a batch does not import PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module 'drct.inference' has no attribute {name!r}")
    module = "memory" if name in ("choose_tile", "free_memory") else "tiling"
    return getattr(importlib.import_module(f"drct.inference.{module}"), name)
