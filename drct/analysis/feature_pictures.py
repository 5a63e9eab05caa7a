"""Pictures of features through the depth of networks: curves, a strip of intensity maps, and an animation.

They are 1200 pixels wide, the animation 830.
"""

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from drct.analysis.feature_maps import QUANTITIES, Measured
from drct.analysis.plotting import COLOURS, DPI, FONT, GRAY, WIDTH, line_styles

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Networks = Mapping[str, Sequence[list[Measured]]]  # by label: networks that differ by their seed alone

COLOUR_MAP = "viridis"
SHARE_IN_RANGE = 99.5  # percent of the values that a colour scale tells apart
ANIMATION_WIDTH, ANIMATION_DPI = 8.3, 100
FRAME_TIME = 350  # milliseconds
LAST_FRAME_TIME = 2000
MAP_COLOURS, GRAYS = 32, 16  # of a GIF: fewer make it smaller
MOST_FRAMES = 25


# ------------------------------------------------------------------------------------------------------------ curves


def draw_curves(networks: Networks) -> "Figure":
    """One panel per quantity against the depth, one line per network: thick through the groups, thin through blocks.

    The axes are logarithmic: multiplying all features of a network by a number, which its normalizations undo, shifts
    its line but does not change its shape.

    Args:
        networks: What is measured. Of several networks of one label, the median is drawn and, around that of the
            groups, a band from minimum to maximum.
    """
    figure = _figure(5.9)
    styles = line_styles(len(networks))
    for i, (quantity, (title, definition)) in enumerate(QUANTITIES.items()):
        axes = figure.add_subplot(2, 2, i + 1)
        for style, measured in zip(styles, networks.values(), strict=True):
            _draw_line(axes, quantity, measured, style)
        axes.set_title(title, fontsize=FONT + 1.5, fontweight="bold", loc="left", pad=17)
        axes.text(0, 1.03, definition, fontsize=FONT, color=GRAY, transform=axes.transAxes)
        axes.set_ylabel("in units of the features", fontsize=FONT, color=GRAY)
        if i >= 2:
            axes.set_xlabel("depth: 0 what enters the first group, 1 the last group", fontsize=FONT)
        _mark_groups(axes, networks)
        _scale(axes)
    _draw_legend(figure, networks, styles)
    return figure


def _figure(height: float, width: float = WIDTH, dpi: int = DPI) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), dpi=dpi, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))


def _draw_line(axes: "Axes", quantity: str, networks: Sequence[list[Measured]], style: dict[str, Any]) -> None:
    stages = [one.stage for one in networks[0]]
    blocks: dict[int, list[int]] = {}
    groups = []
    for i, (stage, one) in enumerate(zip(stages, networks[0], strict=True)):
        if quantity in one.sizes and stage.kind == "block":
            blocks.setdefault(stage.group, []).append(i)
        elif quantity in one.sizes and stage.kind != "norm":
            groups.append(i)
    depth = np.array([stage.depth for stage in stages])
    values = np.array(
        [[one.sizes[quantity].mean if quantity in one.sizes else math.nan for one in network] for network in networks]
    )
    median, low, high = np.median(values, 0), values.min(0), values.max(0)
    for members in blocks.values():
        axes.plot(depth[members], median[members], lw=0.9, alpha=0.65, marker=".", ms=2.5, gid="blocks", **style)
    axes.plot(depth[groups], median[groups], lw=1.8, marker="o", ms=4.5, gid="groups", **style)
    if len(networks) > 1:
        axes.fill_between(depth[groups], low[groups], high[groups], color=style["color"], alpha=0.2, lw=0, gid="band")


def _mark_groups(axes: "Axes", networks: Networks) -> None:
    """Lines between groups, where all networks have as many."""
    ends = [
        tuple(one.stage.depth for one in network if one.stage.kind == "group") for network in chain(*networks.values())
    ]
    if len(set(ends)) == 1:
        for i, end in enumerate(ends[0]):
            axes.axvline(end, color=GRAY, lw=0.6, ls=":", zorder=0)
            middle = end - 0.5 / len(ends[0])
            label = f"group {i + 1}" if len(ends[0]) <= 6 else str(i + 1)
            place = axes.get_xaxis_transform()  # along the depth, and from the bottom to the top of the panel
            axes.text(middle, 0.985, label, fontsize=FONT - 1.5, color=GRAY, ha="center", va="top", transform=place)
    axes.set_xlim(-0.02, 1.02)


