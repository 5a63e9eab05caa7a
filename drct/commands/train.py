"""Train a network as an option file says: `drct train`, `python drct/train.py`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from drct.commands import run_arguments
from drct.errors import one_line_errors


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct train`."""
    parser = run_arguments.options_parser()
    estimate = "tell memory, time and disk that the run would take, after a few steps of it; write nothing"
    parser.add_argument("--estimate", action="store_true", help=estimate)
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct/train.py`.

    Returns:
        0, 2 if training could not start or go on, or 128 plus the signal's number if Ctrl-C or SIGTERM stopped it. With
        --estimate, 0, 1 if the memory would not suffice, or 2.
    """
    args = run_arguments.read_arguments(argv, argument_parser())

    from drct.runtime.distributed import reported_once  # PyTorch takes seconds, mistakes should not

    return reported_once(_estimate if args.estimate else _train)(args)


def _train(args: Namespace) -> int:
    import torch

    from drct.runs.log import RunLog
    from drct.runs.options import read_options
    from drct.runs.signals import Stopped
    from drct.runs.train import TrainingRun

    with RunLog() as log:
        opt, _ = read_options(Path.cwd(), True, args.opt, args.force_yml, args.launcher, args.auto_resume, args.debug)
        torch.backends.cudnn.benchmark = True  # patches have one size
        try:
            TrainingRun(opt, args.opt, log).run()
        except Stopped as stopped:
            return stopped.status
        return 0


def _estimate(args: Namespace) -> int:
    import torch

    from drct.runs.estimate import estimate
    from drct.runs.estimate_text import estimate_text
    from drct.runs.log import RunLog
    from drct.runtime.distributed import rank

    torch.backends.cudnn.benchmark = True  # as in training
    with RunLog():
        found = estimate(Path.cwd(), args.opt, args.force_yml, args.launcher, args.auto_resume, args.debug)
    if rank() == 0:
        print(estimate_text(found))
    return 0 if found.costs[0].seconds else 1
