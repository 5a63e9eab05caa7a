"""Training that goes on exactly where it stopped, in one process or several, whatever ends it."""

import copy
import csv
import errno
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import cv2
import pytest
import torch
import torchvision
from conftest import (
    HAT_TINY,
    ROOT,
    TINY,
    OriginalDRCT,
    network_options,
    pair,
    photo,
    rescale_,
    test_options,
    train_options,
    write_options,
)
from forked import Forked, free_port

from drct.archs.hat_arch import HAT
from drct.commands import test as test_run
from drct.commands import train as train_run
from drct.commands.prepare import main as prepare
from drct.data.prepare import reduce_image
from drct.errors import DRCTError
from drct.inference.runner import NetworkRunner
from drct.models import drct_model
from drct.models.drct_model import DRCTModel
from drct.runs.scalars import Scalars, read_scalars
from drct.runtime import checkpoint
from drct.runtime.yaml_file import load_yaml

TRAIN = str(ROOT / "drct" / "train.py")
RANDOM = {"drop_path_rate": 0.3, "drop_rate": 0.1}


@pytest.fixture
def images(workplace: Path) -> Path:
    """Six pairs, so that epochs do not fit batches."""
    for i in range(6):
        gt = photo(48 + 2 * (i % 3), 56 - 2 * (i % 2), i)
        for folder, image in (("gt", gt), ("lr", reduce_image(gt, 2))):
            Path(folder).mkdir(exist_ok=True)
            cv2.imwrite(f"{folder}/{i}.png", image)
    return workplace


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def train_whole(images, shelf):
    """Trains `options()` undisturbed to `experiments/whole`: in earnest the first time, then by a copy of that."""

    def train_or_copy(processes=1):
        kept = shelf / str(processes)
        if kept.exists():
            shutil.copytree(kept, "experiments/whole")
            return
        opt = options() | {"name": "whole"}
        assert (run_here(opt) if processes == 1 else train(opt, processes=processes)[0]) == 0
        shutil.copytree("experiments/whole", kept)

    return train_or_copy


def options(workers=0, **train):
    """A run of 30 iterations with everything random that a run can have, and a checkpoint at every third."""
    schedule = {"scheduler": {"type": "CosineAnnealingLR", "T_max": 30}, "warmup_iter": 5}
    opt = train_options(**{"total_iter": 30, **schedule, **train})
    opt["network_g"] |= RANDOM
    opt["datasets"]["train"] |= {"num_worker_per_gpu": workers, "dataset_enlarge_ratio": 2}
    opt["val"]["val_freq"] = 4
    opt["logger"] |= {"save_checkpoint_freq": 3, "save_best": "psnr"}
    return opt


def launcher_of(processes):
    options_of_launcher = [f"--nproc_per_node={processes}", f"--master_port={free_port()}"]
    return [sys.executable, "-m", "torch.distributed.launch", *options_of_launcher]


def command(opt, *arguments, processes=1):
    launch = launcher_of(processes) if processes > 1 else [sys.executable]
    launcher = ["--launcher", "pytorch"] if processes > 1 else []
    return [*launch, TRAIN, "-opt", write_options(Path(f"{opt['name']}.yml"), opt), *launcher, *arguments]


def train_as_users_do(*arguments, **keywords):
    """Train to the end by the command of the README; the exit status and what was printed."""
    line, environment = command(*arguments, **keywords), os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def start(opt, *arguments, processes=1, script=TRAIN):
    """Start training in processes of its own, without their imports."""
    launcher = ["--launcher", "pytorch"] if processes > 1 else []
    file = write_options(Path(f"{opt['name']}.yml"), opt)
    return Forked(script, "-opt", file, *launcher, *arguments, processes=processes)


def train(*arguments, **keywords):
    """Train to the end; the exit status and what was printed."""
    process = start(*arguments, **keywords)
    return process.wait(), process.output.read_text()


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