def _scale(axes: "Axes") -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    values = np.concatenate([np.ravel(line.get_ydata()) for line in axes.lines if line.get_gid()])
    if not (values > 0).all():
        return
    axes.set_yscale("log")
    low, high = values.min(), values.max()
    span = max(high / low, 1.5)
    axes.set_ylim(low / span**0.06, high * span**0.14)  # room for the groups' names
    subs = (1, 2, 5) if span > 6 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if span > 1000 else subs))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axes.grid(axis="y", color="#e5e5e5", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=FONT)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_legend(figure: "Figure", networks: Networks, styles: list[dict[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    labels = [textwrap.fill(_with_seeds(name, networks), 60, break_on_hyphens=False) for name in networks]
    handles = [Line2D([], [], lw=2, **style) for style in styles]
    handles += [Line2D([], [], lw=1.8, marker="o", ms=4.5, color=GRAY), Line2D([], [], lw=0.9, color=GRAY)]
    labels += ["after groups", "after blocks"]
    columns = max(1, min(len(labels), int(WIDTH / (0.07 * max(map(len, labels)) + 0.6))))
    legend = figure.legend(
        handles,
        map(str, range(len(labels))),
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize=FONT + 1,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set(parse_math=False, text=label, fontsize=FONT + 1)


def _with_seeds(name: str, networks: Networks) -> str:
    count = len(networks[name])
    return f"{name} ({count} seeds)" if count > 1 else name


# ------------------------------------------------------------------------------------------------------------- maps


def draw_strip(name: str, network: list[Measured], picture: np.ndarray, quantity: str = "intensity") -> "Figure":
    """Maps of all stages but the norm: one row per group, blocks from left to right and then the group.

    Args:
        name: Of the network.
        network: What is measured.
        picture: That the maps are of, (H, W, 3), in [0, 1].
        quantity: Of the maps: 'intensity', 'variation' or 'normalized'.
    """
    rows: dict[int, list[Measured]] = {}
    for one in _through(network):
        rows.setdefault(one.stage.group, []).append(one)
    columns = max(3, *(len(row) for row in rows.values()))
    top = _top(network, quantity)
    figure = _figure(0.5 + len(rows) * (WIDTH / columns * picture.shape[0] / picture.shape[1] + 0.46))
    title, definition = QUANTITIES[quantity]
    figure.suptitle(f"{name}: {title}", fontsize=FONT + 1.5, fontweight="bold", parse_math=False)
    grid = figure.add_gridspec(len(rows), columns)
    axes = figure.add_subplot(grid[0, 0])
    axes.imshow(picture)
    _label(axes, "image")
    for row, members in enumerate(rows.values()):
        for column, one in enumerate(members, start=int(row == 0)):
            axes = figure.add_subplot(grid[row, column])
            shown = one.maps[quantity]
            drawn = axes.imshow(shown, cmap=COLOUR_MAP, vmin=0, vmax=top)
            label = one.stage.label.split(", ")[-1]
            _label(axes, label, f"mean {shown.mean():.3g}\nmax {shown.max():.3g}", one.stage.kind == "group")
            if column == 0:
                axes.set_ylabel(f"group {one.stage.group}", fontsize=FONT)
    place = figure.add_subplot(grid[0, 2:])
    place.axis("off")
    bar = figure.colorbar(drawn, cax=place.inset_axes((0.05, 0.45, 0.9, 0.2)), orientation="horizontal", extend="max")
    bar.ax.tick_params(labelsize=FONT)
    bar.set_label(f"{definition}: one scale, 0 to {top:.3g}", fontsize=FONT)
    return figure


def _through(network: list[Measured]) -> list[Measured]:
    """The stages that the pictures show. The norm is not comparable to them."""
    return [one for one in network if one.stage.kind != "norm"]


def _top(network: list[Measured], quantity: str) -> float:
    """The end of a colour scale for all maps of a network."""
    values = np.concatenate([one.maps[quantity].ravel() for one in _through(network)])
    return float(np.percentile(values, SHARE_IN_RANGE)) or 1.0


def _label(axes: "Axes", title: str, below: str = "", bold: bool = False) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=FONT, pad=3, fontweight="bold" if bold else "normal")
    axes.set_xlabel(below, fontsize=FONT - 1, labelpad=2)


# -------------------------------------------------------------------------------------------------------- animation


def animation(networks: Networks, quantity: str = "intensity") -> bytes:
    """A GIF through the depth: of the first network of each label a map, and below the curve of its mean.

    Each has a colour scale of its own, the same in all frames. There is a frame for every stage of the network that
    has most, without the norm, but at most 25, evenly chosen; the others show the last stage that is not deeper.

    Args:
        networks: What is measured.
        quantity: Of the maps: 'intensity', 'variation' or 'normalized'.
    """
    shown = {name: _through(measured[0]) for name, measured in networks.items()}
    palette = _palette()
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in _frames(shown, quantity)]
    file = io.BytesIO()
    times = [FRAME_TIME] * (len(frames) - 1) + [LAST_FRAME_TIME]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=False)
    return file.getvalue()


def _palette() -> Image.Image:
    """The colour map, the networks' colours, and grays for text."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    colours = [*colormaps[COLOUR_MAP](np.linspace(0, 1, MAP_COLOURS))[:, :3], *map(to_rgb, COLOURS)]
    grays = np.linspace(0, 1, GRAYS)
    colours += [(gray, gray, gray) for gray in grays]
    image = Image.new("P", (1, 1))
    image.putpalette(np.rint(np.array(colours) * 255).astype(np.uint8).tobytes())
    return image


def _frames(shown: dict[str, list[Measured]], quantity: str) -> Iterator[Image.Image]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    columns = min(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    height, width = next(iter(shown.values()))[0].maps[quantity].shape
    panel = min(ANIMATION_WIDTH / columns, 3.6) * min(1.2, height / width)
    figure = _figure(rows * (panel + 0.75) + 2.1, ANIMATION_WIDTH, ANIMATION_DPI)
    layout: Any = figure.get_layout_engine()
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(": ".join(QUANTITIES[quantity]), fontsize=FONT + 1.5)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[panel] * rows + [1.4])
    curve = figure.add_subplot(grid[rows, :])
    updates = []
    for i, (name, network) in enumerate(shown.items()):
        axes = figure.add_subplot(grid[i // columns, i % columns])
        colour, top = COLOURS[i % len(COLOURS)], _top(network, quantity)
        drawn = axes.imshow(network[0].maps[quantity], cmap=COLOUR_MAP, vmin=0, vmax=top, interpolation="nearest")
        _label(axes, textwrap.fill(name, 96 // columns, break_on_hyphens=False))
        axes.title.set(color=colour, fontweight="bold", fontsize=FONT + 1.5, parse_math=False)
        values = [one.maps[quantity].mean() for one in network]
        curve.plot([one.stage.depth for one in network], values, lw=1.2, color=colour, gid="blocks")
        (dot,) = curve.plot([], [], "o", ms=7, color=colour, mec="white")
        updates.append((axes, drawn, dot, network, top))
    position = curve.axvline(0, color=GRAY, lw=0.8)
    _scale(curve)
    curve.set_xlim(-0.02, 1.02)
    curve.set_xlabel("depth: 0 what enters the first group, 1 the last group", fontsize=FONT + 1)
    curve.set_ylabel("mean of the map", fontsize=FONT + 1)
    depths = [one.stage.depth for one in max(shown.values(), key=len)]
    for index in np.linspace(0, len(depths) - 1, min(len(depths), MOST_FRAMES)).round().astype(int):
        depth = depths[index]
        for axes, drawn, dot, network, top in updates:
            now = [one for one in network if one.stage.depth <= depth + 1e-9][-1]
            pixels = now.maps[quantity]
            drawn.set_data(pixels)
            numbers = f"mean {pixels.mean():.3g}, max {pixels.max():.3g} (yellow: {top:.3g})"
            axes.set_xlabel(f"{now.stage.label}\n{numbers}", fontsize=FONT)
            dot.set_data([now.stage.depth], [pixels.mean()])
        position.set_xdata([depth])
        if depth == 0:
            layout.execute(figure)
            figure.set_layout_engine("none")  # nothing moves from here on
        canvas.draw()
        yield Image.frombuffer("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
