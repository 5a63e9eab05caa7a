"""The bridge between DRCT and BasicSR: repairs BasicSR and registers DRCT's classes with it.

BasicSR 1.4.2 is unmaintained. These are its defects, and the repairs:

* It imports `torchvision.transforms.functional_tensor`, which torchvision 0.17 removed: a module with the one function
  that it uses takes its place.
* Its option parser reads YAML with a loader that runs code, passes `--force_yml` to `exec`, does not know the
  `--local-rank` that `torch.distributed.launch` passes, and answers mistakes with tracebacks: it is replaced by
  `drct.runs.options.parse_options`.
* On resuming, it asks CUDA for a device even on the CPU, and unpickles arbitrary objects: that function is replaced by
  `drct.runtime.checkpoint.load_resume_state`.

Repairs are made at the first `import basicsr`, in whatever module, so that `import drct` is fast.
"""

import importlib
import importlib.abc
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec


def install() -> None:
    """Repair BasicSR and register DRCT's classes: now if BasicSR is imported already, else when it is imported."""
    if "basicsr" in sys.modules:
        _repair_basicsr()
        _register()
    elif not any(isinstance(finder, _BasicSRFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BasicSRFinder())


class _BasicSRFinder(importlib.abc.MetaPathFinder):
    """An import hook that makes the repairs around the first successful import of BasicSR, then removes itself."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "basicsr" or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(fullname)  # by the other finders
        finally:
            self._searching = False
        if spec is None or spec.loader is None:
            return spec
        import_basicsr = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            _restore_functional_tensor()
            import_basicsr(module)
            _repair_basicsr()
            _register()
            sys.meta_path.remove(self)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _restore_functional_tensor() -> None:
    name = "torchvision.transforms.functional_tensor"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    from torchvision.transforms.functional import rgb_to_grayscale

    module = types.ModuleType(
        name, "Stands in for a module that torchvision removed; BasicSR needs one function of it."
    )
    module.rgb_to_grayscale = rgb_to_grayscale  # type: ignore[attr-defined]
    sys.modules[name] = module


def _repair_basicsr() -> None:
    import basicsr.test
    import basicsr.train
    import basicsr.utils.options

    from drct.runs.options import parse_options
    from drct.runtime.checkpoint import load_resume_state

    for module in (basicsr.utils.options, basicsr.train, basicsr.test):
        module.parse_options = parse_options
    basicsr.train.load_resume_state = load_resume_state


def _register() -> None:
    """Add DRCT's classes to BasicSR's registries.

    Networks know nothing of BasicSR: every class in the `__all__` of a file `archs/*_arch.py` is registered here.
    Datasets (`data/*_dataset.py`) and models (`models/*_model.py`) build on BasicSR's and register themselves with its
    decorators when they are imported.
    """
    from basicsr.utils.registry import ARCH_REGISTRY

    import drct.archs
    import drct.data
    import drct.models

    for module in _import_all(drct.archs, "_arch"):
        for name in module.__all__:
            if name not in ARCH_REGISTRY:
                ARCH_REGISTRY.register(getattr(module, name))
    _import_all(drct.data, "_dataset")
    _import_all(drct.models, "_model")


def _import_all(package: types.ModuleType, suffix: str) -> list[types.ModuleType]:
    """Import the modules of a package whose names end in a suffix."""
    names = [info.name for info in pkgutil.iter_modules(package.__path__) if info.name.endswith(suffix)]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]
