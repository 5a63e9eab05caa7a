"""Degradation of training images, against BasicSR's own."""

import random
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from basicsr.data.realesrgan_dataset import RealESRGANDataset as BasicSRDataset
from basicsr.models.realesrnet_model import RealESRNetModel
from basicsr.utils import DiffJPEG, USMSharp
from basicsr.utils.img_process_util import filter2D
from conftest import ROOT, photo, train_options

from drct.data import degradation
from drct.data.degradation import Degradation, DegradedImages
from drct.data.prepare import reduce_image
from drct.data.realesrgan_dataset import RealESRGANDataset
from drct.data.training_set import SampleOrder, TrainingSet
from drct.models.real_drct_model import RealDRCTMSEModel
from drct.runtime.yaml_file import load_yaml
from drct.schema.degradation import BlurKeys, DegradationKeys
from drct.schema.options import TrainingOptions
from drct.seeding import DEGRADATION, seed_all

RECIPE = load_yaml(ROOT / "options" / "train" / "train_Real_DRCT_SRx4_mse_model.yml")
TOP = {key: value for key, value in RECIPE.items() if key in DegradationKeys.model_fields}
BLUR = {key: value for key, value in RECIPE["datasets"]["train"].items() if key in BlurKeys.model_fields}
DEMO = ROOT / "datasets" / "demo" / "GT"
CLEAN = dict.fromkeys(TOP.keys() - {"gt_size"}) | {"gt_usm": False}


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


def options(gt_size=256, **more):
    opt = train_options(4) | TOP | {"gt_size": gt_size, "model_type": "RealDRCTMSEModel"} | more
    opt["datasets"]["train"] = dataset_options(gt_size=gt_size)
    return TrainingOptions.model_validate(opt)


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
    for seed in range(16):
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
    for seed in range(10):
        seed_all(seed)
        sample = images[seed % 4]
        ours = degrade.pair(sample)
        seed_all(DEGRADATION, sample["seed"])
        lq, sharpened = basicsr_pair(sample, gt_size=64)
        assert torch.equal(ours["lq"], lq)
        assert torch.equal(ours["gt_usm"], sharpened)
        seen.add(lq.sum().item())
    assert len(seen) == 10


def test_fast_filters_are_those_of_basicsr():
    """OpenCV's, on the CPU."""
    images = torch.rand(2, 3, 60, 70, generator=torch.Generator().manual_seed(0))
    for size, used in ((21, 21), (21, 7), (7, 7), (21, 1)):
        kernel = torch.zeros(1, size, size)
        inner = slice((size - used) // 2, (size + used) // 2)
        kernel[:, inner, inner] = torch.rand(1, used, used)
        kernel /= kernel.sum()
        difference = degradation.convolve(images[:1], kernel) - filter2D(images[:1], kernel)
        assert difference.abs().max() < 1e-5
    smooth = torch.nn.functional.interpolate(images, scale_factor=3, mode="bicubic").clamp(0, 1)
    difference = degradation.sharpen(smooth) - USMSharp()(smooth)
    assert difference.abs().max() < 1e-3  # rounding decides what is just above the threshold
    assert (smooth - degradation.sharpen(smooth)).abs().max() > 0.05


def samples_of(count, workers, **more):
    images = RealESRGANDataset(dataset_options(crop_pad_size=64, gt_size=32))
    training = TrainingSet(DegradedImages(images, Degradation(options(gt_size=32, **more))), seed=3)
    order = SampleOrder(4, 2, seed=3)
    loader = torch.utils.data.DataLoader(training, batch_sampler=order, num_workers=workers)
    return [batch for batch, _ in zip(loader, range(count), strict=False)]


def test_samples_depend_on_neither_workers_nor_what_was_drawn_before(gt):
    random.seed(1)
    alone = samples_of(6, workers=0)
    torch.manual_seed(5)
    for a, b in zip(alone, samples_of(6, workers=2), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("lq", "gt", "gt_usm"))
        assert a["gt_path"] == b["gt_path"]
    assert alone[0]["lq"].shape == (2, 3, 8, 8) and alone[0]["gt_usm"].shape == (2, 3, 32, 32)
    seen = {batch["lq"][i].sum().item() for batch in alone for i in range(2)}
    assert len(seen) == 12  # an image is degraded in another way in each epoch


def test_the_model_degrades_as_the_loader_does_and_leaves_generators_alone(gt):
    opt = options(gt_size=32)
    images = RealESRGANDataset(dataset_options(crop_pad_size=64))
    batch = torch.utils.data.default_collate([images[0], images[1]])
    model = SimpleNamespace(degradation=Degradation(opt), device=torch.device("cpu"))
    seed_all(7)
    expected = random.random(), np.random.uniform(), torch.rand(1)
    seed_all(7)
    made = RealDRCTMSEModel.degraded(model, batch)
    assert (random.random(), np.random.uniform(), torch.rand(1)) == expected
    for i in range(2):
        pair = Degradation(opt).pair({name: value[i] for name, value in batch.items() if name != "gt_path"})
        assert all(torch.equal(made[name][i], pair[name]) for name in ("lq", "gt", "gt_usm"))


def light(**more):
    return Degradation(options(**CLEAN | more))


def test_what_is_not_given_is_off(gt):
    """Without keys of degradation, images are reduced, and nothing else."""
    image = torch.from_numpy(photo(96, 112)).permute(2, 0, 1)[None] / 255
    kernel = torch.ones(1, 7, 7) / 49
    sharp = torch.zeros(1, 7, 7)
    sharp[0, 3, 3] = 1
    lq = light(resize_modes=["area"], blur_prob=0).degrade(image, kernel, kernel, sharp)
    assert torch.equal(lq, (torch.nn.functional.avg_pool2d(image, 4) * 255).round() / 255)
    assert not torch.equal(light(resize_modes=["area"]).degrade(image, kernel, kernel, sharp), lq)


def test_clean_images_are_reduced_as_benchmarks_are(gt):
    image = photo(96, 112)
    kernel = torch.ones(1, 7, 7) / 49
    rgb = torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)[None] / 255
    recipe = options(clean_prob=1)
    lq = Degradation(recipe).degrade(rgb, kernel, kernel, kernel)[0].permute(1, 2, 0).numpy() * 255
    expected = cv2.cvtColor(reduce_image(image, 4), cv2.COLOR_BGR2RGB).astype(int)
    inner = slice(2, -2)  # MATLAB mirrors the image at its borders
    assert np.abs(lq.round() - expected)[inner, inner].max() <= 1


