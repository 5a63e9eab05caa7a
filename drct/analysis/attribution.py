"""Show which input pixels a patch of a result depends on, for several networks side by side.

For each network: the local attribution map and its diffusion index, and the effective receptive field of the pixel at
the patch's centre. Numbers depend on the image, the patch and the context: compare those of one command only.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from drct.analysis.comparison import most_detailed_area
from drct.analysis.networks import Loaded, load
from drct.data.images import as_float, read_image
from drct.errors import DRCTError, one_line_errors
from drct.files import write_atomically
from drct.inference.upscale import pad_to_multiple
from drct.inference.upscaler import Upscaler

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATCH = 16  # side in input pixels
CONTEXT = 96  # input pixels
STEPS = 25
SIGMA = 1.2  # input pixels; of the method's authors
SMOOTHING = 1e-3  # of the gradient's magnitude, which has no derivative at 0: a quarter of a gray level
LARGEST_ERROR = 0.01  # of completeness, above which steps are too few
SHARES = (50, 90, 99)  # percent of the receptive field

WIDTH, DPI = 8.0, 150  # inches, pixels per inch: 1200 pixels wide
GAP, TOP, CAPTION, BOTTOM = 0.1, 0.25, 0.45, 0.8  # inches: between panels, over the first row, over each, below all
FONT = 8.5  # points
GRAY = "#555555"
FRAME = "#0072b2"  # told from the heat by everybody
DECADES = 4  # of the scale of colours
TITLES = ("input", "result of the patch", "attribution of the patch", "receptive field of its centre")


class Place(NamedTuple):
    """An area of the image, in input pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def rows_and_columns(self) -> tuple[slice, slice]:
        """To index arrays (H, W)."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


# -------------------------------------------------------------------------------------------------------- attribution


def blur_path(image: np.ndarray, steps: int, sigma: float) -> np.ndarray:
    """Pictures from a blurred image to the image itself: (H, W, C) -> (steps + 1, H, W, C), float64.

    Picture i is the image after a Gaussian of sigma * (1 - i / steps) pixels, cut off at 3 sigma (the path of J. Gu
    and C. Dong, "Interpreting Super-Resolution Networks with Local Attribution Maps", CVPR 2021, section 3.2).
    """
    image = image.astype(np.float64)
    side = 2 * math.ceil(3 * sigma) + 1
    widths = [sigma * (1 - i / steps) for i in range(steps)]
    blurred = [cv2.GaussianBlur(image, (side, side), width, borderType=cv2.BORDER_REFLECT_101) for width in widths]
    return np.stack([*(picture.reshape(image.shape) for picture in blurred), image])  # OpenCV drops a single channel


def detail(patch: Tensor) -> Tensor:
    """How much detail a patch has, the feature that is attributed: (B, C, H, W) -> scalar.

    It is the sum of the magnitudes of its gradient, by differences of neighbours within the patch, per channel.
    """
    corner = patch[..., :-1, :-1]
    squares = (patch[..., 1:, :-1] - corner).square() + (patch[..., :-1, 1:] - corner).square()
    return (squares + SMOOTHING**2).sqrt().sum()


class Attribution(NamedTuple):
    """Integrated gradients.

    Attributes:
        values: How much each value of the image adds to the quantity, (C, H, W), float64.
        baseline: The quantity of the first picture of the path.
        image: The quantity of the last.
    """

    values: np.ndarray
    baseline: float
    image: float

    @property
    def completeness_error(self) -> float:
        """How far the sum of all values is from what it should be, the quantity's change, as a part of that."""
        change = self.image - self.baseline
        return abs(float(self.values.sum()) - change) / abs(change) if change else math.inf

    @property
    def magnitude(self) -> np.ndarray:
        """Of the sum over the channels: (H, W)."""
        return np.abs(self.values.sum(0))


def integrate(quantity: Callable[[Tensor], Tensor], path: Iterable[Tensor]) -> Attribution:
    """Attribute the change of a quantity along a path of pictures to the pictures' values.

    Integrated gradients (M. Sundararajan et al., "Axiomatic Attribution for Deep Networks", 2017) along the straight
    lines between successive pictures, each by its midpoint: the error falls with the square of the number of steps.

    Args:
        quantity: Of a picture (1, C, H, W): a scalar that has a gradient.
        path: Pictures (1, C, H, W), two or more.
    """
    pictures = iter(path)
    first = last = next(pictures)
    total = np.zeros(first.shape[1:])
    for picture in pictures:
        middle = ((last + picture) / 2).requires_grad_()
        (gradient,) = torch.autograd.grad(quantity(middle), middle)
        total += (gradient * (picture - last))[0].cpu().double().numpy()
        last = picture
    with torch.no_grad():
        return Attribution(total, float(quantity(first)), float(quantity(last)))


