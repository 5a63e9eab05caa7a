"""Draw the architecture of a DRCT: network, dense group and Swin block, with the dimensions of the layers."""

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from drct.analysis import networks
from drct.analysis.plotting import LINE_COLOURS, check_png, needs_matplotlib, save_png
from drct.archs.drct_arch import (
    DENSE_SCALE,
    DENSE_SLOPE,
    DRCT,
    SHIFTED_BLOCKS,
    DenseGroup,
)
from drct.archs.swin import SwinBlock
from drct.archs.variants import VARIANTS
from drct.errors import DRCTError, one_line_errors

if TYPE_CHECKING:  # matplotlib is an extra
    from matplotlib.figure import Figure

# The unit of length is a pixel of the README, where pictures are about 830 wide. The file has two pixels for each.
WIDTH, HEIGHT, PIXELS = 830, 628, 2
UNITS_PER_INCH = 100
FONT, TITLE = 8, 9.5  # points: 11 and 13 units
MARGIN = 12
INK = "#222222"
BLUE, RED, GREEN, PURPLE, ORANGE, SKY = LINE_COLOURS[:6]
GRAY, YELLOW = "#999999", "#f0e442"
ADDED = (RED, GREEN, PURPLE, ORANGE)  # channels that the first four blocks of a dense group add
LR_PIXELS = 12  # side of the picture that stands for an input


class Item(NamedTuple):
    """A part of the row that shows the network."""

    kind: str  # box, dots, plus or picture
    width: float
    arrow: str | None = ""  # text over the arrow that leads to it; None: it touches what is before it
    text: str = ""
    colour: str = ""


