"""Measure a network on images, or apply it: by an option file, or by its weights and folders of images."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from drct.commands.common import add_device, add_network, add_tile, add_tile_error, print_table
from drct.commands.run_arguments import options_parser, read_arguments
from drct.errors import DRCTError, one_line_errors
from drct.images.listing import check_folder
from drct.runtime.weight_files import check_weights

EXAMPLES = """examples:
  %(prog)s -opt options/test/DRCT-XS_SRx4.yml
  %(prog)s -opt options/test/DRCT-XS_SRx4.yml --force_yml val:save_img=false tile=auto
  %(prog)s --weights DRCT-XS_SRx4 --data datasets/Set5/GTmod12
  %(prog)s --weights HAT_SRx4.pth --data Set5/HR --data Set14/HR --lr Set5/LRbicx4 --lr Set14/LRbicx4
"""
LABEL = "drct test"  # in place of the option file's name in errors


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct test`."""
    parser = options_parser(__doc__, EXAMPLES, required=False)
    plain = parser.add_argument_group("without an option file")
    plain.add_argument("--weights", metavar="NAME", help="file or name of weights, from which the network is read")
    add_network(plain)
    data = "folder of high-resolution images; several times for several sets"
    plain.add_argument("--data", action="append", default=[], type=Path, metavar="FOLDER", help=data)
    lr = "folder of their low-resolution images, for each --data; default: they are made as by `drct prepare lr`"
    plain.add_argument("--lr", action="append", default=[], type=Path, metavar="FOLDER", help=lr)
    plain.add_argument("--scale", type=int, help="scale that the network must have; default: whatever it has")
    plain.add_argument("--name", help="name of the folder in results/; default: that of the weights")
    choices = ("fp32", "bf16", "fp16", "auto")
    precision = "default: fp32, as published figures are measured"
    plain.add_argument("--precision", choices=choices, default="fp32", help=precision)
    plain.add_argument("--self-ensemble", action="store_true", help="average 8 rotations and reflections; 8 x slower")
    add_tile(plain)
    add_tile_error(plain)
    add_device(plain)
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct/test.py`. Returns 0, 1 if some images failed, 2 if nothing could be done."""
    args = read_arguments(argv, argument_parser())
    if "RANK" not in os.environ and args.launcher == "none":  # several processes report together
        _check(args)

    from drct.runtime.distributed import reported_once  # PyTorch takes seconds, mistakes should not

    return reported_once(_test)(args)


def _check(args: Namespace) -> None:
    """Raise `DRCTError` for arguments that do not go together, or folders and weights that do not exist."""
    if bool(args.opt) == bool(args.weights):
        raise DRCTError("give either an option file, -opt FILE, or --weights NAME and --data FOLDER")
    if args.opt:
        parser = argument_parser()
        keys = ("network", "data", "lr", "scale", "name", "precision", "self_ensemble", "tile", "tile_error", "device")
        given = [f"--{key.replace('_', '-')}" for key in keys if getattr(args, key) != parser.get_default(key)]
        if given:
            raise DRCTError(f"{given[0]} goes with --weights: with -opt, --force_yml replaces options of the file")
        return
    if not args.data:
        raise DRCTError("--weights needs --data FOLDER, high-resolution images to measure the network on")
    check_weights(args.weights, args.network)
    for folder in (*args.data, *args.lr):
        check_folder(folder)


def _test(args: Namespace) -> int:
    import torch

    from drct.runs.log import RunLog
    from drct.runs.options import read_options
    from drct.runs.plain_test import plain_options
    from drct.runs.test import run
    from drct.runtime.distributed import rank

    _check(args)
    given = None
    if args.weights:
        settings = {
            key: getattr(args, key)
            for key in ("scale", "name", "device", "precision", "tile", "tile_error", "self_ensemble")
        }
        given = plain_options(args.weights, args.data, args.lr, **settings)
    with RunLog() as log:
        opt, loaded = read_options(
            Path.cwd(),
            False,
            args.opt or LABEL,
            args.force_yml,
            args.launcher,
            args.auto_resume,
            args.debug,
            given,
            args.network,
        )
        torch.backends.cudnn.benchmark = False  # images differ in size
        failed = run(opt, log, loaded)
    if args.weights and rank() == 0:
        _print_means(Path(opt["path"]["results_root"]))
    return 1 if failed else 0


def _print_means(results: Path) -> None:
    from drct.evaluation.compare_runs import compare, comparison_markdown
    from drct.evaluation.results import read_run

    runs = [read_run(results.name, results)]
    comparison = compare(runs)
    if comparison.rows:  # else, no image could be measured
        print_table(comparison_markdown(runs, comparison))
