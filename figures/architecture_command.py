"""Draw the architecture of a DRCT, with the dimensions of its layers."""

import argparse
from pathlib import Path

from drct.analysis.plotting import check_png
from drct.errors import one_line_errors
from drct.files import write_atomically


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct analyze architecture`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n  %(prog)s DRCT-L -o DRCT-L.png\n  %(prog)s experiments/mine/models/net_g_100000.pth\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "network",
        metavar="NETWORK",
        help="a name such as DRCT, DRCT-L or DRCT-XS, a weight file, or the folder of a training run",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("architecture.png"),
        metavar="FILE",
        help="picture to write, default architecture.png; an existing one is replaced",
    )
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct analyze architecture`. Returns 0, or 2 if nothing could be drawn."""
    args = argument_parser().parse_args(argv)
    check_png(args.output, "architecture.png")
    from architecture import draw, network_of

    name, network = network_of(args.network)
    figure = draw(network, name)
    write_atomically(args.output, lambda file: figure.savefig(file, format="png"))
    print(f"architecture of {name}: {args.output}")
    return 0
