"""RealDRCTMSEModel and RealDRCTGANModel: steps, checkpoints and resuming."""

import copy
import logging
import random
import time
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torchvision
from basicsr.losses import build_loss
from basicsr.models.realesrgan_model import RealESRGANModel
from conftest import HAT_TINY, ROOT, network_options, photo, test_options, train_options, write_options
from test_training import assert_equal, last_iteration, scalars, start, train

from drct.commands import test as test_run
from drct.commands import train as train_run
from drct.data.degradation import sharpen
from drct.data.realesrgan_dataset import RealESRGANDataset
from drct.errors import DRCTError
from drct.models.real_drct_model import RealDRCTGANModel
from drct.runs.checks import check_options
from drct.runtime.yaml_file import load_yaml

LIGHT = {"resize_modes": ["antialiased"], "blur_prob": 0.5, "noise_range2": [0, 10], "jpeg_range2": [30, 95]}
GAN = {"gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}}
GAN |= {"optim_d": {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]}}
DISCRIMINATOR = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 8}
LDL = {"type": "L1Loss", "loss_weight": 1.0}
PERCEPTUAL = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 0.1, "conv2_2": 1.0}, "perceptual_weight": 0.5}


@pytest.fixture
def gt(workplace: Path) -> Path:
    Path("gt").mkdir()
    for i in range(5):
        cv2.imwrite(f"gt/{i}.png", photo(44 + 3 * i, 56 - 4 * i, i))
    return workplace


@pytest.fixture
def random_vgg(monkeypatch):
    real = torchvision.models.vgg19
    monkeypatch.setattr("basicsr.archs.vgg_arch.vgg.vgg19", lambda **_: real(weights=None))


def options(model="RealDRCTMSEModel", workers=0, degradation=LIGHT, **train):
    opt = train_options(**{"total_iter": 12, **(GAN if "GAN" in model else {}), **train})
    data = {"type": "RealESRGANDataset", "crop_pad_size": 40, "blur_kernel_size": 7, "num_worker_per_gpu": workers}
    data["final_sinc_prob"] = 0.5
    del opt["datasets"]["train"]["dataroot_lq"], opt["datasets"]["val"], opt["val"]
    opt["datasets"]["train"] |= data
    opt["network_g"]["drop_path_rate"] = 0.0
    opt["logger"]["save_checkpoint_freq"] = 3
    opt["network_d"] = dict(DISCRIMINATOR)
    return opt | {"model_type": model, "gt_size": 16, "queue_size": 4} | degradation


def model_of(opt, tmp=Path("run")):
    opt = copy.deepcopy(opt) | {"dist": False, "is_train": True, "rank": 0, "world_size": 1}
    opt["path"] |= {"models": str(tmp), "training_states": str(tmp), "visualization": str(tmp)}
    return RealDRCTGANModel(opt)