@pytest.mark.parametrize(
    ("network", "processes", "workers", "kills"),
    [
        *[("DRCT", 1, 0, 5), ("DRCT", 1, 2, 5), ("DRCT", 2, 0, 5), ("DRCT", 2, 2, 5), ("HAT", 1, 0, 2)],
        pytest.param("HAT", 2, 2, 5, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_again_and_again_ends_bit_identical(images, network, processes, workers, kills):
    """Kills at random moments, with loader workers or without, of one process or two."""
    opt = options(workers)
    if network == "HAT":
        opt |= {"model_type": "HATModel", "network_g": network_options(HAT_TINY | RANDOM, 2, "HAT")}
    whole = opt | {"name": "whole", "train": opt["train"] | {"precision": "fp32"}}
    assert train_as_users_do(whole, processes=processes)[0] == 0
    rng = random.Random(10 * processes + workers)
    for kill in range(kills):
        process = start(opt | {"name": "killed"}, "--auto_resume", processes=processes)
        goal = min(last_iteration("killed") + rng.randint(1, 6), 27)
        deadline = time.monotonic() + 120
        while last_iteration("killed") < goal:
            assert process.poll() is None and time.monotonic() < deadline, f"kill {kill} of {processes}, {workers}"
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))  # in a step, in validation, while saving
        process.kill()
    status, output = train(opt | {"name": "killed"}, "--auto_resume", processes=processes)
    assert status == 0, output
    assert_same_run("whole", "killed")
    assert not list(Path("experiments").rglob(".*.tmp"))


KILLED_WRITING = """
import os, signal, sys
sys.path.insert(0, {root!r})
if __name__ == "__main__":
    import drct.files
    from drct.cli import entry_point
    replace = os.replace
    def killed(source, target):
        if os.path.basename(target) == {file!r}:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    drct.files.os.replace = killed
    entry_point("train")
"""


@pytest.mark.parametrize("file", ["net_g_6.pth", "6.state"])
def test_a_run_that_is_killed_while_it_writes_ends_bit_identical(images, train_whole, file):
    Path("killed.py").write_text(KILLED_WRITING.format(root=str(ROOT), file=file))
    opt = write_options(Path("run.yml"), options())
    killed = Forked("killed.py", "-opt", opt, OMP_NUM_THREADS=str(torch.get_num_threads()))
    assert killed.wait() == -signal.SIGKILL
    assert list(Path("experiments").rglob(f".{file}.*.tmp"))
    assert run_here(options(), "--auto_resume") == 0
    train_whole()
    assert_same_run("run", "whole")
    assert not list(Path("experiments").rglob(".*.tmp"))


def test_the_number_of_processes_may_change_on_resuming(images):
    """15 iterations by two processes with batches of 2, the rest by one with batches of 4: the same images."""
    opt = options()
    opt["network_g"] |= {"drop_path_rate": 0.0, "drop_rate": 0.0}  # their draws are of a process
    opt["train"]["total_iter"] = 15
    assert train(opt | {"name": "changed"}, processes=2)[0] == 0
    opt["train"]["total_iter"] = 30
    opt["datasets"]["train"]["batch_size_per_gpu"] = 4
    assert train(opt | {"name": "changed"}, "--auto_resume")[0] == 0
    assert train(opt | {"name": "alone"})[0] == 0
    changed, alone = (read_scalars(f"experiments/{name}")["losses/l_pix"] for name in ("changed", "alone"))
    assert list(changed[0]) == list(alone[0]) == list(range(1, 31))
    assert list(changed[1]) == pytest.approx(list(alone[1]), rel=1e-3)
    assert max(alone[1]) > 1.05 * min(alone[1])  # other images would show


def test_a_run_stopped_while_it_validates_validates_again(images, train_whole, capfd):
    train_whole()
    original = DRCTModel.test
    seen = []

    def interrupted(self):
        seen.append(1)
        if len(seen) == 8:  # the second image of the second validation
            signal.raise_signal(signal.SIGTERM)
        original(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRCTModel, "test", interrupted)
        assert run_here(options()) == 143
    assert "Stopped at iteration 8, which is saved" in capfd.readouterr().err
    assert torch.load("experiments/run/training_states/8.state", weights_only=True)["validated"] == 4
    assert run_here(options(), "--auto_resume") == 0
    assert_same_run("run", "whole")


def test_states_of_basicsr_are_resumed(images, train_whole):
    """They hold neither samples nor seed, nor what else is ours."""
    opt = options()
    opt["train"]["total_iter"] = 6
    assert run_here(opt) == 0
    path = Path("experiments/run/training_states/6.state")
    state = torch.load(path, weights_only=True)
    theirs = {key: state[key] for key in ("epoch", "iter", "optimizers", "schedulers")}
    torch.save(theirs, path)
    opt["train"]["total_iter"] = 30
    assert run_here(opt, "--auto_resume") == 0
    train_whole()
    a, b = (torch.load(f"experiments/{run}/models/net_g_30.pth", weights_only=True) for run in ("run", "whole"))
    assert_equal(a, b, "weights")


def test_going_back_to_an_earlier_state_sets_the_later_ones_aside(images, capfd):
    opt = options()
    opt["train"]["total_iter"] = 12
    assert run_here(opt | {"name": "whole"}) == 0
    assert run_here(opt) == 0
    opt["path"]["resume_state"] = "experiments/run/training_states/6.state"
    opt["logger"]["keep_last"] = 2
    assert run_here(opt) == 0
    assert "Moved the checkpoints of later iterations to" in capfd.readouterr().err
    assert {path.name for path in Path("experiments/run/training_states").iterdir()} == {"9.state", "12.state"}
    aside = {path.name for path in Path("experiments/run").glob("set_aside_*/*")}
    assert aside == {"9.state", "12.state", "net_g_9.pth", "net_g_12.pth"}
    a, b = (torch.load(f"experiments/{run}/models/net_g_12.pth", weights_only=True) for run in ("run", "whole"))
    assert_equal(a, b, "weights")


def test_a_schedule_that_the_state_overrules_is_told(images, capfd):
    schedule = {"type": "OneCycleLR", "max_lr": 1e-3, "total_steps": 6}
    opt = options(scheduler=schedule)
    opt["train"] |= {"total_iter": 6, "warmup_iter": -1}
    assert run_here(opt) == 0
    opt["train"] |= {"total_iter": 8, "scheduler": schedule | {"total_steps": 8}}
    assert run_here(opt, "--auto_resume") == 2
    error = capfd.readouterr().err
    kept = "train.scheduler.total_steps is 8 in the option file but 6 in the training state, which stays"
    assert f"{kept}: train.on_resume: apply takes the option file's" in error
    assert "train.total_iter is 8 from now on; the training state has 6" in error
    assert (
        "the schedule of the training state cannot go on: train.scheduler (OneCycleLR): Tried to step 7 times" in error
    )
    assert "Traceback" not in error


# ------------------------------------------------------------------------------------------------------------- faults


@pytest.fixture
def stopped_run(images, shelf, capfd):
    """Options of a run that has checkpoints at 3 and 6, as if killed at iteration 7. Its output is captured."""
    opt, kept = options(), shelf / "stopped"
    if kept.exists():
        shutil.copytree(kept, "experiments/run")
        return opt
    opt["train"]["total_iter"] = 7
    assert run_here(opt) == 0
    Path("experiments/run/models/net_g_7.pth").unlink()
    Path("experiments/run/training_states/7.state").unlink()
    shutil.copytree("experiments/run", kept)
    return options()


def run_here(opt, *arguments):
    """Train in this process."""
    return train_run.main(["-opt", write_options(Path(f"{opt['name']}.yml"), opt), *arguments])


def spoil(path, how):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:  # one bit of a tensor
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


@pytest.mark.parametrize("file", ["training_states/6.state", "models/net_g_6.pth"])
@pytest.mark.parametrize("how", ["truncated", "empty", "one bit"])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(images, stopped_run, capfd, file, how):
    opt = stopped_run
    spoil(Path("experiments/run", file), how)
    opt["train"]["total_iter"] = 8
    assert run_here(opt, "--auto_resume") == 0
    output = capfd.readouterr().err
    reason = "is not a weight file: it is empty" if (how, file[-5:]) == ("empty", "state") else "is damaged"
    assert f"not resuming from iteration 6: experiments/run/{file} {reason}" in output.replace(f"{images}/", "")
    assert "Resuming from iteration 3" in output


def test_if_no_checkpoint_is_whole_nothing_is_overwritten(images, stopped_run, capfd):
    opt = stopped_run
    for path in Path("experiments/run/training_states").iterdir():
        spoil(path, "truncated")
    assert run_here(opt, "--auto_resume") == 2
    assert "none of the 2 training states in" in capfd.readouterr().err
    assert len(list(Path("experiments").iterdir())) == 1


def test_a_missing_weight_file_is_not_resumed_from(images, stopped_run, capfd):
    opt = stopped_run
    Path("experiments/run/models/net_g_6.pth").unlink()
    opt["train"]["total_iter"] = 8
    assert run_here(opt, "--auto_resume") == 0
    assert "Resuming from iteration 3" in capfd.readouterr().err


@pytest.mark.parametrize("file", ["net_g_6.pth", "6.state", "net_g_best.pth"])
def test_a_full_disk_ends_the_run_and_leaves_the_checkpoints_before(images, train_whole, capfd, file):
    """The device runs out of space as the file is written out."""
    real = checkpoint.write_atomically

    def full(path, write):
        def write_and_fail(opened):
            write(opened)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        later = Path("experiments/run/training_states/3.state").exists()
        real(path, write_and_fail if Path(path).name == file and later else write)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full)
        assert run_here(options()) == 2
    error = capfd.readouterr().err
    assert re.search(rf"error: cannot write \S*{file}: No space left on device", error)
    assert "Traceback" not in error
    assert Path("experiments/run/training_states/3.state").exists()
    assert not [path for path in Path("experiments/run").rglob("*") if path.suffix == ".tmp"]
    assert run_here(options(), "--auto_resume") == 0
    train_whole()
    assert_same_run("run", "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
def test_a_disk_that_is_full_in_the_middle_of_a_file_is_told(workplace):
    """PyTorch raises an error of its own over the system's."""
    import resource

    checkpoint.save("file.pth", torch.zeros(10))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        with pytest.raises(DRCTError, match="cannot write file.pth: File too large"):
            checkpoint.save("file.pth", [torch.zeros(50_000) for _ in range(20)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.equal(torch.load("file.pth", weights_only=True), torch.zeros(10))
    assert [path.name for path in Path().iterdir()] == ["file.pth"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no device that is always full")
def test_a_full_disk_is_an_error_for_the_scalars_too(workplace):
    scalars_of_run = Scalars(Path("scalars.csv"), 0)
    scalars_of_run.path = Path("/dev/full")
    with pytest.raises(DRCTError, match="cannot write /dev/full: No space left on device"):
        scalars_of_run.add_scalar("losses/l_pix", 0.5, 1)


def test_scalars_that_a_killed_run_left_behind_are_cut_to_the_checkpoint(workplace):
    path = Path("scalars.csv")
    path.write_text(
        "iteration,tag,value\n3,losses/l_pix,0.5\n4,losses/l_pix,0.4\n4,metrics/set/psnr,20.0\n5,losses/l_p"
    )
    Scalars(path, 4).add_scalar("losses/l_pix", 0.3, 5)
    whole = "iteration,tag,value\n3,losses/l_pix,0.5\n4,losses/l_pix,0.4\n"
    assert path.read_text() == whole + "4,metrics/set/psnr,20.0\n5,losses/l_pix,0.3\n"
    Scalars(path, 4, metrics_again=True)
    assert path.read_text() == whole


def test_a_folder_that_cannot_be_written_is_named(images, capfd):
    Path("experiments").write_text("not a folder")
    assert run_here(options()) == 2
    error = capfd.readouterr().err
    assert re.search(r"error: cannot write \S*experiments/run\S*: Not a directory", error)
    assert "Traceback" not in error


def poison(patch, iterations, value, key="gt"):
    """Put a number into the batches of some iterations."""
    original = DRCTModel.optimize_parameters

    def poisoned(model, iteration):
        if iteration in iterations:
            getattr(model, key)[0, 0, 0, 0] = value
        original(model, iteration)

    patch.setattr(DRCTModel, "optimize_parameters", poisoned)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("key", "value"), [("gt", math.nan), ("gt", math.inf), ("lq", math.nan)])
def test_a_step_that_is_not_finite_changes_nothing(images, capfd, monkeypatch, precision, key, value):
    poison(monkeypatch, {3}, value, key)
    poisoned, weights = DRCTModel.optimize_parameters, {}

    def recorded(model, iteration):
        poisoned(model, iteration)
        both = (model.net_g.state_dict(), model.net_g_ema.state_dict(), model.optimizer_g.state_dict()["state"])
        weights[iteration] = copy.deepcopy(both)

    monkeypatch.setattr(DRCTModel, "optimize_parameters", recorded)
    opt = options(precision=precision)
    opt["train"]["total_iter"] = 4
    opt["logger"]["save_checkpoint_freq"] = 1
    assert run_here(opt) == 0
    assert_equal(weights[2], weights[3], "weights, EMA and moments")
    assert not torch.equal(weights[3][0]["conv_first.weight"], weights[4][0]["conv_first.weight"])
    assert "iteration 3 changes nothing: loss (" in capfd.readouterr().err
    states = {path.stem for path in Path("experiments/run/training_states").iterdir()}
    assert states == {"1", "2", "4"}  # what gives no finite loss may be ruined, and is not saved


def test_many_steps_that_are_not_finite_stop_the_run(images, capfd):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drct_model, "SKIPPED_AT_MOST", 3)
        poison(patch, {5, 7, 8, 9}, math.nan)
        assert run_here(options()) == 2
    assert not Path("experiments/run/training_states/9.state").exists()  # not from within the streak
    error = capfd.readouterr().err
    assert "error: training stopped at iteration 9: loss or gradient was not finite in 3 steps in a row" in error
    assert "Traceback" not in error
    assert run_here(options(), "--auto_resume") == 0  # the checkpoint of iteration 6 is whole
    assert "Resuming from iteration 6" in capfd.readouterr().err


def test_a_failing_validation_leaves_the_network_in_training(images, monkeypatch):
    monkeypatch.setattr(NetworkRunner, "run", lambda *_: 1 / 0)
    opt = options(ema_decay=0)
    opt["val"]["val_freq"], opt["train"]["total_iter"] = 1, 1
    modes = []
    original = DRCTModel.validation
    monkeypatch.setattr(DRCTModel, "validation", lambda self, *a, **k: (original(self, *a, **k), modes.append(self))[0])
    assert run_here(opt) == 0
    assert modes[0].net_g.training


# ---------------------------------------------------------------------------------------- faults of several processes

FAULTY = """
import os, signal, sys
sys.path.insert(0, {root!r})
if __name__ == "__main__":
    import drct, basicsr
    from drct.cli import entry_point
    from drct.errors import DRCTError
    from drct.models.drct_model import DRCTModel
    original = DRCTModel.optimize_parameters
    first_start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    def step(self, iteration):
        if iteration == 5 and os.environ["RANK"] == {rank!r} and first_start:
            {fault}
        original(self, iteration)
    DRCTModel.optimize_parameters = step
    entry_point("train")
"""


def write_faulty(fault, rank="1"):
    Path("faulty.py").write_text(FAULTY.format(root=str(ROOT), fault=fault, rank=rank))


def train_with_fault(fault, *arguments, rank="1", launch=(), **more):
    """Two processes, one of which does something at iteration 5. Exit status and output."""
    write_faulty(fault, rank)
    opt = write_options(Path("run.yml"), options() | more)
    launch = launch or launcher_of(2)
    done = subprocess.run(
        [*launch, "faulty.py", "-opt", opt, "--launcher", "pytorch", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_mistake_that_one_process_meets_ends_all_and_is_told_once(images, rank):
    status, output = train_with_fault('raise DRCTError("no such luck")', rank=rank)
    assert status != 0
    assert output.count("error: no such luck") == 1
    assert ("(process 1, on " in output) == (rank == "1")


def test_an_unforeseen_failure_of_one_process_is_told_once_with_its_place(images):
    status, output = train_with_fault('raise ValueError("unforeseen")')
    assert status != 0
    assert output.count("ValueError: unforeseen") == 1
    assert output.count('faulty.py", line') == 1


def test_a_process_that_dies_ends_the_others(images):
    status, output = train_with_fault("os.kill(os.getpid(), signal.SIGKILL)")
    assert status != 0
    assert output.count("error: another process ended without a message or cannot be reached") == 1, output


def test_a_mistake_in_the_option_file_is_told_once(images):
    process = start(options() | {"scale": "two"}, processes=2)
    assert process.wait() == 2
    assert process.output.read_text().count("scale must be a whole number") == 1


def test_torchrun_restarts_a_group_that_resumes_by_itself(images, train_whole):
    """Without --auto_resume on the command line."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    status, output = train_with_fault(
        "os.kill(os.getpid(), signal.SIGKILL)", launch=[*launch, "--max_restarts=1"], name="restarted"
    )
    assert status == 0, output
    # The state at 3 was written before; that at 4 is written if the other process was between two steps when it noticed
    resumed = re.findall(r"Resuming from iteration (\d+)", output)
    assert resumed in (["3"], ["4"]), output
    train_whole(processes=2)
    assert_same_run("restarted", "whole")


def test_a_nan_in_the_batch_of_one_process_skips_the_step_of_all(images):
    write_faulty("self.gt.fill_(float('nan'))")
    process = start(options(), processes=2, script="faulty.py")
    assert process.wait() == 0
    assert process.output.read_text().count("iteration 5 changes nothing") == 1


@pytest.mark.parametrize("target", ["one process", "terminal"])
def test_a_signal_to_one_process_or_to_all_saves_and_stops_all(images, train_whole, target):
    """Ctrl-C reaches the launcher and all processes, and the launcher passes it on; SIGTERM may reach one."""
    fault = {
        "one process": "os.kill(os.getpid(), signal.SIGTERM)",
        "terminal": "os.killpg(os.getpgrp(), signal.SIGINT)",
    }[target]
    wrapper = [sys.executable, "-c", "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"]
    status, output = train_with_fault(fault, launch=[*wrapper, *launcher_of(2)])
    assert status != 0
    assert output.count("Stopped at iteration 5, which is saved") == 1, output
    assert "TypeError" not in output
    assert train(options(), "--auto_resume", processes=2)[0] == 0
    train_whole(processes=2)
    assert_same_run("run", "whole")


def test_a_second_ctrl_c_ends_at_once(images):
    write_faulty("print('waiting', flush=True); __import__('time').sleep(60); __import__('time').sleep(60)", rank="0")
    opt = write_options(Path("run.yml"), options())
    process = Forked("faulty.py", "-opt", opt, RANK="0", WORLD_SIZE="1")
    for words in ("waiting", "Ctrl-C again ends at once"):
        deadline = time.monotonic() + 50
        while words not in process.output.read_text():
            assert process.poll() is None and time.monotonic() < deadline, "ended too early"
            time.sleep(0.01)
        os.kill(process.processes[0].pid, signal.SIGINT)
    assert process.wait(timeout=10) == 130


def test_slurm_starts_the_same_run(images, train_whole):
    """With srun's environment, and the tool that tells the names of its machines."""
    scontrol = Path("bin/scontrol")
    scontrol.parent.mkdir()
    scontrol.write_text("#!/bin/sh\n[ \"$3\" = 'node[1-2]' ] && printf 'localhost\\nnode2\\n'\n")
    scontrol.chmod(0o755)
    environment = os.environ | {"PATH": f"{scontrol.parent.resolve()}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment |= {"SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_LOCALID": "0"}
    opt = options() | {"name": "slurm", "dist_params": {"backend": "gloo", "port": free_port()}}
    line = [sys.executable, TRAIN, "-opt", write_options(Path("slurm.yml"), opt), "--launcher", "slurm"]
    processes = [subprocess.Popen(line, env=environment | {"SLURM_PROCID": str(i)}) for i in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    train_whole(processes=2)
    assert_same_run("slurm", "whole")


# ---------------------------------------------------------------------------------- one result, however it is computed


def steps(iterations=4, datasets=None, network=None, **train):
    """Losses and final weights of a short run in this process."""
    opt = options(**train)
    opt["train"]["total_iter"] = iterations
    opt["datasets"]["train"] |= datasets or {}
    opt["network_g"] |= network or {}
    opt["val"] = None
    del opt["logger"]["save_best"]
    shutil.rmtree("experiments", ignore_errors=True)
    assert run_here(opt) == 0
    losses = [float(row[2]) for row in scalars("run")[1:] if row[1] == "losses/l_pix"]
    assert len(losses) == iterations
    return losses, torch.load(f"experiments/run/models/net_g_{iterations}.pth", weights_only=True)["params"]


@pytest.mark.parametrize(
    "change",
    [
        {"network": {"use_checkpoint": True}},
        {"datasets": {"cache": True}},
        {"datasets": {"num_worker_per_gpu": 2}},
        {"datasets": {"num_worker_per_gpu": 2, "cache": True}},
        {"datasets": {"dataroot_gt": "gt.lmdb", "dataroot_lq": "lr.lmdb", "io_backend": {"type": "lmdb"}}},
    ],
    ids=["activation checkpointing", "cache", "workers", "workers and cache", "lmdb"],
)
def test_losses_and_weights_are_the_same_with_and_without(images, change):
    for folder in ("gt", "lr"):
        assert prepare(["lmdb", folder, "-o", f"{folder}.lmdb"]) == 0
    plain, weights = steps()
    same, same_weights = steps(**change)
    assert same == plain
    assert_equal(weights, same_weights, "weights")


def test_two_parts_of_a_batch_are_a_batch(images):
    quiet = {"drop_path_rate": 0.0, "drop_rate": 0.0}
    whole, _ = steps(network=quiet, datasets={"batch_size_per_gpu": 4})
    parts, _ = steps(network=quiet, datasets={"batch_size_per_gpu": 2}, accumulation=2)
    assert parts == pytest.approx(whole, rel=1e-5)
    assert parts != steps(network=quiet, datasets={"batch_size_per_gpu": 2})[0]


GRADIENTS = """
import sys
sys.path.insert(0, {root!r})
if __name__ == "__main__":
    import drct, basicsr, torch
    from drct.runtime import distributed
    from drct.cli import entry_point
    from drct.models.drct_model import DRCTModel
    original = DRCTModel.optimize_parameters
    def step(self, iteration):
        original(self, iteration)
        if distributed.rank() == 0:
            named = self.get_bare_model(self.net_g).named_parameters()
            torch.save({{name: p.grad for name, p in named}}, self.opt["name"] + ".gradients")
    DRCTModel.optimize_parameters = step
    entry_point("train")
"""


def gradients(name, processes, batch, accumulation=1):
    Path("gradients.py").write_text(GRADIENTS.format(root=str(ROOT)))
    original, _ = pair(2, **TINY)
    torch.save({"params": original.state_dict(), "params_ema": original.state_dict()}, "start.pth")
    opt = options(accumulation=accumulation) | {"name": name, "val": None}
    opt["train"] |= {"total_iter": 1, "optim_g": {"type": "SGD", "lr": 1e-3}}
    opt["network_g"] |= {"drop_path_rate": 0.0, "drop_rate": 0.0}
    opt["datasets"]["train"]["batch_size_per_gpu"] = batch
    opt["path"]["pretrain_network_g"] = "start.pth"
    del opt["logger"]["save_best"]
    process = start(opt, processes=processes, script="gradients.py")
    assert process.wait() == 0, process.output.read_text()
    return torch.load(f"{name}.gradients", weights_only=True)


def test_gradients_do_not_depend_on_how_a_batch_is_shared(images):
    """4 images in one process, in two processes, and in two parts of two processes; weights that show any error."""
    one = gradients("one", 1, 4)
    norm = torch.stack([g.norm() for g in one.values()]).norm()
    assert norm > 1e-3
    for name, shared in (("two", gradients("two", 2, 2)), ("parts", gradients("parts", 2, 1, accumulation=2))):
        errors = {key: (shared[key] - gradient).norm() for key, gradient in one.items()}
        assert torch.stack(list(errors.values())).norm() <= 1e-6 * norm, name
        assert all(error <= 1e-5 * max(one[key].norm(), 1e-3 * norm) for key, error in errors.items()), name


# ------------------------------------------------------------------------------------------------- every option file


HAT_FILES = ("HAT-S_SRx3_from_scratch", "HAT_SRx4_finetune_from_SRx2", "HAT-L_SRx2_ImageNet_from_scratch")
TRAIN_FILES = [
    path
    for path in sorted((ROOT / "options" / "train").glob("*.yml"))
    if "_HAT" not in path.stem or path.stem.removeprefix("train_") in HAT_FILES
]
SHRUNK = {key: value for key, value in TINY.items() if key != "img_size"} | {"img_size": 16}


def shrink(path):
    """A training option file made small enough to be run at once, and the data it names."""
    opt = load_yaml(path)
    scale = opt["scale"]
    shrunk = HAT_TINY if opt["network_g"]["type"] == "HAT" else SHRUNK
    opt["network_g"] |= network_options(shrunk, scale, opt["network_g"]["type"])
    opt["datasets"]["train"] |= {"gt_size": 8 * scale, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    opt["train"]["total_iter"] = 2
    opt["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 1}
    if "val" in opt:
        opt["val"]["val_freq"] = 2
    if "gt_size" in opt:  # degrades images
        opt |= {"gt_size": 8 * scale, "network_d": {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 8}}
        opt["datasets"]["train"]["crop_pad_size"] = 40 * scale
        opt["train"]["perceptual_opt"] = None  # whose weights are to be downloaded
    if opt["path"]["pretrain_network_g"]:
        starting_scale = 2 if "finetune_from_SRx2" in path.stem else scale
        network = HAT(**shrunk, upscale=starting_scale) if shrunk is HAT_TINY else pair(starting_scale, **SHRUNK)[1]
        Path(opt["path"]["pretrain_network_g"]).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"params_ema": network.state_dict()}, opt["path"]["pretrain_network_g"])
    for dataset in opt["datasets"].values():
        make_data(dataset, scale)
    return opt


def make_data(dataset, scale):
    names = [f"{i}.png" for i in range(3)]
    for i, name in enumerate(names):
        gt = photo(24 * scale, 16 * scale, i)
        for key, image in (("dataroot_gt", gt), ("dataroot_lq", reduce_image(gt, scale))):
            if key in dataset:
                Path(dataset[key]).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(Path(dataset[key], name)), image)
    if dataset.get("meta_info_file"):
        Path(dataset["meta_info_file"]).write_text("".join(f"{name} (1,1,3)\n" for name in names))


@pytest.mark.parametrize("path", TRAIN_FILES, ids=lambda path: path.stem)
def test_every_option_file_trains_validates_saves_and_resumes(workplace, capfd, path):
    opt = shrink(path)
    assert run_here(opt) == 0
    name = opt["name"]
    first = torch.load(f"experiments/{name}/models/net_g_1.pth", weights_only=True)
    second = torch.load(f"experiments/{name}/models/net_g_2.pth", weights_only=True)
    assert {"params", "params_ema", "metadata"} == first.keys()
    assert not torch.equal(first["params"]["conv_first.weight"], second["params"]["conv_first.weight"])
    validated = [dataset["name"] for phase, dataset in opt["datasets"].items() if phase != "train"]
    tags = {row[1] for row in scalars(name)}
    assert {f"metrics/{dataset}/{metric}" for dataset in validated for metric in ("psnr", "ssim")} <= tags
    opt["train"]["total_iter"] = 3
    capfd.readouterr()
    assert run_here(opt, "--auto_resume") == 0
    assert "Resuming from iteration 2" in capfd.readouterr().err
    assert Path(f"experiments/{name}/models/net_g_3.pth").exists()


def test_the_command_of_the_original_trains_in_two_processes(workplace):
    """As the README gives it, with a recipe made small, on the CPU."""
    opt = shrink(ROOT / "options" / "train" / "train_DRCT_SRx2_from_scratch.yml")
    Path("options/train").mkdir(parents=True)
    file = write_options(Path("options/train/train_DRCT_SRx2_from_scratch.yml"), opt)
    line = f"-m torch.distributed.launch --nproc_per_node=2 --master_port={free_port()}"
    done = subprocess.run(
        [sys.executable, *line.split(), TRAIN, "-opt", file, "--launcher", "pytorch"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert {"net_g_1.pth", "net_g_2.pth", "net_g_latest.pth"} == {
        path.name for path in Path("experiments/train_DRCT_SRx2_from_scratch/models").iterdir()
    }
    assert "Trained 2 iterations" in done.stderr
    assert done.stderr.count("iter:       2") == 1  # only one of the processes speaks


# ---------------------------------------------------------------------------------------------------------- validation


def test_two_processes_validate_as_one_tests(images):
    """Metrics of a training run, and those of a test run with the weights it saved."""
    opt = options()
    opt["train"]["total_iter"] = 3
    opt["val"]["val_freq"] = 3
    assert train(opt, processes=2)[0] == 0
    tested = test_options("experiments/run/models/net_g_3.pth", network=SHRUNK)
    tested["network_g"] = opt["network_g"]
    assert test_run.main(["-opt", write_options(Path("test.yml"), tested)]) == 0
    trained = json.loads(Path("experiments/run/metrics/metrics_set_3.json").read_text())
    alone = json.loads(Path("results/run/metrics_set.json").read_text())
    assert (trained["images"], trained["mean"]) == (alone["images"], alone["mean"])


def test_two_processes_measure_what_one_does(images):
    """Images, their metrics, the picture and the report of a test run, to the last digit."""
    original, _ = pair(2, **TINY)
    torch.save({"params_ema": original.state_dict()}, "weights.pth")
    for name, processes in (("one", 1), ("two", 2)):
        opt = write_options(Path("test.yml"), test_options("weights.pth", name=name))
        opt_arguments = ["--force_yml", "val:comparison=true", "val:suffix=x"]
        process = Forked(ROOT / "drct" / "test.py", "-opt", opt, *opt_arguments, processes=processes)
        assert process.wait() == 0, process.output.read_text()
    files = sorted(
        path.relative_to("results/one") for path in Path("results/one").rglob("*.*") if path.suffix != ".log"
    )
    assert len(files) == 6 + 6 + 6 * 6  # images, tables, certificate and the like, and six pictures of each image
    for file in files:
        one, two = (Path("results", name, file).read_bytes() for name in ("one", "two"))
        if file.name == "report.html":
            assert one.count(b"/thumbnail.jpg") == 6
            one, two = (page[page.index(b"<h2>") :] for page in (one, two))  # after the settings
        assert one == two or file.name in ("settings.json", "certificate.json"), file  # which name the run
    assert {path.name for path in Path("results/two").iterdir()} >= {"settings.json", "report.html"}
    assert not list(Path("results/two").glob(".*"))


# --------------------------------------------------------------------------------------------------------- checkpoints


def test_only_the_last_checkpoints_and_the_best_are_kept(images):
    opt = options()
    opt["logger"]["keep_last"] = 2
    opt["train"]["total_iter"] = 12
    assert run_here(opt) == 0
    root = Path("experiments/run")
    assert {path.name for path in root.glob("training_states/*")} == {"9.state", "12.state"}
    assert {path.stem for path in root.glob("models/*")} == {"net_g_9", "net_g_12", "net_g_latest", "net_g_best"}
    state = torch.load(root / "training_states/12.state", weights_only=True)
    best = state["best_metric_results"]["set"]["psnr"]
    measured = {int(row[0]): float(row[2]) for row in scalars("run") if row[1] == "metrics/set/psnr"}
    assert (best["val"], best["iter"]) == max((value, iteration) for iteration, value in measured.items())


def test_files_hold_what_can_be_computed_once(workplace):
    """The original's entries for indices and masks, as large as the weights here, are one tensor each."""
    opt = options() | {"is_train": True, "rank": 0, "auto_resume": False}
    opt["network_g"] |= {"window_size": 16, "img_size": 64}
    opt |= {"path": {"models": "models", "training_states": "training_states"}, "dist": False, "num_gpu": 0}
    original = {key: value for key, value in opt["network_g"].items() if key != "type"}
    model = DRCTModel(opt)
    rescale_(model.net_g_ema, seed=1)  # equal parameters would be one as well
    model.save(0, 1)
    parameters = sum(p.numel() for p in model.net_g.parameters()) * 4
    index, mask = 256 * 256 * 8, 16 * 256 * 256 * 4
    size = Path("models/net_g_1.pth").stat().st_size
    entries = len(model.net_g.state_dict()) * 2
    assert 2 * parameters + index + mask < size < 2 * parameters + index + mask + 400 * entries
    OriginalDRCT(**original).load_state_dict(torch.load("models/net_g_1.pth", weights_only=True)["params_ema"])


def test_a_state_of_another_optimizer_is_explained(images, capfd):
    opt = options()
    opt["train"]["total_iter"] = 3
    assert run_here(opt) == 0
    opt["train"] |= {"total_iter": 6, "optim_g": {"type": "SGD", "lr": 1e-3}}
    opt["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [3]}
    assert run_here(opt, "--auto_resume") == 2
    words = "it is one of Adam, CosineAnnealingLR, not of SGD, MultiStepRestartLR. To start anew"
    assert words in capfd.readouterr().err


# --------------------------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize(
    "scheduler",
    [{"type": "MultiStepLR", "milestones": [3, 6], "gamma": 0.5}, {"type": "CosineAnnealingLR", "T_max": 8}],
    ids=lambda scheduler: scheduler["type"],
)
def test_the_warm_up_is_linear_and_the_schedule_is_as_without_it(images, scheduler):
    opt = options(scheduler=scheduler)
    opt["train"] |= {"total_iter": 8, "warmup_iter": 4}
    opt["val"] = None
    del opt["logger"]["save_best"]
    assert run_here(opt) == 0
    rates = [float(row[2]) for row in scalars("run") if row[1] == "train/lr"]
    opt["train"]["warmup_iter"] = -1
    shutil.rmtree("experiments")
    assert run_here(opt) == 0
    plain = [float(row[2]) for row in scalars("run") if row[1] == "train/lr"]
    assert rates == pytest.approx([rate * min(1, (i + 1) / 4) for i, rate in enumerate(plain)], rel=1e-12)
    assert plain[0] > plain[-1] > 0


@pytest.mark.parametrize(
    "kind", [{"type": "MSELoss"}, {"type": "CharbonnierLoss", "eps": 1e-2}], ids=lambda k: k["type"]
)
def test_losses_of_basicsr(images, kind):
    losses, _ = steps(iterations=2, pixel_opt=kind)
    l1, _ = steps(iterations=2)
    assert all(math.isfinite(loss) for loss in losses)
    assert losses != l1


def test_the_perceptual_loss_is_added_and_both_are_recorded(images, monkeypatch):
    """With untrained features: their weights are downloaded otherwise."""
    real = torchvision.models.vgg19
    monkeypatch.setattr("basicsr.archs.vgg_arch.vgg.vgg19", lambda **_: real(weights=None))
    perceptual = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 1.0}, "criterion": "l1"}
    steps(iterations=2, perceptual_opt=perceptual)
    assert {"losses/l_pix", "losses/l_percep"} <= {row[1] for row in scalars("run")}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_close_to_fp32_and_resumes_exactly(images, precision):
    full, _ = steps()
    low, _ = steps(precision=precision)
    assert low == pytest.approx(full, rel=0.02)
    assert low != full
    opt = options(precision=precision)
    opt["train"]["total_iter"] = 9
    assert run_here(opt | {"name": "whole"}) == 0
    opt["train"]["total_iter"] = 6
    assert run_here(opt | {"name": "parts"}) == 0
    opt["train"]["total_iter"] = 9
    assert run_here(opt | {"name": "parts"}, "--auto_resume") == 0
    a, b = (torch.load(f"experiments/{run}/training_states/9.state", weights_only=True) for run in ("whole", "parts"))
    assert_equal(a, b, "state")
    assert bool(a["scaler"]) == (precision == "fp16")


@pytest.mark.slow
def test_a_compiled_network_computes_the_same(images):
    plain, weights = steps()
    compiled, same = steps(compile=True)
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert weights.keys() == same.keys()


def test_the_gradient_is_clipped_to_the_given_norm(images):
    """SGD moves the weights by the clipped gradient times the rate."""
    sgd = {"optim_g": {"type": "SGD", "lr": 0.5}, "scheduler": {"type": "MultiStepLR", "milestones": [9]}}
    opt = options(**sgd, grad_clip=0.01)
    opt["train"] |= {"total_iter": 2, "warmup_iter": -1}
    opt["logger"]["save_checkpoint_freq"] = 1
    assert run_here(opt) == 0
    one, two = (torch.load(f"experiments/run/models/net_g_{i}.pth", weights_only=True)["params"] for i in (1, 2))
    names = [name for name in one if one[name].is_floating_point() and "mask" not in name]
    moved = torch.stack([(two[name] - one[name]).norm() for name in names]).norm().item()
    assert moved == pytest.approx(0.5 * 0.01, rel=1e-3)
    norms = [float(row[2]) for row in scalars("run") if row[1] == "train/grad_norm"]
    assert min(norms) > 0.05  # recorded as it was


# ------------------------------------------------------------------------------------------------------------- seeing


def test_tensorboard_hides_what_a_resumed_run_repeats(images):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    opt = options()
    opt["logger"]["use_tb_logger"] = True
    opt["train"]["total_iter"] = 8
    assert run_here(opt) == 0
    for kind, folder in (("8.state", "training_states"), ("net_g_8.pth", "models")):
        Path("experiments/run", folder, kind).unlink()
    opt["train"]["total_iter"] = 10
    assert run_here(opt, "--auto_resume") == 0
    events = EventAccumulator("tb_logger/run").Reload().Scalars("losses/l_pix")
    assert [event.step for event in events] == list(range(1, 11))


def test_wandb_that_is_not_installed_is_named(images, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    opt = options()
    opt["logger"] |= {"use_tb_logger": True, "wandb": {"project": "p"}}
    assert run_here(opt) == 2
    assert "pip install wandb" in capfd.readouterr().err


def test_all_parts_of_a_run_are_one_run_of_wandb(images, monkeypatch):
    """A stand-in for wandb, which is not installed for the tests."""
    started = []
    wandb = types.ModuleType("wandb")
    monkeypatch.setattr(wandb, "init", lambda **options: started.append(options), raising=False)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    opt = options()
    opt["logger"] |= {"use_tb_logger": True, "wandb": {"project": "p", "resume_id": None}}
    for total in (3, 6):
        opt["train"]["total_iter"] = total
        assert run_here(opt, "--auto_resume") == 0
    assert started[0]["id"] == started[1]["id"]
    assert started[1] | {"id": 0} == {"id": 0, "resume": "allow", "name": "run", "config": started[1]["config"]} | {
        "project": "p",
        "sync_tensorboard": True,
    }
