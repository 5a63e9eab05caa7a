"""Pictures of features through the depth of networks: curves, a strip of maps, and an animation.

Curves and strips are 1200 pixels wide, animations 830.
"""

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from drct.analysis import plotting
from drct.analysis.feature_maps import QUANTITIES, StageFeatures
from drct.analysis.plotting import FONT_SIZE, GRAY, LINE_COLOURS, WIDTH

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D

Networks = Mapping[str, Sequence[list[StageFeatures]]]  # by label: networks that differ by their seed alone

DEPTH_TITLE = "depth: 0 what enters the first group, 1 the last group"
COLOUR_MAP = "viridis"
SHARE_IN_RANGE = 99.5  # percent of the values within a colour scale; larger ones get its last colour
ANIMATION_WIDTH, ANIMATION_DPI = 8.3, 100
FRAME_TIME, LAST_FRAME_TIME = 350, 2000  # milliseconds
MAP_COLOURS, GRAYS = 32, 16  # of a GIF: fewer make it smaller
MOST_FRAMES = 25


def draw_depth_curves(networks: Networks) -> "Figure":
    """Draw a panel per quantity and in it a line per network: thick through groups, thin through blocks.

    The vertical axes are logarithmic: multiplying all features of a network by a number, which its normalizations undo,
    shifts its line but does not change its shape. Networks of one label are drawn as their median and, around that of
    the groups, a band from minimum to maximum.
    """
    figure = plotting.new_figure(5.9)
    styles = plotting.line_styles(len(networks))
    for i, (quantity, (title, definition)) in enumerate(QUANTITIES.items()):
        axes = figure.add_subplot(2, 2, i + 1)
        for style, measured in zip(styles, networks.values(), strict=True):
            _draw_network(axes, quantity, measured, style)
        axes.set_title(title, fontsize=FONT_SIZE + 1.5, fontweight="bold", loc="left", pad=17)
        axes.text(0, 1.03, definition, fontsize=FONT_SIZE, color=GRAY, transform=axes.transAxes)
        axes.set_ylabel("in units of the features", fontsize=FONT_SIZE, color=GRAY)
        if i >= 2:
            axes.set_xlabel(DEPTH_TITLE, fontsize=FONT_SIZE)
        _mark_groups(axes, networks)
        _scale(axes)
    _add_legend(figure, networks, styles)
    return figure


def _draw_network(axes: "Axes", quantity: str, networks: Sequence[list[StageFeatures]], style: dict[str, Any]) -> None:
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
    """Draw lines between groups and number them, if all networks have equally many."""
    numbers = {sum(one.stage.kind == "group" for one in network) for network in chain(*networks.values())}
    if len(numbers) == 1:
        (number,) = numbers
        for i in range(number):
            end = (i + 1) / number
            axes.axvline(end, color=GRAY, lw=0.6, ls=":", zorder=0)
            label = f"group {i + 1}" if number <= 6 else str(i + 1)
            place = axes.get_xaxis_transform()  # x is the depth, y goes from 0 to 1 through the panel
            style: dict[str, Any] = {"fontsize": FONT_SIZE - 1.5, "color": GRAY, "ha": "center", "va": "top"}
            axes.text(end - 0.5 / number, 0.985, label, transform=place, **style)
    axes.set_xlim(-0.02, 1.02)


def _scale(axes: "Axes") -> None:
    """Make the vertical axis logarithmic, unless some value is 0."""
    values = np.concatenate([np.ravel(line.get_ydata()) for line in axes.lines if line.get_gid()])
    if not (values > 0).all():
        return
    axes.set_yscale("log")
    low, high = values.min(), values.max()
    span = max(high / low, 1.5)
    axes.set_ylim(low / span**0.06, high * span**0.14)  # leaves room for the groups' names
    multiples = (1,) if span > 1000 else (1, 2, 5) if span > 6 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    plotting.label_log_axis(axes.yaxis, multiples)
    plotting.style_axes(axes, grid="y", muted=False)


