"""Upscale images in the browser: drop one, compare before and after, download the result."""

from argparse import ArgumentParser

from drct.commands.common import add_device, add_network, add_precision, command_parser
from drct.errors import DRCTError, one_line_errors
from drct.runtime.weight_files import AUTO, check_weights


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct serve`."""
    privacy = "Nothing leaves this machine. Uploads and results are deleted within two hours and at the end."
    parser = command_parser(__doc__, privacy)
    host = "address to listen on, default 127.0.0.1, this machine only"
    parser.add_argument("--host", default="127.0.0.1", help=host)
    parser.add_argument("--port", type=int, default=7860, help="default 7860; 0 takes one that is free")
    weights = "files or names to choose from, besides those that are found"
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME", help=weights)
    add_network(parser)
    parser.add_argument("--max-megapixels", type=float, default=4, metavar="N", help="refuse larger images, default 4")
    add_device(parser)
    add_precision(parser)
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct serve`. Returns 0 when it is ended by Ctrl-C, 2 if it could not start."""
    args = argument_parser().parse_args(argv)
    if not args.max_megapixels > 0:
        raise DRCTError(f"--max-megapixels must be above 0, not {args.max_megapixels:g}")
    for name in args.weights or [AUTO] * bool(args.network):
        check_weights(name, args.network, may_be_auto=True)

    from drct.web.server import serve  # PyTorch takes seconds, --help should not

    serve(
        args.host,
        args.port,
        weights=args.weights,
        network=args.network,
        max_megapixels=args.max_megapixels,
        device=args.device,
        precision=args.precision,
        open_browser=not args.no_browser,
    )
    return 0
