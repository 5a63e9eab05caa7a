"""Train on a machine that people work on: everything else goes first, and training takes what is left.

`start` goes on from the newest checkpoint if there is one; `stop` lets the current step end and saves. `pause` stops
the computation and keeps everything in memory until `continue`. What the run prints is appended to
experiments/NAME.log, and its process is noted in experiments/NAME.pid; NAME is that of the option file. On Windows,
where a process cannot be asked to end, `stop` ends it at once, and what it has learned since the newest checkpoint is
lost.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from drct.errors import DRCTError, one_line_errors
from drct.files import write_text

EXAMPLES = """examples:
  %(prog)s start options/train/train_DRCT-XS_SRx4.yml
  %(prog)s start options/train/train_DRCT-XS_SRx4.yml --force_yml train:total_iter=20000
  %(prog)s pause options/train/train_DRCT-XS_SRx4.yml
"""
ACTIONS = ("start", "pause", "continue", "stop", "status")
GOING = (psutil.STATUS_RUNNING, psutil.STATUS_SLEEPING, psutil.STATUS_DISK_SLEEP)
PATIENCE = 60  # seconds, for processes to be suspended
SHOWN = 300  # characters of the log's last line


def start(option_file: Path, arguments: list[str]) -> psutil.Process:
    """Start `drct train` with an option file and further arguments, at the lowest priority that the system has."""
    log, noted = _files(option_file)
    log.parent.mkdir(exist_ok=True)
    command = _command(option_file, arguments)
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ  # idle threads sleep and do not spin
    with log.open("ab") as output:
        # A session of its own outlives the terminal
        started = subprocess.Popen(  # noqa: S603 - this Python
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    process = psutil.Process(started.pid)
    write_text(noted, json.dumps({"pid": process.pid, "created": process.create_time()}))
    _give_way(process)
    return process


def _command(option_file: Path, arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "drct", "train", "-opt", str(option_file), "--auto_resume", *arguments]


def _give_way(process: psutil.Process) -> None:
    """Give a process and the session that it leads the lowest priority. What the system does not allow is left out."""
    # Linux weighs sessions against each other, whatever the priorities of the processes within them
    with suppress(OSError):
        Path(f"/proc/{process.pid}/autogroup").write_text("19")
    with suppress(psutil.Error):
        process.nice(19 if os.name == "posix" else psutil.IDLE_PRIORITY_CLASS)  # type: ignore[attr-defined]
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))


def find(option_file: Path) -> psutil.Process | None:
    """Return the process that `start` has started, or None if it has ended."""
    with suppress(OSError, ValueError, KeyError, psutil.Error):
        noted = json.loads(_files(option_file)[1].read_text(encoding="utf-8"))
        process = psutil.Process(noted["pid"])
        # Another process may have got its number since; the system's clock may have been set
        same = abs(process.create_time() - noted["created"]) < 60
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    return None


def stop(process: psutil.Process) -> None:
    """End a run after its current step, when it has saved."""
    process.terminate()
    resume(process)  # while it is paused, it does not hear of it
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.1)


def pause(process: psutil.Process) -> None:
    """Suspend a run, and the processes that read its images."""
    family = _family(process)
    for each in family:
        each.suspend()
    end = time.monotonic() + PATIENCE
    while any(each.status() in GOING for each in family) and time.monotonic() < end:
        time.sleep(0.05)  # a process stops when it is its turn to run


def resume(process: psutil.Process) -> None:
    """Let a run go on that is paused."""
    for each in _family(process):
        with suppress(psutil.NoSuchProcess):  # it has ended
            each.resume()


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _files(option_file: Path) -> tuple[Path, Path]:
    """Return the files of a run: what it prints, and its process."""
    return Path("experiments", f"{option_file.stem}.log"), Path("experiments", f"{option_file.stem}.pid")


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments, but for those of `drct train`."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("option_file", type=Path, metavar="FILE", help="option file of the training")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="of drct train, after start FILE")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 if that cannot be done."""
    args = argument_parser().parse_args(argv)
    name, process = args.option_file.stem, find(args.option_file)
    if args.arguments and args.action != "start":
        raise DRCTError(f"{args.action} takes no further arguments, such as {args.arguments[0]}")
    if args.action == "start":
        if process:
            raise DRCTError(f"{name} is being trained already, by process {process.pid}")
        if not args.option_file.is_file():
            raise DRCTError(f"no such option file: {args.option_file}")
        process = start(args.option_file, args.arguments)
        print(f"{name}: process {process.pid}, log {_files(args.option_file)[0]}")
        return 0
    if not process and args.action != "status":
        raise DRCTError(f"{name} is not being trained")
    if process and args.action != "status":
        {"pause": pause, "continue": resume, "stop": stop}[args.action](process)
    print(f"{name}: {_state(find(args.option_file))}{_last_line(_files(args.option_file)[0])}")
    return 0


def _state(process: psutil.Process | None) -> str:
    if process is None:
        return "not running"
    return "paused" if process.status() == psutil.STATUS_STOPPED else f"running, process {process.pid}"


def _last_line(log: Path) -> str:
    """Return the last line that was printed, after a semicolon, if there is one."""
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace")[-10_000:].replace("\r", "\n").strip().splitlines()
        return f"; {lines[-1][-SHOWN:].strip()}" if lines else ""
    return ""


if __name__ == "__main__":
    sys.exit(main())