def gini(values: np.ndarray) -> float:
    """Gini coefficient of values from 0: 0 if all are equal, 1 - 1 / n if one of the n has it all."""
    ordered = np.sort(values, axis=None).astype(np.float64)
    n = ordered.size
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def diffusion_index(values: np.ndarray) -> float:
    """How evenly a map is spread over its pixels (Gu and Dong, section 5): 100 if evenly, 0 if it is in one of many."""
    return 100 * (1 - gini(values))


# ---------------------------------------------------------------------------------------------------- receptive field


def receptive_field(forward: Callable[[Tensor], Tensor], images: Tensor, y: int, x: int) -> np.ndarray:
    """Effective receptive field of a pixel (W. Luo et al., "Understanding the Effective Receptive Field", 2016).

    Args:
        forward: From images to results.
        images: (B, C, H, W).
        y, x: The pixel of the results. Its channels are added up.

    Returns:
        Magnitude of the gradient for each pixel of the images, added over their channels, the mean over the images:
        (H, W), float64.
    """
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(forward(images)[:, :, y, x].sum(), images)
    return gradient.abs().sum(1).mean(0).cpu().double().numpy()


def square_with(share: float, field: np.ndarray, y: int, x: int) -> int:
    """Side of the smallest square around a pixel that holds a share of a map (H, W); it may reach beyond the map."""
    rows, columns = np.indices(field.shape)
    distance = np.maximum(abs(rows - y), abs(columns - x))
    held = np.bincount(distance.ravel(), field.ravel()).cumsum()
    return 2 * int(np.argmax(held >= share * held[-1])) + 1


def extent(field: np.ndarray) -> tuple[int, int]:
    """Width and height of the area outside which a map (H, W) is exactly 0."""
    rows, columns = np.nonzero(field)
    return (int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1) if rows.size else (0, 0)


# ----------------------------------------------------------------------------------------------------------- networks


@dataclass
class Explanation:
    """What was found about a network.

    Attributes:
        name: Of the network.
        scale: Its factor.
        patch: Its result, (H, W, 3), RGB, float32 in [0, 1].
        attribution: Of the detail of the patch.
        field: Receptive field of the patch's centre, (H, W).
        centre: Row and column of that, in input pixels.
    """

    name: str
    scale: int
    patch: np.ndarray
    attribution: Attribution
    field: np.ndarray
    centre: tuple[int, int]

    @property
    def squares(self) -> dict[int, int]:
        """Sides of the squares that hold `SHARES` of the receptive field."""
        return {share: square_with(share / 100, self.field, *self.centre) for share in SHARES}

    def numbers(self) -> dict[str, Any]:
        """For a file."""
        return {
            "name": self.name,
            "scale": self.scale,
            "diffusion_index": diffusion_index(self.attribution.magnitude),
            "gini": gini(self.attribution.magnitude),
            "detail": {"baseline": self.attribution.baseline, "image": self.attribution.image},
            "completeness_error": self.attribution.completeness_error,
            "receptive_field": {
                "squares": {f"{share}%": side for share, side in self.squares.items()},
                "extent": extent(self.field),
            },
        }


