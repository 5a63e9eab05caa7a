"""The look that all plots share, and what drawing them needs. matplotlib is an extra and imported where it is used."""

from pathlib import Path
from typing import Any

from drct.errors import DRCTError

WIDTH, DPI = 8.0, 150  # inches, pixels per inch: 1200 pixels wide

FONT = 8.5  # points

GRAY = "#555555"

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # told apart by everybody

DASHES = ("-", "--", ":", "-.")  # of the runs after the last colour

STARS = ("*", "P", "X", "D")  # at the best value of a line of that dash


def needs_matplotlib(what_needs: str) -> None:
    """Raise `DRCTError` if matplotlib, an extra, is not installed: "<what needs> matplotlib, which is missing ..."."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise DRCTError(f'{what_needs} matplotlib, which is missing: pip install "drct[curves]"') from error


def line_styles(count: int) -> list[dict[str, Any]]:
    """Colour and dashes of so many lines, which everybody tells apart."""
    return [
        {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]} for i in range(count)
    ]


def check_png(path: Path, name: str) -> None:
    """Raise `DRCTError` if a picture cannot have this path. It suggests a name in a folder."""
    if path.suffix.lower() != ".png":
        folder = path.is_dir()
        example = path / name if folder else path.with_suffix(".png")
        raise DRCTError(f"the picture is a PNG, but {path} is {'a folder' if folder else 'not'}: -o {example}")