def statistics(lq):
    """Mean and standard deviation of each colour, in 255ths, and the power in nine bands of frequency, (15,)."""
    power = torch.fft.rfft2(lq - lq.mean((1, 2), keepdim=True)).abs().square().mean(0)
    height, width = lq.shape[1:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    band = (frequency * 16).long().clamp(max=8)
    return torch.cat(
        [lq.mean((1, 2)) * 255, lq.std((1, 2)) * 255, torch.stack([power[band == i].mean() for i in range(9)])]
    )


@pytest.mark.parametrize("count", [25, pytest.param(500, marks=pytest.mark.slow)])
def test_statistics_are_those_of_basicsr(workplace, count):
    """With the same random numbers, photographs differ by rounding: filters of the CPU are OpenCV's.

    Poisson noise draws as many numbers as its pixels need, so there rounding may lead to other noise of the same kind.
    """
    dataset = dataset_options(crop_pad_size=96, gt_size=64, dataroot_gt=str(DEMO))
    images, degrade = RealESRGANDataset(dataset), Degradation(options(gt_size=64))
    found, other_noise = [], 0
    for seed in range(count):
        seed_all(seed)
        sample = images[seed % len(images)]
        ours = degrade.pair(sample)["lq"]
        poisson = any("Poisson" in name for name in degrade.drawn())
        seed_all(DEGRADATION, sample["seed"])
        theirs, _ = basicsr_pair(sample, gt_size=64)
        if (ours - theirs).abs().max() * 255 > 1.01:
            assert poisson
            other_noise += 1
        found.append(torch.stack([statistics(ours), statistics(theirs)]))
    ours, theirs = torch.stack(found).mean(0)
    assert other_noise <= max(1, 0.02 * count)
    assert (ours - theirs)[:6].abs().max() < 0.05
    assert ((ours - theirs) / theirs)[6:].abs().max() < 0.02


def test_colours_of_a_light_degradation_stay(workplace):
    """The recipe of Real-DRCT-XS changes the mean of each colour by less than 0.5 of 255."""
    recipe = load_yaml(ROOT / "options" / "train" / "train_Real_DRCT-XS_SRx4.yml")
    changes = {"dataroot_gt": str(DEMO), "phase": "train", "scale": 4}
    images = RealESRGANDataset(recipe["datasets"]["train"] | changes)
    degrade = Degradation(TrainingOptions.model_validate(recipe))
    shifts = []
    for seed in range(150):
        seed_all(seed)
        pair = degrade.pair(images[seed % len(images)])
        shifts.append((pair["lq"].mean((1, 2)) - pair["gt"].mean((1, 2))) * 255)
    assert torch.stack(shifts).mean(0).abs().max() < 0.5


def test_images_stay_in_place(gt):
    """No shift makes 40 images more alike, even by the original's degradation."""
    images, degrade = RealESRGANDataset(dataset_options(crop_pad_size=128)), Degradation(options(gt_size=64))
    errors = np.zeros(3)
    for seed in range(40):
        seed_all(seed)
        pair = degrade.pair(images[seed % 4])
        small = torch.nn.functional.avg_pool2d(pair["gt"][None], 4)[0]
        for axis in (1, 2):
            for i in range(3):
                shifted = small.roll(i - 1, axis)
                errors[i] += (pair["lq"] - shifted)[:, 2:-2, 2:-2].square().mean().item()
    assert errors[1] < errors[0] and errors[1] < errors[2]


def test_every_range_of_an_option_file_holds(gt):
    """A degradation of one's own: what 150 images get lies in the ranges of its keys, and fills them."""
    ranges = {
        "resize": (0.6, 1.2), "noise": (2, 6), "jpeg": (60, 80),
        "resize2": (0.9, 1.5), "noise2": (1, 3), "Poisson2": (0.1, 0.4), "jpeg2": (40, 90),
    }  # fmt: skip
    keys = {"Poisson": "poisson_scale"}
    own = {
        f"{keys.get(name.rstrip('2'), name.rstrip('2'))}_range{name[len(name.rstrip('2')) :]}": list(limits)
        for name, limits in ranges.items()
    }
    own |= {"resize_prob": [1, 1, 0], "resize_prob2": [1, 1, 0], "gaussian_noise_prob2": 0.5}
    own |= {"blur_prob": 0.5, "noise_prob": 0.5, "jpeg_prob2": 0.5, "second_blur_prob": 1, "clean_prob": 0.1}
    recipe = options(gt_size=32, **CLEAN | own)
    blur = {"blur_sigma": [0.8, 1.2], "blur_sigma2": [0.5, 0.6], "sinc_prob": 0, "sinc_prob2": 0}
    blur |= {"kernel_list": ["iso"], "kernel_list2": ["iso"], "kernel_prob": [1], "kernel_prob2": [1]}
    images, degrade = RealESRGANDataset(dataset_options(crop_pad_size=48, gt_size=32, **blur)), Degradation(recipe)
    got: dict[str, list[float]] = {}
    for seed in range(150):
        seed_all(seed)
        degrade.pair(images[seed % 4])
        for name, amount in degrade.drawn().items():
            got.setdefault(name, []).append(float(amount))
    assert got.keys() == ranges.keys() | {"blur", "blur2"}
    for name, (lowest, highest) in (ranges | {"blur": (0.75, 1.2), "blur2": (0.3, 0.65)}).items():
        assert lowest <= min(got[name]) and max(got[name]) <= highest, name
        if "blur" not in name:
            assert max(got[name]) - min(got[name]) > 0.8 * (highest - lowest), name
    shares = {name: len(got[name]) / len(got["jpeg"]) for name in got}  # of the images that are not clean
    assert 110 < len(got["jpeg"]) < 150 and shares["blur2"] == 1
    assert all(0.35 < shares[name] < 0.65 for name in ("blur", "noise", "noise2", "Poisson2", "jpeg2"))


def test_the_pool_is_the_same_wherever_a_run_resumes():
    def batches(count, **more):
        order = iter(SampleOrder(epoch_size=7, seed=1, pool_size=5, **more))
        return [next(order) for _ in range(count)]

    whole = batches(40, batch_size=2)
    for done in (0, 1, 2, 3, 10, 33):
        assert batches(40 - done, batch_size=2, start=2 * done) == whole[done:]
    halves = [batches(20, batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == batches(20, batch_size=4)


def test_the_pool_gives_each_sample_once_but_those_that_fill_it():
    order = iter(SampleOrder(epoch_size=50, batch_size=2, seed=1, pool_size=6))
    plain = iter(SampleOrder(epoch_size=50, batch_size=2, seed=1))
    taken = [key for _ in range(500) for key in next(order)]
    given = [key for _ in range(500) for key in next(plain)]
    assert taken[:6] == given[:6]
    assert len(set(taken[6:])) == len(taken[6:]) and set(taken) <= set(given)
    assert len(set(given) - set(taken)) <= 6  # those still in the pool
    delays = [taken.index(key, 6) - i for i, key in enumerate(given[:900])]
    assert 4 < np.mean(delays) < 9  # a geometric distribution of the pool's size