def explain(
    loaded: Loaded, image: np.ndarray, patch: Place, steps: int, sigma: float, device: str | None = None
) -> Explanation:
    """Find out what a patch of a network's result depends on.

    Args:
        loaded: The network. Is moved to the device; its parameters no longer require gradients.
        image: (H, W, 3), RGB, float32 in [0, 1].
        patch: Of the image, square.
        steps, sigma: See `blur_path`.
        device: None takes the accelerator where there is one.

    Raises:
        DRCTError: if the network does not take such pictures, it does not fit in memory, or the patch does not change
            along the path.
    """
    upscaler = Upscaler(loaded.network, device, "fp32", None, scale=loaded.scale)
    upscaler.check_pictures()
    network, scale = loaded.network.requires_grad_(False), loaded.scale
    height, width = image.shape[:2]

    def forward(x: Tensor) -> Tensor:
        return network(pad_to_multiple(x, loaded.window))[..., : height * scale, : width * scale]

    rows, columns = Place(*(scale * side for side in patch)).rows_and_columns
    y, x = patch.y + patch.height // 2, patch.x + patch.width // 2
    path = torch.from_numpy(blur_path(image, steps, sigma)).permute(0, 3, 1, 2)[:, None]
    path = path.to(upscaler.device, torch.float32)
    try:
        field = receptive_field(forward, path[-1], y * scale + scale // 2, x * scale + scale // 2)
        with torch.no_grad():
            result = forward(path[-1])[0, :, rows, columns].clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        attribution = integrate(
            lambda picture: detail(forward(picture)[..., rows, columns]), tqdm(path, loaded.name, leave=False)
        )
    except RuntimeError as error:
        if isinstance(error, torch.cuda.OutOfMemoryError) or "allocate memory" in str(error):
            raise DRCTError(
                f"{loaded.name}: the gradient of {width}x{height} pixels does not fit in memory: choose a smaller "
                "--context"
            ) from error
        raise
    if not attribution.magnitude.any():
        raise DRCTError(f"{loaded.name}: blurring the image does not change the patch: choose a --patch with details")
    return Explanation(loaded.name, scale, result, attribution, field, (y, x))


# ------------------------------------------------------------------------------------------------------------ drawing


def draw(explanations: list[Explanation], image: np.ndarray, patch: Place) -> "Figure":
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
    attributions = [_shares(explanation.attribution.magnitude) for explanation in explanations]
    fields = [_shares(explanation.field) for explanation in explanations]
    highest = [max(map(np.max, maps)) for maps in (attributions, fields)]
    for axes, explanation, attribution, field in zip(rows, explanations, attributions, fields, strict=True):
        _draw_row(axes, explanation, image, patch, attribution, field, highest)
    for axes, title in zip(rows[0], TITLES, strict=True):
        _write(axes, title, CAPTION + 0.06, weight="bold")
    for axes, frames in zip(rows[-1, 2:], ("frame: the patch", "frames: 50, 90 and 99 %"), strict=True):
        bar = figure.colorbar(axes.images[-1], cax=axes.inset_axes((0, -0.09, 1, 0.06)), orientation="horizontal")
        bar.minorticks_off()
        bar.ax.tick_params(labelsize=FONT, color="#bbbbbb", labelcolor=GRAY)
        bar.set_label(f"part of the whole, per pixel\n{frames}", fontsize=FONT, color=GRAY)
        bar.outline.set_edgecolor("#bbbbbb")
    return figure


def _shares(values: np.ndarray) -> np.ndarray:
    return values / values.sum()


def _draw_row(
    axes: "np.ndarray",
    explanation: Explanation,
    image: np.ndarray,
    patch: Place,
    attribution: np.ndarray,
    field: np.ndarray,
    highest: list[float],
) -> None:
    for panel in axes:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    axes[0].imshow(image)
    axes[1].imshow(explanation.patch)
    _draw_heat(axes[2], image, attribution, highest[0])
    _draw_heat(axes[3], image, field, highest[1])
    for panel in (axes[0], axes[2]):
        _frame(panel, patch.x, patch.y, patch.width)
    y, x = explanation.centre
    for side, style in zip(explanation.squares.values(), ("-", "--", ":"), strict=True):
        _frame(axes[3], x - side // 2, y - side // 2, side, style)
    squares = ", ".join(f"{share} % in {side}x{side}" for share, side in explanation.squares.items())
    width, height = extent(explanation.field)
    _write(axes[0], explanation.name, 0.22, weight="bold", parse_math=False)
    _write(
        axes[0],
        f"diffusion index {diffusion_index(explanation.attribution.magnitude):.1f}; "
        f"receptive field: {squares}, all in {width}x{height} pixels",
        0.06,
        color=GRAY,
    )


def _write(axes: "Axes", text: str, above: float, **style: Any) -> None:
    """Text at a number of inches above a panel."""
    offset = (0, 72 * above)
    axes.annotate(
        text, (0, 1), xytext=offset, xycoords="axes fraction", textcoords="offset points", fontsize=FONT + 0.5, **style
    )


def _draw_heat(axes: "Axes", image: np.ndarray, heat: np.ndarray, highest: float) -> None:
    """A map over the image in light grays, with logarithmic colours that fade out towards their lower end."""
    import matplotlib as mpl
    from matplotlib.colors import ListedColormap, LogNorm

    colours = mpl.colormaps["YlOrRd"](np.linspace(0, 1, 256))
    colours[:, 3] = np.linspace(0, 1, 256) ** 0.5
    axes.imshow(0.6 + 0.4 * image.mean(-1), cmap="gray", vmin=0, vmax=1)
    lowest = highest / 10**DECADES
    axes.imshow(np.maximum(heat, lowest), cmap=ListedColormap(colours), norm=LogNorm(lowest, highest))


def _frame(axes: "Axes", x: int, y: int, side: int, style: str = "-") -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x - 0.5, y - 0.5), side, side, fill=False, ec=FRAME, lw=1.4, ls=style))


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