def _add_legend(figure: "Figure", networks: Networks, styles: list[dict[str, Any]]) -> None:
    """Explain the lines of networks, and the two kinds of them."""
    from matplotlib.lines import Line2D

    labels = [textwrap.fill(_with_seeds(name, networks), 60, break_on_hyphens=False) for name in networks]
    handles = [Line2D([], [], lw=2, **style) for style in styles]
    handles += [Line2D([], [], lw=1.8, marker="o", ms=4.5, color=GRAY), Line2D([], [], lw=0.9, color=GRAY)]
    labels += ["after groups", "after blocks"]
    plotting.draw_legend(figure, handles, labels, plotting.legend_columns(labels, len(labels)))


def _with_seeds(name: str, networks: Networks) -> str:
    count = len(networks[name])
    return f"{name} ({count} seeds)" if count > 1 else name


def draw_strip(name: str, network: list[StageFeatures], picture: np.ndarray, quantity: str = "intensity") -> "Figure":
    """Draw a quantity's maps of all stages but the norm: a row per group, blocks from left to right, then the group.

    The picture that was measured, (H, W, 3), in [0, 1], comes first.
    """
    rows: dict[int, list[StageFeatures]] = {}
    for one in _through(network):
        rows.setdefault(one.stage.group, []).append(one)
    columns = max(3, *(len(row) for row in rows.values()))
    top = _top(network, quantity)
    figure = plotting.new_figure(0.5 + len(rows) * (WIDTH / columns * picture.shape[0] / picture.shape[1] + 0.46))
    title, definition = QUANTITIES[quantity]
    figure.suptitle(f"{name}: {title}", fontsize=FONT_SIZE + 1.5, fontweight="bold", parse_math=False)
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
                axes.set_ylabel(f"group {one.stage.group}", fontsize=FONT_SIZE)
    place = figure.add_subplot(grid[0, 2:])
    place.axis("off")
    bar = figure.colorbar(drawn, cax=place.inset_axes((0.05, 0.45, 0.9, 0.2)), orientation="horizontal", extend="max")
    bar.ax.tick_params(labelsize=FONT_SIZE)
    bar.set_label(f"{definition}: one scale, 0 to {top:.3g}", fontsize=FONT_SIZE)
    return figure


def _through(network: list[StageFeatures]) -> list[StageFeatures]:
    """Leave out the norm, which is not comparable to other stages."""
    return [one for one in network if one.stage.kind != "norm"]


def _top(network: list[StageFeatures], quantity: str) -> float:
    """Return the upper end of a colour scale for all maps of a network."""
    values = np.concatenate([one.maps[quantity].ravel() for one in _through(network)])
    return float(np.percentile(values, SHARE_IN_RANGE)) or 1.0


def _label(axes: "Axes", title: str, below: str = "", bold: bool = False) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=FONT_SIZE, pad=3, fontweight="bold" if bold else "normal")
    axes.set_xlabel(below, fontsize=FONT_SIZE - 1, labelpad=2)


def animation(networks: Networks, quantity: str = "intensity") -> bytes:
    """Return a GIF through the depth: a map of the first network of each label, and below curves of their means.

    Each network has a colour scale of its own, the same in all frames. There is a frame for every stage of the deepest
    network except the norm, but at most 25, evenly chosen; the other networks show their last stage that is not deeper.
    """
    shown = {name: _through(measured[0]) for name, measured in networks.items()}
    palette = _palette()
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in _frames(shown, quantity)]
    file = io.BytesIO()
    times = [FRAME_TIME] * (len(frames) - 1) + [LAST_FRAME_TIME]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=False)
    return file.getvalue()


