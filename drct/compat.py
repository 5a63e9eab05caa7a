"""The bridge between DRCT and BasicSR: repairs BasicSR and registers DRCT's classes with it.

BasicSR 1.4.2 is unmaintained. These are its defects, and the repairs:

* It imports `torchvision.transforms.functional_tensor`, which torchvision 0.17 removed. A module with the one function
  that BasicSR uses takes its place.
* Its option parser reads YAML with a loader that runs code, passes `--force_yml` to `exec`, does not know the
  `--local-rank` of `torch.distributed.launch`, and answers mistakes with tracebacks. DRCT's parser takes its place.
* On resuming, it asks CUDA for a device even on the CPU, and unpickles arbitrary objects. DRCT's function replaces it.

Repairs are made at the first `import basicsr`, in whatever module, so that `import drct` is fast.
"""

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse


def install() -> None:
    """Repair BasicSR and register DRCT's classes: now if BasicSR is imported already, else when it is imported."""
    if "basicsr" in sys.modules:
        _repair_basicsr()
        _register()
    elif not any(isinstance(finder, _BasicSRFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BasicSRFinder())


class _BasicSRFinder:
    """An import hook that makes the repairs around the first successful import of BasicSR, then removes itself."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != "basicsr" or self._searching:
            return None
        from importlib.util import find_spec  # only now, because it takes a sixth of the time of `import drct`

        self._searching = True
        try:
            spec = find_spec(fullname)  # by the other finders
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
    from importlib.util import find_spec

    name = "torchvision.transforms.functional_tensor"
    if name in sys.modules or find_spec(name) is not None:
        return
    from torchvision.transforms.functional import rgb_to_grayscale

    module = types.ModuleType(name, "Stands in for a module that torchvision removed; BasicSR needs one function.")
    module.rgb_to_grayscale = rgb_to_grayscale  # type: ignore[attr-defined]
    sys.modules[name] = module


def _repair_basicsr() -> None:
    import basicsr.test
    import basicsr.train
    import basicsr.utils.options

    from drct.runs.training_states import load_resume_state

    for module in (basicsr.utils.options, basicsr.train, basicsr.test):
        module.parse_options = parse_options
    basicsr.train.load_resume_state = load_resume_state


def parse_options(root_path: str | os.PathLike, is_train: bool = True) -> tuple[dict[str, Any], "argparse.Namespace"]:
    """Read the process's arguments and its option file, as BasicSR's own train.py and test.py ask for them."""
    from drct.commands import run_arguments  # only now, because it is seldom needed

    return run_arguments.parse_options(root_path, is_train)


def _register() -> None:
    """Put DRCT's classes into BasicSR's registries.

    Networks, which do not depend on BasicSR, are the classes in `__all__` of `archs/*_arch.py`. Datasets
    (`data/*_dataset.py`), metrics (`evaluation/*_metric.py`) and models (`models/*_model.py`) register themselves with
    BasicSR's decorators.
    """
    from basicsr.utils.registry import ARCH_REGISTRY

    for network in _modules("drct.archs", "_arch"):
        for name in network.__all__:
            if name not in ARCH_REGISTRY:
                ARCH_REGISTRY.register(getattr(network, name))
    _modules("drct.data", "_dataset")
    _modules("drct.evaluation", "_metric")
    _modules("drct.models", "_model")


def _modules(name: str, suffix: str) -> list[types.ModuleType]:
    package = importlib.import_module(name)  # which may be importing BasicSR, and is no attribute of `drct` yet
    import pkgutil

    names = [info.name for info in pkgutil.iter_modules(package.__path__) if info.name.endswith(suffix)]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]
