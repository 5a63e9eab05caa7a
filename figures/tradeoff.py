"""Draw PSNR against parameters and against operations, for published networks and for test runs of this project.

`python figures/tradeoff.py figures/results/DRCT-XS_SRx4 -o figures/tradeoff.png`
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from published import DRCT_PAPER

from drct.analysis.complexity import complexity_of
from drct.analysis.plotting import (
    FONT_SIZE,
    GRAY,
    LINE_COLOURS,
    check_png,
    label_log_axis,
    needs_matplotlib,
    save_png,
    style_axes,
)
from drct.archs.variants import VARIANTS
from drct.errors import DRCTError, one_line_errors
from drct.runtime.zoo import BENCHMARKS

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, OTHERS = LINE_COLOURS[:2]
SIZE, DPI = (8.3, 4.0), 200  # inches, pixels per inch: twice the width in the README, 830 pixels
SIDE = 64  # pixels of the image whose operations are counted
NEAR = 0.01  # relative difference below which a published size counts as the true one


class Point(NamedTuple):
    """A network with its size and its PSNR."""

    name: str
    psnr: float  # dB
    size: tuple[float, float]  # parameters in millions; operations in GFLOP
    published: tuple[float, float] | None  # size in the paper's table; None if the PSNR was measured here


def size_of(name: str) -> tuple[float, float]:
    """Return millions of parameters of a named network, and GFLOP for an image of 64x64, two for a multiply-add."""
    found = complexity_of(name, SIDE, SIDE, training=False)
    return found.parameters / 1e6, found.operations / 1e9


def published_points(benchmark: str) -> list[Point]:
    """Return the networks of the paper's table, each with the size of the network that has this PSNR."""
    return [Point(p.name, p.psnr[benchmark], size_of(p.name), (p.parameters, p.flops)) for p in DRCT_PAPER]


def measured_point(folder: Path, benchmark: str) -> Point:
    """Return a network with its PSNR in a test run.

    Args:
        folder: Results of the test run, <network>_<anything>, with the `metrics_<dataset>.json` of the benchmark.
        benchmark: Name of the dataset.

    Raises:
        DRCTError: if there is no such file, or the network has no known name.
    """
    name = folder.resolve().name.split("_")[0]
    if name not in VARIANTS:
        raise DRCTError(f"{folder} does not begin with the name of a network: {', '.join(VARIANTS)}")
    path = folder / f"metrics_{benchmark}.json"
    try:
        psnr = float(json.loads(path.read_text(encoding="utf-8"))["mean"]["psnr"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DRCTError(f"{path} has no mean PSNR as drct test writes it: {error}") from error
    return Point(name, psnr, size_of(name), None)


def draw_tradeoff(points: list[Point], benchmark: str) -> "Figure":
    """Draw one panel for parameters and one for operations.

    Where the size in the paper's table is not that of the network with the PSNR, both positions are marked.

    Args:
        points: The networks.
        benchmark: Dataset of the PSNR.

    Returns:
        The figure, 1660 pixels wide when saved as it is.

    Raises:
        DRCTError: if matplotlib is not installed.
    """
    needs_matplotlib("drawing needs")
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    units = ("parameters (millions)", f"operations for {SIDE} × {SIDE} pixels (GFLOP)")
    for i, (axes, unit) in enumerate(zip(panels, units, strict=True)):
        for point in points:
            _draw_point(axes, point, i)
        _finish_panel(axes, unit, [x for p in points for x in (p.size[i], (p.published or p.size)[i])])
    panels[0].set_ylabel(f"PSNR on Y, {benchmark} ×4 (dB)", fontsize=FONT_SIZE, color=GRAY)
    panels[0].margins(y=0.1)
    _draw_legend(panels[0])
    return figure


def _draw_point(axes: "Axes", point: Point, i: int) -> None:
    """Draw a network in the panel of `Point.size[i]`."""
    x, colour = point.size[i], OURS if point.name in VARIANTS else OTHERS
    published = point.published[i] if point.published else x
    if abs(published - x) > NEAR * x:
        axes.plot((published, x), (point.psnr, point.psnr), color=colour, lw=0.8, ls=":", zorder=1)
        axes.plot(published, point.psnr, "o", mfc="white", mec=colour, ms=6.5, gid="published")
    measured = point.published is None
    axes.plot(x, point.psnr, "*" if measured else "o", color=colour, ms=12 if measured else 6.5, gid=point.name)
    style: dict[str, Any] = {
        "textcoords": "offset points",
        "ha": "left",
        "va": "center_baseline",
        "fontsize": FONT_SIZE,
        "color": colour,
    }
    axes.annotate(f"{point.name} {x:.3g} {'MG'[i]}", (x, point.psnr), (8, 3 if colour == OURS else -3), **style)


def _finish_panel(axes: "Axes", unit: str, values: list[float]) -> None:
    axes.set_xscale("log")
    ratio = max(values) / min(values)
    axes.set_xlim(min(values) / ratio**0.08, max(values) * ratio**0.36)  # labels stand at the right
    label_log_axis(axes.xaxis, (1, 2, 5))
    axes.set_xlabel(unit, fontsize=FONT_SIZE, color=GRAY)
    style_axes(axes)


def _draw_legend(axes: "Axes") -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker=marker, ms=size, mfc=fill, mec=GRAY, ls="", label=label)
        for marker, size, fill, label in (
            ("*", 11, GRAY, "measured here"),
            ("o", 6.5, GRAY, "published PSNR, at the size of\nthe network that has it"),
            ("o", 6.5, "white", "size in the paper's table: another\nnetwork's, or counted otherwise"),
        )
    ]
    style: dict[str, Any] = {"fontsize": FONT_SIZE, "labelcolor": GRAY, "frameon": False, "handletextpad": 0.3}
    axes.legend(handles=handles, loc="center right", **style)


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULTS", help="folder that drct test wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("tradeoff.png"), metavar="FILE", help="PNG to write")
    parser.add_argument("--benchmark", choices=BENCHMARKS, default="Set14", help="dataset of the PSNR, default Set14")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 if nothing could be drawn."""
    args = argument_parser().parse_args(argv)
    check_png(args.output, "tradeoff.png")
    points = [measured_point(folder, args.benchmark) for folder in args.results] + published_points(args.benchmark)
    figure = draw_tradeoff(points, args.benchmark)
    save_png(args.output, figure)
    print(f"PSNR of {len(points)} networks against their sizes: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
