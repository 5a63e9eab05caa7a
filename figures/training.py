"""Draw the PSNR of the weights that come with the project through their training.

Weights lie beside a folder of their name, with the `scalars.csv` of their training, or with those of its stages in
stage1, stage2, ...; the stages are drawn one after the other. A panel shows the images on which they were validated.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drct.analysis import plotting
from drct.analysis.curves import best_point
from drct.errors import DRCTError, one_line_errors
from drct.runs.scalars import FILE_NAME, read_scalars

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WEIGHTS = Path("experiments/pretrained_models")
PSNR = re.compile(r"metrics/(.+)/psnr")
PANEL_HEIGHT = 2.5  # inches


@dataclass
class Stage:
    """PSNR of a training run on a set of images; its iterations follow those of the runs before it."""

    name: str  # '' for the only one
    iterations: np.ndarray  # (N,)
    psnr: np.ndarray  # (N,), in dB
    start: int  # iterations of the runs before


def read_stages(folder: Path) -> dict[str, list[Stage]]:
    """Read the stages of a training by the name of the images that they were validated on.

    Raises:
        DRCTError: if the folder has no scalars.
    """
    files = [
        *folder.glob(FILE_NAME),
        *sorted(folder.glob(f"stage*/{FILE_NAME}"), key=lambda file: _number(file.parent)),
    ]
    if not files:
        raise DRCTError(f"{folder} has no {FILE_NAME}, neither itself nor in stage1, stage2, ...")
    stages: dict[str, list[Stage]] = {}
    start = 0
    for file in files:
        scalars = read_scalars(file)
        name = "" if len(files) == 1 else file.parent.name.replace("stage", "stage ")
        for tag, (iterations, values) in scalars.items():
            if match := PSNR.fullmatch(tag):
                stages.setdefault(match[1], []).append(Stage(name, iterations + start, values, start))
        start += max((int(iterations[-1]) for iterations, _ in scalars.values()), default=0)
    return stages


def _number(folder: Path) -> int:
    return int(re.sub(r"\D", "", folder.name) or 0)


def draw_training(trainings: dict[str, dict[str, list[Stage]]]) -> "Figure":
    """Draw a panel for each of the weights and images, with a line for each stage, whose best value is in the legend.

    Args:
        trainings: What `read_stages` has returned, by the name of the weights.

    Raises:
        DRCTError: if matplotlib is not installed, or nothing was validated.
    """
    plotting.needs_matplotlib("drawing curves needs")
    panels = [(f"{weights} on {images}", stages) for weights, of in trainings.items() for images, stages in of.items()]
    if not panels:
        raise DRCTError(f"no PSNR was measured in the training of {', '.join(trainings)}")
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = plotting.new_figure(rows * PANEL_HEIGHT)
    for i, (title, stages) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        for style, stage in zip(plotting.line_styles(len(stages)), stages, strict=True):
            _draw_stage(axes, stage, style)
        _finish(axes, title, i + columns >= len(panels))
    return figure


def _draw_stage(axes: "Axes", stage: Stage, style: dict[str, Any]) -> None:
    best = best_point("psnr", stage.iterations, stage.psnr)
    label = " ".join([stage.name, f"{best[1]:.2f} dB" if best else ""]).strip()
    axes.plot(stage.iterations, stage.psnr, lw=1.3, marker="o", ms=2.2, label=label, **style)
    if stage.start:
        axes.axvline(stage.start, color=plotting.LIGHT_GRAY, lw=0.8)


def _finish(axes: "Axes", title: str, bottom: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    axes.set_title(title, fontsize=plotting.FONT_SIZE + 1, fontweight="bold", loc="left", parse_math=False)
    plotting.style_axes(axes)
    axes.set_ylabel("PSNR-Y (dB)", fontsize=plotting.FONT_SIZE, color=plotting.GRAY)
    if bottom:
        axes.set_xlabel("iteration", fontsize=plotting.FONT_SIZE, color=plotting.GRAY)
    legend: dict[str, Any] = {"loc": "lower right", "framealpha": 0.85, "edgecolor": "none", "handlelength": 1.2}
    axes.legend(fontsize=plotting.FONT_SIZE, title="best", title_fontsize=plotting.FONT_SIZE, **legend)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders = f"folders of trainings, default: those of DRCT-XS in {WEIGHTS}"
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help=folders)
    parser.add_argument("-o", "--output", type=Path, default=Path("figures/training.png"), metavar="FILE", help="PNG")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 if nothing could be drawn."""
    args = argument_parser().parse_args(argv)
    plotting.check_png(args.output, "training.png")
    folders = args.folders or sorted(path for path in WEIGHTS.glob("DRCT-XS_SRx*") if any(path.rglob(FILE_NAME)))
    plotting.save_png(args.output, draw_training({folder.name: read_stages(folder) for folder in folders}))
    print(f"training of {', '.join(folder.name for folder in folders)}: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
