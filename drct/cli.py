"""The command `drct`: a table of its commands, each of which is imported only when it runs."""

import atexit
import io
import os
import sys
from typing import TYPE_CHECKING

from drct import interrupts
from drct.version import __version__

if TYPE_CHECKING:
    from drct.commands.common import Commands

COMMANDS: "Commands" = {
    "upscale": ("drct.commands.upscale", "upscale photographs, folders of them, or the files that a pattern matches"),
    "serve": ("drct.commands.serve", "upscale in the browser"),
    "info": ("drct.commands.info", "describe a weight file and the memory that it needs"),
    "zoo": ("drct.commands.zoo", "list the weights that are known, and which of them are here"),
    "export": ("drct.commands.export", "write a network as ONNX, safetensors, or for another program"),
    "test": ("drct.commands.test", "measure or apply a network, by an option file or by its weights"),
    "verify": ("drct.commands.verify", "repeat a test run by its certificate, and name what differs"),
    "train": ("drct.commands.train", "train a network by an option file"),
    "prepare": ("drct.commands.prepare", "make training and test data from images"),
    "curves": ("drct.commands.curves", "draw losses and metrics of training runs"),
    "report": ("drct.commands.report", "compare the results of test runs"),
    "analyze": ("drct.commands.analyze", "look into networks: features through their depth, what a patch depends on"),
    "complexity": ("drct.commands.complexity", "parameters, operations and memory of networks"),
    "bench": ("drct.commands.bench", "time and memory beside other networks and runtimes"),
}
EXAMPLES = """\
examples:
  drct upscale photo.jpg holidays/ -o larger     with the weights that come with the project
  drct upscale *.png -o larger --weights DRCT_SRx4.pth --precision fp32
  drct serve
  drct info experiments/pretrained_models/DRCT-XS_SRx4.pth
  drct export DRCT-XS_SRx4 -o drct.onnx
  drct test --weights DRCT-XS_SRx4 --data datasets/Set5/GTmod12
  drct test -opt options/test/DRCT-XS_SRx4.yml
  drct train -opt options/train/train_DRCT_SRx2_from_scratch.yml

`drct <command> --help` describes each command."""


def main(argv: list[str] | None = None) -> int:
    """Run a command of `drct` or `python -m drct`. Returns its exit status; 2 if there is no such command."""
    from drct.commands.common import help_text, run_command  # after `interrupts.install`, as everything that takes time

    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in ("-V", "--version"):
        print(f"drct {__version__}")
        return 0
    text = help_text("drct", "Image super-resolution with DRCT, HAT and other networks.", COMMANDS, EXAMPLES)
    return run_command("drct", COMMANDS, text, arguments)


def _print_every_name() -> None:
    """Print what the encoding of stdout lacks, such as letters in names of files, as escapes, in place of an error."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr has it


def entry_point(*first: str) -> None:
    """Run the command of `first` and the command line, and exit with its status: the console script `drct`."""
    interrupts.install()
    _print_every_name()
    from drct.runtime import threads

    threads.prepare()
    try:
        status = main([*first, *sys.argv[1:]])
        interrupts.finish()
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            # Threads of PyTorch's process groups may abort the interpreter's own way out, seen with gloo
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        sys.exit(status)
    except KeyboardInterrupt:  # outside of what the command itself reports
        print("interrupted", file=sys.stderr)
        interrupts.finish()
        sys.exit(interrupts.STATUS)
    except BrokenPipeError:  # `drct info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
