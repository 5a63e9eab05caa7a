"""Test and training runs from option files, as users start them."""

import csv
import gc
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs.swinir_arch import SwinIR
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils import img2tensor, tensor2img
from basicsr.utils.matlab_functions import imresize
from conftest import ROOT, TINY, VARIANTS, pair, photo, test_options, train_options, write_options
from spandrel import ModelLoader
from torch.nn import functional as F

from drct.archs.drct_arch import DRCT
from drct.commands import test as test_run
from drct.commands import train as train_run
from drct.evaluation.validate import Validator
from drct.images.bgr import read_image, write_png
from drct.images.listing import list_images
from drct.inference import pad_to_multiple, runner
from drct.inference.runner import NetworkRunner
from drct.models import drct_model
from drct.runs.signals import StopRequest

DISK = {"io_backend": {"type": "disk"}}
SHIPPED = ROOT / "experiments" / "pretrained_models" / "DRCT-XS_SRx4.pth"
BENCHMARKS = Path(os.environ.get("DRCT_BENCHMARKS", ROOT / "datasets"))


def run_test(options, *arguments):
    return test_run.main(["-opt", write_options(Path("test.yml"), options), *arguments])


def run_train(options, *arguments):
    return train_run.main(["-opt", write_options(Path("train.yml"), options), *arguments])


