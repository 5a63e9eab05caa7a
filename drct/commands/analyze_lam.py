"""Show which input pixels a patch of a result depends on, for several networks side by side.

For each network: the local attribution map (Gu and Dong 2021) with its diffusion index, from 0 (a single pixel) to 100
(all pixels evenly), and the effective receptive field (Luo et al. 2016) of the pixel at the centre of the patch.
The numbers depend on image, patch and context: compare those of one command only.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from drct.analysis.plotting import needs_matplotlib, save_png
from drct.commands.common import add_device, add_network, command_parser
from drct.errors import DRCTError, one_line_errors
from drct.files import make_folder, write_text
from drct.runtime.weight_files import check_weights

if TYPE_CHECKING:  # --help should not wait for PyTorch
    import numpy as np

    from drct.analysis.attribution import Area

PATCH = 16  # side in input pixels
CONTEXT = 64  # side in input pixels; like sigma, the choice of the method's authors
STEPS = 25
SIGMA = 1.2  # input pixels
LARGEST_ERROR = 0.01  # completeness error above which there are too few steps
EXAMPLES = """examples:
  %(prog)s DRCT-XS_SRx4 --input photo.png -o lam
  %(prog)s DRCT-XS_SRx4 experiments/mine SwinIR-M_x4.pth --input photo.png --patch 40,60,16 -o lam
"""


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of `drct analyze lam`."""
    parser = command_parser(__doc__, EXAMPLES)
    networks = "weights as drct upscale takes them, but no ONNX model"
    parser.add_argument("networks", nargs="+", metavar="NETWORK", help=networks)
    add_network(parser)
    parser.add_argument("--input", type=Path, required=True, metavar="IMAGE", help="picture to upscale")
    folder = "where to write lam.png and lam.json; existing ones are replaced"
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help=folder)
    patch = f"left, top and side of the patch in input pixels; default: the {PATCH}x{PATCH} with the most detail"
    parser.add_argument("--patch", type=_patch, metavar="X,Y,SIZE", help=patch)
    parser.add_argument(
        "--context",
        type=int,
        default=CONTEXT,
        metavar="PIXELS",
        help="side of the square around the patch that the network is given; memory and time grow with its "
        "square; default %(default)s",
    )
    steps = "number of steps from the blurred input to the input, default %(default)s"
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help=steps)
    sigma = "sigma of the Gaussian that blurs the input at the start, default %(default)s"
    parser.add_argument("--sigma", type=float, default=SIGMA, metavar="PIXELS", help=sigma)
    add_device(parser)
    return parser


def _patch(text: str) -> tuple[int, int, int]:
    try:
        x, y, size = (int(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,SIZE, as 40,60,16") from error
    return x, y, size


def _check(args: argparse.Namespace) -> None:
    """Raise `DRCTError` for arguments out of range, or if matplotlib is missing."""
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
    for network in args.networks:
        check_weights(network, args.network)
    if not args.input.is_file():
        raise DRCTError(f"cannot read image {args.input}: no such file")


def _patch_of(args: argparse.Namespace, pixels: "np.ndarray") -> "Area":
    """Return the patch that --patch gives, which must be within the image (H, W, 3), or the most detailed one."""
    from drct.analysis.attribution import Area, most_detailed_patch

    if args.patch is None:
        return most_detailed_patch(pixels, min(PATCH, args.context))
    x, y, size = args.patch
    height, width = pixels.shape[:2]
    if x < 0 or y < 0 or x + size > width or y + size > height:
        raise DRCTError(f"--patch {x},{y},{size} is not within {args.input}, which has {width}x{height} pixels")
    return Area(x, y, size, size)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct analyze lam`. Returns 0, or 2 if nothing could be found out."""
    args = argument_parser().parse_args(argv)
    _check(args)

    from drct.analysis.attribution import cut_out, explain, explanations_table
    from drct.analysis.attribution_pictures import draw_explanations
    from drct.analysis.networks import load_all
    from drct.images.bgr import read_image

    pixels = read_image(args.input)
    patch = _patch_of(args, pixels)
    excerpt = cut_out(pixels, patch, args.context)
    networks = load_all(args.networks, args.network)
    make_folder(args.output)
    found = [explain(one, excerpt.image, excerpt.patch, args.steps, args.sigma, args.device) for one in networks]
    content = {
        "input": str(args.input),
        "patch": patch._asdict(),
        "context": excerpt.context._asdict(),
        "steps": args.steps,
        "sigma": args.sigma,
        "networks": [{"source": source} | one.numbers() for source, one in zip(args.networks, found, strict=True)],
    }
    figure = draw_explanations(found, excerpt.image, excerpt.patch)
    write_text(args.output / "lam.json", json.dumps(content, indent=1))
    save_png(args.output / "lam.png", figure)
    print(explanations_table(found), end="")
    print(f"patch {patch.x},{patch.y},{patch.width} of {args.input}: {args.output / 'lam.png'}, lam.json")
    for one in found:
        error = one.attribution.completeness_error
        if error > LARGEST_ERROR:
            message = f"{one.name}: the attributions add up to what they should with an error of {error:.1%}"
            print(f"warning: {message}: choose more --steps", file=sys.stderr)
    return 0
