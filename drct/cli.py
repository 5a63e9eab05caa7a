"""The command `drct`: finds the program of a command's name, which imports what it needs when it runs."""

import argparse
import importlib
import os
import sys

import drct
from drct.errors import did_you_mean

Commands = dict[str, tuple[str, str]]  # name: module with `main(argv) -> int`, and what it does

COMMANDS: Commands = {
    "upscale": ("drct.inference.command", "upscale photographs, folders of them, or what a pattern matches"),
    "serve": ("drct.web", "upscale in the browser"),
    "info": ("drct.inference.info", "tell what a weight file is and what it needs"),
    "export": ("drct.inference.export", "write a network as ONNX, safetensors, or for another program"),
    "test": ("drct.engine.test", "measure or apply a network as an option file says"),
    "train": ("drct.engine.train", "train a network as an option file says"),
    "prepare": ("drct.data.prepare", "make training and test data from images"),
    "curves": ("drct.analysis.curves", "draw losses and metrics of training runs"),
    "report": ("drct.analysis.report_command", "compare the results of test runs"),
    "analyze": ("drct.analysis.analyze", "look into networks: features through their depth, what a patch depends on"),
    "complexity": ("drct.analysis.complexity_command", "parameters, operations and memory of networks"),
    "tables": ("drct.analysis.tables", "write the tables of a Markdown file anew from results"),
    "bench": ("drct.analysis.speed_benchmark", "time and memory beside other networks and runtimes"),
}
EXAMPLES = """\
examples:
  drct upscale photo.jpg holidays/ -o larger     with the weights that come with the project
  drct upscale *.png -o larger --weights DRCT_SRx4.pth --precision fp32
  drct serve
  drct info experiments/pretrained_models/DRCT-XS_SRx4.pth
  drct export DRCT-XS_SRx4 -o drct.onnx
  drct test -opt options/test/DRCT-XS_SRx4.yml
  drct train -opt options/train/train_DRCT_SRx2_from_scratch.yml

`drct <command> --help` tells more of each."""


def help_text(program: str, purpose: str, commands: Commands, examples: str) -> str:
    """What `--help` prints of a program of several commands."""
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in commands.items()]
    return "\n".join([f"usage: {program} <command> [...]", "", purpose, "", *lines, "", examples])


def run_command(program: str, commands: Commands, help_text: str, arguments: list[str]) -> int:
    """Run the command that the first argument names. Returns its exit status; 2 if there is no such command."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text)
        return 0
    name = arguments[0]
    if name not in commands:
        print(
            f"error: there is no command {name!r}{did_you_mean(name, commands)}; see {program} --help", file=sys.stderr
        )
        return 2
    sys.argv[0] = f"{program} {name}"  # what argparse calls the program
    return importlib.import_module(commands[name][0]).main(arguments[1:])


def add_size(parser: argparse.ArgumentParser) -> None:
    """The argument --size of commands that tell what an image takes: width and height."""
    parser.add_argument(
        "--size",
        type=_width_and_height,
        default=(64, 64),
        metavar="WxH",
        help="of the image before upscaling; default 64x64, as in published tables",
    )


def _width_and_height(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT, such as 640x480")
    return int(width), int(height)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct` and `python -m drct`. Returns the command's exit status; 2 if there is no such command."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in ("-V", "--version"):
        print(f"drct {drct.__version__}")
        return 0
    text = help_text("drct", "Image super-resolution with DRCT.", COMMANDS, EXAMPLES)
    return run_command("drct", COMMANDS, text, arguments)


def entry_point() -> None:
    """What the console script runs."""
    try:
        sys.exit(main())
    except BrokenPipeError:  # `drct info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