def script(name, *arguments, cwd):
    """Run a script of the repository as a user does, in a fresh process."""
    command = [sys.executable, str(ROOT / "drct" / name), *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def by_hand(original, lr, gt, window, scale, tile=None):
    """What an image should come to: the original network's output and BasicSR's metrics."""
    x = img2tensor(lr.astype(np.float32) / 255)[None]
    with torch.no_grad():
        padded = pad_to_multiple(x, window)
        out = torch.empty(1, 3, padded.shape[2] * scale, padded.shape[3] * scale)
        size, pad = tile or (max(padded.shape), 0)
        for y in range(0, padded.shape[2], size):
            for x0 in range(0, padded.shape[3], size):
                top, left = max(y - pad, 0), max(x0 - pad, 0)
                part = original(padded[:, :, top : y + size + pad, left : x0 + size + pad])
                part = part[..., (y - top) * scale :, (x0 - left) * scale :][..., : size * scale, : size * scale]
                out[..., y * scale : y * scale + part.shape[2], x0 * scale : x0 * scale + part.shape[3]] = part
    image = tensor2img(out[..., : lr.shape[0] * scale, : lr.shape[1] * scale])
    gt = gt[: image.shape[0], : image.shape[1]]
    options = {"crop_border": scale, "test_y_channel": True}
    return image, {"psnr": calculate_psnr(image, gt, **options), "ssim": calculate_ssim(image, gt, **options)}


# ------------------------------------------------------------------------------------------------------------- test.py


@pytest.mark.parametrize("tile", [None, {"tile_size": 8, "tile_pad": 4}])
def test_images_and_metrics_are_those_of_the_original(weights, pairs, tile):
    options = test_options(weights) | ({"tile": tile} if tile else {})
    assert run_test(options) == 0
    original, _ = pair(2, **TINY)
    table = json.loads(Path("results/run/metrics_set.json").read_text())
    assert sorted(table["images"]) == ["colour", "gray", "odd"]
    for name, metrics in table["images"].items():
        lr, gt = read_image(f"lr/{name}.png"), read_image(f"gt/{name}.png")
        image, expected = by_hand(original, lr, gt, 4, 2, tuple(tile.values()) if tile else None)
        assert metrics == pytest.approx(expected, abs=1e-4)
        saved = read_image(f"results/run/visualization/set/{name}_run.png")
        assert np.abs(saved.astype(int) - image).max() <= 1  # a value on the edge of rounding
    for metric, mean in table["mean"].items():
        assert mean == pytest.approx(np.mean([values[metric] for values in table["images"].values()]), abs=1e-12)
    rows = list(csv.reader(Path("results/run/metrics_set.csv").read_text().splitlines()))
    assert rows[0] == ["image", "psnr", "ssim"]
    assert [row[0] for row in rows[1:]] == [*table["images"], "mean"]
    assert float(rows[-1][1]) == table["mean"]["psnr"]


def test_tiles_are_taken_where_memory_does_not_suffice(weights, pairs, monkeypatch, capfd):
    assert run_test(test_options(weights, name="whole", tile="auto")) == 0
    monkeypatch.setattr(runner, "free_memory", lambda device: 1)
    assert run_test(test_options(weights, name="tiled", tile="auto")) == 0
    assert re.search(r"pixels need about 0\.\d\d GB, 0\.00 GB are free: tiles of 8 pixels", capfd.readouterr().err)
    for path in Path("results/whole/visualization/set").iterdir():
        tiled = read_image(Path("results/tiled/visualization/set", path.name.replace("_whole", "_tiled")))
        whole = read_image(path)
        assert tiled.shape == whole.shape
        assert np.abs(tiled.astype(int) - whole).mean() < 2


def test_low_precision_is_close_to_fp32(workplace):
    """The shipped weights on the demo images."""
    images = [read_image(path)[..., ::-1] for path in sorted((ROOT / "datasets/demo/LRbicx4").glob("*.png"))]
    network = DRCT(**VARIANTS["DRCT-XS"])
    network.load_state_dict(torch.load(SHIPPED, weights_only=True)["params_ema"])
    network.eval()
    for image in images:
        x = pad_to_multiple(img2tensor([image.astype(np.float32) / 255], bgr2rgb=False)[0][None], 8)
        with torch.no_grad():
            expected = network(x)
            with torch.autocast("cpu", torch.bfloat16):
                result = network(x)
        assert result.dtype == torch.float32
        assert 0 < (result - expected).square().mean() <= 1e-5  # 50 dB


def test_a_tile_as_large_as_the_image_changes_nothing(weights, pairs):
    assert run_test(test_options(weights)) == 0
    assert run_test(test_options(weights, name="tiled", tile={"tile_size": 30, "tile_pad": 5})) == 0
    for path in list_images("results/run/visualization/set"):
        tiled = Path("results/tiled/visualization/set", path.name.replace("_run", "_tiled"))
        assert np.array_equal(read_image(path), read_image(tiled))


def test_one_runner_serves_a_run_and_its_tiles_are_rounded_with_a_warning(weights, pairs, monkeypatch, capfd):
    made = []
    monkeypatch.setattr(drct_model, "NetworkRunner", lambda *options: made.append(NetworkRunner(*options)) or made[-1])
    assert run_test(test_options(weights, tile={"tile_size": 6, "tile_pad": 3})) == 0
    assert [one.tile for one in made] == [(8, 4)]
    expected = "tile: sizes must be multiples of the window of 4: tile_size 6 is taken as 8 and tile_pad 3 as 4"
    assert capfd.readouterr().err.count(expected) == 1


def test_validation_takes_any_function_and_keeps_the_best_in_the_direction_of_each_metric(tmp_path):
    class OnePair:
        opt, paths = {"name": "set"}, ["a.png"]

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"lq": torch.full((3, 8, 8), 0.5), "gt": torch.full((3, 16, 16), 0.5)}

    psnr = {"type": "calculate_psnr", "crop_border": 0}
    metrics = {
        "psnr": psnr,
        "mse": dict(psnr),
        "score": psnr | {"better": "lower"},
        "niqe": psnr | {"better": "higher"},
    }
    opt = {"scale": 2, "name": "run", "is_train": True, "path": {"experiments_root": str(tmp_path)}}
    validator = Validator(opt | {"val": {"metrics": metrics}}, torch.device("cpu"))
    for iteration, error in ((1, 0.2), (2, 0.1), (3, 0.15)):
        table = validator.run(lambda lq, e=error: F.interpolate(lq, scale_factor=2) + e, OnePair(), iteration)
        written = json.loads((tmp_path / "metrics" / f"metrics_set_{iteration}.json").read_text())
        assert written["mean"] == table.mean() and table.images.keys() == {"a"}
    best = {metric: record["iter"] for metric, record in validator.best["set"].items()}
    assert best == {"psnr": 2, "mse": 1, "score": 1, "niqe": 2}


def test_images_without_ground_truth(weights, pairs):
    write_png("photos/one pixel.png", photo(1, 1))
    write_png("photos/line.png", photo(1, 23))
    cv2.imwrite("photos/same.png", photo(9, 9))
    cv2.imwrite("photos/same.jpg", photo(9, 9, 1))
    Path("photos/notes.txt").write_text("not an image")
    options = test_options(weights)
    options["datasets"] = {
        "test_1": {
            "name": "photos",
            "type": "SingleImageDataset",
            "dataroot_lq": "photos",
            "io_backend": {"type": "disk"},
        }
    }
    del options["val"]
    assert run_test(options) == 0
    shapes = {p.name: read_image(p).shape[:2] for p in list_images("results/run/visualization/photos")}
    assert shapes == {
        "one pixel_run.png": (2, 2),
        "line_run.png": (2, 46),
        "same_png_run.png": (18, 18),
        "same_jpg_run.png": (18, 18),
    }


