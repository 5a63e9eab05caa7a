"""Draw photographs that were saved as JPEG, enlarged by both networks that come with the project.

`python figures/photographs.py -o figures/photographs.png`
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

import drct
from drct.data.recipes import StepRecipe
from drct.errors import one_line_errors
from drct.evaluation.comparison_sheet import PANEL, draw_panel
from drct.images.bgr import as_float, as_uint8, read_image, write_png
from drct.images.crops import most_detailed_area
from drct.runtime.weight_files import DEFAULT_WEIGHTS, PHOTO_WEIGHTS

DEMO = Path(__file__).resolve().parents[1] / "datasets" / "demo" / "GT"
NAMES = ("astronaut", "chelsea", "coffee", "rocket")  # those in colour
SCALE = 4
SIDE = 160  # pixels of the ground truth


def draw_photographs(recipe: str, names: tuple[str, ...] = NAMES) -> np.ndarray:
    """Degrade demo images by a recipe of `drct prepare degrade`, and enlarge them.

    Returns a picture (H, W, 3), BGR, uint8: a row for the most detailed area of each image, with the PSNR on Y of the
    whole image.
    """
    from basicsr.metrics import calculate_psnr  # after drct, which makes BasicSR importable
    from basicsr.utils.matlab_functions import imresize

    upscalers = {name.removesuffix(f"_SRx{SCALE}"): drct.load(name) for name in (DEFAULT_WEIGHTS, PHOTO_WEIGHTS)}
    rows = []
    for name in names:
        truth = read_image(DEMO / f"{name}.png")
        truth = truth[: truth.shape[0] // SCALE * SCALE, : truth.shape[1] // SCALE * SCALE]
        small, _ = StepRecipe(recipe).degrade(truth, SCALE, 0, name)
        pictures = {"bicubic": as_uint8(imresize(as_float(small), SCALE))}
        pictures |= {which: _upscaled(upscaler, small) for which, upscaler in upscalers.items()}
        row, column = most_detailed_area(truth, SIDE, SIDE)
        panels = []
        for which, picture in (pictures | {"ground truth": truth}).items():
            area = cv2.resize(picture[row : row + SIDE, column : column + SIDE], (PANEL, PANEL))
            psnr = "" if picture is truth else f"{calculate_psnr(picture, truth, SCALE, test_y_channel=True):.2f} dB"
            panels.append(draw_panel(which, psnr, area))
        rows.append(np.concatenate(panels, axis=1))
    return np.concatenate(rows)


def _upscaled(upscaler: "drct.Upscaler", bgr: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(upscaler.upscale(np.ascontiguousarray(bgr[..., ::-1]))[..., ::-1])


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    recipe = "degradation, as in drct prepare degrade; default %(default)s"
    parser.add_argument("--recipe", default="jpeg:40", help=recipe)
    parser.add_argument("-o", "--output", type=Path, default=Path("photographs.png"), metavar="FILE", help="PNG")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 if nothing could be drawn."""
    args = argument_parser().parse_args(argv)
    write_png(args.output, draw_photographs(args.recipe))
    print(f"{args.recipe}: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
