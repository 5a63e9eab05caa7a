"""Show which input pixels a patch of a result depends on, for several networks side by side.

For each network: the local attribution map (Gu and Dong 2021) with its diffusion index, from 0 (a single pixel) to 100
(all pixels evenly), and the effective receptive field (Luo et al. 2016) of the pixel at the centre of the patch.
The numbers depend on image, patch and context: compare those of one command only.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drct.analysis.plotting import COLOURS, DPI, FONT, GRAY, WIDTH, needs_matplotlib
from drct.errors import DRCTError, one_line_errors
from drct.files import make_folder, write_atomically

if TYPE_CHECKING:  # matplotlib is an extra, and --help should not wait for PyTorch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from drct.analysis.attribution import Explanation, Place
    from drct.analysis.networks import Loaded

PATCH = 16  # side in input pixels
CONTEXT = 64  # input pixels; like sigma, of the method's authors
STEPS = 25
SIGMA = 1.2  # input pixels
LARGEST_ERROR = 0.01  # of completeness, above which steps are too few

GAP, TOP, CAPTION, BOTTOM = 0.1, 0.25, 0.45, 0.8  # inches: between panels, over the first row, over each, below all
FRAME = COLOURS[0]  # told from the heat by everybody
DECADES = 5  # of the scale of colours
TITLES = ("input", "result of the patch", "attribution", "receptive field")
SCALES = ("of the patch\n(frame)", "of its centre\n(frames: 50, 90, 99 %)")  # what the colours of the last two tell


# ------------------------------------------------------------------------------------------------------------ drawing


def draw(explanations: list["Explanation"], image: np.ndarray, patch: "Place") -> "Figure":
    """A row per network: input, result of the patch, attribution, receptive field; one scale of colours per column.

    Args:
        explanations: Of the networks.
        image: What they were given, (H, W, 3), RGB, in [0, 1].
        patch: Of the image.
    """
    from matplotlib.figure import Figure

    side = (WIDTH - 5 * GAP) / 4  # of a panel
    height = TOP + len(explanations) * (CAPTION + side) + BOTTOM
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    rows = figure.subplots(
        len(explanations),
        4,
        squeeze=False,
        gridspec_kw={
            "left": GAP / WIDTH,
            "right": 1 - GAP / WIDTH,
            "top": 1 - (TOP + CAPTION) / height,
            "bottom": BOTTOM / height,
            "wspace": GAP / side,
            "hspace": CAPTION / side,
        },
    )
    for axes, explanation in zip(rows, explanations, strict=True):
        for panel in axes:
            panel.set_axis_off()
        axes[0].imshow(image)
        axes[1].imshow(explanation.patch)
        _write(axes[0], explanation.name, 0.22, weight="bold", parse_math=False)
        _write(axes[0], _caption(explanation), 0.06, color=GRAY)
    _draw_heats(rows[:, 2], image, [explanation.attribution.magnitude for explanation in explanations])
    _draw_heats(rows[:, 3], image, [explanation.field for explanation in explanations])
    for axes, explanation in zip(rows, explanations, strict=True):
        for panel in (axes[0], axes[2]):
            _frame(panel, patch.x, patch.y, patch.width)
        y, x = explanation.centre
        for side, style in zip(explanation.squares.values(), ("-", "--", ":"), strict=True):
            _frame(axes[3], x - side // 2, y - side // 2, side, style)
    for axes, title in zip(rows[0], TITLES, strict=True):
        _write(axes, title, CAPTION + 0.06, weight="bold")
    for axes, what in zip(rows[-1, 2:], SCALES, strict=True):
        bar = figure.colorbar(axes.images[-1], cax=axes.inset_axes((0, -0.09, 1, 0.06)), orientation="horizontal")
        bar.minorticks_off()
        bar.ax.tick_params(labelsize=FONT, color="#bbbbbb", labelcolor=GRAY)
        bar.set_label(f"part per pixel, {what}", fontsize=FONT, color=GRAY)
        bar.outline.set_edgecolor("#bbbbbb")
    return figure


def _caption(explanation: "Explanation") -> str:
    squares = ", ".join(f"{share} % in {side}x{side}" for share, side in explanation.squares.items())
    width, height = explanation.extent
    return (
        f"diffusion index {explanation.attribution.diffusion_index:.1f}; "
        f"receptive field: {squares}, all in {width}x{height} pixels"
    )


def _write(axes: "Axes", text: str, above: float, **style: Any) -> None:
    """Text at a number of inches above a panel."""
    offset = (0, 72 * above)
    axes.annotate(
        text, (0, 1), xytext=offset, xycoords="axes fraction", textcoords="offset points", fontsize=FONT + 0.5, **style
    )


def _draw_heats(panels: Iterable["Axes"], image: np.ndarray, maps: list[np.ndarray]) -> None:
    """Each map as parts of its sum, over the image in light grays, all in the same logarithmic colours.

    The colours fade out towards their lower end.
    """
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap, LogNorm

    colours = mpl.colormaps["YlOrRd"](np.linspace(0, 1, 256))
    colours[:, 3] = np.linspace(0, 1, 256) ** 0.5
    parts = [values / values.sum() for values in maps]
    highest = max(values.max() for values in parts)
    lowest = highest / 10**DECADES
    for axes, values in zip(panels, parts, strict=True):
        axes.imshow(0.6 + 0.4 * image.mean(-1), cmap="gray", vmin=0, vmax=1)
        axes.imshow(np.maximum(values, lowest), cmap=ListedColormap(colours), norm=LogNorm(lowest, highest))


def _frame(axes: "Axes", x: int, y: int, side: int, style: str = "-") -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.4, foreground="white")]
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), side, side, fill=False, ec=FRAME, lw=1.2, ls=style, path_effects=halo))


# ------------------------------------------------------------------------------------------------------- command line


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct analyze lam`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n"
        "  %(prog)s DRCT-XS_SRx4 --input photo.png -o lam\n"
        "  %(prog)s DRCT-XS_SRx4 experiments/mine SwinIR-M_x4.pth --input photo.png --patch 40,60,16 -o lam\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "networks",
        nargs="+",
        metavar="NETWORK",
        help="weights as drct upscale takes them, a file of another network that spandrel knows, or folder of a run",
    )
    parser.add_argument("--input", type=Path, required=True, metavar="IMAGE", help="picture to upscale")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where to write lam.png and lam.json; existing ones are replaced",
    )
    parser.add_argument(
        "--patch",
        type=_patch,
        metavar="X,Y,SIZE",
        help=f"left, top and side of the patch in pixels of the input; default: the {PATCH} with the most detail",
    )
    parser.add_argument(
        "--context",
        type=int,
        default=CONTEXT,
        metavar="PIXELS",
        help="side of what the network is given, cut out of the image around the patch; memory and time grow with its "
        "square; default %(default)s",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=STEPS,
        metavar="N",
        help="of the path from the blurred input to the input, default %(default)s",
    )
    parser.add_argument(
        "--sigma",
        type=float,
        default=SIGMA,
        metavar="PIXELS",
        help="of the Gaussian that blurs the input at the start, default %(default)s",
    )
    parser.add_argument("--device", help="cpu, cuda, mps; default: the accelerator where there is one")
    return parser


def _patch(text: str) -> tuple[int, int, int]:
    try:
        x, y, size = (int(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,SIZE, as 40,60,16") from error
    return x, y, size


def _check(args: argparse.Namespace) -> None:
    size = args.patch[2] if args.patch else 2
    if size < 2:
        raise DRCTError(f"--patch must be 2 pixels or more wide, not {size}")
    if args.context < size:
        raise DRCTError(f"--context {args.context} is smaller than the patch, {size}: choose a larger one")
    if args.steps < 1:
        raise DRCTError(f"--steps must be above 0, not {args.steps}")
    if not 0 < args.sigma < math.inf:
        raise DRCTError(f"--sigma must be above 0, not {args.sigma:g}")
    needs_matplotlib("drawing the maps needs")


def _patch_within(args: argparse.Namespace, image: np.ndarray) -> "Place":
    """The patch, which must be within an image (H, W, 3), BGR, uint8."""
    from drct.analysis.attribution import Place
    from drct.images.crops import most_detailed_area

    height, width = image.shape[:2]
    if args.patch is None:
        size = min(PATCH, height, width, args.context)
        y, x = most_detailed_area(image, size, size)
    else:
        x, y, size = args.patch
    if x < 0 or y < 0 or x + size > width or y + size > height:
        raise DRCTError(f"--patch {x},{y},{size} is not within {args.input}, which has {width}x{height} pixels")
    return Place(x, y, size, size)


def _load_all(sources: list[str]) -> list["Loaded"]:
    """The networks, of which those of the same name are called by what was given."""
    from drct.analysis.networks import load

    networks = [load(source) for source in sources]
    names = [loaded.name for loaded in networks]
    return [
        loaded._replace(name=source) if names.count(loaded.name) > 1 else loaded
        for source, loaded in zip(sources, networks, strict=True)
    ]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct analyze lam`. Returns 0, or 2 if nothing could be found out."""
    args = argument_parser().parse_args(argv)
    _check(args)

    from drct.analysis.attribution import explain
    from drct.images.bgr import as_float, read_image

    pixels = read_image(args.input)
    patch = _patch_within(args, pixels)
    context = patch.surroundings(args.context, *pixels.shape[:2])
    image = as_float(pixels[context.rows_and_columns])[..., ::-1]
    inside = patch._replace(x=patch.x - context.x, y=patch.y - context.y)
    networks = _load_all(args.networks)
    make_folder(args.output)
    explanations = [explain(loaded, image, inside, args.steps, args.sigma, args.device) for loaded in networks]
    content = {
        "input": str(args.input),
        "patch": patch._asdict(),
        "context": context._asdict(),
        "steps": args.steps,
        "sigma": args.sigma,
        "networks": [
            {"source": source} | explanation.numbers()
            for source, explanation in zip(args.networks, explanations, strict=True)
        ],
    }
    text = json.dumps(content, indent=1).encode()
    figure = draw(explanations, image, inside)
    write_atomically(args.output / "lam.json", lambda file: file.write(text))
    write_atomically(args.output / "lam.png", lambda file: figure.savefig(file, format="png"))
    print(table(explanations))
    print(f"patch {patch.x},{patch.y},{patch.width} of {args.input}: {args.output / 'lam.png'}, lam.json")
    for explanation in explanations:
        if (error := explanation.attribution.completeness_error) > LARGEST_ERROR:
            print(
                f"warning: {explanation.name}: the attributions add up to what they should with an error of "
                f"{error:.1%}: choose more --steps",
                file=sys.stderr,
            )
    return 0


def table(explanations: list["Explanation"]) -> str:
    """Markdown: the numbers of the networks."""
    shares = " | ".join(f"{share} % of the receptive field" for share in explanations[0].squares)
    lines = [f"| network | diffusion index | {shares} | completeness error |"]
    lines.append("|" + "---|" * lines[0].count(" | ") + "---|")
    for explanation in explanations:
        attribution = explanation.attribution
        squares = " | ".join(f"{side}x{side}" for side in explanation.squares.values())
        error = f"{attribution.completeness_error:.2%}"
        lines.append(f"| {explanation.name} | {attribution.diffusion_index:.2f} | {squares} | {error} |")
    return "\n".join(lines)
