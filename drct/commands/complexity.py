"""Parameters, operations and memory of networks.

Multi-adds and forward/backward pass are the figures that torchinfo prints and published tables contain: they leave out
the products of attention, and count linear layers once instead of for each pixel. The operations are all those of the
network's definition, two for each multiplication and addition; the fast execution of DRCT saves some of them. The
activations are kept by a training step on one image for its backward pass, in float32, copies of weights included.
"""

import sys
from argparse import ArgumentParser
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from drct.commands.common import add_network, add_size, command_parser, print_failures
from drct.errors import DRCTError, one_line_errors
from drct.files import write_text

EXAMPLES = """examples:
  %(prog)s
  %(prog)s DRCT DRCT-L HAT --size 640x480
  %(prog)s experiments/mine/models/net_g_5000.pth DRCT-XS_SRx4 -o complexity.csv
"""
FORMAT_OF_SUFFIX = {".md": "markdown", ".csv": "csv", ".json": "json"}


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct complexity`."""
    parser = command_parser(__doc__, EXAMPLES)
    networks = "name, weight file or folder of a run; default: all with a name"
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=networks)
    add_network(parser)
    add_size(parser)
    formats = list(FORMAT_OF_SUFFIX.values())
    parser.add_argument("--format", choices=formats, help="default: by FILE's name, or markdown")
    output = "write to this file; an existing one is replaced"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=output)
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct complexity`. Returns 0, 1 if some networks cannot be measured, 2 if none can."""
    args = argument_parser().parse_args(argv)
    form = args.format or _format_of(args.output)

    # Imported here because --help should not wait for PyTorch
    from drct.analysis import complexity
    from drct.analysis.networks import PEERS

    names = args.networks or list(complexity.NAMED)
    if not args.networks and find_spec("spandrel") is None:
        print(f"{', '.join(PEERS)} are left out: they need spandrel: pip install spandrel", file=sys.stderr)
        names = [name for name in names if name not in PEERS]
    width, height = args.size
    found, failures = [], []
    for name in (bar := tqdm(names, unit="network", leave=False, disable=None)):
        bar.set_postfix_str(name)
        try:
            found.append(complexity.complexity_of(name, width, height, network=args.network))
        except DRCTError as error:
            failures.append(error)
    print_failures(failures)
    if not found:
        return 2
    text = complexity.FORMATS[form](found)
    if args.output:
        write_text(args.output, text)
    else:
        print(text, end="")
    return int(bool(failures))


def _format_of(output: Path | None) -> str:
    if output is None:
        return "markdown"
    if output.suffix.lower() not in FORMAT_OF_SUFFIX:
        suffixes = ", ".join(FORMAT_OF_SUFFIX)
        raise DRCTError(f"{output}: its name should end in one of {suffixes}; or choose the format with --format")
    return FORMAT_OF_SUFFIX[output.suffix.lower()]
