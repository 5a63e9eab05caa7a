"""Cases in processes of their own, several at a time: a crash, hang or leak of one is found, and the others go on."""

import faulthandler
import gc
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzz import memory
from fuzz.verdicts import Ended, Verdict

TIMEOUT = 10.0  # seconds of computing, beyond which a case hangs
LONGEST = 60.0  # seconds, beyond which a case hangs that waits for something
AS_USERS_DO = 250  # of so many cases, one starts an interpreter of its own, which has more time
MOST_CHILDREN = 32  # processes at a time that a case may start
GRACE = 2.0  # seconds that the processes of a case may outlive it


@dataclass
class Outcome:
    """A case, its verdict, its duration in seconds and the memory that it took beyond its parent's, in bytes."""

    number: int
    verdict: Verdict
    seconds: float
    memory: int


@dataclass
class _Running:
    number: int
    folder: Path
    started: float


def run_cases(numbers: Iterable[int], work: Callable[[int], Verdict], folder: Path, jobs: int) -> Iterator[Outcome]:
    """Call `work(number)` in forked processes, each in an empty folder below `folder`. Yields outcomes as they come.

    A forked process has all modules and fixtures of its parent, and leaves nothing in it: each case is the same
    whether it runs alone or after thousands of others.
    """
    gc.collect()
    gc.freeze()  # the collector would write to, and so copy, all pages of the parent
    waiting, running = iter(numbers), dict[int, _Running]()
    while True:
        while len(running) < jobs and (number := next(waiting, None)) is not None:
            place = folder / f"case_{number}"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            running[_fork(number, work, place)] = _Running(number, place, time.monotonic())
        if not running:
            return
        for pid, case in list(running.items()):
            if outcome := _look_at(pid, case):
                del running[pid]
                shutil.rmtree(case.folder, ignore_errors=True)
                yield outcome
        time.sleep(0.002)


def _hangs(pid: int, case: _Running) -> bool:
    factor = 1 if case.number % AS_USERS_DO else 6
    return _computed(pid) > TIMEOUT * factor or time.monotonic() - case.started > LONGEST * factor


def _computed(pid: int) -> float:
    """Return the seconds of computing of a process and of those of its children that have ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _fork(number: int, work: Callable[[int], Verdict], folder: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        os.chdir(folder)
        memory.start()
        faulthandler.register(signal.SIGUSR1, file=Path("stack.txt").open("w"))  # noqa: SIM115 - until the end
        _write(folder, work(number), memory.taken())
    except BaseException:  # noqa: BLE001 - of the harness
        _write(folder, Verdict("harness", "error of the harness", traceback.format_exc()[-1500:]), 0)
    finally:
        os._exit(0)


def apart(folder: Path, run: Callable[[], Ended]) -> None:
    """Run a command in a forked process, for this one to stay as it is. Raises `RuntimeError` if that fails."""
    pid = os.fork()
    if pid:
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError((folder / "stderr.txt").read_text())
        return
    status = 1
    try:
        os.chdir(folder)
        ended = run()
        status = ended.status or int(ended.error is not None)
    finally:
        os._exit(status)


def _write(folder: Path, verdict: Verdict, taken: int) -> None:
    (folder / "verdict.json").write_text(json.dumps({"verdict": asdict(verdict), "memory": taken}))


def _look_at(pid: int, case: _Running) -> Outcome | None:
    """Return the outcome of a case that has ended or must be ended, else None."""
    seconds = time.monotonic() - case.started
    ended, status = os.waitpid(pid, os.WNOHANG)
    found, taken = None, 0
    if not ended:
        if _hangs(pid, case):
            os.kill(pid, signal.SIGUSR1)  # for its stack
            time.sleep(0.3)
            found = Verdict("hang", f"over {TIMEOUT:.0f} s", _output(case.folder))
        elif _children(pid) > MOST_CHILDREN:
            found = Verdict("processes", f"more than {MOST_CHILDREN} at a time")
        if not found:
            return None
        _kill(pid)
        os.waitpid(pid, 0)
        found.what = _what(case.folder)
    elif os.WIFSIGNALED(status):
        found = Verdict("crash", f"signal {os.WTERMSIG(status)}", _output(case.folder), _what(case.folder))
    else:
        written = json.loads((case.folder / "verdict.json").read_text())
        found, taken = Verdict(**written["verdict"]), written["memory"]
    if members_of(pid) and not _ends(pid):
        found = Verdict("processes", "left behind", found.detail, found.what)
        _kill(pid)
    return Outcome(case.number, found, seconds, taken)


def _children(pid: int) -> int:
    with suppress(OSError):
        return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return 0


def _ends(group: int) -> bool:
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        if not members_of(group):
            return True
        time.sleep(0.02)
    return False


def members_of(group: int) -> list[int]:
    """List the living processes of a process group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return []
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                state, _, member_of = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(member_of) == group and state != "Z":
                    members.append(int(entry.name))
    return members


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _output(folder: Path) -> str:
    """Return where a case hung, else what it printed last."""
    files = [path for path in (folder / "stack.txt", folder / "stderr.txt") if path.exists() and path.stat().st_size]
    return files[0].read_text(errors="replace")[-1500:] if files else ""


def _what(folder: Path) -> str:
    file = folder / "what.txt"
    return file.read_text() if file.exists() else ""
