"""Time of an image with different settings of OpenMP, on cores that are free and on cores that other programs use.

Each setting runs in a process of its own; the processes take turns, so that changes in the machine's speed affect all
alike. Close other programs first: what they take is not told apart from the load that is made here.
"""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from drct.files import write_text
from drct.runtime import threads
from drct.text import markdown_table

TURN = 3  # seconds for which a setting upscales, or one image
LONGEST = 20  # seconds of a setting after which there are no more rounds
UNSET = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
WORKER = """
import sys, time
import numpy as np
{prepare}
import torch, drct
upscaler = drct.load("DRCT-XS_SRx4", "cpu", sys.argv[1])
images = [np.random.default_rng(0).integers(0, 256, (int(h), int(w), 3), np.uint8)
          for h, w in (size.split("x") for size in sys.argv[2:])]
for image in images:
    upscaler.upscale(image)
print("ready", torch.get_num_threads(), flush=True)
for line in sys.stdin:
    seconds, end = [], time.perf_counter() + {turn}
    while not seconds or time.perf_counter() < end:
        start = time.perf_counter()
        upscaler.upscale(images[int(line)])
        seconds.append(time.perf_counter() - start)
    print(sum(seconds) / len(seconds), flush=True)
"""
PREPARE = {"this project": "from drct.runtime import threads; threads.prepare()"}


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["64x64", "192x256"], metavar="HxW", help="default: %(default)s")
    parser.add_argument("--precision", default="bf16", help="default: %(default)s")
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["PyTorch", "PASSIVE", "this project"],
        metavar="SETTING",
        help="PyTorch, PASSIVE, 'this project' or variables such as GOMP_SPINCOUNT=1000,OMP_NUM_THREADS=2",
    )
    parser.add_argument("--busy", nargs="+", type=int, metavar="N", help="busy processes; default: 0, 1, one per core")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each, default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--show", type=Path, metavar="FILE", help="measure nothing, print the table of such a file")
    return parser


def environment(setting: str) -> dict[str, str]:
    """Return the environment of a setting, without what this program's own environment says about threads."""
    variables = {key: value for key, value in os.environ.items() if key not in UNSET}
    if setting == "PASSIVE":
        variables["OMP_WAIT_POLICY"] = "PASSIVE"
    elif "=" in setting:
        variables |= dict(part.split("=") for part in setting.split(","))
    return variables


class Worker:
    """A process that upscales an image when it is asked to."""

    def __init__(self, setting: str, precision: str, sizes: list[str]) -> None:
        code = WORKER.format(prepare=PREPARE.get(setting, ""), turn=TURN)
        command = [sys.executable, "-c", code, precision, *sizes]
        self.process = subprocess.Popen(
            command, env=environment(setting), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def seconds(self, image: int) -> float:
        """Upscale an image, by its number, for a while. Return the mean seconds."""
        assert self.process.stdin
        self.process.stdin.write(f"{image}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process ended before it had measured")
        return line


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep cores busy with as many processes."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=spin, daemon=True) for _ in range(number)]
    for other in others:
        other.start()
    time.sleep(1 if others else 0)
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def spin() -> None:
    """Keep a core busy for ever."""
    while True:
        pass


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all settings with all numbers of busy processes."""
    cores = threads.cores()
    workers = {setting: Worker(setting, args.precision, args.sizes) for setting in args.settings}
    rows = []
    for number in sorted({0, 1, cores}) if args.busy is None else args.busy:
        with busy(number):
            for index, size in enumerate(args.sizes):
                times: dict[str, list[float]] = {setting: [] for setting in workers}
                for _ in range(args.rounds):
                    for setting, worker in workers.items():
                        if sum(times[setting]) < LONGEST:
                            times[setting].append(worker.seconds(index))
                seconds = {setting: median(values) for setting, values in times.items()}
                rows.append({"busy": number, "size": size, "seconds": seconds})
                turns = {setting: " ".join(f"{each:.3f}" for each in values) for setting, values in times.items()}
                print(f"{number} busy, {size}: {turns}", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.process.kill()
    machine = {"cores": cores, "processor": platform.processor() or platform.machine(), "precision": args.precision}
    return {"machine": machine, "rows": rows}


def table(figures: dict[str, Any]) -> str:
    """Return the median seconds, and in brackets the ratio to the first setting, as a Markdown table."""
    settings = list(figures["rows"][0]["seconds"])
    rows = []
    for row in figures["rows"]:
        first = row["seconds"][settings[0]]
        cells = [f"{row['seconds'][s]:.3f} ({row['seconds'][s] / first:.2f})" for s in settings]
        rows.append([str(row["busy"]), row["size"], *cells])
    return markdown_table(["busy processes", "size", *settings], rows)


def main(argv: list[str] | None = None) -> int:
    """Entry point. Returns 0."""
    args = argument_parser().parse_args(argv)
    figures = json.loads(args.show.read_text(encoding="utf-8")) if args.show else measure(args)
    if args.json:
        write_text(args.json, json.dumps(figures, indent=1))
    print(table(figures), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
