"""DRCT beside BasicSR and as a Python package, each test in a fresh process."""

import subprocess
import sys

import pytest

CHECK = "from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY, DATASET_REGISTRY as D; "
CHECK += "assert 'DRCT' in ARCH_REGISTRY and 'DRCTModel' in MODEL_REGISTRY and 'ImageNetPairedDataset' in D; "
CHECK += "import basicsr.train, drct.compat as o; assert basicsr.train.parse_options is o.parse_options"
SHIM = "import sys, types; from torchvision.transforms import functional as f; "
SHIM += "m = types.ModuleType('torchvision.transforms.functional_tensor'); m.rgb_to_grayscale = f.rgb_to_grayscale; "
SHIM += "sys.modules[m.__name__] = m; "


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "start",
    [
        "import drct, basicsr; ",
        "import drct; import basicsr.archs.swinir_arch; ",
        "import drct, importlib.util; assert importlib.util.find_spec('basicsr'); ",
        SHIM + "import basicsr, drct; ",
        "import drct.models.drct_model; ",
        "import drct.evaluation.metrics; ",
        "import drct.data.imagenet_paired_dataset; ",
        "from drct.archs.drct_arch import DRCT; ",
    ],
)
def test_basicsr_is_repaired_and_drct_registered_in_any_order_of_imports(start):
    run(start + CHECK)


def test_importing_drct_imports_nothing_slow():
    slow = {"basicsr", "torch", "pydantic"}
    run(f"import sys, drct, drct.cli; dir(drct); assert not {slow} & set(sys.modules)")


def test_help_shows_what_drct_offers():
    text = run("import drct; help(drct); from drct import *; print(load.__name__, Upscaler.__name__, DRCT.__name__)")
    assert "class DRCT(" in text
    assert "class Upscaler(" in text
    assert "    load(weights:" in text
    assert ">>> upscaler = drct.load(" in text
    assert text.endswith("load Upscaler DRCT\n")


def test_names_that_drct_does_not_have_are_attribute_errors():
    assert (
        run("import drct; print(hasattr(drct, 'upscale'), sorted(set(drct.__all__) - set(dir(drct))))") == "False []\n"
    )


def test_reading_images_of_datasets_imports_no_code_for_pictures():
    code = "import sys, drct.images.bgr, drct.images.listing; "
    run(code + "assert not {'tifffile', 'torch', 'drct.images.pictures', 'drct.images.tiff'} & set(sys.modules)")
