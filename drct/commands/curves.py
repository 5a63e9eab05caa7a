"""Draw the losses, metrics and learning rate of training runs, several runs in one picture, from their scalars.csv."""

from argparse import ArgumentParser
from pathlib import Path

from drct.analysis.curves import DEFAULT_TAGS, draw_training_curves, select_tags
from drct.analysis.plotting import check_png, save_png
from drct.commands.common import command_parser, print_failures
from drct.errors import DRCTError, one_line_errors
from drct.runs.folders import repeated, run_names
from drct.runs.scalars import FILE_NAME, read_scalars
from drct.text import count

EXAMPLES = """examples:
  %(prog)s experiments/mine
  %(prog)s experiments/mine experiments/other -o compared.png --tags 'losses/*' 'metrics/*/psnr' train/lr
"""


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct curves` and `drct/curves.py`."""
    parser = command_parser(__doc__, EXAMPLES)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=f"folder of a run, or its {FILE_NAME}")
    picture = "picture to write, default %(default)s; an existing one is replaced"
    parser.add_argument("-o", "--output", type=Path, default="curves.png", metavar="FILE", help=picture)
    tags = "what to draw: tags, or patterns in quotes; default: " + " ".join(f"'{tag}'" for tag in DEFAULT_TAGS)
    parser.add_argument("--tags", nargs="+", metavar="TAG", help=tags)
    smoothing = "weight of the past in the smoothed lines, from 0 (none) to below 1, default %(default)s"
    parser.add_argument("--smooth", type=float, default=0.9, metavar="FACTOR", help=smoothing)
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct curves`. Returns 0, or 2 if nothing could be drawn."""
    args = argument_parser().parse_args(argv)
    if not 0 <= args.smooth < 1:
        raise DRCTError(f"--smooth must be from 0 to below 1, not {args.smooth:g}")
    check_png(args.output, "curves.png")
    paths = run_names(args.runs)
    print_failures((f"{path} is given twice and counts once" for path in repeated(args.runs)), "note")
    runs = {name: read_scalars(path) for name, path in paths.items()}
    for name, path in paths.items():
        if not runs[name]:
            raise DRCTError(f"{path} has no values yet: wait until the run has logged some")
    tags = select_tags(runs, args.tags)
    save_png(args.output, draw_training_curves(runs, tags, args.smooth))
    print(f"curves of {count(len(runs), 'run')}, {count(len(tags), 'panel')}: {args.output}")
    return 0
