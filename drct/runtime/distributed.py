"""Several processes that train or test as one: who they are, how they start, agree and end.

All of it works, and does nothing, in a single process. Where a process is alone, no process group exists.
"""

import logging
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import wraps
from typing import Any

import torch
from torch import distributed as dist

from drct.errors import DRCTError, report

LOST_PEER = 75  # exit status after which trying again may help, unlike after 2
RENDEZVOUS_TIMEOUT = timedelta(minutes=30)  # the processes of a cluster do not start at once

_store: "dist.Store | None" = None  # shared by the processes; tells which of them failed first


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ["RANK"]) if _launched() else 0


def world_size() -> int:
    """Number of processes."""
    return int(os.environ["WORLD_SIZE"]) if _launched() else 1


def local_rank() -> int:
    """Number of this process on its machine, from 0: the GPU it uses."""
    return int(os.environ.get("LOCAL_RANK", 0)) if _launched() else 0


def _launched() -> bool:
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def restarted() -> bool:
    """Whether torchrun started this process again after a failure of the group (`--max-restarts`)."""
    return _launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def under_torchrun() -> bool:
    """Whether a torchrun agent watches over this process; it passes on the signals it gets."""
    return _launched() and "TORCHELASTIC_RUN_ID" in os.environ


def identify(launcher: str) -> None:
    """Find out which process this is.

    Args:
        launcher: 'pytorch' (`torchrun`, `torch.distributed.launch`), 'slurm' (`srun`), or 'none', with which the
            environment of `torchrun` is heeded too.

    Raises:
        DRCTError: if the launcher's environment is not there.
    """
    if launcher == "slurm":
        _read_slurm()
    if launcher == "pytorch" and not _launched():
        raise DRCTError(
            "--launcher pytorch is for `torchrun --nproc_per_node=2 drct/train.py ...` or `python -m "
            "torch.distributed.launch --nproc_per_node=2 drct/train.py ...`, and this process was started by neither"
        )