def test_steps_of_the_gan_are_those_of_basicsr(gt, random_vgg, monkeypatch):
    """The same weights, LR and GT: the same losses, gradients, weights and EMA after each of three steps."""
    usm = {"l1_gt_usm": True, "percep_gt_usm": True, "gan_gt_usm": False}
    torch.manual_seed(0)
    ours = model_of(options("RealDRCTGANModel", perceptual_opt=PERCEPTUAL, ldl_opt=LDL) | usm)
    names = ("net_g", "net_d", "net_g_ema", "optimizer_g", "optimizer_d", "cri_perceptual")
    nets = copy.deepcopy({name: getattr(ours, name) for name in names})
    # an optimizer's copy holds its own parameters: build those of the copied networks
    for kind, lr in (("g", 2e-4), ("d", 1e-3)):
        nets[f"optimizer_{kind}"] = torch.optim.Adam(nets[f"net_{kind}"].parameters(), lr, betas=(0.9, 0.99))
    theirs = SimpleNamespace(
        **nets, opt=usm, cri_ldl=build_loss(LDL), net_d_iters=1, net_d_init_iters=0, ema_decay=0.9, device=ours.device,
        cri_pix=build_loss({"type": "L1Loss"}), cri_gan=build_loss(GAN["gan_opt"]),
        reduce_loss_dict=lambda losses: {name: float(loss.detach()) for name, loss in losses.items()},
    )  # fmt: skip
    theirs.get_bare_model = lambda net: net
    theirs.model_ema = lambda decay: RealESRGANModel.model_ema(theirs, decay)
    for step in range(1, 4):
        gt_images, lq = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 16, 16)
        theirs.gt, theirs.lq, theirs.gt_usm = gt_images, lq, sharpen(gt_images)
        RealESRGANModel.optimize_parameters(theirs, step)
        ours.feed_data({"lq": lq, "gt": gt_images})
        ours.optimize_parameters(step)
        numbers = ours.get_current_log()
        assert numbers.keys() - theirs.log_dict.keys() == {"grad_norm", "grad_norm_d", "accuracy_d"}
        for name, value in theirs.log_dict.items():
            assert numbers[name] == pytest.approx(value, abs=1e-6), name
        for name in ("net_g", "net_d", "net_g_ema"):
            for key, value in getattr(theirs, name).state_dict().items():
                assert torch.allclose(getattr(ours, name).state_dict()[key], value, atol=1e-6), (name, key)
        for name in ("net_g", "net_d"):
            for p, q in zip(getattr(theirs, name).parameters(), getattr(ours, name).parameters(), strict=True):
                assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-7), name


def weights_of(run):
    """Everything that a run has saved, by file."""
    folder = Path("experiments", run)
    files = sorted([*folder.glob("models/*.pth"), *folder.glob("training_states/*")])
    return {str(path.relative_to(folder)): torch.load(path, weights_only=True) for path in files}


def assert_same_runs(run, other):
    a, b = weights_of(run), weights_of(other)
    assert a.keys() == b.keys()
    for file, content in a.items():
        assert_equal(content, b[file], file)
    assert scalars(run) == scalars(other)


@pytest.mark.parametrize(("model", "processes"), [("MSE", 1), ("MSE", 2), ("GAN", 1), ("GAN", 2)])
def test_a_run_that_is_killed_ends_bit_identical(gt, model, processes):
    """Five kills each, 20 in all, at random moments; with the pool, the discriminator and its optimizer."""
    opt = options(f"RealDRCT{model}Model", workers=processes - 1, total_iter=24)
    assert train(opt | {"name": "whole"}, processes=processes)[0] == 0
    rng = random.Random(processes)
    for _ in range(5):
        process = start(opt | {"name": "killed"}, "--auto_resume", processes=processes)
        goal, deadline = min(last_iteration("killed") + rng.randint(1, 5), 22), time.monotonic() + 120
        while last_iteration("killed") < goal:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
    status, output = train(opt | {"name": "killed"}, "--auto_resume", processes=processes)
    assert status == 0, output
    assert_same_runs("whole", "killed")
    assert ("models/net_d_24.pth" in weights_of("killed")) is (model == "GAN")


@pytest.mark.parametrize("model", ["MSE", "GAN"])
def test_two_processes_make_the_steps_of_one(gt, model):
    """Two processes with batches of 2 learn from the same degraded images as one with a batch of 4."""
    opt = options(f"RealDRCT{model}Model", total_iter=8)
    assert train(opt | {"name": "two"}, processes=2)[0] == 0
    opt["datasets"]["train"]["batch_size_per_gpu"] = 4
    assert train(opt | {"name": "one"})[0] == 0
    others = [scalars("two")[1:]]
    if model == "MSE":  # with more parts, spectral normalization of the discriminator converges faster
        opt["datasets"]["train"]["batch_size_per_gpu"], opt["train"]["accumulation"] = 2, 2
        assert train(opt | {"name": "parts"})[0] == 0
        others.append(scalars("parts")[1:])
    one = scalars("one")[1:]
    for other in others:
        assert [row[:2] for row in one] == [row[:2] for row in other]
        for a, b in zip(one, other, strict=True):
            assert float(a[2]) == pytest.approx(float(b[2]), rel=2e-3, abs=1e-4), a
    losses = [float(row[2]) for row in one if "pix" in row[1]]
    assert max(losses) > 1.05 * min(losses)  # other images would show


