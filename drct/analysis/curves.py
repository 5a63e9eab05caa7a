"""Draw the losses, metrics and learning rate of training runs, several runs in one picture, from their scalars.csv."""

import argparse
import math
import textwrap
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drct.analysis.plotting import DASHES, DPI, FONT, GRAY, STARS, WIDTH, check_png, line_styles, needs_matplotlib
from drct.errors import DRCTError, did_you_mean, one_line_errors
from drct.evaluation.metric_table import decimals, lower_is_better
from drct.files import write_atomically
from drct.runs.folders import run_names
from drct.runs.scalars import FILE_NAME, read_scalars

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Scalars = Mapping[str, tuple[np.ndarray, np.ndarray]]  # of one run: tag -> iterations, values

DEFAULT_TAGS = ("losses/*", "metrics/*", "train/lr*")

ROW = 2.55  # inches: height of a row of panels
LISTED = 6  # best values that a panel has room for


def select_tags(runs: Mapping[str, Scalars], patterns: Iterable[str] | None = None) -> list[str]:
    """Choose what to draw.

    Args:
        runs: Scalars per name of a run.
        patterns: Tags or glob patterns, of which each must match something. `DEFAULT_TAGS` if None.

    Returns:
        Tags in the order of the patterns; those of one pattern in the order in which they were logged.

    Raises:
        DRCTError: if nothing matches; it lists the tags there are.
    """
    known = list(dict.fromkeys(tag for scalars in runs.values() for tag in scalars))
    wanted = DEFAULT_TAGS if patterns is None else tuple(patterns)
    matches = {pattern: [tag for tag in known if fnmatchcase(tag, pattern)] for pattern in wanted}
    missing = [pattern for pattern, tags in matches.items() if not tags]
    if missing and (patterns is not None or len(missing) == len(matches)):
        hint = did_you_mean(missing[0], known)
        raise DRCTError(f"no tag matches {' '.join(missing)}{hint}: choose --tags among {' '.join(known)}")
    return list(dict.fromkeys(tag for tags in matches.values() for tag in tags))


# ------------------------------------------------------------------------------------------------------------ drawing


def smooth(values: np.ndarray, factor: float) -> np.ndarray:
    """Exponential moving average without the bias towards its start: (N,) -> (N,).

    Value i is the mean of values 0 to i, of which value j weighs `factor` ** (i - j). Values that are not finite stay
    and do not enter the mean.
    """
    smoothed = np.array(values, np.float64)
    total = weight = 0.0
    for i, value in enumerate(smoothed):
        if math.isfinite(value):
            total, weight = factor * total + value, factor * weight + 1
            smoothed[i] = total / weight
    return smoothed


def best_point(tag: str, iterations: np.ndarray, values: np.ndarray) -> tuple[int, float] | None:
    """Iteration and value of a metric at its best, the first of equals; None if it is nowhere finite."""
    finite = np.isfinite(values)
    if not finite.any():
        return None
    lower = lower_is_better(tag)
    at = np.where(finite, values, np.inf).argmin() if lower else np.where(finite, values, -np.inf).argmax()
    return int(iterations[at]), float(values[at])


def draw_curves(runs: Mapping[str, Scalars], tags: list[str], smoothing: float = 0.9) -> "Figure":
    """Draw one panel per tag, and in it one line per run.

    Losses are drawn on a logarithmic scale; of metrics, the best value and its iteration are noted.

    Args:
        runs: Scalars per name of a run.
        tags: What to draw.
        smoothing: Factor of `smooth`, for what is noisy: all but metrics and learning rates. 0 draws no smoothed line.

    Returns:
        The figure, 1200 pixels wide when saved as it is.

    Raises:
        DRCTError: if matplotlib is not installed.
    """
    needs_matplotlib("drawing curves needs")
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(2, len(tags))
    rows = math.ceil(len(tags) / columns)
    names = [textwrap.fill(name, 80, break_on_hyphens=False) for name in runs]
    legend_columns = max(1, min(len(names), 4, int(WIDTH / (0.07 * max(map(len, names)) + 0.6))))
    lines_of_legend = sum(name.count("\n") + 1 for name in names) / legend_columns
    height = rows * ROW + 0.3 + 0.17 * lines_of_legend
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    styles = line_styles(len(runs))
    for i, tag in enumerate(tags):
        axes = figure.add_subplot(rows, columns, i + 1)
        for style, scalars in zip(styles, runs.values(), strict=True):
            if tag in scalars:
                _draw_line(axes, tag, *scalars[tag], smoothing, style)
        _finish_panel(axes, tag, i + columns >= len(tags))
    _share_iterations(figure.axes)
    _draw_legend(figure, names, styles, legend_columns)
    return figure


