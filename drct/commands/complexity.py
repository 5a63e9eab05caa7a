"""Parameters, operations and memory of networks, beside the figures of published tables.

Multi-adds and forward/backward pass are what torchinfo prints and published tables have: products of attention are not
seen, linear layers counted once and not for each pixel. The operations are all those of the definition, two for each
multiplication and addition; DRCT takes some less, see drct/archs/drct_arch.py. The activations are what a training step
on one image keeps for its backward pass, in float32, copies of weights included.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

from drct.commands.common import add_size
from drct.errors import DRCTError, one_line_errors
from drct.files import write_atomically

EXAMPLES = """examples:
  %(prog)s
  %(prog)s DRCT DRCT-L HAT --size 640x480
  %(prog)s experiments/mine/models/net_g_5000.pth DRCT-XS_SRx4 -o complexity.csv
"""
SUFFIXES = {".md": "markdown", ".csv": "csv", ".json": "json"}
NOTE = (
    "The networks that the paper's complexity table calls DRCT and HAT are DRCT-C144 and HAT-S; the PSNR that it "
    "reports under these names is of the larger DRCT and HAT."
)


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct complexity`."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", help="name, weight file or folder of a run; default: all with a name"
    )
    add_size(parser)
    parser.add_argument("--format", choices=list(SUFFIXES.values()), help="default: by FILE's name, or markdown")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there; an existing one is replaced")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct complexity`. Returns 0, 1 if some networks cannot be measured, 2 if none can."""
    args = argument_parser().parse_args(argv)
    form = args.format or _format_of(args.output)

    from tqdm import tqdm

    from drct.analysis import complexity
    from drct.analysis.networks import PEERS

    names = args.networks or list(complexity.NAMED)
    if not args.networks and find_spec("spandrel") is None:
        print(f"{', '.join(PEERS)} are left out: they need spandrel: pip install spandrel", file=sys.stderr)
        names = [name for name in names if name not in PEERS]
    found, failures = [], []
    for name in (bar := tqdm(names, unit="network", leave=False, disable=None)):
        bar.set_postfix_str(name)
        try:
            found.append(complexity.complexity_of(name, *args.size))
        except DRCTError as error:
            failures.append(error)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if not found:
        return 2
    show = {"markdown": complexity.markdown, "csv": complexity.as_csv, "json": complexity.as_json}[form]
    text = show(found)
    if form == "markdown" and any(c.published for c in found):
        text += f"\n{NOTE}\n"
    if args.output:
        write_atomically(args.output, lambda file: file.write(text.encode()))
    else:
        print(text, end="")
    return int(bool(failures))


def _format_of(output: Path | None) -> str:
    if output is None:
        return "markdown"
    if output.suffix.lower() not in SUFFIXES:
        raise DRCTError(f"{output}: its name should end in {', '.join(SUFFIXES)}, or --format say what to write")
    return SUFFIXES[output.suffix.lower()]


if __name__ == "__main__":
    sys.exit(main())
