"""How processes find each other and choose their GPUs: the logic, with GPUs and SLURM pretended."""

import logging
import os
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from torch import distributed as dist

from drct.commands.run_arguments import parse_options
from drct.errors import DRCTError
from drct.runtime import distributed
from drct.runtime.device import resolve_num_gpu

LOGGER = logging.getLogger("test")


@pytest.fixture
def clean(monkeypatch):
    """No launcher's environment, and none left behind."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_LOCALID"):
        monkeypatch.setenv(name, "")  # to be restored
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def eight_gpus(clean):
    """Process 3 of 8 on a machine with 8 GPUs; what it does is recorded."""
    done = {}
    for name, value in {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}.items():
        clean.setenv(name, value)
    clean.setattr(torch.cuda, "is_available", lambda: True)
    clean.setattr(torch.cuda, "device_count", lambda: 8)
    clean.setattr(torch.cuda, "set_device", lambda index: done.update(gpu=index))
    clean.setattr(dist, "init_process_group", lambda backend, **more: done.update(backend=backend, **more))
    clean.setattr(distributed, "_store", dist.HashStore())
    return done


def test_each_process_takes_the_gpu_of_its_number_and_nccl(eight_gpus):
    num_gpu = resolve_num_gpu("auto", LOGGER, several_processes=True)
    distributed.start("nccl", num_gpu, LOGGER)
    assert (eight_gpus["gpu"], eight_gpus["rank"], eight_gpus["world_size"]) == (3, 3, 8)
    assert eight_gpus["backend"] == "cpu:gloo,cuda:nccl"  # small messages must not wait for the GPU


def test_another_backend_is_respected_on_gpus(eight_gpus):
    distributed.start("gloo", 8, LOGGER)
    assert eight_gpus["backend"] == "gloo"


def test_on_the_cpu_it_is_gloo_whatever_the_option_says(eight_gpus, caplog):
    with caplog.at_level(logging.INFO):
        distributed.start("nccl", resolve_num_gpu(0, LOGGER, several_processes=True), LOGGER)
    assert eight_gpus["backend"] == "gloo"
    assert "gpu" not in eight_gpus
    assert "dist_params.backend: nccl is for CUDA: taking gloo" in caplog.text


def test_more_processes_than_gpus_are_refused(eight_gpus, clean):
    clean.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DRCTError, match="more processes than the 2 GPUs of this machine: start 2 per machine"):
        distributed.start("nccl", 2, LOGGER)


def test_under_slurm_a_process_may_see_only_its_own_gpu(eight_gpus, clean):
    clean.setenv("SLURM_LOCALID", "3")
    clean.setattr(torch.cuda, "device_count", lambda: 1)
    distributed.start("nccl", 1, LOGGER)
    assert eight_gpus["gpu"] == 0


def test_of_several_processes_num_gpu_only_says_whether(eight_gpus, caplog):
    """A recipe for 8 GPUs runs on two machines of 4 without a word."""
    assert resolve_num_gpu(16, LOGGER, several_processes=True) == 8
    assert not caplog.records


@pytest.mark.parametrize("given", [None, "set"])
def test_slurm_tells_the_process_its_number_and_the_first_machine(clean, tmp_path: Path, given):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\n[ \"$*\" = 'show hostnames gpu[07-08]' ] && printf 'gpu07\\ngpu08\\n'\n")
    scontrol.chmod(0o755)
    clean.setenv("PATH", str(tmp_path), prepend=":")
    values = {"PROCID": "5", "NTASKS": "8", "LOCALID": "1", "JOB_NODELIST": "gpu[07-08]"}
    for name, value in values.items():
        clean.setenv(f"SLURM_{name}", value)
    if given:
        clean.setenv("MASTER_ADDR", given)
    distributed.identify("slurm")
    assert (distributed.rank(), distributed.world_size(), distributed.local_rank()) == (5, 8, 1)
    assert os.environ["MASTER_ADDR"] == (given or "gpu07")


def test_the_first_process_to_fail_reports(clean):
    clean.setenv("RANK", "1")
    clean.setenv("WORLD_SIZE", "2")
    clean.setattr(distributed, "_store", dist.HashStore())
    assert [distributed.failed_first() for _ in range(3)] == [True, False, False]


def test_a_single_process_needs_no_group(clean):
    distributed.identify("none")
    distributed.meet()
    distributed.start("nccl", 0, LOGGER)
    assert not dist.is_initialized()
    assert (distributed.gather("part"), distributed.any_process(True), distributed.from_first(3)) == (["part"], True, 3)
    distributed.barrier()
    distributed.finish()


@pytest.mark.parametrize(("status", "again"), [(0, False), (2, False), (1, True), (75, True), (143, True)])
def test_the_slurm_script_goes_on_after_failures_but_not_after_mistakes(tmp_path, status, again):
    for name, code in {"srun": f'echo "$@" > srun.txt; exit {status}', "scontrol": 'echo "$@" > scontrol.txt'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "123456"}
    script = ["bash", str(ROOT / "options" / "slurm.sbatch"), "some.yml"]
    done = subprocess.run(script, cwd=tmp_path, env=environment | {"SLURM_CPUS_PER_TASK": "8"}, check=False)
    assert done.returncode == status
    assert "drct/train.py -opt some.yml --launcher slurm --auto_resume" in (tmp_path / "srun.txt").read_text()
    requeued = tmp_path / "scontrol.txt"
    assert (requeued.read_text() if requeued.exists() else "") == ("requeue 123456\n" if again else "")


def test_a_mistake_in_the_arguments_is_told_by_one_process(clean, capsys):
    for number in ("0", "1"):
        clean.setenv("RANK", number)
        clean.setenv("LOCAL_RANK", number)
        clean.setenv("WORLD_SIZE", "2")
        with pytest.raises(SystemExit):
            parse_options(".", True, ["--opt"])
    assert capsys.readouterr().err.count("usage:") == 1