def _palette() -> Image.Image:
    """Return the colours of the GIF: the colour map, the networks' colours, and grays for text."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    colours = [*colormaps[COLOUR_MAP](np.linspace(0, 1, MAP_COLOURS))[:, :3], *map(to_rgb, LINE_COLOURS)]
    colours += [(gray, gray, gray) for gray in np.linspace(0, 1, GRAYS)]
    image = Image.new("P", (1, 1))
    image.putpalette(np.rint(np.array(colours) * 255).astype(np.uint8).tobytes())
    return image


class _AnimatedNetwork(NamedTuple):
    """A network and the parts of the figure that change from frame to frame."""

    stages: list[StageFeatures]
    panel: "Axes"
    map: "AxesImage"
    dot: "Line2D"  # on its curve

    def show(self, depth: float, quantity: str) -> None:
        """Show the last stage at this depth or before it."""
        now = [one for one in self.stages if one.stage.depth <= depth + 1e-9][-1]
        pixels = now.maps[quantity]
        self.map.set_data(pixels)
        numbers = f"mean {pixels.mean():.3g}, max {pixels.max():.3g} (yellow: {self.map.norm.vmax:.3g})"
        self.panel.set_xlabel(f"{now.stage.label}\n{numbers}", fontsize=FONT_SIZE)
        self.dot.set_data([now.stage.depth], [pixels.mean()])


def _frames(shown: dict[str, list[StageFeatures]], quantity: str) -> Iterator[Image.Image]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    columns = min(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    height, width = next(iter(shown.values()))[0].maps[quantity].shape
    panel_height = min(ANIMATION_WIDTH / columns, 3.6) * min(1.2, height / width)
    figure = plotting.new_figure(rows * (panel_height + 0.75) + 2.1, ANIMATION_WIDTH, ANIMATION_DPI)
    layout: Any = figure.get_layout_engine()
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(": ".join(QUANTITIES[quantity]), fontsize=FONT_SIZE + 1.5)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[panel_height] * rows + [1.4])
    curves = figure.add_subplot(grid[rows, :])
    networks = []
    for i, (name, stages) in enumerate(shown.items()):
        panel = figure.add_subplot(grid[i // columns, i % columns])
        title = textwrap.fill(name, 96 // columns, break_on_hyphens=False)
        networks.append(_add_network(panel, curves, title, LINE_COLOURS[i % len(LINE_COLOURS)], stages, quantity))
    position = curves.axvline(0, color=GRAY, lw=0.8)
    _scale(curves)
    curves.set_xlim(-0.02, 1.02)
    curves.set_xlabel(DEPTH_TITLE, fontsize=FONT_SIZE + 1)
    curves.set_ylabel("mean of the map", fontsize=FONT_SIZE + 1)
    depths = [one.stage.depth for one in max(shown.values(), key=len)]
    for index in np.linspace(0, len(depths) - 1, min(len(depths), MOST_FRAMES)).round().astype(int):
        for network in networks:
            network.show(depths[index], quantity)
        position.set_xdata([depths[index]])
        if index == 0:
            layout.execute(figure)
            figure.set_layout_engine("none")  # nothing moves from here on
        canvas.draw()
        yield Image.frombuffer("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")


def _add_network(
    panel: "Axes", curves: "Axes", title: str, colour: str, stages: list[StageFeatures], quantity: str
) -> _AnimatedNetwork:
    """Add a network's map and its curve to a frame."""
    top = _top(stages, quantity)
    drawn = panel.imshow(stages[0].maps[quantity], cmap=COLOUR_MAP, vmin=0, vmax=top, interpolation="nearest")
    _label(panel, title)
    panel.title.set(color=colour, fontweight="bold", fontsize=FONT_SIZE + 1.5, parse_math=False)
    means = [one.maps[quantity].mean() for one in stages]
    curves.plot([one.stage.depth for one in stages], means, lw=1.2, color=colour, gid="blocks")
    (dot,) = curves.plot([], [], "o", ms=7, color=colour, mec="white")
    return _AnimatedNetwork(stages, panel, drawn, dot)
