"""The relation to BasicSR, each in a fresh process."""

import subprocess
import sys

import pytest

CHECK = "from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY, DATASET_REGISTRY as D; "
CHECK += "assert 'DRCT' in ARCH_REGISTRY and 'DRCTModel' in MODEL_REGISTRY and 'ImageNetPairedDataset' in D; "
CHECK += "import basicsr.train, drct.runs.options as o; assert basicsr.train.parse_options is o.parse_options"
SHIM = "import sys, types; from torchvision.transforms import functional as f; "
SHIM += "m = types.ModuleType('torchvision.transforms.functional_tensor'); m.rgb_to_grayscale = f.rgb_to_grayscale; "
SHIM += "sys.modules[m.__name__] = m; "


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
def test_whatever_is_imported_first_basicsr_is_mended_and_drct_registered(start):
    done = subprocess.run([sys.executable, "-c", start + CHECK], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_importing_drct_imports_neither_basicsr_nor_torch():
    code = "import sys, drct; assert not {'basicsr', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
