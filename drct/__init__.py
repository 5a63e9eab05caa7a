"""DRCT, Dense-Residual-Connected Transformer for image super-resolution, as a plugin of BasicSR.

After `import drct`, BasicSR imports on current versions of its dependencies and knows DRCT's networks, datasets and
models by name. BasicSR itself (several seconds) is only imported by what needs it: `drct.archs.drct_arch` does not.
"""

from drct import compat

__version__ = "0.1.0"

compat.install()
