"""Measure or apply a network as an option file says: `drct test`, `python drct/test.py`."""

from pathlib import Path

from drct.commands.run_arguments import parse_options, read_arguments
from drct.errors import one_line_errors


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct/test.py`. Returns 0, 1 if some images failed, 2 if nothing could be done."""
    read_arguments(argv)

    from drct.runtime.distributed import reported_once  # PyTorch takes seconds, mistakes should not

    return reported_once(_test)(argv)


def _test(argv: list[str] | None) -> int:
    import torch

    from drct.runs.log import RunLog
    from drct.runs.test import run

    with RunLog() as log:
        opt, _ = parse_options(Path.cwd(), is_train=False, argv=argv)
        torch.backends.cudnn.benchmark = False  # images differ in size
        return 1 if run(opt, log) else 0
