"""`drct train --estimate`: memory, time and disk of a training run before it starts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import TINY, network_options, write_options
from conftest import train_options as options_of_training

from drct.commands.train import main as train
from drct.inference.waiting import duration
from drct.models import training_memory
from drct.models.training_memory import StepMemory, optimizer_bytes, step_memory
from drct.runs import estimate as estimates
from drct.runs.build import evaluation_loaders, make_model
from drct.runs.estimate import Cost, Estimate, _times, _variants, estimate
from drct.runs.estimate_text import estimate_text, size_text
from drct.runs.options import read_options
from drct.schema.options import TrainingOptions

GB = 10**9
SMALL = TINY | {"depths": (6,), "num_heads": (2,)}


def train_options(**train):
    """Options of a short training run of a network that is smaller than those of other tests."""
    return options_of_training(**train) | {"network_g": network_options(SMALL, 2)}


@pytest.fixture
def quick(monkeypatch):
    """Fewer steps than users get."""
    monkeypatch.setattr(estimates, "WARM_UP", 1)
    monkeypatch.setattr(estimates, "VARIANT_WARM_UP", 0)
    monkeypatch.setattr(estimates, "VARIANT_STEPS", 1)


def estimated(options, **more) -> Estimate:
    return estimate(Path.cwd(), write_options(Path("train.yml"), options), (), "none", False, False, steps=2, **more)


def built(options):
    """The model of a training run."""
    opt, _ = read_options(Path.cwd(), True, write_options(Path("train.yml"), options))
    return make_model(opt)


# -------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("changes", [{"accumulation": 2}, {"precision": "bf16", "optim_g": {"type": "SGD", "lr": 1}}])
def test_the_memory_of_a_step_is_that_of_its_tensors(pairs, changes):
    """Against a step with real tensors, counted in the same way: shapes, and so bytes, are the same."""
    model = built(train_options(**changes))
    found = step_memory(model, batch=2 * changes.get("accumulation", 1), channels=3, patch=8)
    assert all(p.grad is None for p in model.net_g.parameters())
    networks = (model.net_g, model.net_g_ema)
    assert found.weights == sum(t.nbytes for n in networks for t in (*n.parameters(), *n.buffers()))
    weights = sum(p.nbytes for p in model.net_g.parameters())
    assert found.optimizer == (0 if "optim_g" in changes else 2 * weights)
    own = [t for n in networks for t in (*n.parameters(), *n.buffers())]
    live = training_memory._LiveBytes(own)
    lq, gt = (torch.rand(2 * changes.get("accumulation", 1), 3, side, side) for side in (8, 16))
    model.feed_data({"lq": lq, "gt": gt})
    with live:
        model._compute_gradients(1)
    assert found.step == pytest.approx(live.peak + lq.nbytes + gt.nbytes, rel=0.1)


def test_memory_grows_with_the_batch_and_falls_with_recomputation(pairs):
    options = train_options()
    model = built(options)
    four, six, eight = (step_memory(model, batch, 3, 16).step for batch in (4, 6, 8))
    assert eight - six == pytest.approx(six - four, rel=0.01)
    options["network_g"]["use_checkpoint"] = True
    assert step_memory(built(options), 6, 3, 16).step < 0.6 * six


def test_the_networks_of_a_gan_count(pairs):
    options = train_options(gan_opt={"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1})
    options["train"]["optim_d"] = {"type": "Adam", "lr": 1e-4}
    options |= {"model_type": "RealDRCTGANModel", "high_order_degradation": False}
    options["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 8}
    model = built(options)
    found = step_memory(model, 2, 3, 8)
    discriminator = sum(p.nbytes for p in model.net_d.parameters())
    generator = sum(p.nbytes for p in model.net_g.parameters())
    assert found.optimizer == optimizer_bytes(model) == 2 * (discriminator + generator)
    assert found.weights >= discriminator + 2 * generator


# ------------------------------------------------------------------------------------------------------- the whole run


def test_disk_and_iterations_are_those_of_the_run(pairs, monkeypatch):
    for name in ("_probe", "_probe_variant"):
        monkeypatch.setattr(estimates, name, lambda *_: {})
    options = train_options(total_iter=5)
    options["val"] = None
    found = estimated(options)
    assert (found.iterations, found.checkpoints) == (5, 3)
    assert train(["-opt", write_options(Path("train.yml"), options)]) == 0
    files = [p for p in Path("experiments/run").rglob("*") if p.suffix in (".pth", ".state")]
    assert len(files) == 2 * found.checkpoints + found.extra_weights
    size = sum(path.stat().st_size for path in files)
    assert found.disk() == pytest.approx(size, rel=0.15)  # names of entries count in a network as small as this
    options["train"]["total_iter"] = 9
    options["path"]["resume_state"] = "experiments/run/training_states/4.state"
    found = estimated(options)
    assert (found.iterations, found.checkpoints) == (5, 3)


def test_an_estimate_says_all_and_writes_nothing(pairs, quick, capsys):
    options = train_options(total_iter=1000)
    file = write_options(Path("train.yml"), options)
    before = sorted(map(str, pairs.rglob("*")))
    assert train(["-opt", file, "--estimate"]) == 0
    assert sorted(map(str, pairs.rglob("*"))) == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run: 1000 iterations of 2 patches, on the CPU"
    patterns = [
        r"memory: \S+ [MG]B computed(, \S+ [MG]B measured at the peak)?; \S+ [MG]B are free",
        r"memory of a GPU: \S+ [MG]B computed from the tensors of a step, not measured",
        r"iteration: \S+ s, ± \S+ s from step to step \(15 steps after \d\), of which \S+ s waiting for images",
        r"to the end: .+, with 500 validations of about .+",
        r"disk: \S+ [MG]B at the end: 500 checkpoints of \S+ MB, and 1 file of weights of \S+ MB",
    ]
    for line, pattern in zip(lines[1:], patterns, strict=False):
        assert re.fullmatch(pattern, line), line
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")][2:]
    assert rows == [
        "the option file",
        "datasets.train.batch_size_per_gpu: 4",
        "train.precision: bf16",
        "network_g.use_checkpoint: true",
    ]
    assert "to the end" in lines[4] and lines[-1].endswith("docs/train.md#cost-before-the-start")


def test_validation_images_that_training_would_leave_out_do_not_end_the_estimate(pairs):
    """One that is not an image, and one whose ground truth has another size."""
    shutil.copytree("gt", "gt_val")
    shutil.copytree("lr", "lr_val")
    shutil.copy("gt/colour.png", "gt_val/odd.png")
    Path("lr_val/gray.png").write_bytes(b"broken")
    options = train_options()
    options["datasets"]["val"] |= {"dataroot_gt": "gt_val", "dataroot_lq": "lr_val"}
    opt, _ = read_options(Path.cwd(), True, write_options(Path("train.yml"), options))
    (loader,) = evaluation_loaders(opt, "val")
    assert estimates._validation_time(make_model(opt), loader.dataset) > 0


def test_missing_images_and_weights_have_stand_ins_that_are_told(workplace, quick, capsys):
    options = train_options()
    options["path"]["pretrain_network_g"] = "gone.pth"
    options["logger"]["save_best"] = "psnr"
    assert train(["-opt", write_options(Path("train.yml"), options)]) == 2
    assert "no such folder: gt" in capsys.readouterr().err
    assert train(["-opt", "train.yml", "--estimate"]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "note: path.pretrain_network_g gone.pth is not here: random weights in its place",
        "note: datasets.train: gt is not here: 8 random images of 480x480 in its place",
        "note: datasets.val: gt is not here: left out",
    ]
    assert [path.name for path in workplace.iterdir()] == ["train.yml"]


def test_what_does_not_fit_is_not_tried(pairs, quick, monkeypatch, capsys):
    monkeypatch.setattr(estimates, "free_memory", lambda device: 1e6)
    monkeypatch.setattr(estimates, "_probe", lambda *_: pytest.fail("tried"))
    assert train(["-opt", write_options(Path("train.yml"), train_options()), "--estimate"]) == 1
    words = capsys.readouterr().out
    assert "time: not measured, as the memory does not suffice" in words
    assert re.search(r"\| the option file \| \S+ [MG]B: not enough free \| – \|", words)


def test_mistakes_are_those_of_a_training_run(pairs, capsys):
    options = train_options()
    options["train"]["optim_g"]["type"] = "Adamant"
    assert train(["-opt", write_options(Path("train.yml"), options), "--estimate"]) == 2
    assert "error: train.yml: train.optim_g.type 'Adamant' is unknown" in capsys.readouterr().err
    assert train(["-opt", "nowhere.yml", "--estimate"]) == 2
    assert "cannot read option file nowhere.yml" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- small parts


@pytest.mark.parametrize(
    ("start", "total", "every", "times"), [(0, 10, 5, 2), (0, 11, 5, 3), (5, 11, 5, 2), (10, 10, 5, 0), (11, 11, 5, 0)]
)
def test_checkpoints_are_counted(start, total, every, times):
    assert _times(start, total, every) == times


def test_variants_change_one_option_each_and_only_those_that_a_network_has():
    options = train_options() | {"num_gpu": 0}
    options["train"]["precision"] = "bf16"
    options["network_g"]["use_checkpoint"] = True
    found = dict(_variants(options, TrainingOptions.model_validate(options)))
    assert list(found) == [
        "datasets.train.batch_size_per_gpu: 4",
        "train.precision: fp32",
        "network_g.use_checkpoint: false",
    ]
    assert found["train.precision: fp32"]["train"] == options["train"] | {"precision": "fp32"}
    assert options["train"]["precision"] == "bf16"
    options["network_g"] = {"type": "SwinIR", "upscale": 2}
    assert len(dict(_variants(options, TrainingOptions.model_validate(options)))) == 2


def test_the_words_of_a_long_run():
    cost = Cost("", 32, StepMemory(GB, 2 * GB, 30 * GB, GB), [2.0, 3.0], [0.5, 0.5])
    found = Estimate(
        name="long",
        device=torch.device("cuda"),
        processes=8,
        iterations=200_000,
        notes=[],
        costs=[cost],
        base=GB,
        peak=None,
        free=80 * GB,
        validations=40,
        validation_seconds=60,
        checkpoint=(GB, 2 * GB),
        checkpoints=5,
        extra_weights=2,
    )
    lines = estimate_text(found).splitlines()
    assert lines[0] == "long: 200000 iterations of 32 patches, on the GPU in each of 8 processes"
    assert lines[1] == "memory: 36.90 GB computed; 80.00 GB are free"
    assert lines[2].startswith("iteration: 2.5 s, ± 0.5 s from step to step (2 steps after ")
    assert lines[3] == "to the end: 5 d 19 h, with 40 validations of about 60 s"
    assert lines[4] == "disk: 17.00 GB at the end: 5 checkpoints of 3.00 GB, and 2 files of weights of 1.00 GB"
    assert lines[-3] == "| the option file | 36.90 GB | 2 | 16 | 4 d 15 h |"
    assert size_text(float("inf")) == "any amount"
    assert duration(47 * 3600) == "47 h 0 min"


def test_two_processes_estimate_together(pairs):
    fewer = "e.WARM_UP, e.VARIANT_WARM_UP, e.VARIANT_STEPS = 0, 0, 1"
    code = f"import drct.cli, drct.runs.estimate as e; {fewer}; drct.cli.entry_point('train')"
    Path("estimate.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "estimate.py"]
    command += ["-opt", write_options(Path("train.yml"), train_options()), "--estimate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run: 4 iterations of 4 patches, on the CPU in each of 2 processes\n")
    assert not Path("experiments").exists()


@pytest.mark.slow
def test_three_recipes_are_estimated_right(workplace):
    """On an otherwise idle machine."""
    from estimate_benchmark import main

    assert main([]) == 0
