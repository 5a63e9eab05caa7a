"""Several processes that train or test together: their ranks, how they start, exchange values and end.

In a single process, everything works without a process group: `barrier` returns at once, `gather` returns one part.
"""

import gc
import logging
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import distributed as dist

from drct.errors import DRCTError, report
from drct.text import first_line

P = ParamSpec("P")

LOST_PEER = 75  # exit status if another process was lost: unlike after 2, another try may succeed
RENDEZVOUS_TIMEOUT = timedelta(minutes=30)  # processes of a cluster may start minutes apart

_store: "dist.Store | None" = None  # key-value store shared by the processes


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ["RANK"]) if _launched() else 0


def world_size() -> int:
    """Return the number of processes."""
    return int(os.environ["WORLD_SIZE"]) if _launched() else 1


def local_rank() -> int:
    """Return the number of this process on its machine, from 0, which is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", 0)) if _launched() else 0


def _launched() -> bool:
    return {"RANK", "WORLD_SIZE"} <= os.environ.keys()


def restarted() -> bool:
    """Tell whether torchrun has restarted this process after a failure of the group (`--max-restarts`)."""
    return _launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def under_torchrun() -> bool:
    """Tell whether this process was started by torchrun, which passes on the signals that it gets."""
    return _launched() and "TORCHELASTIC_RUN_ID" in os.environ


def identify(launcher: str) -> None:
    """Set the rank of this process as its launcher says: 'pytorch', 'slurm', or 'none', which includes `torchrun`.

    Raises `DRCTError` if the process was not started by this launcher.
    """
    if launcher == "slurm":
        _read_slurm()
    if launcher == "pytorch" and not _launched():
        raise DRCTError(
            "--launcher pytorch is for `torchrun --nproc_per_node=2 drct/train.py ...` or `python -m "
            "torch.distributed.launch --nproc_per_node=2 drct/train.py ...`, and this process was started by neither"
        )


def _read_slurm() -> None:
    """Set the environment variables that PyTorch expects from those of SLURM."""
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
        raise DRCTError(f"`{' '.join(command)}` does not name the first machine; set MASTER_ADDR") from error


def meet(port: int | None = None) -> None:
    """Connect several processes, on `port` or 29500 unless the launcher has chosen. Raises `DRCTError` on failure."""
    global _store
    if world_size() == 1 or _store is not None:
        return
    os.environ.setdefault("MASTER_PORT", str(port or 29500))
    try:
        store, _, _ = next(iter(dist.rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT)))
        # A group that torchrun has restarted may get the store of its predecessor, and must not read old values
        group = (store.add("arrivals", 1) - 1) // world_size()
        _store = dist.PrefixStore(f"group {group}", store)
    except (ValueError, RuntimeError, OSError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise DRCTError(f"the {world_size()} processes cannot meet at {where}: {first_line(error)}") from error


def start(backend: str, num_gpu: int, logger: logging.Logger) -> None:
    """Start the process group and choose this process's GPU. Do nothing in a single process.

    The backend gloo replaces nccl on the CPU and where NCCL is missing, with a message to the logger. Raises
    `DRCTError` if there are too few GPUs, or the group cannot start.
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
        # Small messages between steps use gloo, which does not wait for the GPU
        backend = "cpu:gloo,cuda:nccl" if backend == "nccl" else backend
    elif backend != "gloo":
        logger.info(f"dist_params.backend: {backend} is for CUDA: taking gloo")
        backend = "gloo"
    if _store is None:
        raise RuntimeError("call meet() first")
    try:
        store = dist.PrefixStore("group", _store)
        dist.init_process_group(backend, store=store, rank=rank(), world_size=world_size())
    except (ValueError, RuntimeError) as error:
        raise DRCTError(f"cannot start {world_size()} processes with {backend}: {first_line(error)}") from error


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()


def finish() -> None:
    """Leave the process group once all processes are done."""
    global _store
    if _grouped():
        barrier()
        gc.collect()  # what still uses the group, such as DistributedDataParallel, must go before it
        dist.destroy_process_group()
    _store = None


def barrier() -> None:
    """Wait for all processes."""
    any_process(False)  # unlike dist.barrier, on the CPU with every backend


def any_process(flag: bool) -> bool:
    """Tell whether the flag is set in any process. Must be called in all."""
    if not _grouped():
        return flag
    value = torch.tensor([flag], dtype=torch.int32)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def average(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of a float tensor over the processes. Must be called in all."""
    if not _grouped():
        return values
    values = values.detach().cpu().double()
    dist.all_reduce(values)
    return values / world_size()


def gather(part: Any) -> list[Any]:
    """Return the parts of all processes, ordered by rank. Must be called in all."""
    if not _grouped():
        return [part]
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, part)
    return parts


def from_first(value: Any) -> Any:
    """Return the value of the first process. Must be called in all."""
    return gather(value)[0]


def shared(count: int) -> Iterator[int]:
    """Distribute the numbers below `count` over the processes: each gets the next number when it asks for one."""
    if _store is None:
        yield from range(count)
        return
    while (number := _store.add("taken", 1) - 1) < count:
        yield number


def failed_first() -> bool:
    """Tell whether this process is the first to fail and so has to report the failure."""
    if _store is None:  # the processes are not connected: one of each machine reports
        return local_rank() == 0
    try:
        return _store.add("failed", 1) == 1
    except RuntimeError:  # the first process, which keeps the store, has ended, perhaps without a report
        return local_rank() == 0


def reported_once(main: Callable[P, int]) -> Callable[P, int]:
    """Make a command of several processes report a failure once and end all processes, instead of waiting forever."""

    @wraps(main)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> int:
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
                    "another process ended without a message or cannot be reached: out of memory, killed, or a network "
                    f"failure ({first_line(error)}). Start again; a training run with --auto_resume goes on"
                )
            if failed_first():
                if isinstance(error, DRCTError) and rank() != 0:
                    error = DRCTError(f"{error} (process {rank()}, on {socket.gethostname()})")
                if report(error) is None:
                    traceback.print_exception(error)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # an orderly exit waits for the others, which may wait for this one

    return wrapper


def lost_peer(error: BaseException) -> bool:
    """Tell whether an error means that another process cannot be reached any more."""
    text = str(error).lower()
    signs = ("connection closed", "connection reset", "broken pipe", "timed out", "timeout", "remote process")
    return _grouped() and isinstance(error, RuntimeError) and "cuda error" not in text and any(s in text for s in signs)
