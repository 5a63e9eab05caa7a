"""Threads of PyTorch beside other programs: how many, and whether they wait for each other spinning or asleep.

GNU's OpenMP, which PyTorch uses on Linux, lets idle threads spin for milliseconds. That is fastest where the cores are
free: waking a sleeping thread takes longer than many operations of a network. But where another program uses the cores
too, a thread that spins keeps the one that it waits for from running, and everything takes several times longer.

`OMP_WAIT_POLICY` decides this once for a process. Here it is decided again several times a second, by the share of
time in which this process's threads were ready to run but had to wait for a core, which the kernel counts. OpenMP
hardly spins any more as soon as it has more threads than cores (see `GOMP_SPINCOUNT` in its manual). So a team of
threads that does nothing is started while others use the cores, and ended when they no longer do.
"""

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

PERIOD = 0.2  # seconds between two looks
BUSY, FREE = 0.25, 0.1  # shares of waiting above which threads should sleep, and below which they should spin
USERS_CHOICE = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
GRAIN = 32768  # elements that PyTorch gives to a thread at least

_TASKS = Path("/proc/self/task")


def prepare() -> None:
    """Set the threads of this process up; call it before PyTorch is imported. What the user has set stays."""
    quota = cpu_quota()
    if quota is not None and quota < cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(quota))
    if not os.environ.keys() & set(USERS_CHOICE) and os.environ.get("OMP_NUM_THREADS") != "1" and time_waited():
        with suppress(RuntimeError):  # this process may start no more threads: they spin then
            threading.Thread(target=_watch, name="drct-threads", daemon=True).start()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the cores' worth of time that a container may use, such as 2 after `docker run --cpus 2`; None: no limit.

    PyTorch would start a thread for each core of the machine.
    """
    try:
        if (root / "cpu.max").is_file():
            limit, period = (root / "cpu.max").read_text().split()
        else:
            limit, period = ((root / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(1, round(int(limit) / int(period))) if int(limit) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such system, or "max"
        return None


def time_waited() -> tuple[int, int] | None:
    """Return the nanoseconds that threads of this process have run and were ready but waited; None if not known."""
    ran = waited = 0
    try:
        for task in os.listdir(_TASKS):  # noqa: PTH208 - faster, and called often
            try:
                numbers = (_TASKS / task / "schedstat").read_text().split()
            except (FileNotFoundError, ProcessLookupError):  # it has ended
                continue
            ran, waited = ran + int(numbers[0]), waited + int(numbers[1])
    except (OSError, ValueError, IndexError):
        return None
    return (ran, waited) if ran else None


class _IdleTeam:
    """Threads of OpenMP that do nothing, but are counted."""

    def __init__(self, torch: Any, size: int) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(torch, size), name="drct-idle-team", daemon=True)
        self._thread.start()

    def _hold(self, torch: Any, size: int) -> None:
        with suppress(RuntimeError, MemoryError):
            torch.zeros(size * GRAIN, dtype=torch.uint8).add_(1)  # starts the team of this thread, which ends with it
        self._end.wait()

    def end(self) -> None:
        self._end.set()
        self._thread.join()


def _watch() -> None:
    """Start and end an idle team as other programs use the cores or do not."""
    team: _IdleTeam | None = None
    before = time_waited() or (0, 0)
    while now := time_waited():
        ran, waited = now[0] - before[0], now[1] - before[1]
        if ran + waited > PERIOD * 1e9 / 4:  # otherwise there is nothing to go by: wait until there is
            before, share = now, waited / (ran + waited)
            if team is None and share > BUSY and (size := _team_size()):
                with suppress(RuntimeError):  # no more threads may be started now; perhaps later
                    team = _IdleTeam(sys.modules["torch"], size)
            elif team is not None and share < FREE:
                team.end()
                team = None
        time.sleep(PERIOD)


def _team_size() -> int:
    """Return the number of threads that an idle team needs for all to be more than the cores; 0 if none would help."""
    torch = sys.modules.get("torch")
    if torch is None or getattr(torch.__spec__, "_initializing", False) or not _uses_libgomp():
        return 0
    threads = torch.get_num_threads()
    size = cores() - threads + 2
    return size if 2 <= size <= threads else 0


def _uses_libgomp() -> bool:
    try:
        return "libgomp" in Path("/proc/self/maps").read_text()
    except OSError:
        return False
