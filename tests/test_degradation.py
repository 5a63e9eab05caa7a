"""Degradation of training images, against BasicSR's own."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from basicsr.data.realesrgan_dataset import RealESRGANDataset as BasicSRDataset
from basicsr.models.realesrnet_model import RealESRNetModel
from basicsr.utils import DiffJPEG, USMSharp
from basicsr.utils.img_process_util import filter2D
from conftest import ROOT, photo, train_options

from drct.data import degradation
from drct.data.degradation import Degradation
from drct.data.realesrgan_dataset import RealESRGANDataset
from drct.runs.yaml_file import load_yaml
from drct.schema.options import TrainingOptions
from drct.seeding import DEGRADATION, seed_all

RECIPE = load_yaml(ROOT / "options" / "train" / "train_Real_DRCT_SRx4_mse_model.yml")
TOP = {key: value for key, value in RECIPE.items() if key in TrainingOptions.model_fields and "_" in key}
BLUR = {key: value for key, value in RECIPE["datasets"]["train"].items() if "sigma" in key or "kernel" in key}
BLUR |= {key: value for key, value in RECIPE["datasets"]["train"].items() if "range" in key or "sinc" in key}


@pytest.fixture
def gt(workplace: Path) -> Path:
    """Ground truth that is smaller and larger than a region in either direction."""
    Path("gt").mkdir()
    for i, size in enumerate([(420, 450), (300, 500), (410, 380), (400, 400)]):
        cv2.imwrite(f"gt/{i}.png", photo(*size, i))
    Path("list.txt").write_text("".join(f"{i}.png (1,1,3)\n" for i in range(4)))
    return workplace


def dataset_options(**more):
    basic = {"name": "set", "type": "RealESRGANDataset", "dataroot_gt": "gt", "io_backend": {"type": "disk"}}
    basic |= {"phase": "train", "scale": 4, "gt_size": 256, "use_hflip": True, "use_rot": True}
    return basic | {"num_worker_per_gpu": 0, "batch_size_per_gpu": 2} | BLUR | more


def options(scale=4, gt_size=256, dataset=None, **more):
    opt = train_options(scale)
    for key in [key for key in TOP if key not in opt]:
        opt[key] = TOP[key]
    opt["datasets"]["train"] = dataset_options(gt_size=gt_size, **(dataset or {}))
    return TrainingOptions.model_validate(opt | {"gt_size": gt_size, "model_type": "RealDRCTMSEModel"} | more)


def basicsr_pair(sample, **changes):
    """What BasicSR's model makes of a sample, as a batch of one."""
    fields = {"opt": TOP | {"scale": 4, "gt_size": 256} | changes, "is_train": True, "device": torch.device("cpu")}
    fields |= {"jpeger": DiffJPEG(differentiable=False), "usm_sharpener": USMSharp()}
    model = SimpleNamespace(**fields, _dequeue_and_enqueue=lambda: None)
    RealESRNetModel.feed_data(model, {k: v[None] for k, v in sample.items() if isinstance(v, torch.Tensor)})
    return model.lq[0], model.gt[0]


def test_kernels_and_regions_are_those_of_basicsr(gt):
    ours = RealESRGANDataset(dataset_options())
    theirs = BasicSRDataset(dataset_options(meta_info="list.txt"))
    assert [Path(path).name for path in ours.paths] == [Path(path).name for path in theirs.paths]
    for seed in range(60):
        samples = []
        for dataset in (ours, theirs):
            seed_all(seed)
            samples.append(dataset[seed % 4])
        for key in ("gt", "kernel1", "kernel2", "sinc_kernel"):
            assert torch.equal(samples[0][key], samples[1][key]), key
        assert samples[0]["kernel1"].sum().item() == pytest.approx(1, abs=1e-5)


def test_the_degradation_is_that_of_basicsr_to_the_bit(gt, monkeypatch):
    monkeypatch.setattr(degradation, "convolve", filter2D)
    monkeypatch.setattr(degradation, "sharpen", USMSharp())
    images, degrade = RealESRGANDataset(dataset_options(crop_pad_size=128)), Degradation(options(gt_size=64))
    seen = set()
    for seed in range(24):
        seed_all(seed)
        sample = images[seed % 4]
        ours = degrade.pair(sample)
        seed_all(DEGRADATION, sample["seed"])
        lq, sharpened = basicsr_pair(sample, gt_size=64)
        assert torch.equal(ours["lq"], lq)
        assert torch.equal(ours["gt_usm"], sharpened)
        seen.add(lq.sum().item())
    assert len(seen) == 24
