"""DRCT, the Dense-Residual-Connected Transformer for image super-resolution, as a plugin of BasicSR.

* `load`: load weights by name, file or Hugging Face repository, ready to upscale images.
* `Upscaler`: a network on a device, in a precision, with or without tiles. `load` returns one.
* `DRCT`, `HAT`: networks, each a `torch.nn.Module`.

    >>> import drct
    >>> upscaler = drct.load("DRCT-XS_SRx4")
    >>> upscaler.upscale("photo.png").save("photo_x4.png")

After `import drct`, BasicSR can be imported with current versions of its dependencies, and it finds DRCT's networks,
datasets and models by name. Importing `drct` is fast: PyTorch and BasicSR are imported when they are needed.
"""

import importlib
from typing import TYPE_CHECKING, Any

from drct import compat
from drct.version import __version__ as __version__

if TYPE_CHECKING:
    from drct.archs.drct_arch import DRCT
    from drct.archs.hat_arch import HAT
    from drct.inference.upscaler import Upscaler, load

__all__ = ["DRCT", "HAT", "Upscaler", "load"]

_MODULES = {
    "load": "drct.inference.upscaler",
    "Upscaler": "drct.inference.upscaler",
    "DRCT": "drct.archs.drct_arch",
    "HAT": "drct.archs.hat_arch",
}

compat.install()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'drct' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