def _draw_line(
    axes: "Axes", tag: str, iterations: np.ndarray, values: np.ndarray, smoothing: float, style: dict[str, Any]
) -> None:
    values = np.where(np.isfinite(values), values, np.nan)  # a gap, where infinity would spoil the scale
    alone = len(iterations) == 1
    if tag.startswith("metrics/"):
        size = 2.8 if len(iterations) <= 40 else 1.5
        axes.plot(iterations, values, lw=1.3, marker="o", ms=size, gid="raw", **style)
        best = best_point(tag, iterations, values)
        if best:
            label = f"{best[1]:.{decimals(tag)}f} at {best[0]:,}"
            star = STARS[DASHES.index(style["linestyle"])]
            size = 10 if star == "*" else 7
            axes.plot(*best, star, c=style["color"], ms=size, mec="white", mew=0.6, label=label, gid="best", zorder=3)
    elif not smoothing or tag.startswith("train/lr"):
        axes.plot(iterations, values, lw=1.3, marker="o" if alone else "", ms=4, gid="raw", **style)
    else:
        axes.plot(iterations, values, lw=0.7, alpha=0.25, gid="raw", **style)
        marker = "o" if alone else ""
        axes.plot(iterations, smooth(values, smoothing), lw=1.5, marker=marker, ms=4, gid="smoothed", **style)


def _finish_panel(axes: "Axes", tag: str, bottom: bool) -> None:
    """Scales, grid, title and the list of best values."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    _scale_values(axes, tag)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title(tag, fontsize=FONT + 1, fontweight="bold", loc="left", parse_math=False)
    axes.tick_params(labelsize=FONT, color="#bbbbbb", labelcolor=GRAY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")
    axes.grid(color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)
    if bottom:
        axes.set_xlabel("iteration", fontsize=FONT, color=GRAY)
    _list_best(axes, tag)


def _scale_values(axes: "Axes", tag: str) -> None:
    """Logarithmic for losses, but for adversarial ones that are not always positive."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    values = np.concatenate([np.ravel(line.get_ydata()) for line in axes.lines])
    values = values[np.isfinite(values)]
    if tag.startswith("metrics/"):
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)
        return
    if tag.startswith("losses/") and values.size and values.min() > 0:
        axes.set_yscale("log")
        narrow = values.max() < 30 * values.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if narrow else (1, 3)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))  # no factor over the panel


def _list_best(axes: "Axes", tag: str) -> None:
    stars = [line for line in axes.lines if line.get_gid() == "best"]
    if not stars:
        return
    falling = lower_is_better(tag)
    stars.sort(key=lambda line: np.ravel(line.get_ydata())[0], reverse=not falling)
    axes.legend(
        handles=stars[:LISTED],
        loc="upper right" if falling else "lower right",  # where a run that improves leaves room
        fontsize=FONT,
        handlelength=1,
        handletextpad=0.4,
        labelspacing=0.25,
        borderpad=0.3,
        framealpha=0.85,
        edgecolor="none",
        title="best",
        title_fontsize=FONT,
        alignment="left",
    )


def _share_iterations(panels: list["Axes"]) -> None:
    """Give all panels the same horizontal range."""
    iterations = np.concatenate([np.ravel(line.get_xdata()) for axes in panels for line in axes.lines])
    first, last = iterations.min(), iterations.max()
    margin = 0.03 * (last - first) or 1
    for axes in panels:
        axes.set_xlim(first - margin, last + margin)


def _draw_legend(figure: "Figure", names: list[str], styles: list[dict[str, Any]], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], lw=2, **style) for style in styles]
    placeholders = [str(i) for i in range(len(names))]
    legend = figure.legend(
        handles, placeholders, loc="outside upper center", ncols=columns, frameon=False, fontsize=FONT + 1
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)  # as it is: of a label, matplotlib takes a leading _ and $ for instructions


# ------------------------------------------------------------------------------------------------------- command line


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct/curves.py`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n"
        "  %(prog)s experiments/mine\n"
        "  %(prog)s experiments/mine experiments/other -o compared.png --tags 'losses/*' 'metrics/*/psnr' train/lr\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=f"folder of a run, or its {FILE_NAME}")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("curves.png"),
        metavar="FILE",
        help="picture to write, default curves.png; an existing one is replaced",
    )
    parser.add_argument(
        "--tags",
        nargs="+",
        metavar="TAG",
        help="what to draw: tags, or patterns in quotes; default: " + " ".join(f"'{tag}'" for tag in DEFAULT_TAGS),
    )
    parser.add_argument(
        "--smooth",
        type=float,
        default=0.9,
        metavar="FACTOR",
        help="weight of the past in the smoothed lines, from 0 (none) to below 1, default 0.9",
    )
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct/curves.py`. Returns 0, or 2 if nothing could be drawn."""
    args = argument_parser().parse_args(argv)
    if not 0 <= args.smooth < 1:
        raise DRCTError(f"--smooth must be from 0 to below 1, not {args.smooth:g}")
    check_png(args.output, "curves.png")
    paths = run_names(args.runs)
    runs = {name: read_scalars(path) for name, path in paths.items()}
    for name, path in paths.items():
        if not runs[name]:
            raise DRCTError(f"{path} has no values yet: wait until the run has logged some")
    tags = select_tags(runs, args.tags)
    figure = draw_curves(runs, tags, args.smooth)
    write_atomically(args.output, lambda file: figure.savefig(file, format="png"))
    print(f"curves of {len(runs)} run{'s' * (len(runs) > 1)}, {len(tags)} panel{'s' * (len(tags) > 1)}: {args.output}")
    return 0