def _patch(text: str) -> Place:
    try:
        x, y, size = (int(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,SIZE, as 40,60,16") from error
    return Place(x, y, size, size)


def _check(args: argparse.Namespace) -> None:
    size = args.patch.width if args.patch else 2
    if size < 2:
        raise DRCTError(f"--patch must be 2 pixels or more wide, not {size}")
    if args.context < size:
        raise DRCTError(f"--context {args.context} is smaller than the patch, {size}: choose a larger one")
    if args.steps < 1:
        raise DRCTError(f"--steps must be above 0, not {args.steps}")
    if not 0 < args.sigma < math.inf:
        raise DRCTError(f"--sigma must be above 0, not {args.sigma:g}")
    if find_spec("matplotlib") is None:
        raise DRCTError('drawing the maps needs matplotlib, which is missing: pip install "drct[curves]"')


def _patch_within(args: argparse.Namespace, image: np.ndarray) -> Place:
    """The patch, which must be within an image (H, W, 3), BGR, uint8."""
    height, width = image.shape[:2]
    if args.patch is None:
        size = min(PATCH, height, width, args.context)
        y, x = most_detailed_area(image, size, size)
        return Place(x, y, size, size)
    x, y, size, _ = args.patch
    if x < 0 or y < 0 or x + size > width or y + size > height:
        raise DRCTError(f"--patch {x},{y},{size} is not within {args.input}, which has {width}x{height} pixels")
    return args.patch


def _around(patch: Place, side: int, height: int, width: int) -> Place:
    """The part of an image that a patch is looked at in: the patch is in its middle, but near the image's edges."""
    across, down = min(side, width), min(side, height)
    x = min(max(patch.x + patch.width // 2 - across // 2, 0), width - across)
    y = min(max(patch.y + patch.height // 2 - down // 2, 0), height - down)
    return Place(x, y, across, down)


def _load_all(sources: list[str]) -> list[Loaded]:
    """The networks, of which those of the same name are called by what was given."""
    networks = [load(source) for source in sources]
    count = Counter(loaded.name for loaded in networks)
    return [
        loaded._replace(name=source) if count[loaded.name] > 1 else loaded
        for source, loaded in zip(sources, networks, strict=True)
    ]


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct analyze lam`. Returns 0, or 2 if nothing could be found out."""
    args = argument_parser().parse_args(argv)
    _check(args)
    pixels = read_image(args.input)
    patch = _patch_within(args, pixels)
    context = _around(patch, args.context, *pixels.shape[:2])
    image = as_float(pixels[context.rows_and_columns])[..., ::-1]
    inside = patch._replace(x=patch.x - context.x, y=patch.y - context.y)
    networks = _load_all(args.networks)
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


def table(explanations: list[Explanation]) -> str:
    """Markdown: the numbers of the networks."""
    shares = " | ".join(f"{share} % of the receptive field in" for share in SHARES)
    lines = [f"| network | diffusion index | {shares} | completeness error |", "|" + "---|" * (3 + len(SHARES))]
    for explanation in explanations:
        index = diffusion_index(explanation.attribution.magnitude)
        squares = " | ".join(f"{side}x{side}" for side in explanation.squares.values())
        error = explanation.attribution.completeness_error
        lines.append(f"| {explanation.name} | {index:.2f} | {squares} | {error:.2%} |")
    return "\n".join(lines)