def test_steps_that_are_not_finite_change_neither_network(gt):
    model = model_of(options("RealDRCTGANModel"))
    before = copy.deepcopy((model.net_g.state_dict(), dict(model.net_d.named_parameters())))
    for broken in ("cri_pix", "cri_gan"):
        working = getattr(model, broken)
        setattr(model, broken, lambda *arguments, **_: arguments[0].sum() * float("nan"))
        model.feed_data({"lq": torch.rand(2, 3, 16, 16), "gt": torch.rand(2, 3, 32, 32)})
        model.optimize_parameters(1)
        setattr(model, broken, working)
        after = (model.net_g.state_dict(), dict(model.net_d.named_parameters()))
        for old, new in zip(before, after, strict=True):
            assert all(torch.equal(old[name], new[name]) for name in old), broken
    model.optimize_parameters(2)
    assert model.skipped_in_a_row == 0
    assert not torch.equal(before[1]["conv9.weight"], model.net_d.state_dict()["conv9.weight"])


def test_the_discriminator_begins_alone_as_its_options_say(gt):
    model = model_of(options("RealDRCTGANModel", net_d_iters=2, net_d_init_iters=2))
    changed = []
    for step in range(1, 7):
        before = copy.deepcopy((model.net_g.state_dict(), model.net_d.state_dict()))
        model.feed_data({"lq": torch.rand(2, 3, 16, 16), "gt": torch.rand(2, 3, 32, 32)})
        model.optimize_parameters(step)
        after = (model.net_g.state_dict(), model.net_d.state_dict())
        changed.append([any(not torch.equal(a[k], b[k]) for k in a) for a, b in zip(before, after, strict=True)])
    assert changed == [[step in (4, 6), True] for step in range(1, 7)]


