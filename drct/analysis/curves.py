"""Draw the losses, metrics and learning rate of training runs from their scalars.csv."""

import math
import textwrap
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from drct.analysis import plotting
from drct.analysis.plotting import DASHES, FONT_SIZE, GRAY, STARS
from drct.errors import DRCTError, did_you_mean
from drct.evaluation.metric_table import decimals, lower_is_better

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RunScalars = Mapping[str, tuple[np.ndarray, np.ndarray]]  # of one run: tag -> iterations, values

DEFAULT_TAGS = ("losses/*", "metrics/*", "train/lr*")

ROW_HEIGHT = 2.55  # inches
MOST_LISTED = 6  # best values in the legend of a panel


def select_tags(runs: Mapping[str, RunScalars], patterns: Iterable[str] | None = None) -> list[str]:
    """Choose the tags to draw.

    Args:
        runs: Scalars by the name of a run.
        patterns: Tags or glob patterns, each of which must match a tag. None takes what matches `DEFAULT_TAGS`.

    Returns:
        Tags in the order of the patterns; those of one pattern in the order in which they were logged.

    Raises:
        DRCTError: if nothing matches; the message lists the existing tags.
    """
    known = list(dict.fromkeys(tag for scalars in runs.values() for tag in scalars))
    wanted = DEFAULT_TAGS if patterns is None else tuple(patterns)
    matches = {pattern: [tag for tag in known if fnmatchcase(tag, pattern)] for pattern in wanted}
    missing = [pattern for pattern, tags in matches.items() if not tags]
    if missing and (patterns is not None or len(missing) == len(matches)):
        hint = did_you_mean(missing[0], known)
        raise DRCTError(f"no tag matches {' '.join(missing)}{hint}: choose --tags among {' '.join(known)}")
    return list(dict.fromkeys(tag for tags in matches.values() for tag in tags))


def smooth(values: np.ndarray, factor: float) -> np.ndarray:
    """Return the exponential moving average without the bias towards its start: (N,) -> (N,).

    Value i is the mean of values 0 to i, with the weight `factor` ** (i - j) for value j. Values that are not finite
    stay as they are and do not enter the mean.
    """
    smoothed = np.array(values, np.float64)
    total = weight = 0.0
    for i, value in enumerate(smoothed):
        if math.isfinite(value):
            total, weight = factor * total + value, factor * weight + 1
            smoothed[i] = total / weight
    return smoothed


def best_point(tag: str, iterations: np.ndarray, values: np.ndarray) -> tuple[int, float] | None:
    """Return iteration and value of a metric where it is first at its best; None if no value is finite."""
    finite = np.isfinite(values)
    if not finite.any():
        return None
    lower = lower_is_better(tag)
    at = np.where(finite, values, np.inf).argmin() if lower else np.where(finite, values, -np.inf).argmax()
    return int(iterations[at]), float(values[at])


def draw_training_curves(runs: Mapping[str, RunScalars], tags: list[str], smoothing: float = 0.9) -> "Figure":
    """Draw one panel per tag, and in it one line per run.

    Losses are drawn on a logarithmic scale. The panel of a metric lists the best values and their iterations.

    Args:
        runs: Scalars by the name of a run.
        tags: Tags to draw.
        smoothing: Factor of `smooth` for noisy tags: all but metrics and learning rates. 0 draws no smoothed line.

    Raises:
        DRCTError: if matplotlib is not installed.
    """
    plotting.needs_matplotlib("drawing curves needs")
    from matplotlib.lines import Line2D

    columns = min(2, len(tags))
    rows = math.ceil(len(tags) / columns)
    names = [textwrap.fill(name, 80, break_on_hyphens=False) for name in runs]
    columns_of_legend = plotting.legend_columns(names, 4)
    lines_of_legend = sum(name.count("\n") + 1 for name in names) / columns_of_legend
    figure = plotting.new_figure(rows * ROW_HEIGHT + 0.3 + 0.17 * lines_of_legend)
    styles = plotting.line_styles(len(runs))
    for i, tag in enumerate(tags):
        axes = figure.add_subplot(rows, columns, i + 1)
        for style, scalars in zip(styles, runs.values(), strict=True):
            if tag in scalars:
                _draw_run(axes, tag, *scalars[tag], smoothing, style)
        _finish_panel(axes, tag, i + columns >= len(tags))
    _share_iterations(figure.axes)
    plotting.draw_legend(figure, [Line2D([], [], lw=2, **style) for style in styles], names, columns_of_legend)
    return figure


def _draw_run(
    axes: "Axes", tag: str, iterations: np.ndarray, values: np.ndarray, smoothing: float, style: dict[str, Any]
) -> None:
    values = np.where(np.isfinite(values), values, np.nan)  # leaves a gap, where infinity would spoil the scale
    point = "o" if len(iterations) == 1 else ""  # a line of one value is invisible
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
        axes.plot(iterations, values, lw=1.3, marker=point, ms=4, gid="raw", **style)
    else:
        axes.plot(iterations, values, lw=0.7, alpha=0.25, gid="raw", **style)
        axes.plot(iterations, smooth(values, smoothing), lw=1.5, marker=point, ms=4, gid="smoothed", **style)


def _finish_panel(axes: "Axes", tag: str, bottom: bool) -> None:
    """Add scales, grid, title and the list of best values."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    _scale_values(axes, tag)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title(tag, fontsize=FONT_SIZE + 1, fontweight="bold", loc="left", parse_math=False)
    plotting.style_axes(axes)
    if bottom:
        axes.set_xlabel("iteration", fontsize=FONT_SIZE, color=GRAY)
    _list_best(axes, tag)


def _scale_values(axes: "Axes", tag: str) -> None:
    """Choose the scale: logarithmic for losses, except for adversarial ones that are not always positive."""
    values = np.concatenate([np.ravel(line.get_ydata()) for line in axes.lines])
    values = values[np.isfinite(values)]
    if tag.startswith("metrics/"):
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)
        return
    if tag.startswith("losses/") and values.size and values.min() > 0:
        axes.set_yscale("log")
        narrow = values.max() < 30 * values.min()
        plotting.label_log_axis(axes.yaxis, (1, 2, 3, 5) if narrow else (1, 3))
    else:
        plotting.write_plain_numbers(axes.yaxis)


def _list_best(axes: "Axes", tag: str) -> None:
    """List the best values of the runs, the best run first."""
    stars = [line for line in axes.lines if line.get_gid() == "best"]
    if not stars:
        return
    falling = lower_is_better(tag)
    stars.sort(key=lambda line: np.ravel(line.get_ydata())[0], reverse=not falling)
    style: dict[str, Any] = {"loc": "upper right" if falling else "lower right"}  # where improving runs leave room
    style |= {"framealpha": 0.85, "edgecolor": "none", "handlelength": 1, "handletextpad": 0.4}
    style |= {"labelspacing": 0.25, "borderpad": 0.3, "title": "best", "title_fontsize": FONT_SIZE, "alignment": "left"}
    axes.legend(handles=stars[:MOST_LISTED], fontsize=FONT_SIZE, **style)


def _share_iterations(panels: list["Axes"]) -> None:
    """Give all panels the same range of iterations."""
    iterations = np.concatenate([np.ravel(line.get_xdata()) for axes in panels for line in axes.lines])
    first, last = iterations.min(), iterations.max()
    margin = 0.03 * (last - first) or 1
    for axes in panels:
        axes.set_xlim(first - margin, last + margin)
