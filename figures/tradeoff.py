"""Draw PSNR against parameters and against operations: of published networks, and of those measured here.

`python -m drct.analysis.tradeoff figures/results/DRCT-XS_SRx4 -o figures/tradeoff.png`
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from published import BENCHMARKS, DRCT_PAPER

from drct.analysis.complexity import complexity_of
from drct.analysis.plotting import COLOURS, FONT, GRAY, check_png, needs_matplotlib
from drct.archs.variants import VARIANTS
from drct.errors import DRCTError, one_line_errors
from drct.files import write_atomically

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, OTHERS = COLOURS[:2]
SIZE, DPI = (8.3, 4.0), 200  # inches, pixels per inch: twice the 830 pixels that it is wide where it is shown
SIDE = 64  # of the image whose operations are counted, in pixels
NEAR = 0.01  # what a published size may differ from the counted one, relative to it


class Point(NamedTuple):
    """A network and what it reaches."""

    name: str
    psnr: float  # dB
    size: tuple[float, float]  # parameters in millions; operations in GFLOP
    published: tuple[float, float] | None  # what the paper's table says instead; None if the PSNR was measured here


def size_of(name: str) -> tuple[float, float]:
    """Millions of parameters of a network that has a name, and GFLOP for an image of 64x64, two for a multiply-add."""
    found = complexity_of(name, SIDE, SIDE, training=False)
    return found.parameters / 1e6, found.operations / 1e9


def published_points(benchmark: str) -> list[Point]:
    """The networks of the paper's table, each with the size of that one whose PSNR it is."""
    return [Point(p.name, p.psnr[benchmark], size_of(p.name), (p.parameters, p.flops)) for p in DRCT_PAPER]


def measured_point(folder: Path, benchmark: str) -> Point:
    """A network that `drct test` measured.

    Args:
        folder: <network>_<anything>, with the `metrics_<dataset>.json` of the benchmark.
        benchmark: Name of the dataset.

    Raises:
        DRCTError: if there is no such file, or the network is none that has a name.
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


def draw(points: list[Point], benchmark: str) -> "Figure":
    """One panel for parameters and one for operations.

    Where the paper's table gives another size than that of the network that has the PSNR, this position is marked, too.

    Args:
        points: The networks.
        benchmark: Of which the PSNR is.

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
    panels[0].set_ylabel(f"PSNR on Y, {benchmark} ×4 (dB)", fontsize=FONT, color=GRAY)
    panels[0].margins(y=0.1)
    _draw_legend(panels[0])
    return figure


def _draw_point(axes: "Axes", point: Point, i: int) -> None:
    """A network in the panel of `Point.size[i]`."""
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
        "fontsize": FONT,
        "color": colour,
    }
    axes.annotate(f"{point.name} {x:.3g} {'MG'[i]}", (x, point.psnr), (8, 3 if colour == OURS else -3), **style)


def _finish_panel(axes: "Axes", unit: str, values: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    ratio = max(values) / min(values)
    axes.set_xlim(min(values) / ratio**0.08, max(values) * ratio**0.36)  # labels are at the right
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(unit, fontsize=FONT, color=GRAY)
    axes.tick_params(labelsize=FONT, color="#bbbbbb", labelcolor=GRAY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#bbbbbb")
    axes.grid(color="#e6e6e6", lw=0.6)
    axes.set_axisbelow(True)


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
    axes.legend(handles=handles, loc="center right", fontsize=FONT, frameon=False, labelcolor=GRAY, handletextpad=0.3)


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `python -m drct.analysis.tradeoff`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULTS", help="folder that drct test wrote")
    parser.add_argument("-o", "--output", type=Path, default=Path("tradeoff.png"), metavar="FILE", help="PNG to write")
    parser.add_argument("--benchmark", choices=BENCHMARKS, default="Set14", help="whose PSNR; default Set14")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of this module. Returns 0, or 2 if nothing could be drawn."""
    args = argument_parser().parse_args(argv)
    check_png(args.output, "tradeoff.png")
    points = [measured_point(folder, args.benchmark) for folder in args.results] + published_points(args.benchmark)
    figure = draw(points, args.benchmark)
    write_atomically(args.output, lambda file: figure.savefig(file, format="png"))
    print(f"PSNR of {len(points)} networks against their sizes: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
