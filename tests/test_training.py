"""Training that goes on exactly where it stopped, in one process or several, whatever ends it."""

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
from conftest import ROOT, photo, train_options, write_options

from drct.data.prepare import reduce_image

TRAIN = str(ROOT / "drct" / "train.py")
LAUNCH = [sys.executable, "-m", "torch.distributed.launch", "--master_port=29611"]


@pytest.fixture
def images(workplace: Path) -> Path:
    """Six pairs, so that epochs do not fit batches."""
    for i in range(6):
        gt = photo(48 + 2 * (i % 3), 56 - 2 * (i % 2), i)
        for folder, image in (("gt", gt), ("lr", reduce_image(gt, 2))):
            Path(folder).mkdir(exist_ok=True)
            cv2.imwrite(f"{folder}/{i}.png", image)
    return workplace


def options(workers=0, **train):
    """A run of 30 iterations with everything random that a run can have, and a checkpoint at every third."""
    opt = train_options(total_iter=30, scheduler={"type": "CosineAnnealingLR", "T_max": 30}, warmup_iter=5, **train)
    opt["network_g"] |= {"drop_path_rate": 0.3, "drop_rate": 0.1}
    opt["datasets"]["train"] |= {"num_worker_per_gpu": workers, "dataset_enlarge_ratio": 2}
    opt["val"]["val_freq"] = 4
    opt["logger"] |= {"save_checkpoint_freq": 3, "save_best": "psnr"}
    return opt


def command(opt, *arguments, processes=1):
    launch = [*LAUNCH, f"--nproc_per_node={processes}"] if processes > 1 else [sys.executable]
    launcher = ["--launcher", "pytorch"] if processes > 1 else []
    return [*launch, TRAIN, "-opt", write_options(Path(f"{opt['name']}.yml"), opt), *launcher, *arguments]


def start(*arguments, **keywords):
    """Start training in a process group of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open("output.txt", "a") as output:
        return subprocess.Popen(
            command(*arguments, **keywords), env=environment, stdout=output, stderr=output, start_new_session=True
        )


def train(*arguments, **keywords):
    """Train to the end; the exit status and what was printed."""
    process = start(*arguments, **keywords)
    try:
        return process.wait(timeout=300), Path("output.txt").read_text()
    finally:
        kill_group(process)


def kill_group(process):
    """SIGKILL a process and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def scalars(name):
    """What a run recorded, but for times."""
    with open(f"experiments/{name}/scalars.csv", newline="") as file:
        rows = list(csv.reader(file))
    return [row for row in rows if "time" not in row[1] and "per_s" not in row[1]]


def assert_same_run(name, other):
    """Weights, EMA, best weights, optimizer, metrics and losses of two runs are equal to the last bit."""
    for file in ("models/net_g_latest.pth", "models/net_g_30.pth", "models/net_g_best.pth", "training_states/30.state"):
        a, b = (torch.load(f"experiments/{run}/{file}", weights_only=True) for run in (name, other))
        assert_equal(a, b, file)
    assert scalars(name) == scalars(other)
    for path in Path(f"experiments/{name}/metrics").glob("*.json"):
        assert json.loads(path.read_text()) == json.loads(Path(f"experiments/{other}/metrics", path.name).read_text())


def assert_equal(a, b, where):
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where} {key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where} {i}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def last_iteration(name):
    """The last iteration that a run has recorded."""
    path = Path(f"experiments/{name}/scalars.csv")
    lines = path.read_text().splitlines() if path.exists() else []
    return int(lines[-1].split(",")[0]) if len(lines) > 1 else 0


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2)])
def test_a_run_that_is_killed_again_and_again_ends_bit_identical(images, processes, workers):
    """20 kills in all: five each, at random moments, with loader workers or without, of one process or two."""
    assert train(options(workers, precision="fp32") | {"name": "whole"}, processes=processes)[0] == 0
    rng = random.Random(10 * processes + workers)
    for kill in range(5):
        process = start(options(workers) | {"name": "killed"}, "--auto_resume", processes=processes)
        goal = last_iteration("killed") + rng.randint(1, 7)
        deadline = time.monotonic() + 120
        while last_iteration("killed") < min(goal, 29) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.08))  # in a step, in validation, while saving
        assert process.poll() is None, f"kill {kill} came too late"
        kill_group(process)
    status, output = train(options(workers) | {"name": "killed"}, "--auto_resume", processes=processes)
    assert status == 0, output
    assert_same_run("whole", "killed")