def test_a_network_of_basicsr_gets_whole_windows(pairs):
    """BasicSR's SwinIR takes no other images, and does not tell its window."""
    torch.manual_seed(0)
    shape = {"embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 8, "img_size": 16}
    swinir = {**shape, "upscale": 2, "upsampler": "pixelshuffle"}
    network = SwinIR(**swinir).eval()
    torch.save({"params_ema": network.state_dict()}, pairs / "swinir.pth")
    run_test(test_options("swinir.pth") | {"network_g": {"type": "SwinIR", **swinir}})
    metrics = json.loads((pairs / "results" / "run" / "metrics_set.json").read_text())
    assert sorted(metrics["images"]) == ["colour", "gray", "odd"] and not metrics.get("failed")
    lr = cv2.cvtColor(cv2.imread("lr/odd.png"), cv2.COLOR_BGR2RGB)
    x = torch.from_numpy(lr).permute(2, 0, 1)[None] / 255
    height, width = lr.shape[:2]
    with torch.no_grad():
        padded = F.pad(x, (0, -width % 8, 0, -height % 8), mode="reflect")
        expected = network(padded)[0, :, : 2 * height, : 2 * width].clamp(0, 1)
    result = cv2.cvtColor(cv2.imread("results/run/visualization/set/odd_run.png"), cv2.COLOR_BGR2RGB)
    assert np.abs(result - expected.permute(1, 2, 0).numpy() * 255).max() < 0.51


def test_a_broken_image_does_not_lose_the_others(weights, pairs, capfd):
    Path("lr/colour.png").write_bytes(b"broken")
    write_png("lr/truth.png", photo(20, 20))
    Path("gt/truth.png").write_bytes(b"broken")
    write_png("gt/tiny.png", photo(2, 2))
    write_png("lr/tiny.png", photo(1, 1))  # too small for metrics
    assert run_test(test_options(weights)) == 1
    table = json.loads(Path("results/run/metrics_set.json").read_text())
    assert sorted(table["images"]) == ["gray", "odd"]
    assert sorted(Path(path).stem for path in table["failed"]) == ["colour", "tiny", "truth"]
    assert Path("results/run/visualization/set/odd_run.png").exists()
    error = capfd.readouterr().err
    assert "lr/colour.png was left out: cannot be read: " in error
    assert "lr/truth.png was left out: cannot read image gt/truth.png" in error
    assert "lr/tiny.png was left out: psnr is undefined: the image of 2x2 is too small" in error


def test_earlier_results_are_moved_aside(weights, pairs, capfd):
    for _ in range(3):
        assert run_test(test_options(weights)) == 0
    assert len(list(Path("results").iterdir())) == 3
    assert "Moved the earlier results to" in capfd.readouterr().err


def test_weights_that_do_not_fit_are_explained(weights, pairs, capfd):
    assert run_test(test_options(weights, network=TINY | {"embed_dim": 16})) == 2
    error = capfd.readouterr().err
    assert re.search(r"^error: \S*weights\.pth does not fit the network of the option file", error, re.MULTILINE)
    assert "embed_dim is 12 in the file, 16 in network_g" in error
    assert not Path("results").exists()  # earlier results would still be in place
    assert "Traceback" not in error


def test_files_that_do_not_pair_are_explained(weights, pairs, capfd):
    Path("lr/odd.png").rename("lr/oddLR.png")
    assert run_test(test_options(weights)) == 2
    expected = "datasets.test_1 (set): 1 image of dataroot_gt without a partner in dataroot_lq lr, the first: odd.png\n"
    assert expected in capfd.readouterr().err


@pytest.mark.parametrize("num_gpu", [1, "auto"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_the_cpu_is_used_with_one_warning(weights, pairs, num_gpu, capfd):
    assert run_test(test_options(weights, num_gpu=num_gpu)) == 0
    assert capfd.readouterr().err.count("running on the CPU") == 1


def test_several_datasets_suffix_lmdb_and_wrong_ground_truth(weights, pairs, capfd):
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    for folder in ("gt", "lr"):
        names = [path.name for path in list_images(folder)]
        make_lmdb_from_imgs(folder, f"{folder}.lmdb", names, [Path(name).stem for name in names])
        write_png(f"{folder}2/wrong.png", photo(20, 20))  # ground truth of the size of the input
    options = test_options(weights)
    dataset = options["datasets"]["test_1"]
    lmdb = {"name": "lmdb", "dataroot_gt": "gt.lmdb", "dataroot_lq": "lr.lmdb", "io_backend": {"type": "lmdb"}}
    wrong = {"name": "wrong", "dataroot_gt": "gt2", "dataroot_lq": "lr2"}
    options["datasets"] |= {"test_2": dataset | lmdb, "test_3": dataset | wrong}
    options["val"]["suffix"] = "x2"
    assert run_test(options) == 2
    expected = (
        "datasets.test_3 (wrong): the ground truth gt2/wrong.png is 20x20, lr2/wrong.png 20x20: not 2 times larger"
    )
    assert expected in capfd.readouterr().err
    shutil.copy("gt/odd.png", "gt2/right.png")
    shutil.copy("lr/odd.png", "lr2/right.png")  # not all are wrong
    assert run_test(options) == 1
    results = {name: json.loads(Path(f"results/run/metrics_{name}.json").read_text()) for name in ("set", "lmdb")}
    assert results["set"]["images"] == results["lmdb"]["images"]
    assert Path("results/run/visualization/lmdb/odd_x2.png").exists()
    failed = json.loads(Path("results/run/metrics_wrong.json").read_text())["failed"]
    assert "is 20x20, lr2/wrong.png 20x20: not 2 times larger" in failed["lr2/wrong.png"]


def test_bicubic_and_a_picture_beside_the_network(weights, pairs):
    options = test_options(weights)
    options["val"] |= {"bicubic": True, "comparison": True}
    assert run_test(options) == 0
    table = json.loads(Path("results/run/metrics_set.json").read_text())
    lr, gt = read_image("lr/colour.png"), read_image("gt/colour.png")
    bicubic = (imresize(lr.astype(np.float32) / 255, 2).clip(0, 1) * 255).round()
    psnr = calculate_psnr(bicubic, gt.astype(np.float64), crop_border=2, test_y_channel=True)
    assert table["bicubic"]["images"]["colour"]["psnr"] == pytest.approx(psnr, abs=1e-3)
    sheet = read_image("results/run/comparison_set.png")
    assert sheet.shape == (3 * 284, 7 * 230, 3)
    assert sheet.std() > 10


def test_scripts_run_from_anywhere_and_use_their_own_repository(weights, pairs):
    shutil.copytree(ROOT / "drct", "copy/drct")
    Path("copy/drct/__init__.py").write_text("raise SystemExit('the copy')")
    done = subprocess.run([sys.executable, "copy/drct/test.py"], capture_output=True, text=True, timeout=300)
    assert "the copy" in done.stderr
    done = script("test.py", "-opt", write_options(Path("test.yml"), test_options(weights)), cwd=pairs)
    assert done.returncode == 0, done.stderr
    assert Path("results/run/metrics_set.csv").exists()
    assert "Traceback" not in done.stderr
    done = script("test.py", "-opt", "typo.yml", cwd=pairs)
    assert done.returncode == 2
    assert done.stderr == "error: cannot read option file typo.yml: No such file or directory\n"


# ------------------------------------------------------------------------------------------------------------ train.py


def parameters(path, key="params"):
    return torch.load(path, weights_only=True)[key]


def test_training_validates_and_saves(pairs):
    assert run_train(train_options(precision="bf16", grad_clip=0.5)) == 0
    folder = Path("experiments/run")
    assert sorted(p.name for p in (folder / "models").iterdir()) == ["net_g_2.pth", "net_g_4.pth", "net_g_latest.pth"]
    assert sorted(p.name for p in (folder / "training_states").iterdir()) == ["2.state", "4.state"]
    for iteration in (2, 4):
        table = json.loads((folder / "metrics" / f"metrics_set_{iteration}.json").read_text())
        assert set(table["images"]) == {"colour", "gray", "odd"}
    content = torch.load(folder / "models" / "net_g_4.pth", weights_only=True)
    assert set(content) == {"params", "params_ema", "metadata"}
    assert not torch.equal(content["params"]["conv_first.weight"], content["params_ema"]["conv_first.weight"])
    log = next(folder.glob("train_run_*.log")).read_text()
    assert "iter:       4" in log
    # Validation is of the EMA, with the files that other programs load
    loaded = ModelLoader().load_from_file(folder / "models" / "net_g_4.pth")
    lr, gt = read_image("lr/colour.png"), read_image("gt/colour.png")
    _, expected = by_hand(loaded.model.eval(), lr, gt, 4, 2)
    assert table["images"]["colour"] == pytest.approx(expected, abs=2e-3)


def test_one_step_is_the_optimizers_step_on_the_l1_loss(pairs):
    """Against a step written out with the original network."""
    options = train_options(total_iter=1)
    options["datasets"]["train"] |= {"batch_size_per_gpu": 3}
    options["network_g"]["drop_path_rate"] = 0.0
    start, _ = pair(2, **TINY, drop_path_rate=0.0)
    torch.save({"params": start.state_dict()}, "start.pth")
    options["path"]["pretrain_network_g"] = "start.pth"
    seen = {}
    from drct.models.drct_model import DRCTModel

    original_step = DRCTModel.optimize_parameters

    def spy(self, iteration):
        seen.update(lq=self.lq.clone(), gt=self.gt.clone())
        original_step(self, iteration)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRCTModel, "optimize_parameters", spy)
        assert run_train(options) == 0
    optimizer = torch.optim.Adam(start.parameters(), lr=2e-4, betas=(0.9, 0.99))
    before = {name: p.detach().clone() for name, p in start.named_parameters()}
    (start.train()(seen["lq"]) - seen["gt"]).abs().mean().backward()
    optimizer.step()
    result = torch.load("experiments/run/models/net_g_latest.pth", weights_only=True)
    for name, p in start.named_parameters():
        # Adam's first step is lr times the gradient's sign: compare where the gradient is not about zero
        clear = p.grad.abs() > 1e-5
        assert torch.allclose(result["params"][name][clear], p[clear], atol=1e-6), name
        ema = 0.9 * before[name] + 0.1 * result["params"][name]
        assert torch.allclose(result["params_ema"][name], ema, atol=1e-6)


def test_training_resumes_where_it_stopped(pairs, capfd):
    options = train_options(total_iter=2)
    assert run_train(options) == 0
    options["train"]["total_iter"] = 4
    assert run_train(options, "--auto_resume") == 0
    assert "Resuming from iteration 2" in capfd.readouterr().err
    state = torch.load("experiments/run/training_states/4.state", weights_only=True)
    assert state["iter"] == 4
    assert state["optimizers"][0]["state"][0]["step"] == 4
    assert state["optimizers"][0]["param_groups"][0]["lr"] == pytest.approx(1e-4)  # the milestone at 3
    assert state["best_metric_results"]["set"]["psnr"]["iter"] in (2, 4)
    assert not list(Path("experiments").glob("*archived*"))
    options["path"]["resume_state"] = "experiments/run/training_states/2.state"
    assert run_train(options) == 0
    assert capfd.readouterr().err.count("Resuming from iteration 2") == 1


def test_an_experiment_is_not_overwritten(pairs):
    options = train_options(total_iter=1)
    options["val"] = None
    for _ in range(2):
        assert run_train(options) == 0
    assert len(list(Path("experiments").glob("run_archived_*/models/net_g_latest.pth"))) == 1


def test_a_failure_in_validation_loses_no_iteration(pairs, capfd):
    from drct.models.drct_model import DRCTModel

    def out_of_memory(*_, **__):
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRCTModel, "validation", out_of_memory)
        options = train_options()
        options["logger"]["save_checkpoint_freq"] = 100
        with pytest.raises(MemoryError):
            run_train(options)
    assert Path("experiments/run/training_states/2.state").exists()
    assert "Stopped at iteration 2, which is saved" in capfd.readouterr().err


def test_a_metric_can_be_added_on_resuming_and_the_option_file_may_be_the_experiments_copy(pairs):
    options = train_options(total_iter=2)
    del options["val"]["metrics"]["ssim"]
    assert run_train(options) == 0
    copy = Path("experiments/run/train.yml")
    write_options(copy, train_options())
    assert train_run.main(["-opt", str(copy), "--auto_resume"]) == 0
    state = torch.load("experiments/run/training_states/4.state", weights_only=True)
    assert state["best_metric_results"]["set"]["ssim"]["iter"] == 4


def test_ema_warm_up_forgets_the_initial_weights(pairs):
    averages = {}
    for warmup in (False, True):
        assert run_train(train_options(total_iter=4, ema_decay=0.999, ema_warmup=warmup)) == 0
        content = torch.load("experiments/run/models/net_g_4.pth", weights_only=True)
        averages[warmup] = (content["params_ema"]["conv_first.weight"] - content["params"]["conv_first.weight"]).norm()
    assert averages[True] < 0.5 * averages[False]


def test_several_gpus_write_the_same_names_as_one(pairs):
    """DataParallel wraps the network; without GPUs it calls it unchanged."""
    from drct.models.drct_model import DRCTModel

    def wrapped(self, net):
        self.device = torch.device("cpu")
        return torch.nn.DataParallel(net)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRCTModel, "model_to_device", wrapped)
        assert run_train(train_options(total_iter=2)) == 0
    _, network = pair(2, **TINY)
    assert parameters("experiments/run/models/net_g_2.pth").keys() == network.state_dict().keys()