@pytest.mark.parametrize("model", ["MSE", "GAN"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_network_of_basicsr_in_every_precision(gt, model, precision):
    opt = options(f"RealDRCT{model}Model", precision=precision, grad_clip=1.0, total_iter=3)
    opt["network_g"] = {"type": "SwinIR", "embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4}
    opt["network_g"] |= {"upscale": 2, "img_size": 8, "upsampler": "pixelshuffle"}
    status, output = run_in_here(opt)
    assert status == 0, output
    assert Path("experiments/run/models/net_d_latest.pth").exists() is (model == "GAN")
    values = {row[1]: float(row[2]) for row in scalars("run")[1:]}
    gan = {"losses/l_g_pix", "losses/l_g_gan", "losses/l_d_real", "train/out_d_fake", "train/accuracy_d"}
    assert values.keys() >= (gan if model == "GAN" else {"losses/l_pix"})
    assert all(np.isfinite(value) for value in values.values())


def run_in_here(opt):
    return train_run.main(["-opt", write_options(Path("run.yml"), opt)]), ""


def test_pairs_of_ones_own(pairs):
    """Paired fine-tuning: the files of BasicSR's RealESRGANPairedDataset, without degradation."""
    opt = options("RealDRCTGANModel", total_iter=2) | {"high_order_degradation": False, "queue_size": None}
    opt["datasets"]["train"] |= {"type": "RealESRGANPairedDataset", "dataroot_lq": "lr"}
    Path("list.txt").write_text("colour.png, colour.png\nodd.png, odd.png\n")
    opt["datasets"]["train"]["meta_info"] = "list.txt"
    assert run_in_here(opt | {"l1_gt_usm": True})[0] == 0
    opt["high_order_degradation"] = None
    with pytest.raises(DRCTError, match="high_order_degradation: false"):
        check_options(opt, True, "opt.yml", logging.getLogger("drct"))


@pytest.mark.parametrize("kind", ["MSE", "GAN"])
def test_the_hat_project_s_names_of_these_models(gt, kind):
    """A HAT trains, and a DRCT gets the weights that it gets under the other name."""
    opt = options(f"RealHAT{kind}Model", total_iter=2)
    opt["network_g"] = network_options(HAT_TINY, 2, "HAT")
    assert run_in_here(opt | {"name": "hat"})[0] == 0
    assert Path("experiments/hat/models/net_d_latest.pth").exists() is (kind == "GAN")
    for name in ("HAT", "DRCT"):
        model = f"Real{name}{kind}Model"
        assert run_in_here(options(model, total_iter=2) | {"name": name})[0] == 0
    networks = ("net_g", "net_d") if kind == "GAN" else ("net_g",)
    for network in networks:
        one, other = (
            torch.load(f"experiments/{name}/models/{network}_latest.pth", weights_only=True) for name in ("HAT", "DRCT")
        )
        assert_equal(one, other, network)


def test_what_is_missing_is_said(gt):
    for path in (["network_d"], ["train", "gan_opt"], ["train", "optim_d"]):
        opt = section = options("RealDRCTGANModel")
        for key in path[:-1]:
            section = section[key]
        del section[path[-1]]
        with pytest.raises(DRCTError, match=".".join(path)):
            model_of(opt)


def test_weights_of_features_that_cannot_be_downloaded(gt, monkeypatch):
    def no_network(**_):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("basicsr.archs.vgg_arch.vgg.vgg19", no_network)
    with pytest.raises(DRCTError, match=r"no route.*vgg19-dcbb9e9d.pth"):
        model_of(options("RealDRCTGANModel", perceptual_opt=PERCEPTUAL))


@pytest.mark.parametrize("model", ["RealDRCTMSEModel", "RealDRCTGANModel"])
def test_these_models_test_as_drctmodel_does(pairs, weights, model):
    opt = test_options(weights)
    for name in ("DRCTModel", model):
        file = write_options(Path(f"{name}.yml"), opt | {"model_type": name, "name": name})
        assert test_run.main(["-opt", file]) == 0
    for path in Path("results/DRCTModel/visualization/set").glob("*.png"):
        other = Path(f"results/{model}/visualization/set", path.name.replace("DRCTModel", model))
        assert path.read_bytes() == other.read_bytes()
    tables = [Path(f"results/{name}/metrics_set.json").read_text() for name in ("DRCTModel", model)]
    assert tables[0] == tables[1].replace(model, "DRCTModel")


def test_the_short_recipe_with_a_discriminator_trains(workplace):
    opt = load_yaml(ROOT / "options/train/train_Real_DRCT-XS_SRx4_gan_short.yml")
    opt["datasets"]["train"] |= {"dataroot_gt": str(ROOT / "datasets/demo/GT"), "num_worker_per_gpu": 0}
    opt["path"]["pretrain_network_g"] = str(ROOT / "experiments/pretrained_models/DRCT-XS_SRx4.pth")
    opt["datasets"]["train"]["batch_size_per_gpu"], opt["train"]["total_iter"] = 1, 2
    opt["logger"]["print_freq"] = 1
    assert run_in_here(opt | {"name": "run", "num_gpu": 0})[0] == 0
    values = [float(value) for _, tag, value in scalars("run")[1:] if tag == "train/accuracy_d"]
    assert len(values) == 2 and all(0 <= value <= 1 for value in values)


@pytest.mark.slow
def test_a_small_gan_behaves(gt, random_vgg):
    """In 300 iterations the pixel loss falls, and neither side wins: the discriminator tells some images, not all."""
    opt = options("RealDRCTGANModel", total_iter=300, perceptual_opt=PERCEPTUAL, ema_decay=0.99)
    opt["train"]["optim_g"]["lr"] = opt["train"]["optim_d"]["lr"] = 1e-3
    opt["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 300}
    opt["datasets"]["train"]["batch_size_per_gpu"] = 4
    assert run_in_here(opt)[0] == 0
    series: dict[str, list[float]] = {}
    for _, tag, value in scalars("run")[1:]:
        series.setdefault(tag, []).append(float(value))
    assert all(len(values) == 300 and np.isfinite(values).all() for values in series.values())
    first, last = (np.mean(series["losses/l_g_pix"][part]) for part in (slice(20), slice(-50, None)))
    assert last < 0.7 * first
    for name in ("real", "fake"):
        assert 0.05 < np.mean(series[f"losses/l_d_{name}"][-50:]) < 2
    assert np.mean(series["train/out_d_real"][-50:]) > np.mean(series["train/out_d_fake"][-50:])
    assert 0.5 < np.mean(series["train/accuracy_d"][-50:]) < 0.99


@pytest.mark.parametrize(
    ("changes", "dataset", "words"),
    [
        ({"gt_size": 24}, {}, "gt_size is 24, but datasets.train.gt_size is 16"),
        ({}, {"crop_pad_size": 15}, "crop_pad_size 15 must be a multiple of scale 2 and at least gt_size 16"),
        ({}, {"crop_pad_size": 12}, "crop_pad_size 12 must be a multiple of scale 2 and at least gt_size 16"),
        ({}, {"kernel_list": ["iso", "aniso"], "kernel_prob": [1.0]}, "kernel_prob must have as many entries as"),
        ({}, {"kernel_prob2": [1.0, 2.0]}, "kernel_prob2 must have as many entries as kernel_list2, 1, not 2"),
        ({}, {"blur_kernel_size": 41}, "blur_kernel_size 41 is too large for images of 20 pixels"),
        (
            {"second_blur_prob": 0.5, "resize_prob": [0, 1, 0], "resize_range": [0.1, 1]},
            {"blur_kernel_size2": 9},
            "blur_kernel_size2 9 is too large for images of 4 pixels",
        ),
        ({"model_type": "DRCTModel"}, {}, "RealESRGANDataset has no pairs"),
        ({"model_type": "HATModel"}, {}, "has no pairs: it is for RealHATMSEModel and RealHATGANModel"),
        (
            {"model_type": "RealHATMSEModel"},
            {"type": "PairedImageDataset", "dataroot_lq": "gt"},
            "RealHATMSEModel degrades samples of RealESRGANDataset",
        ),
        (
            {"model_type": "RealHATGANModel", "network_d": {"type": "UNetDiscriminator"}},
            {},
            "network_d.type 'UNetDiscriminator' is unknown",
        ),
        ({"high_order_degradation": False}, {}, "RealESRGANDataset has no pairs"),
    ],
)
def test_contradictions(gt, changes, dataset, words):
    opt = options() | changes
    opt["datasets"]["train"] |= dataset
    with pytest.raises(DRCTError) as error:
        check_options(opt, True, "opt.yml", logging.getLogger("drct"))
    assert words in str(error.value)
    check_options(options(), True, "opt.yml", logging.getLogger("drct"))


def test_checkpoints_hold_both_networks(gt, capfd):
    """Old ones are deleted with both; one with a damaged discriminator is passed over."""
    opt = options("RealDRCTGANModel", total_iter=9)
    opt["logger"]["keep_last"] = 2
    assert run_in_here(opt)[0] == 0
    models = Path("experiments/run/models")
    assert {path.name for path in models.iterdir()} == {
        f"net_{kind}_{label}.pth" for kind in "gd" for label in (6, 9, "latest")
    }
    before = weights_of("run")
    content = (models / "net_d_9.pth").read_bytes()
    (models / "net_d_9.pth").write_bytes(content[: len(content) // 2])
    assert train_run.main(["-opt", "run.yml", "--auto_resume"]) == 0
    assert "Resuming from iteration 6" in capfd.readouterr().err
    after = weights_of("run")
    assert_equal({k: before[k] for k in after}, after, "resumed")
    assert len(list(Path("experiments/run").glob("set_aside_*/*"))) == 3


def test_keys_of_the_originals_files(gt):
    """A list of files that its project carries, and a discriminator's optimizer where there is no discriminator."""
    opt = options(optim_d=GAN["optim_d"], total_iter=1)
    opt["datasets"]["train"] |= {"meta_info_file": "hat/data/meta_info/meta_info_DFOsub_GT.txt", "use_shuffle": True}
    assert run_in_here(opt)[0] == 0
    Path("list.txt").write_text("3.png (53,44,3)\n1.png (47,52,3)\n")
    del opt["datasets"]["train"]["meta_info_file"]
    for key in ("meta_info", "meta_info_file"):
        assert len(RealESRGANDataset(opt["datasets"]["train"] | {"phase": "train", key: "list.txt"})) == 2
