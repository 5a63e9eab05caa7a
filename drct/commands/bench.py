"""Time and memory of DRCT beside the original, other networks and other runtimes.

Every contender runs in a process of its own, one at a time, in turns, so that changes in the machine's speed affect all
alike; figures are medians over the turns. Peers are used where they are installed: spandrel for the original DRCT,
HAT and SwinIR, ONNX Runtime and OpenVINO for the original, exported for each size. All have the shape of the released
x4 networks, with random weights.
"""

import argparse
import sys
from pathlib import Path

import torch

from drct.analysis.contenders import CONTENDERS, choose_contenders
from drct.analysis.plotting import needs_matplotlib
from drct.analysis.speed import measure_in_turns
from drct.analysis.speed_limits import environment, floor, product_rates, profile_of
from drct.analysis.speed_report import SpeedReport, draw_speed, read_speed
from drct.commands.common import command_parser
from drct.errors import DRCTError, did_you_mean, one_line_errors
from drct.files import write_text


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of `drct bench`."""
    inference = [key for key, c in CONTENDERS.items() if not c.training]
    parser = command_parser(__doc__)
    parser.add_argument("--sizes", type=_size, nargs="+", default=[(64, 64), (192, 256)], help="default: 64x64 192x256")
    parser.add_argument("--contenders", nargs="+", default=inference, help=f"among {', '.join(CONTENDERS)}")
    parser.add_argument("--rounds", type=int, default=3, help="measured runs of each, default 3")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
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
    for key in (*args.contenders, args.reference):
        if key not in CONTENDERS:
            raise DRCTError(f"there is no contender {key!r}{did_you_mean(key, CONTENDERS)}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise DRCTError("--device cuda: PyTorch finds no GPU")
    if args.rounds < 1:
        raise DRCTError(f"--rounds must be above 0, not {args.rounds}")
    contenders, notes = choose_contenders(args.contenders, args.device)
    for note in notes:
        print(note, file=sys.stderr)
    if not contenders:
        raise DRCTError("there is nothing to measure")
    where = (args.device, args.threads)
    rates = product_rates(*where)
    results = [r for size in args.sizes for r in measure_in_turns(contenders, size, args.rounds, *where)]
    steps = sorted({c.training for c in contenders})
    floors = [floor(size, rates, step) for size in args.sizes for step in steps]
    report = SpeedReport(environment(*where), rates, floors, args.reference, results)
    if args.json:
        write_text(args.json, report.as_json())
    _show(report, args.chart)
    if args.profile:
        for size in args.sizes:
            for contender in (c for c in contenders if c.runtime == "pytorch"):
                print("\n" + profile_of(contender, size, *where), end="")
    return int(any(r.error for r in results))


def _show(report: SpeedReport, chart: Path | None) -> None:
    print(report.text(), end="")
    if chart:
        draw_speed(report.results, chart)
