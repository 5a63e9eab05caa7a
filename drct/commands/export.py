"""Write a network for other programs: ONNX, torch.export, safetensors, and weight files of either layout."""

import argparse
import sys
from pathlib import Path

from drct.errors import DRCTError, one_line_errors

FORMATS = {
    "onnx": "a graph for ONNX Runtime, OpenVINO and others, which takes images of any size",
    "torch-export": "a program that PyTorch runs without this project; sides are multiples of the window, two or more",
    "safetensors": "weights, with the network's arguments in the metadata",
    "original": "weights as the original implementation saves them and loads them strictly",
    "compact": "the same without what follows from the arguments, for this project only",
}
SUFFIXES = {
    ".onnx": "onnx",
    ".pt2": "torch-export",
    ".safetensors": "safetensors",
    ".pth": "original",
    ".pt": "original",
}
OPSETS = range(17, 21)  # 17 is the first with layer normalization, 20 the last that PyTorch writes from a trace
EXAMPLES = """examples:
  %(prog)s DRCT-XS_SRx4 -o drct.onnx
  %(prog)s DRCT_SRx4.pth -o drct_fp16.onnx --fp16
  %(prog)s DRCT_SRx4.pth -o drct.pt2
  %(prog)s DRCT_SRx4.pth -o drct.safetensors
  %(prog)s drct.safetensors -o DRCT_SRx4.pth                     for the original implementation
  %(prog)s DRCT_SRx4.pth -o small.pth --format compact --fp16
"""


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct export`."""
    formats = "".join(f"  {name:12}  {purpose}\n" for name, purpose in FORMATS.items())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"formats:\n{formats}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", help="file, folder of save_pretrained, or name such as DRCT-XS_SRx4")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="what to write")
    parser.add_argument("--format", choices=FORMATS, help=f"default: by the suffix, {', '.join(SUFFIXES)}")
    parser.add_argument("--fp16", action="store_true", help="weights in half precision, and computation with them")
    opsets = f"of ONNX, {OPSETS[0]} (default) to {OPSETS[-1]}"
    parser.add_argument("--opset", type=int, choices=OPSETS, default=OPSETS[0], metavar="N", help=opsets)
    parser.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        help="run what was recorded for onnx or torch-export and compare; default: for onnx if ONNX Runtime is there",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct export`. Returns 0, or 2 if nothing was written."""
    args = argument_parser().parse_args(argv)
    kind = args.format or SUFFIXES.get(args.output.suffix.lower())
    if kind is None:
        raise DRCTError(f"{args.output} has none of the suffixes {', '.join(SUFFIXES)}: say what it is with --format")
    if args.output.exists() and not args.overwrite:
        raise DRCTError(f"{args.output} exists: --overwrite replaces it")

    from drct.files import write_atomically
    from drct.inference import export as formats
    from drct.inference.weights import read_network

    loaded = read_network(args.weights)
    if kind == "onnx":
        content, notes = formats.onnx_graph(loaded, args.fp16, args.opset, args.check)
    elif kind == "torch-export":
        content, notes = formats.exported_program(loaded, args.fp16, args.check)
    else:
        content, notes = formats.weight_file(loaded, kind, args.fp16)
    write_atomically(args.output, lambda file: file.write(content))
    print(f"{args.output}: {kind}, {len(content) / 1e6:.1f} MB, {notes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