def test_workers_may_be_spawned(pairs):
    """As they are on Windows and macOS: in a fresh process, where the dataset is unpickled."""
    code = (
        "import sys, multiprocessing, drct\nif __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    from drct.commands.train import main\n    sys.exit(main())\n"
    )
    Path("start.py").write_text(code)
    options = train_options(total_iter=2)
    write_png("gt2/a.png", photo(40, 40))
    options["datasets"]["train"] |= {"type": "ImageNetPairedDataset", "dataroot_gt": "gt2", "num_worker_per_gpu": 1}
    command = [sys.executable, "start.py", "-opt", write_options(Path("train.yml"), options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_an_option_file_of_the_original_project_trains(pairs):
    """Its keys and spelling, but for data paths and sizes."""
    _, network = pair(2, **TINY)
    torch.save({"params": network.state_dict()}, "start.pth")
    assert train_run.main(["-opt", str(Path(__file__).parent / "original_style.yml")]) == 0
    assert Path("experiments/train_DRCT_SRx2_from_scratch/models/net_g_2.pth").exists()
    assert list(Path("tb_logger/train_DRCT_SRx2_from_scratch").glob("events*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_g": {"embed_dim": 13}}, "embed_dim (13) must be a multiple of num_heads"),
        ({"network_g": {"depths": 6}}, "network_g.depths must be a list"),
        ({"network_g": {"num_heads": [2]}}, "these options: network_g (DRCT): num_heads has 1"),
        ({"train": {"pixel_opt": {"type": "L1Loss", "loss_wieght": 1}}}, "loss_wieght"),
        ({"train": {"scheduler": {"type": "MultiStepLR"}}}, "milestones"),
    ],
)
def test_options_that_make_no_model_are_explained(pairs, capfd, change, message):
    options = train_options()
    for section, values in change.items():
        options[section] |= values
    assert run_train(options) == 2
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not Path("experiments").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_signals_finish_the_step_and_save(pairs, capfd, number):
    from drct.models.drct_model import DRCTModel

    original_step = DRCTModel.optimize_parameters

    def interrupted(self, iteration):
        if iteration == 3:
            signal.raise_signal(number)
        original_step(self, iteration)

    previous = signal.signal(number, signal.default_int_handler)  # the tests may have been started by nohup
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DRCTModel, "optimize_parameters", interrupted)
            assert run_train(train_options()) == 128 + number
        assert "Stopped at iteration 3, which is saved; --auto_resume goes on from there" in capfd.readouterr().err
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, previous)
    assert run_train(train_options(), "--auto_resume") == 0
    assert Path("experiments/run/models/net_g_4.pth").exists()


