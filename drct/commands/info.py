"""Describe weight files and ONNX models, and report the memory that an image of some size needs with them."""

import json
import sys
from argparse import ArgumentParser

from drct.commands.common import add_network, add_size, command_parser
from drct.errors import DRCTError, one_line_errors
from drct.runtime.weight_files import check_weights

EXAMPLES = """examples:
  %(prog)s DRCT-XS_SRx4
  %(prog)s weights/*.pth drct.onnx --size 640x480
  %(prog)s DRCT_SRx4.pth --json
"""


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct info`."""
    parser = command_parser(__doc__, EXAMPLES)
    files = "weights, ONNX model, folder of a training run or of save_pretrained, or name of weights"
    parser.add_argument("files", nargs="+", metavar="FILE", help=files)
    add_network(parser)
    add_size(parser)
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of text")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct info`. Returns 0, 1 if some files are of no known kind, 2 if none is of a known kind."""
    args = argument_parser().parse_args(argv)
    known = []
    for name in args.files:
        try:
            check_weights(name, args.network)

            from drct.inference.description import as_text, describe  # PyTorch takes seconds, mistakes should not

            width, height = args.size
            known.append(describe(name, width, height, args.network))
            if not args.json:
                print(as_text(known[-1]))
        except DRCTError as error:
            print(f"error: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps(known, indent=2))
    return 0 if len(known) == len(args.files) else 1 if known else 2
