"""Run mutated inputs through the commands: `python -m fuzz --kind options --n 500`, `--case 17` for one of them."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU does not survive a fork
os.environ.setdefault("OMP_NUM_THREADS", "1")  # cases run side by side, and threads do not survive a fork

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz import pool, summary
from fuzz.verdicts import Verdict

KINDS = ("options", "pictures", "weights")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, action="append", help="default: all")
    parser.add_argument("--n", type=int, help="number of cases of each kind; default: 3000, 1500 and 600")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", type=int, default=0, dest="first", help="number of the first case")
    parser.add_argument("--case", type=int, help="run this case alone, and show what comes of it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cases at a time; default: one per core")
    parser.add_argument("--json", type=Path, help="put the counts into this file")
    return parser


def fixtures(kind: str, folder: Path) -> Any:
    """Make what all cases of a kind need, and import what the commands need, before any case is forked."""
    import torch

    torch.set_num_threads(1)
    if kind == "options":
        from fuzz.options import OptionFiles

        return OptionFiles(folder)
    if kind == "pictures":
        from fuzz.pictures import Pictures

        return Pictures(folder)
    from fuzz.weights import WeightFiles

    return WeightFiles(folder)


def import_commands() -> None:
    import importlib

    names = ("train", "test", "upscale", "info", "export")
    for name in (*(f"drct.commands.{name}" for name in names), "drct.inference.batch", "torch.utils.tensorboard"):
        importlib.import_module(name)


def main() -> int:
    args = parser().parse_args()
    import_commands()
    folder = Path(tempfile.mkdtemp(prefix="fuzz_"))
    counts: dict[str, dict[str, Any]] = {}
    try:
        for kind in args.kind or KINDS:
            made = fixtures(kind, folder)
            total = args.n or sys.modules[type(made).__module__].FULL
            numbers = [args.case] if args.case is not None else range(args.first, args.first + total)
            work: Callable[[int], Verdict] = lambda number, made=made: made.run(number, args.seed)  # noqa: E731
            start = time.monotonic()
            outcomes = []
            for outcome in pool.run_cases(numbers, work, folder / f"run_{kind}", args.jobs):
                outcomes.append(outcome)
                if args.case is not None:
                    print(summary.describe(outcome))
                elif not outcome.verdict.good:
                    print(f"{kind} {outcome.number}: {summary.one_line(outcome)}", flush=True)
            counts[kind] = summary.count(args.seed, outcomes, time.monotonic() - start)
            print(summary.table(kind, counts[kind]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        summary.keep(args.json, "mutants", counts)
    return int(any(entry["faults"] for entry in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