def test_a_run_that_outlasts_its_terminal_goes_on_without_it():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopRequest() as request:
            signal.raise_signal(signal.SIGHUP)
            assert not request
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [
        ({"type": "OneCycleLR", "max_lr": 1e-3, "total_steps": 4, "pct_start": 0.5, "cycle_momentum": False}, None),
        ({"type": "CosineAnnealingLR", "T_max": 4}, [1e-3, 8.5355e-4, 5e-4, 1.4645e-4]),
        ({"type": "MultiStepLR", "milestones": [1, 2], "gamma": 0.1}, [1e-3, 1e-4, 1e-5, 1e-5]),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_schedules_and_optimizers_by_name(pairs, scheduler, rates):
    from drct.models.drct_model import DRCTModel

    seen = []
    original_step = DRCTModel.optimize_parameters

    def spy(self, iteration):
        seen.append(self.get_current_learning_rate()[0])
        original_step(self, iteration)

    options = train_options(optim_g={"type": "AdamW", "lr": 1e-3, "weight_decay": 0.01}, scheduler=scheduler)
    options["val"] = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRCTModel, "optimize_parameters", spy)
        assert run_train(options) == 0
    if rates is None:
        reference = torch.optim.SGD([torch.zeros(1)], lr=1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(reference, **{k: v for k, v in scheduler.items() if k != "type"})
        rates = []
        for _ in range(4):
            rates.append(reference.param_groups[0]["lr"])
            reference.step()
            if len(rates) < 4:
                schedule.step()
    assert seen == pytest.approx(rates, rel=1e-3)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"optim_g": {"type": "Adamm", "lr": 1e-3}}, "train.optim_g.type 'Adamm' is unknown (did you mean 'Adam'?)"),
        (
            {"optim_g": {"type": "Adam", "lr": 1e-3, "beta": 1}},
            "(Adam): there is no argument 'beta' (did you mean 'betas'?)",
        ),
        ({"scheduler": {"type": "OneCycle"}}, "did you mean 'OneCycleLR'?"),
    ],
)
def test_unknown_optimizers_and_schedules_are_explained(pairs, capfd, train, message):
    assert run_train(train_options(**train)) == 2
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_training_goes_on_without_an_image_that_cannot_be_used(pairs, capfd):
    Path("lr/colour.png").write_bytes(b"broken")
    options = train_options()
    options["val"] = None
    assert run_train(options) == 0
    assert "without an image that cannot be used: " in capfd.readouterr().err