def _read_slurm() -> None:
    """Translate SLURM's environment to PyTorch's."""
    try:
        numbers = {name: os.environ[f"SLURM_{name}"] for name in ("PROCID", "NTASKS", "LOCALID")}
    except KeyError as error:
        raise DRCTError(f"--launcher slurm is for `srun python drct/train.py ...`, but {error} is not set") from error
    os.environ |= {"RANK": numbers["PROCID"], "WORLD_SIZE": numbers["NTASKS"], "LOCAL_RANK": numbers["LOCALID"]}
    if world_size() == 1 or "MASTER_ADDR" in os.environ:
        return
    nodes = os.environ.get("SLURM_JOB_NODELIST", os.environ.get("SLURM_NODELIST", ""))
    command = ["scontrol", "show", "hostnames", nodes]
    try:
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603
        os.environ["MASTER_ADDR"] = names[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise DRCTError(f"`{' '.join(command)}` does not tell the first machine; set MASTER_ADDR") from error


def meet(port: int | None = None) -> None:
    """Meet the other processes. Does nothing in a single process.

    Args:
        port: Of the first process's machine, if the launcher has not chosen one; 29500 if None.

    Raises:
        DRCTError: if the processes do not meet.
    """
    global _store
    if world_size() == 1 or _store is not None:
        return
    os.environ.setdefault("MASTER_PORT", str(port or 29500))
    try:
        store, _, _ = next(iter(dist.rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT)))
        # A group that torchrun restarts may get the store of the one before, and must not read what that left
        group = (store.add("arrivals", 1) - 1) // world_size()
        _store = dist.PrefixStore(f"group {group}", store)
    except (ValueError, RuntimeError, OSError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise DRCTError(f"the {world_size()} processes cannot meet at {where}: {_first_line(error)}") from error


def start(backend: str, num_gpu: int, logger: logging.Logger) -> None:
    """Start the process group and choose this process's GPU. Does nothing in a single process.

    Args:
        backend: 'nccl' or 'gloo'. On the CPU, which NCCL cannot serve, it is always gloo.
        num_gpu: 0 for the CPU.
        logger: Told when another backend is taken.
    """
    if world_size() == 1:
        return
    if num_gpu and torch.cuda.is_available():
        count = torch.cuda.device_count()
        alone = count == 1 and "SLURM_LOCALID" in os.environ  # SLURM may show each process its own GPU only
        if local_rank() >= count and not alone:
            raise DRCTError(
                f"there are more processes than the {count} GPUs of this machine: start {count} per machine"
            )
        torch.cuda.set_device(0 if alone else local_rank())
        if backend == "nccl" and not dist.is_nccl_available():  # on Windows
            logger.info("dist_params.backend: nccl is not there: taking gloo")
            backend = "gloo"
        # Small messages between the steps go by gloo, which does not wait for the GPU
        backend = "cpu:gloo,cuda:nccl" if backend == "nccl" else backend
    elif backend != "gloo":
        logger.info(f"dist_params.backend: {backend} is for CUDA: taking gloo")
        backend = "gloo"
    if _store is None:
        raise RuntimeError("meet() comes first")
    try:
        group_store = dist.PrefixStore("group", _store)
        dist.init_process_group(backend, store=group_store, rank=rank(), world_size=world_size())
    except (ValueError, RuntimeError) as error:
        raise DRCTError(f"cannot start {world_size()} processes with {backend}: {_first_line(error)}") from error


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()


def finish() -> None:
    """Leave the process group, when all is done."""
    global _store
    if _grouped():
        barrier()
        dist.destroy_process_group()
    _store = None


def barrier() -> None:
    """Wait for all processes."""
    any_process(False)  # on the CPU, whatever the backend


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process. All must ask."""
    if not _grouped():
        return flag
    value = torch.tensor([flag], dtype=torch.int32)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def average(values: torch.Tensor) -> torch.Tensor:
    """Mean of a float tensor over the processes. All must ask."""
    if not _grouped():
        return values
    values = values.detach().cpu().double()
    dist.all_reduce(values)
    return values / world_size()


def gather(part: Any) -> list[Any]:
    """The parts of all processes, in the order of their numbers. All must ask."""
    if not _grouped():
        return [part]
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, part)
    return parts


def from_first(value: Any) -> Any:
    """The first process's value. All must ask."""
    return gather(value)[0]


def shared(count: int) -> Iterator[int]:
    """The numbers below `count`, each for one of the processes: the one that asks first, as some work faster."""
    if _store is None:
        yield from range(count)
        return
    while (number := _store.add("taken", 1) - 1) < count:
        yield number


def failed_first() -> bool:
    """Whether this process is the one to report a failure: the first to fail."""
    if _store is None:  # the processes have not met: one of each machine
        return local_rank() == 0
    try:
        return _store.add("failed", 1) == 1
    except RuntimeError:  # the first process, which keeps the store, has gone, perhaps without a word
        return local_rank() == 0


def reported_once(main: Callable[..., int]) -> Callable[..., int]:
    """Make a command of several processes tell once why it failed, and none of them wait for one that has failed."""

    @wraps(main)
    def wrapper(*args, **kwargs) -> int:
        try:
            status = main(*args, **kwargs)
            finish()
            return status
        except Exception as error:
            if world_size() == 1:
                raise
            status = 2 if isinstance(error, DRCTError) else 1
            if lost_peer(error):
                status = LOST_PEER
                error = DRCTError(
                    "another process ended without a word or cannot be reached: out of memory, killed, or a network "
                    f"failure ({_first_line(error)}). Start again; a training run with --auto_resume goes on"
                )
            if failed_first():
                if isinstance(error, DRCTError) and rank() != 0:
                    error = DRCTError(f"{error} (process {rank()}, on {socket.gethostname()})")
                if report(error) is None:
                    traceback.print_exception(error)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # leaving in order waits for the others, who may wait for this one

    return wrapper


def lost_peer(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached any more."""
    text = str(error).lower()
    signs = ("connection closed", "connection reset", "broken pipe", "timed out", "timeout", "remote process")
    return _grouped() and isinstance(error, RuntimeError) and "cuda error" not in text and any(s in text for s in signs)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
