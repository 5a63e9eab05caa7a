"""DRCT, Dense-Residual-Connected Transformer for image super-resolution, as a plugin of BasicSR.

After `import drct`, BasicSR imports on current versions of its dependencies and knows DRCT's networks, datasets and
models by name. BasicSR itself (several seconds) is only imported by what needs it: `drct.archs.drct_arch` does not.
"""

import importlib
from typing import Any

from drct import compat
from drct.version import __version__ as __version__

compat.install()

_FROM = {"load": "drct.inference.upscaler", "Upscaler": "drct.inference.upscaler", "DRCT": "drct.archs.drct_arch"}


def __getattr__(name: str) -> Any:  # imported when used: PyTorch takes seconds
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    raise AttributeError(f"module 'drct' has no attribute {name!r}")
