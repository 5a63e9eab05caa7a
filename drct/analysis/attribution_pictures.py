"""Pictures of local attribution maps and effective receptive fields, 1200 pixels wide."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from drct.analysis.attribution import Area, Explanation
from drct.analysis.plotting import DPI, FONT_SIZE, GRAY, LIGHT_GRAY, LINE_COLOURS, WIDTH

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP, TOP, CAPTION, BOTTOM = 0.1, 0.25, 0.45, 0.8  # inches: between panels, over the first row, over each, below all
FRAME_COLOUR = LINE_COLOURS[0]  # stands out from the heat, with colour blindness as well
DECADES = 5  # range of the colours
TITLES = ("input", "result of the patch", "attribution", "receptive field")
SCALES = ("of the patch\n(frame)", "of its centre\n(frames: 50, 90, 99 %)")  # titles of the last two columns' colours


def draw_explanations(explanations: Sequence[Explanation], image: np.ndarray, patch: Area) -> "Figure":
    """Draw a row per network: input, result of the patch, attribution and receptive field.

    Each column has one scale of colours. The networks were given the image, (H, W, 3), RGB, in [0, 1].
    """
    figure, rows = _new_panels(len(explanations))
    for axes, explanation in zip(rows, explanations, strict=True):
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
    for axes, title in zip(rows[-1, 2:], SCALES, strict=True):
        _add_colour_bar(axes, title)
    return figure


def _new_panels(count: int) -> tuple["Figure", np.ndarray]:
    """Return a figure and its square panels without axes: `count` rows of 4."""
    from matplotlib.figure import Figure

    side = (WIDTH - 5 * GAP) / 4  # of a panel, in inches
    height = TOP + count * (CAPTION + side) + BOTTOM
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    edges = {"left": GAP / WIDTH, "right": 1 - GAP / WIDTH, "top": 1 - (TOP + CAPTION) / height}
    gaps = {"bottom": BOTTOM / height, "wspace": GAP / side, "hspace": CAPTION / side}
    rows = figure.subplots(count, 4, squeeze=False, gridspec_kw=edges | gaps)
    for panel in rows.flat:
        panel.set_axis_off()
    return figure, rows


def _add_colour_bar(axes: "Axes", title: str) -> None:
    """Explain the colours of a panel below it."""
    place = axes.inset_axes((0, -0.09, 1, 0.06))
    bar = axes.figure.colorbar(axes.images[-1], cax=place, orientation="horizontal")
    bar.minorticks_off()
    bar.ax.tick_params(labelsize=FONT_SIZE, color=LIGHT_GRAY, labelcolor=GRAY)
    bar.set_label(f"part per pixel, {title}", fontsize=FONT_SIZE, color=GRAY)
    bar.outline.set_edgecolor(LIGHT_GRAY)


def _caption(explanation: Explanation) -> str:
    squares = ", ".join(f"{share} % in {side}x{side}" for share, side in explanation.squares.items())
    width, height = explanation.extent
    index = f"diffusion index {explanation.attribution.diffusion_index:.1f}"
    return f"{index}; receptive field: {squares}, all in {width}x{height} pixels"


def _write(axes: "Axes", text: str, above: float, **style: Any) -> None:
    """Write a text so many inches above a panel."""
    place = {"xytext": (0, 72 * above), "xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(text, (0, 1), fontsize=FONT_SIZE + 0.5, **place | style)


def _draw_heats(panels: Iterable["Axes"], image: np.ndarray, maps: list[np.ndarray]) -> None:
    """Draw each map, divided by its sum, over the image in light grays, all in the same logarithmic colours.

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
    line: dict[str, Any] = {"ec": FRAME_COLOUR, "lw": 1.2, "ls": style, "path_effects": halo}
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), side, side, fill=False, **line))
