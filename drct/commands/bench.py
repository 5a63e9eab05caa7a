"""Time and memory of DRCT beside the original, other networks and other runtimes.

On the CPU every contender runs in a process of its own, one at a time, in turns, so that changes in the machine's speed
affect all alike; figures are medians over the turns. A GPU is measured in this process until --minutes are over, the
most important first: results beside those of the CPU, images, training steps, and where the time goes; what is left out
is named. Peers are used where they are installed: spandrel for the original DRCT,
HAT and SwinIR, ONNX Runtime and OpenVINO for the original, exported for each size. All have the shape of the released
x4 networks, with random weights.
"""

import argparse
import sys
from pathlib import Path

import torch

from drct.analysis.contenders import CONTENDERS, CPU_DEFAULT, Contender, choose_contenders
from drct.analysis.deadline import Deadline
from drct.analysis.gpu_report import gpu_text
from drct.analysis.gpu_speed import Plan, run_benchmark
from drct.analysis.plotting import needs_matplotlib
from drct.analysis.speed import measure_in_turns
from drct.analysis.speed_limits import environment, floor, product_rates, profile_of
from drct.analysis.speed_report import SpeedReport, draw_speed, read_speed
from drct.commands.common import command_parser
from drct.errors import DRCTError, did_you_mean, one_line_errors
from drct.files import write_text

CPU_SIZES = [(64, 64), (192, 256)]
GPU_SIZES = [(480, 640), (192, 256)]


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of `drct bench`."""
    parser = command_parser(__doc__)
    sizes = "default: 64x64 192x256, on a GPU 480x640 192x256"
    parser.add_argument("--sizes", type=_size, nargs="+", metavar="HEIGHTxWIDTH", help=sizes)
    contenders = f"among {', '.join(CONTENDERS)}; default: on the CPU all for images, on a GPU all that it can run"
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help=contenders)
    parser.add_argument("--rounds", type=int, help="measured runs of each, default 3; on a GPU at most, default 20")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--minutes", type=float, default=7.0, help="that a GPU is measured, at most, default 7")
    parser.add_argument("--in-process", action="store_true", help="measure the CPU as a GPU is measured, to try that")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: one per core")
    parser.add_argument("--reference", default="original", help="contender to compare speeds with, default: original")
    profile = "also show the time of contenders in PyTorch by kind of operation"
    parser.add_argument("--profile", action="store_true", help=profile)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--show", type=Path, metavar="JSON", help="measure nothing, show earlier figures")
    parser.add_argument("--chart", type=Path, help="PNG to draw (needs matplotlib)")
    return parser


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in text.split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, as 192x256") from error
    if min(height, width) < 16 or height % 16 or width % 16:
        raise argparse.ArgumentTypeError(f"{text}: sides must be multiples of the window, 16")
    return height, width


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct bench`. Returns 0, 1 if a contender failed, 2 if nothing could be measured."""
    args = argument_parser().parse_args(argv)
    if args.chart:
        needs_matplotlib("--chart needs")
    if args.show:
        _show(read_speed(args.show), args.chart)
        return 0
    for key in (*(args.contenders or ()), args.reference):
        if key not in CONTENDERS:
            raise DRCTError(f"there is no contender {key!r}{did_you_mean(key, CONTENDERS)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise DRCTError("--device cuda: PyTorch finds no GPU")
    for name in ("minutes", "rounds", "threads"):
        value = getattr(args, name)
        if value is not None and not value > 0:  # as NaN is not
            raise DRCTError(f"--{name} must be above 0, not {value}")
    on_gpu = args.device == "cuda" or args.in_process
    contenders, notes = choose_contenders(args.contenders or (CONTENDERS if on_gpu else CPU_DEFAULT), args.device)
    contenders = [c for c in contenders if not (on_gpu and c.needs_cpu)]
    for note in notes:
        print(note, file=sys.stderr)
    if not contenders:
        raise DRCTError("there is nothing to measure")
    report = _of_gpu(args, contenders, notes) if on_gpu else _of_cpu(args, contenders)
    if args.json:
        write_text(args.json, report.as_json())
    _show(report, args.chart)
    if args.profile and not on_gpu:
        for size in args.sizes or CPU_SIZES:
            for contender in (c for c in contenders if c.runtime == "pytorch"):
                print("\n" + profile_of(contender, size, args.threads), end="")
    return int(any(r.error for r in report.results) or not all(p.holds for p in report.parity))


def _of_cpu(args: argparse.Namespace, contenders: list[Contender]) -> SpeedReport:
    sizes = args.sizes or CPU_SIZES
    rates = product_rates(args.threads)
    results = [r for size in sizes for r in measure_in_turns(contenders, size, args.rounds or 3, args.threads)]
    steps = sorted({c.training for c in contenders})
    floors = [floor(size, rates, step) for size in sizes for step in steps]
    return SpeedReport(environment("cpu", args.threads), rates, floors, args.reference, results)


def _of_gpu(args: argparse.Namespace, contenders: list[Contender], notes: list[str]) -> SpeedReport:
    sizes, rounds = args.sizes or GPU_SIZES, args.rounds or 20
    if args.device == "cuda":
        plan = Plan(contenders, sizes, (64, 64), "cuda", args.threads, rounds)
    else:
        small = min(sizes)
        plan = Plan(contenders, sizes, small, "cpu", args.threads, rounds, small, product_side=256, windows=2)
    return run_benchmark(plan, args.reference, notes, Deadline(60 * args.minutes), args.json)


def _show(report: SpeedReport, chart: Path | None) -> None:
    print(gpu_text(report) if report.in_process else report.text(), end="")
    if chart:
        draw_speed(report.results, chart)
