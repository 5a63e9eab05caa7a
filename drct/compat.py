"""The one place where DRCT and BasicSR meet: BasicSR's defects are mended and DRCT's classes are registered here.

BasicSR 1.4.2 is unmaintained. What is mended, and why:

* It imports `torchvision.transforms.functional_tensor`, which torchvision 0.17 removed.
* Its option parser reads YAML with a loader that runs code, passes `--force_yml` to `exec`, does not know the
  `--local-rank` that `torch.distributed.launch` passes, and answers mistakes with tracebacks: ours takes its place.
* Its resume asks CUDA for a device even on the CPU, and unpickles arbitrary objects: ours takes its place.

The mending waits for the first `import basicsr`, by whomever, so that `import drct` stays fast.
"""

import importlib
import importlib.abc
import importlib.util
import pkgutil
import sys
import types


def install() -> None:
    """Mend BasicSR and register DRCT: now if BasicSR is imported already, else as soon as it is."""
    if "basicsr" in sys.modules:
        _mend_basicsr()
        _register()
    elif not any(isinstance(finder, _BasicSRFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BasicSRFinder())


class _BasicSRFinder(importlib.abc.MetaPathFinder):
    """Runs the mending before and after the body of the package `basicsr`, until that has succeeded once."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "basicsr" or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching = False
        if spec is None or spec.loader is None:
            return spec
        import_basicsr = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            _mend_torchvision()
            import_basicsr(module)
            _mend_basicsr()
            _register()
            sys.meta_path.remove(self)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _mend_torchvision() -> None:
    name = "torchvision.transforms.functional_tensor"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    from torchvision.transforms.functional import rgb_to_grayscale

    module = types.ModuleType(name, "Stands in for a module that torchvision removed; BasicSR needs one function.")
    module.rgb_to_grayscale = rgb_to_grayscale  # type: ignore[attr-defined]
    sys.modules[name] = module


def _mend_basicsr() -> None:
    import basicsr.test
    import basicsr.train
    import basicsr.utils.options

    from drct.runs.options import parse_options
    from drct.runs.training_states import load_resume_state

    for module in (basicsr.utils.options, basicsr.train, basicsr.test):
        module.parse_options = parse_options
    basicsr.train.load_resume_state = load_resume_state


def _register() -> None:
    """Put DRCT's classes into BasicSR's registries.

    A new network is a file `drct/archs/<name>_arch.py` with the class in its `__all__`; networks know nothing of
    BasicSR. Datasets (`data/*_dataset.py`) and models (`models/*_model.py`) build on BasicSR's and register
    themselves with its decorators.
    """
    from basicsr.utils.registry import ARCH_REGISTRY

    import drct.archs
    import drct.data
    import drct.models

    for network in _modules(drct.archs, "_arch"):
        for name in network.__all__:
            if name not in ARCH_REGISTRY:
                ARCH_REGISTRY.register(getattr(network, name))
    _modules(drct.data, "_dataset")
    _modules(drct.models, "_model")


def _modules(package: types.ModuleType, suffix: str) -> list[types.ModuleType]:
    names = [info.name for info in pkgutil.iter_modules(package.__path__) if info.name.endswith(suffix)]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]