def test_a_schedule_that_cannot_be_made_is_named(pairs, capfd):
    options = train_options()
    options["train"]["scheduler"] = {"type": "MultiStepLR", "milestone": [5]}
    assert run_train(options) == 2
    words = "error: train.scheduler (MultiStepRestartLR): there is no argument 'milestone' (did you mean 'milestones'?)"
    assert words in capfd.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
def test_training_ends_if_no_image_can_be_used(pairs, capfd, workers):
    for file in Path("lr").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    options = train_options()
    options["datasets"]["train"]["num_worker_per_gpu"] = workers
    del options["datasets"]["val"]
    gc.disable()  # what the error's traceback refers to stays
    try:
        assert run_train(options) == 2
        assert not multiprocessing.active_children()  # or Python waits for ever when it exits
    finally:
        gc.enable()
    error = capfd.readouterr().err
    assert "error: datasets.train: 3 images in a row cannot be used. The last: cannot read image lr" in error
    assert "Traceback" not in error


def test_basicsrs_own_pipelines_run_after_importing_drct(pairs):
    """In a fresh process, with the real command line, on the CPU, and resumed."""
    options = train_options(total_iter=2)
    train = write_options(Path("train.yml"), options)
    code = "import sys, drct; from basicsr.{0} import {0}_pipeline; {0}_pipeline('.')"
    command = [sys.executable, "-c", code.format("train"), "-opt", train]
    for more in ([], ["--auto_resume"]):
        done = subprocess.run([*command, *more], cwd=pairs, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        options["train"]["total_iter"] = 4
        write_options(Path("train.yml"), options)
    models = Path("experiments/run/models")
    assert (models / "net_g_4.pth").exists()
    logs = "".join(path.read_text() for path in Path("experiments/run").glob("train_run_*.log"))
    assert "iter:       3" in logs
    assert "best" in logs
    test = write_options(Path("test.yml"), test_options(models / "net_g_2.pth"))
    command = [sys.executable, "-c", code.format("test"), "-opt", test, "--local-rank=0"]
    done = subprocess.run(command, cwd=pairs, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert Path("results/run/metrics_set.json").exists()


def test_the_network_is_importable_without_basicsr():
    code = "import sys; from drct.archs.drct_arch import DRCT; assert 'basicsr' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT)


# ------------------------------------------------------------------------------- shipped weights, published benchmarks


def test_the_shipped_weights_give_the_same_image_in_spandrel(workplace):
    loaded = ModelLoader().load_from_file(SHIPPED)
    assert (loaded.architecture.id, loaded.scale) == ("DRCT", 4)
    assert sum(p.numel() for p in loaded.model.parameters()) <= 1_500_000
    demo = ROOT / "datasets" / "demo"
    options = test_options(SHIPPED, 4, VARIANTS["DRCT-XS"])
    options["datasets"]["test_1"] |= {"dataroot_gt": str(demo / "GT"), "dataroot_lq": str(demo / "LRbicx4")}
    assert run_test(options) == 0
    table = json.loads(Path("results/run/metrics_set.json").read_text())
    for name, metrics in table["images"].items():
        lr, gt = read_image(demo / "LRbicx4" / f"{name}.png"), read_image(demo / "GT" / f"{name}.png")
        image, expected = by_hand(loaded.model.eval(), lr, gt, 8, 4)
        assert np.abs(read_image(f"results/run/visualization/set/{name}_run.png").astype(int) - image).max() <= 1
        assert metrics == pytest.approx(expected, abs=1e-4)


def benchmark(name, scale):
    folder = BENCHMARKS / name
    if not (folder / f"LRbicx{scale}").is_dir():
        pytest.skip(f"{folder} is not here at x{scale}: DRCT_BENCHMARKS names the folder of the benchmarks")
    return folder


def benchmark_options(weights, name, scale, network, **more):
    folder = benchmark(name, scale)
    options = test_options(weights, scale, network, **more)
    roots = {"dataroot_gt": str(folder / "GTmod12"), "dataroot_lq": str(folder / f"LRbicx{scale}")}
    options["datasets"]["test_1"] |= {"name": name, **roots}
    options["val"]["save_img"] = False
    return options


PUBLISHED_BICUBIC = {
    ("Set5", 2): (33.66, 0.9309),
    ("Set5", 3): (30.39, 0.8691),
    ("Set5", 4): (28.40, 0.8115),
    ("Set14", 2): (30.32, 0.8700),
    ("Set14", 3): (27.63, 0.7762),
    ("Set14", 4): (26.09, 0.7050),
}


@pytest.mark.parametrize(("name", "scale"), PUBLISHED_BICUBIC)
def test_bicubic_has_its_published_figures(workplace, name, scale):
    benchmark(name, scale)
    _, network = pair(scale, **TINY)
    torch.save(network.state_dict(), "weights.pth")
    options = benchmark_options("weights.pth", name, scale, TINY)
    options["val"]["bicubic"] = True
    assert run_test(options) == 0
    mean = json.loads(Path(f"results/run/metrics_{name}.json").read_text())["bicubic"]["mean"]
    psnr, ssim = PUBLISHED_BICUBIC[name, scale]
    assert mean["psnr"] == pytest.approx(psnr, abs=0.01)
    assert mean["ssim"] == pytest.approx(ssim, abs=0.001)


@pytest.mark.parametrize("tile", [None, {"tile_size": 64, "tile_pad": 16}], ids=["whole", "tiled"])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_benchmarks_are_measured_as_with_the_original(workplace, name, tile):
    folder = benchmark(name, 4)
    original, _ = pair(4, **VARIANTS["DRCT-XS"])
    torch.save({"params_ema": original.state_dict()}, "weights.pth")
    more = {"tile": tile} if tile else {}
    assert run_test(benchmark_options("weights.pth", name, 4, VARIANTS["DRCT-XS"], **more)) == 0
    table = json.loads(Path(f"results/run/metrics_{name}.json").read_text())
    paths = list_images(folder / "LRbicx4")
    assert len(table["images"]) == len(paths) == {"Set5": 5, "Set14": 14}[name]
    for path in paths:
        gt = read_image(folder / "GTmod12" / path.name)
        _, expected = by_hand(original, read_image(path), gt, 8, 4, tuple(tile.values()) if tile else None)
        assert table["images"][path.stem] == pytest.approx(expected, abs=1e-4)


def test_the_shipped_weights_reach_what_the_readme_says(workplace):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, least in (("Set5", 31.30), ("Set14", 28.04)):
        assert run_test(benchmark_options(SHIPPED, name, 4, VARIANTS["DRCT-XS"])) == 0
        mean = json.loads(Path(f"results/run/metrics_{name}.json").read_text())["mean"]
        assert mean["psnr"] >= least
        for metric, value in (("psnr", f"{mean['psnr']:.2f}"), ("ssim", f"{mean['ssim']:.4f}")):
            (row,) = [line for line in readme.splitlines() if line.startswith(f"| {name} | {metric} ")]
            assert row.endswith(f" {value} |")
