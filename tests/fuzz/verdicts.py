"""What a case came to, and whether that is how a command should end."""

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DONE, REFUSED = "done", "refused"
GOOD = (DONE, REFUSED)  # the others: traceback, crash, hang, memory, processes, words, wrong
LONGEST_MESSAGE = 1500  # characters
_ERROR = re.compile(r"((drct \w+: )?error|\d{4}-\d\d-\d\d \S+ ERROR): .")
_OTHER_LINES = re.compile(r"(\d{4}-\d\d-\d\d|INFO|WARNING|note:|error:|usage:|interrupted)|.*(it/s|s/it|\?it)")


@dataclass
class Verdict:
    """How a case ended.

    Attributes:
        kind: `done`, `refused`, or the way in which it went wrong.
        signature: What cases of the same cause have in common.
        detail: The message, or the last lines of the traceback.
        what: The mutation and the command.
    """

    kind: str
    signature: str = ""
    detail: str = ""
    what: str = ""

    @property
    def good(self) -> bool:
        return self.kind in GOOD


@dataclass
class Ended:
    """What is left of a command: its status, what it printed, and the error that it did not catch."""

    status: int
    out: str
    err: str
    error: BaseException | None = None
    arguments: list[str] = field(default_factory=list)


def run_here(*arguments: object) -> Ended:
    """Run `drct arguments` in this process, whose streams go to files in the meantime."""
    from drct.cli import main

    return catch(lambda: main([str(argument) for argument in arguments]))


def catch(function: Callable[[], int | None]) -> Ended:
    """Call a function as `run_here` calls a command."""
    streams = {1: Path("stdout.txt"), 2: Path("stderr.txt")}
    kept = {number: os.dup(number) for number in streams}
    for number, path in streams.items():
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    status, error = 1, None
    try:
        status = function() or 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    except BaseException as caught:  # noqa: BLE001 - what is looked for
        error = caught
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in kept.items():
            os.dup2(descriptor, number)
            os.close(descriptor)
    out, err = (path.read_text(errors="replace") for path in streams.values())
    return Ended(status, out, err, error)


def run_as_users_do(*arguments: object) -> Ended:
    """Run `python -m drct arguments` in a process of its own."""
    line = [sys.executable, "-m", "drct", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, check=False)
    return Ended(done.returncode, *(stream.decode(errors="replace") for stream in (done.stdout, done.stderr)))


def judge(ended: Ended) -> Verdict:
    """Tell whether a command ended well: with status 0, or with an error in one line on stderr."""
    if ended.error is not None:
        return Verdict("traceback", _signature(ended.error), _last_frames(ended.error))
    text = ended.err + ended.out
    if "Traceback (most recent call last)" in text:
        last = [line for line in text.splitlines() if line and not line.startswith(" ")][-1]
        return Verdict("traceback", f"printed: {normalized(last)[:80]}", text[-1500:])
    if ended.status < 0:
        return Verdict("crash", f"signal {-ended.status}", text[-1500:])
    if raw := re.search(r"error: (\S+: ([A-Z]\w*(Error|Exception|Interrupt)): .*)", ended.err):
        return Verdict("traceback", f"printed: {normalized(raw[1])[:80]}", raw[0])
    if ended.status == 0:
        return Verdict(DONE)
    return _judge_words(ended)


def _judge_words(ended: Ended) -> Verdict:
    lines = [line for line in ended.err.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    if not errors:
        return Verdict("words", f"status {ended.status} without an error", ended.err[-1500:])
    after = lines[lines.index(errors[0]) + 1 :]
    further = [line for line in after if not _OTHER_LINES.match(line)]
    if further:
        return Verdict("words", f"message of several lines: {normalized(errors[0])[:60]}", ended.err[-1500:])
    longest = max(errors, key=len)
    if len(longest) > LONGEST_MESSAGE:
        return Verdict("words", f"message too long: {normalized(longest)[:60]}", f"{len(longest)} characters")
    return Verdict(REFUSED, normalized(errors[0])[:100], errors[0])


def normalized(message: str) -> str:
    """Replace what differs between cases of the same cause: numbers, quoted values and paths."""
    message = re.sub(r"\S*/\S*", "PATH", message)
    message = re.sub(r"'[^']*'|\"[^\"]*\"", "'...'", message)
    return re.sub(r"-?\d[\d.e+]*", "N", message)


def _signature(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}drct{os.sep}" in frame.filename]
    where = f"{Path(own[-1].filename).name}:{own[-1].name}" if own else "?"
    return f"{type(error).__name__} in {where}"


def _last_frames(error: BaseException) -> str:
    frames = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-4:]]
    return f"{type(error).__name__}: {str(error)[:300]} | {' > '.join(frames)}"
