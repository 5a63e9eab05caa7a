"""Write a network for other programs: ONNX, torch.export, safetensors, and weight files of either layout."""

from argparse import ArgumentParser, BooleanOptionalAction
from dataclasses import replace
from pathlib import Path

from drct.commands.common import add_network, command_parser
from drct.errors import DRCTError, one_line_errors
from drct.files import AlreadyExistsError, write_bytes
from drct.inference.card import checked_card
from drct.runtime.weight_files import check_weights
from drct.runtime.yaml_file import load_yaml

EXPORT_FORMATS = {
    "onnx": "a graph for ONNX Runtime, OpenVINO and others; takes images of any size",
    "torch-export": "a program that PyTorch runs without this project; sides are two or more whole windows",
    "safetensors": "weights, with the network's arguments in the metadata",
    "original": "weights as the original implementation saves them and loads them strictly",
    "compact": "weights without what follows from the network's arguments, for this project only",
}
FORMAT_BY_SUFFIX = {
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
  %(prog)s experiments/mine/models/net_g_90000.pth -o Mine_SRx4.pth --metadata card.yml      to publish it
  %(prog)s run1.pth --average run2.pth run3.pth -o mean.pth      the mean of runs from the same start
"""


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct export`."""
    formats = "".join(f"  {name:12}  {purpose}\n" for name, purpose in EXPORT_FORMATS.items())
    parser = command_parser(__doc__, f"formats:\n{formats}\n{EXAMPLES}")
    parser.add_argument("weights", help="file, folder of a run or of save_pretrained, or name such as DRCT-XS_SRx4")
    add_network(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="file to write")
    suffixes = f"default: by the suffix, {', '.join(FORMAT_BY_SUFFIX)}"
    parser.add_argument("--format", choices=EXPORT_FORMATS, help=suffixes)
    parser.add_argument("--fp16", action="store_true", help="store weights in half precision and compute in it")
    opsets = f"ONNX operator set, {OPSETS[0]} (default) to {OPSETS[-1]}"
    parser.add_argument("--opset", type=int, choices=OPSETS, default=OPSETS[0], metavar="N", help=opsets)
    check = "run the onnx or torch-export result and compare it with the network; default: "
    check += "for onnx if ONNX Runtime is installed"
    parser.add_argument("--check", action=BooleanOptionalAction, help=check)
    average = "write the mean of these weights and the first ones; pays for runs that started from the same weights"
    parser.add_argument("--average", nargs="+", default=[], metavar="WEIGHTS", help=average)
    card = "YAML file of entries for the metadata, such as licence, data and results; they replace those of the weights"
    parser.add_argument("--metadata", type=Path, metavar="FILE", help=card)
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct export`. Returns 0, or 2 if nothing was written."""
    args = argument_parser().parse_args(argv)
    kind = args.format or FORMAT_BY_SUFFIX.get(args.output.suffix.lower())
    if kind is None:
        raise DRCTError(
            f"{args.output} has none of the suffixes {', '.join(FORMAT_BY_SUFFIX)}: say what it is with --format"
        )
    if args.output.exists() and not args.overwrite:
        raise DRCTError(f"{args.output} exists: --overwrite replaces it")
    for weights in (args.weights, *args.average):
        check_weights(weights, args.network)
    card = checked_card(load_yaml(args.metadata, "metadata file"), args.metadata) if args.metadata else {}

    from drct.inference import export as formats  # PyTorch takes seconds, --help should not
    from drct.inference.averaging import average
    from drct.inference.weights import read_network

    loaded = average([read_network(weights, args.network) for weights in (args.weights, *args.average)])
    loaded = replace(loaded, card={**loaded.card, **card})
    if kind == "onnx":
        content, notes = formats.onnx_graph(loaded, args.fp16, args.opset, args.check)
    elif kind == "torch-export":
        content, notes = formats.exported_program(loaded, args.fp16, args.check)
    else:
        content, notes = formats.weight_file(loaded, kind, args.fp16)
    try:
        write_bytes(args.output, content, replace=args.overwrite)
    except AlreadyExistsError as error:  # by now, from another program
        raise DRCTError(f"{error}: --overwrite replaces it") from error
    print(f"{args.output}: {kind}, {len(content) / 1e6:.1f} MB, {notes}")
    return 0
