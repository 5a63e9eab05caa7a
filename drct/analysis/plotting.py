"""The look that all plots share. matplotlib is an extra and imported where it is used."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from drct.errors import DRCTError
from drct.files import write_atomically

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH, DPI = 8.0, 150  # inches, pixels per inch: 1200 pixels wide
FONT_SIZE = 8.5  # points
GRAY, LIGHT_GRAY, GRID_GRAY = "#555555", "#bbbbbb", "#e5e5e5"  # text, axes, grid
# Safe for colour blindness
LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", ":", "-.")  # the next dash begins after the last colour
STARS = ("*", "P", "X", "D")  # marks of the best value, one for each of DASHES


def needs_matplotlib(what_needs: str) -> None:
    """Raise `DRCTError` if matplotlib is not installed: "<what_needs> matplotlib, which is missing: ..."."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise DRCTError(f"{what_needs} matplotlib, which is missing: pip install matplotlib") from error


def line_styles(count: int) -> list[dict[str, Any]]:
    """Return colours and dashes that tell `count` lines apart, for readers with colour blindness as well."""
    return [
        {"color": LINE_COLOURS[i % len(LINE_COLOURS)], "linestyle": DASHES[i // len(LINE_COLOURS) % len(DASHES)]}
        for i in range(count)
    ]


def new_figure(height: float, width: float = WIDTH, dpi: int = DPI) -> "Figure":
    """Return an empty figure whose panels arrange themselves; sides in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), dpi=dpi, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))


def style_axes(axes: "Axes", grid: Literal["both", "x", "y"] = "both", muted: bool = True) -> None:
    """Draw a light grid behind the data, and no frame at the top and the right; if muted, the axes are gray."""
    axes.tick_params(labelsize=FONT_SIZE)
    if muted:
        axes.tick_params(color=LIGHT_GRAY, labelcolor=GRAY)
        axes.spines[["left", "bottom"]].set_color(LIGHT_GRAY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=GRID_GRAY, lw=0.6)
    axes.set_axisbelow(True)


def label_log_axis(axis: "Axis", multiples: Sequence[float]) -> None:
    """Label a logarithmic axis at these multiples of the powers of ten, in plain numbers instead of powers."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=multiples))
    axis.set_minor_locator(NullLocator())
    write_plain_numbers(axis)


def write_plain_numbers(axis: "Axis") -> None:
    """Label an axis with whole numbers as they are, without a factor or an offset beside the panel."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))


def legend_columns(labels: Sequence[str], most: int) -> int:
    """Return how many columns of a legend fit above a figure of `WIDTH`: between 1 and `most`."""
    return max(1, min(len(labels), most, int(WIDTH / (0.07 * max(map(len, labels)) + 0.6))))


def draw_legend(figure: "Figure", handles: Sequence["Artist"], labels: Sequence[str], columns: int) -> None:
    """Draw a legend above all panels, with the labels exactly as they are."""
    placeholders = [str(i) for i in range(len(labels))]
    legend = figure.legend(
        handles, placeholders, loc="outside upper center", ncols=columns, frameon=False, fontsize=FONT_SIZE + 1
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)  # set here because matplotlib interprets a leading _ and $ in a legend's labels


def check_png(path: Path, name: str) -> None:
    """Raise `DRCTError` unless a path ends in .png; for a folder, the message suggests a file `name` in it."""
    if path.suffix.lower() != ".png":
        found, example = ("a folder", path / name) if path.is_dir() else ("not", path.with_suffix(".png"))
        raise DRCTError(f"the picture is a PNG, but {path} is {found}: -o {example}")


def save_png(path: Path, figure: "Figure") -> None:
    """Write a figure as PNG, whole or not at all."""
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
