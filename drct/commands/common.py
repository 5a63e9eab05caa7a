"""Parts that the commands share: dispatch by name, arguments, and printing of failures."""

import argparse
import importlib
import math
import sys
from collections.abc import Iterable

from drct.errors import did_you_mean

Commands = dict[str, tuple[str, str]]  # name: module with `main(argv) -> int`, and one line about it


def help_text(program: str, purpose: str, commands: Commands, examples: str) -> str:
    """Return the `--help` text of a program that has several commands."""
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {about}" for name, (_, about) in commands.items()]
    return "\n".join([f"usage: {program} <command> [...]", "", purpose, "", *lines, "", examples])


def run_command(program: str, commands: Commands, help_text: str, arguments: list[str]) -> int:
    """Run the command that the first argument names. Returns its exit status; 2 if there is no such command."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text)
        return 0
    name = arguments[0]
    if name not in commands:
        hint = did_you_mean(name, commands)
        print(f"error: there is no command {name!r}{hint}; see {program} --help", file=sys.stderr)
        return 2
    sys.argv[0] = f"{program} {name}"  # argparse takes the program's name from here
    return importlib.import_module(commands[name][0]).main(arguments[1:])


def command_parser(description: str | None, epilog: str | None = None) -> argparse.ArgumentParser:
    """Return a parser whose help keeps the line breaks of the description and of the epilog."""
    as_written = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, epilog=epilog, formatter_class=as_written)


def print_failures(failures: Iterable[object], label: str = "error") -> None:
    """Print each failure as one line on stderr, after a label."""
    for failure in failures:
        print(f"{label}: {failure}", file=sys.stderr)


def print_table(table: str) -> None:
    """Print a table in Markdown, with question marks for characters that the terminal has not, such as arrows."""
    encoding = sys.stdout.encoding or "utf-8"
    print(table.encode(encoding, "replace").decode(encoding), end="")


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add --device: where to compute."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: an accelerator if there is one")


def add_network(parser: argparse._ActionsContainer) -> None:
    """Add --network: an option file that names the architecture of weights."""
    file = "option file whose network_g the weights are of, where they do not tell"
    parser.add_argument("--network", metavar="YML", help=file)


def add_precision(parser: argparse.ArgumentParser) -> None:
    """Add --precision: the number format to compute in."""
    choices = ("auto", "fp32", "bf16", "fp16")
    parser.add_argument("--precision", choices=choices, default="auto", help="default: auto, the fastest on the device")


def add_tile(parser: argparse._ActionsContainer) -> None:
    """Add --tile: a size in input pixels, 'auto', or None for 'off'."""
    side = "side of tiles in input pixels, auto or off; default: auto, tiles only if memory needs them"
    parser.add_argument("--tile", type=_tile_size, default="auto", metavar="SIZE", help=side)


def add_tile_error(parser: argparse._ActionsContainer) -> None:
    """Add --tile-error: how much tiles may change results, from which their overlap follows."""
    levels = "smallest overlap with which tiles change results by at most this RMS, in levels of 255, such as 0.01"
    parser.add_argument("--tile-error", type=_positive, metavar="LEVELS", help=levels)


def add_size(parser: argparse.ArgumentParser) -> None:
    """Add --size: width and height of the image whose cost is reported."""
    size = "of the image before upscaling; default 64x64, as in published tables"
    parser.add_argument("--size", type=_width_and_height, default=(64, 64), metavar="WxH", help=size)


def _tile_size(text: str) -> int | str | None:
    if text in ("auto", "off"):
        return None if text == "off" else text
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not auto, off or a number of pixels")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def _width_and_height(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not all(side.isdecimal() and len(side) <= 7 and int(side) for side in (width, height)):
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT, such as 640x480")
    return int(width), int(height)
