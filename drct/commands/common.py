"""What several commands share."""

import argparse
import importlib
import sys

from drct.errors import did_you_mean

Commands = dict[str, tuple[str, str]]  # name: module with `main(argv) -> int`, and what it does


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
