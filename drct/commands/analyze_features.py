"""Measure how large the features of networks are through their depth, and how much of them varies over the image.

Writes a table (features.json, features.csv), curves (features.png), maps (strip_<network>.png) and an animation
(features.gif). What is measured, and where, is described in features.json and in drct/analysis/feature_maps.py.
"""

from argparse import ArgumentParser
from pathlib import Path

from drct.analysis.plotting import needs_matplotlib, save_png
from drct.commands.common import add_device, add_network, command_parser, print_failures
from drct.errors import DRCTError, one_line_errors
from drct.files import expanded, make_folder
from drct.runs.folders import repeated, run_names
from drct.runtime.weight_files import check_weights
from drct.text import count

EXAMPLES = """examples:
  %(prog)s DRCT-XS_SRx4 --input photo.png -o features
  %(prog)s SwinIR.pth HAT.pth DRCT.pth --input small/ -o features
  %(prog)s --show features/features.json -o redrawn
  %(prog)s experiments/mine_seed* experiments/other_seed* --names mine other --input photo.png -o features

Runs whose folders have the same name up to _seed<number> count as one network: the curves show their median and range,
the table their mean and standard deviation.
"""


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct analyze features`."""
    parser = command_parser(__doc__, EXAMPLES)
    networks = "weights of DRCT or HAT (file or name), of SwinIR (file; needs spandrel), or folder of a training run"
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=networks)
    add_network(parser)
    images = "images of about 100 to 300 pixels a side, or folders of them; each is computed as a whole"
    parser.add_argument("--input", nargs="+", type=Path, metavar="IMAGE", help=images)
    folder = "older files of these names are replaced"
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER", help=folder)
    names = "names for the networks, one for all runs that differ by their seed"
    parser.add_argument("--names", nargs="+", metavar="NAME", help=names)
    maps, shown = ("intensity", "variation", "normalized"), "what maps and animation show; default: %(default)s"
    parser.add_argument("--map", choices=maps, default=maps[0], help=shown)
    earlier = "draw the curves and print the table of a features.json, nothing else"
    parser.add_argument("--show", type=Path, metavar="JSON", help=earlier)
    add_device(parser)
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct analyze features`. Returns 0, 1 if some images failed, 2 if nothing could be done."""
    args = argument_parser().parse_args(argv)
    needs_matplotlib("pictures of features need")
    if args.show:
        if args.networks or args.input or args.names:
            raise DRCTError("--show draws what was measured: it takes no networks, --input or --names")
        return _show(args.show, args.output)
    if not args.networks or not args.input:
        raise DRCTError("give networks to look at, and images after --input")
    for network in args.networks:
        check_weights(network, args.network)
    if not any(expanded(path).exists() for path in args.input):
        raise DRCTError(f"no such file: {args.input[0]}: give images after --input")

    # Imported here because --help should not wait for PyTorch
    from drct.analysis import feature_comparison as comparison

    print_failures((f"{path} is given twice and counts once" for path in repeated(args.networks)), "note")
    sources = run_names(expanded(source) for source in args.networks)
    groups = comparison.group_by_seed(sources, args.names)
    upscalers = {name: comparison.load_upscaler(source, args.device, args.network) for name, source in sources.items()}
    pictures, failures = comparison.read_pictures(args.input)
    print_failures(failures)
    if not pictures:
        raise DRCTError("none of the images could be read: give others after --input")
    folder = make_folder(expanded(args.output))
    measured = comparison.measure_all(upscalers, pictures)
    psnr = {}
    for name, source in sources.items():
        psnr[name], notes = comparison.last_psnr(source)
        print_failures(notes, "note")
    print(comparison.FeatureComparison(groups, sources, measured, psnr, pictures).write(folder, args.map))
    print(f"features of {count(len(measured), 'network')} on {count(len(pictures), 'image')}: {folder}")
    return int(bool(failures))


def _show(file: Path, output: Path) -> int:
    from drct.analysis.feature_pictures import draw_depth_curves
    from drct.analysis.feature_tables import read_features, summary_tables

    networks, rows = read_features(file)
    save_png(make_folder(expanded(output)) / "features.png", draw_depth_curves(networks))
    print(summary_tables(rows))
    return 0