class Drawing:
    """A canvas on which y runs down."""

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        size = WIDTH / UNITS_PER_INCH, HEIGHT / UNITS_PER_INCH
        self.figure = Figure(figsize=size, dpi=PIXELS * UNITS_PER_INCH, facecolor="white")
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(HEIGHT, 0))
        self.axes.set_axis_off()

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a text, centred on a point unless its style says otherwise."""
        defaults: dict[str, Any] = {"fontsize": FONT, "color": INK, "ha": "center", "va": "center", "linespacing": 1.3}
        self.axes.text(x, y, text, **(defaults | style))

    def title(self, y: float, text: str, colour: str | None = None) -> None:
        """Write the title of a part of the picture, after a box of the colour that stands for this part elsewhere."""
        if colour:
            self.box(MARGIN, y - 7, 14, 14, "", colour, upright=True)
        self.text(MARGIN + 22 * bool(colour), y, text, fontsize=TITLE, fontweight="bold", ha="left", parse_math=False)

    def box(
        self, x: float, y: float, width: float, height: float, text: str, colour: str, *, upright: bool = False
    ) -> None:
        """Draw a rectangle from its upper left corner, with a text that reads upwards if `upright`."""
        from matplotlib.colors import to_rgb
        from matplotlib.patches import FancyBboxPatch

        rgb = np.array(to_rgb(colour))
        shape = "round,pad=0,rounding_size=3"
        patch = FancyBboxPatch((x, y), width, height, shape, fc=0.3 * rgb + 0.7, ec=0.8 * rgb, lw=1)
        self.axes.add_patch(patch)
        if upright:
            self.text(x + width / 2, y + height / 2, text, rotation=90)
            return
        heading, *lines = text.split("\n")
        self.text(x + width / 2, y + 14, heading, fontweight="bold")
        self.text(x + width / 2, y + 28, "\n".join(lines), va="top", linespacing=1.45)

    def line(self, *points: tuple[float, float], colour: str = INK, arrow: bool = True) -> None:
        """Draw straight lines from point to point, with an arrowhead at the last."""
        if len(points) > 2 or not arrow:
            self.axes.plot(*zip(*points, strict=True), color=colour, lw=1, solid_capstyle="butt", zorder=3)
        if arrow:
            head = {"arrowstyle": "-|>,head_length=0.32,head_width=0.16", "color": colour, "lw": 1}
            self.axes.annotate("", points[-1], points[-2], arrowprops=head | {"shrinkA": 0, "shrinkB": 0})

    def plus(self, x: float, y: float) -> None:
        """Draw the sign of a sum, 16 wide."""
        from matplotlib.patches import Circle

        self.axes.add_patch(Circle((x, y), 8, fc="white", ec=INK, lw=1, zorder=3))
        for dx, dy in ((4, 0), (0, 4)):
            self.axes.plot((x - dx, x + dx), (y - dy, y + dy), color=INK, lw=1, zorder=4)

    def bar(self, x: float, y: float, width: float, heights: list[float]) -> None:
        """Draw a feature map from its upper left corner: the input of a dense group and the channels of its blocks."""
        from matplotlib.patches import Rectangle

        for height, colour in zip(heights, (BLUE, *ADDED), strict=False):
            self.axes.add_patch(Rectangle((x, y), width, height, fc=colour, ec="white", lw=0.8, zorder=2))
            y += height

    def picture(self, x: float, y: float, side: float, pixels: int) -> None:
        """Draw a square landscape of `pixels` x `pixels`, from its left edge and the middle of its height."""
        top = y - side / 2
        extent = (x, x + side, top + side, top)
        self.axes.imshow(_landscape(pixels), extent=extent, aspect="auto", interpolation="nearest", zorder=2)


def _landscape(side: int) -> np.ndarray:
    """Return a picture of sun, sky and hills: (side, side, 3) in [0, 1]."""
    from matplotlib.colors import to_rgb

    y, x = (np.mgrid[:side, :side] + 0.5) / side
    image = (1 - 0.5 * y[..., None]) * to_rgb(SKY) + 0.5 * y[..., None]
    image[(x - 0.7) ** 2 + (y - 0.3) ** 2 < 0.15**2] = to_rgb(YELLOW)
    image[y > 0.6 + 0.12 * np.sin(7 * x)] = to_rgb(GREEN)
    image[y > 0.8 - 0.1 * np.cos(5 * x)] = 0.6 * np.array(to_rgb(GREEN))
    return image


def block_width(group: DenseGroup, k: int) -> int:
    """Return the channels of block k of a dense group."""
    return group.dim + (k - 1) * group.growth


def shift_of(group: DenseGroup) -> int:
    """Return the shift of the shifted blocks of a dense group, in pixels."""
    return cast(SwinBlock, group.swin2).shift


def find_drct(source: str | os.PathLike) -> tuple[str, DRCT]:
    """Return a title and the network of a source.

    Args:
        source: A name in `VARIANTS`, or a source that `networks.load` takes.

    Raises:
        DRCTError: if there is no such network, or it is no DRCT.
    """
    if str(source) in VARIANTS:
        with torch.device("meta"):  # weights do not matter
            return f"{source} ×4", DRCT(**VARIANTS[str(source)])
    loaded = networks.load(source)
    if not isinstance(loaded.network, DRCT):
        raise DRCTError(f"{source} is no DRCT but a {type(loaded.network).__name__}")
    return loaded.name, loaded.network


def draw_architecture(network: DRCT, name: str) -> "Figure":
    """Draw the network, its first dense group and the first Swin block of that.

    Args:
        network: Its layers' dimensions are shown. May be on the meta device.
        name: Title of the drawing.

    Returns:
        The figure, 1660 pixels wide when saved as it is.

    Raises:
        DRCTError: if matplotlib is not installed, or the network's groups are not DRCT's.
    """
    needs_matplotlib("drawing needs")
    drawing = Drawing()
    group = network.layers[0]
    if type(group) is not DenseGroup:
        raise DRCTError(f"{name} cannot be drawn: its groups are {type(group).__name__}s, not those of a DRCT")
    parameters = sum(p.numel() for p in network.parameters())
    drawing.title(18, f"{name}: {parameters:,} parameters")
    _draw_network(drawing, network, 114)
    _draw_group(drawing, group, len(network.layers), 244)
    _draw_block(drawing, group, 484)
    return drawing.figure


# ------------------------------------------------------------------------------------------------------------ network


def _draw_network(drawing: Drawing, network: DRCT, middle: float) -> None:
    """Draw the path from image to image, around a height."""
    height = 108
    top, bottom = middle - height / 2, middle + height / 2
    before, after = _body(network), _reconstruction(network)
    items = [*before, Item("plus", 16), *after]
    gaps = [1 if item.arrow is None else 13 + 6 * len(item.arrow) for item in items[1:]]
    gaps[1] += 8  # for the branch
    stretch = (WIDTH - 2 * MARGIN - sum(item.width for item in items)) / sum(gaps)
    left = [float(MARGIN)]
    for item, gap in zip(items, gaps, strict=False):
        left.append(left[-1] + item.width + gap * stretch)
    right = [x + item.width for x, item in zip(left, items, strict=True)]
    branch, plus = left[2] - 12, len(before)
    for i, (x, item) in enumerate(zip(left, items, strict=True)):
        if i and item.arrow is not None:
            drawing.line((right[i - 1], middle), (x, middle))
            drawing.text((right[i - 1] + (branch if i == 2 else x)) / 2 - 1, middle - 10, item.arrow)
        if item.kind == "box":
            drawing.box(x, top, item.width, height, item.text, item.colour, upright=True)
        elif item.kind == "plus":
            drawing.plus(x + item.width / 2, middle)
        elif item.kind == "picture":
            drawing.picture(x, middle, item.width, LR_PIXELS * (network.upscale if i else 1))
        else:
            drawing.text(x + item.width / 2, middle, "…", fontsize=TITLE)

    skip, end = top - 12, left[plus] + 8
    drawing.line((branch, middle), (branch, skip), (end, skip), (end, middle - 8))
    drawing.text((branch + end) / 2, skip - 9, "long skip connection")

    channels, scale, sizes = network.conv_first.in_channels, 1, bottom + 11
    drawing.text(left[0] + items[0].width / 2, middle + items[0].width / 2 + 10, "LR")
    drawing.text(MARGIN, sizes, f"{channels} × H × W", ha="left")
    for i, item in enumerate(items):
        if item.text.startswith("pixel shuffle"):
            scale *= int(item.text.split()[-1])
            drawing.text((left[i - 1] + right[i]) / 2, sizes, f"{scale}H × {scale}W")
    if after:
        drawing.text(left[-1] + items[-1].width / 2, middle + items[-1].width / 2 + 10, "HR")
        drawing.text(WIDTH - MARGIN, sizes, f"{channels} × {scale}H × {scale}W", ha="right")
    brace = bottom + 24
    for first, last, text in (
        (2, plus - 1, f"deep features, {network.conv_first.out_channels} × H × W"),
        (plus + 1, len(items) - 2, "reconstruction"),
    ):
        if first <= last:
            ends = left[first], right[last]
            drawing.line((ends[0], brace - 4), (ends[0], brace), (ends[1], brace), (ends[1], brace - 4), arrow=False)
            drawing.text(sum(ends) / 2, brace + 15, text, va="baseline")


def _body(network: DRCT) -> list[Item]:
    channels = str(network.conv_first.out_channels)
    items = [Item("picture", 36), _convolution(network.conv_first, str(network.conv_first.in_channels))]
    if len(network.patch_embed):
        items.append(Item("box", 22, channels, "LayerNorm", GRAY))
    if network.absolute_pos_embed is not None:
        items.append(Item("box", 22, "", "+ position", GRAY))
    count = len(network.layers)
    shown = [1, 2, None, count] if count > 4 else range(1, count + 1)
    for i in shown:
        items.append(Item("box", 30, "", f"dense group {i}", ORANGE) if i else Item("dots", 12))
    items.append(Item("box", 22, "", "LayerNorm", GRAY))
    if isinstance(network.conv_after_body, nn.Conv2d):
        items.append(_convolution(network.conv_after_body, channels))
    return items


def _reconstruction(network: DRCT) -> list[Item]:
    if not network.upsampler:
        return []
    conv = cast(nn.Conv2d, network.conv_before_upsample[0])
    slope = cast(nn.LeakyReLU, network.conv_before_upsample[1]).negative_slope
    text = f"{_named(conv)}\nLeakyReLU {slope:g}"
    items = [Item("box", 34, str(conv.in_channels), text, SKY)]
    for layer in network.upsample:
        if isinstance(layer, nn.Conv2d):
            items.append(_convolution(layer, str(layer.in_channels)))
        else:
            items.append(Item("box", 22, None, f"pixel shuffle {layer.upscale_factor}", GREEN))
    items.append(_convolution(network.conv_last, str(network.conv_last.in_channels)))
    return [*items, Item("picture", 58, str(network.conv_last.out_channels))]


def _convolution(conv: nn.Conv2d, arrow: str) -> Item:
    return Item("box", 22, arrow, _named(conv), SKY)


def _named(conv: nn.Conv2d) -> str:
    return f"conv {conv.kernel_size[0]}×{conv.kernel_size[1]}, {conv.out_channels}"


# -------------------------------------------------------------------------------------------------------- dense group


def _draw_group(drawing: Drawing, group: DenseGroup, count: int, top: float) -> None:
    """Draw the five blocks of a dense group, with feature maps as bars whose height is the number of channels."""
    drawing.title(top, f"Residual dense group, one of {count}: each block sees what all earlier ones added", ORANGE)
    top += 46
    height, bar = 124, 16
    bottom, scale = top + height, height / block_width(group, 5)
    first, unit = MARGIN + 12, 138
    source = top + group.dim * scale / 2  # height of the middle of the input
    for k in range(1, 6):
        x = first + (k - 1) * unit
        drawing.bar(x, top, bar, [group.dim * scale] + [group.growth * scale] * (k - 1))
        level = top + block_width(group, k) * scale / 2
        drawing.line((x + bar, level), (x + bar + 12, level))
        conv_end = _draw_group_block(drawing, group, k, x + bar + 12, top, height)
        channels = str(block_width(group, k)) + " channels" * (k == 1)
        drawing.text(x - 3, bottom + 12, channels, ha="left")
        if k < 5:  # the feature map passes over the block into the next one, and new channels are added below it
            here, there, over = x + bar / 2, x + unit + bar / 2, top - 12
            drawing.line((here, top), (here, over), (there, over), (there, top))
            level = top + (block_width(group, k) + group.growth / 2) * scale
            drawing.line((conv_end, level), (x + unit, level))
    drawing.text(first + bar / 2 + unit / 2, top - 21, "concatenated")

    out = WIDTH - MARGIN - bar
    plus, under = out - 26, bottom + 38
    drawing.line((conv_end, source), (plus - 8, source))
    drawing.text((conv_end + plus) / 2 - 6, source - 10, f"× {DENSE_SCALE:g}")
    drawing.plus(plus, source)
    drawing.line((plus + 8, source), (out, source))
    drawing.bar(out, top, bar, [group.dim * scale])
    drawing.text(out - 3, bottom + 12, str(group.dim), ha="left")
    drawing.line((first, source), (first - 8, source), (first - 8, under), (plus, under), (plus, source + 8))
    drawing.text((first + plus) / 2, under - 9, "the group's input")


def _draw_group_block(drawing: Drawing, group: DenseGroup, k: int, x: float, y: float, height: float) -> float:
    """Draw block k of a dense group and its 1x1 convolution. Returns the x at which they end."""
    width, conv_width = 62, 34
    block: SwinBlock = getattr(group, f"swin{k}")
    adjust: nn.Conv2d = getattr(group, f"adjust{k}")
    heads = block.attn.num_heads
    ratio = block.mlp.fc1.out_features / block.mlp.fc1.in_features
    lines = [f"Swin {k}", f"{heads} head{'s' * (heads > 1)}", f"MLP ×{ratio:.3g}", "windows"]
    if shift_of(group) and k in SHIFTED_BLOCKS:
        lines.append("shifted")
    drawing.box(x, y, width, height, "\n".join(lines), YELLOW)
    conv = x + width + 6
    drawing.line((x + width, y + height / 2), (conv, y + height / 2), arrow=False)
    text = _named(adjust) + f"\nLeakyReLU {DENSE_SLOPE:g}" * (k < 5)
    drawing.box(conv, y, conv_width, height, text, (*ADDED, BLUE)[k - 1], upright=True)
    return conv + conv_width


# --------------------------------------------------------------------------------------------------------- Swin block


def _draw_block(drawing: Drawing, group: DenseGroup, top: float) -> None:
    """Draw the first block of a group, and the windows of all blocks."""
    block = cast(SwinBlock, group.swin1)
    attention, mlp = block.attn, block.mlp
    width, heads, window = attention.qkv.in_features, attention.num_heads, attention.window_size
    usual = math.isclose(attention.scale, (width // heads) ** -0.5)
    factor = f"/ √{width // heads}" if usual else f"· {attention.scale:.3g}"
    positions = math.isqrt(len(attention.relative_position_bias_table))
    sublayers = (
        (
            212,
            PURPLE,
            f"attention in windows\nq, k, v: linear {width} → 3 · {width}\n"
            f"{heads} head{'s' * (heads > 1)}: softmax(q kᵀ {factor} + B) v\n"
            f"B: of {positions} × {positions} relative positions\nlinear {width} → {width}",
        ),
        (120, SKY, f"MLP\nlinear {width} → {mlp.fc1.out_features}\nGELU\nlinear {mlp.fc2.in_features} → {width}"),
    )
    drawing.title(top, f"Swin block 1: {width} channels in windows of {window} × {window} pixels", YELLOW)
    top, height = top + 28, 98
    middle, x = top + height / 2, MARGIN + 24
    drawing.text(MARGIN, middle, str(width), ha="left")
    for box_width, colour, text in sublayers:
        norm, layer = x + 26, x + 64
        plus = layer + box_width + 24
        drawing.line((x, middle), (norm, middle))
        drawing.box(norm, top, 24, height, "LayerNorm", GRAY, upright=True)
        drawing.line((norm + 24, middle), (layer, middle))
        drawing.box(layer, top, box_width, height, text, colour)
        drawing.line((layer + box_width, middle), (plus - 8, middle))
        drawing.plus(plus, middle)
        drawing.line((x + 12, middle), (x + 12, top - 10), (plus, top - 10), (plus, middle - 8))
        x = plus + 8
    drawing.line((x, middle), (x + 14, middle))

    others = set(range(1, 6)) - set(SHIFTED_BLOCKS if shift_of(group) else ())
    kinds = [(f"blocks {', '.join(map(str, sorted(others)))}", 0.0)]
    if shift_of(group):
        kinds.append((f"blocks {', '.join(map(str, SHIFTED_BLOCKS))}\nshifted by {shift_of(group)}", 0.5))
    side, y = 84, top - 10
    for i, (text, shift) in enumerate(kinds):
        x = WIDTH - MARGIN - side - 106 * (len(kinds) - 1 - i)
        drawing.picture(x, y + side / 2, side, 4 * LR_PIXELS)
        for j in range(1, 4):
            at = (j - shift) * side / 3
            if at < side:
                drawing.line((x + at, y), (x + at, y + side), colour="white", arrow=False)
                drawing.line((x, y + at), (x + side, y + at), colour="white", arrow=False)
        drawing.text(x + side / 2, y + side + 8, text, va="top")


# -------------------------------------------------------------------------------------------------------- command line


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n  %(prog)s DRCT-L -o DRCT-L.png\n  %(prog)s experiments/mine/models/net_g_100000.pth\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "network",
        metavar="NETWORK",
        help="a name such as DRCT, DRCT-L or DRCT-XS, a weight file, or the folder of a training run",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("architecture.png"),
        metavar="FILE",
        help="picture to write, default architecture.png; an existing one is replaced",
    )
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 if nothing could be drawn."""
    args = argument_parser().parse_args(argv)
    check_png(args.output, "architecture.png")
    name, network = find_drct(args.network)
    save_png(args.output, draw_architecture(network, name))
    print(f"architecture of {name}: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
