"""Tell what a weight file or an ONNX model is, and what an image of some size takes with it."""

import argparse
import json
import sys

from drct.commands.common import add_size
from drct.errors import DRCTError, one_line_errors

EXAMPLES = """examples:
  %(prog)s DRCT-XS_SRx4
  %(prog)s weights/*.pth drct.onnx --size 640x480
  %(prog)s DRCT_SRx4.pth --json
"""


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct info`."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="weights, ONNX model, folder of save_pretrained, or name of weights"
    )
    add_size(parser)
    parser.add_argument("--json", action="store_true", help="a list of objects instead of text")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct info`. Returns 0, 1 if some files are nothing that it knows, 2 if all are."""
    args = argument_parser().parse_args(argv)

    from drct.inference.description import as_text, describe

    known = []
    for name in args.files:
        try:
            known.append(describe(name, *args.size))
            if not args.json:
                print(as_text(known[-1]))
        except DRCTError as error:
            print(f"error: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps(known, indent=2))
    return 0 if len(known) == len(args.files) else 1 if known else 2


if __name__ == "__main__":
    sys.exit(main())
