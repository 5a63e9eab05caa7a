"""Train a network as an option file says: `drct train`, `python drct/train.py`."""

from pathlib import Path

from drct.commands.run_arguments import parse_options, read_arguments
from drct.errors import one_line_errors


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct/train.py`.

    Returns:
        0, 2 if training could not start or go on, or 128 plus the signal's number if Ctrl-C or SIGTERM stopped it.
    """
    read_arguments(argv)

    from drct.runtime.distributed import reported_once  # PyTorch takes seconds, mistakes should not

    return reported_once(_train)(argv)


def _train(argv: list[str] | None) -> int:
    import torch

    from drct.runs.log import RunLog
    from drct.runs.signals import Stopped
    from drct.runs.train import TrainingRun

    with RunLog() as log:
        opt, args = parse_options(Path.cwd(), is_train=True, argv=argv)
        torch.backends.cudnn.benchmark = True  # patches have one size
        try:
            TrainingRun(opt, args.opt, log).run()
        except Stopped as stopped:
            return stopped.status
        return 0
