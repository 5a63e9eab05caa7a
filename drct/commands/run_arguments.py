"""Arguments that `drct train` and `drct test` share, as BasicSR's train.py and test.py have them."""

import argparse
import io
import os
from contextlib import nullcontext, redirect_stderr
from typing import Any

from drct.commands.common import command_parser
from drct.runs.first_check import check_paths
from drct.runtime.yaml_file import load_yaml

PROTOCOLS = "val:protocols=true"  # entry of --force_yml


def options_parser(
    description: str | None = None, epilog: str | None = None, required: bool = True
) -> argparse.ArgumentParser:
    """Make the parser of the arguments that come with an option file, which is `required` or not."""
    parser = command_parser(description, epilog)
    parser.add_argument("-opt", "--opt", required=required, metavar="FILE", help="option file, see options/")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    parser.add_argument("--auto_resume", action="store_true", help="go on from the newest state of the experiment")
    parser.add_argument("--debug", action="store_true", help="log every iteration, validate and save every 8")
    protocols = "in a test, also measure PSNR as other papers do"
    parser.add_argument(
        "--protocols", dest="force_yml", action="append_const", const=PROTOCOLS, default=[], help=protocols
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by torch.distributed.launch")
    parser.add_argument(
        "--force_yml",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="replace options, e.g. train:ema_decay=0.999 datasets:train:batch_size_per_gpu=2",
    )
    return parser


def read_arguments(argv: list[str] | None = None, parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """Read the arguments of a run, and check the paths of its option file, without importing PyTorch.

    The parser is that of `options_parser`, if no other is given. With an argument `estimate`, paths may be missing.

    Raises:
        DRCTError: if the option file cannot be read, or names a folder or file that does not exist.
        SystemExit: for a mistake in the arguments, or `--help`.
    """
    # Of several processes, one reports a mistake, and those in files only after all have met
    with redirect_stderr(io.StringIO()) if os.environ.get("LOCAL_RANK", "0") != "0" else nullcontext():
        args = (parser or options_parser()).parse_args(argv)
    if getattr(args, "estimate", False):
        load_yaml(args.opt)
    elif args.opt and "RANK" not in os.environ and args.launcher == "none":
        check_paths(args.opt, args.force_yml)
    return args


def parse_options(
    root_path: str | os.PathLike, is_train: bool = True, argv: list[str] | None = None
) -> tuple[dict[str, Any], argparse.Namespace]:
    """Read the arguments and the option file of a run. Takes the place of `basicsr.utils.options.parse_options`.

    Args:
        root_path: Folder in which `experiments/` and `results/` are.
        is_train: Whether to train or to test.
        argv: Arguments; those of the process if None.

    Returns:
        Options, as `read_options` returns them, and the arguments.

    Raises:
        DRCTError: for a mistake in the option file or in `--force_yml`.
        SystemExit: for a mistake in the arguments, or `--help`.
    """
    args = read_arguments(argv)

    from drct.runs.options import read_options  # PyTorch and BasicSR take seconds, mistakes should not

    opt, _ = read_options(root_path, is_train, args.opt, args.force_yml, args.launcher, args.auto_resume, args.debug)
    return opt, args
