"""Measure which weights enlarge photographs best by factors that are not their own, as drct upscale --outscale does.

Each photograph is cropped and reduced by the factor (MATLAB's bicubic, 8 bits) and enlarged again by each of the
weights, whose results are resized to the factor. PSNR is of Y, without a border of the factor's pixels. Use photographs
that no training has seen. The means go to a JSON file, from which figures/tables.py makes a table.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import drct
from drct.errors import DRCTError, one_line_errors
from drct.evaluation.metric_table import format_number
from drct.files import write_text
from drct.images.bgr import as_float, as_uint8, read_image
from drct.images.listing import check_folder, list_images
from drct.runtime.weight_files import CLEAN_WEIGHTS, clean_weights
from drct.text import markdown_table

EXAMPLES = """examples:
  %(prog)s ~/photographs && python figures/tables.py
  %(prog)s ~/photographs --factors 2 --weights DRCT-XS_SRx2 mine.pth -o mine.json
"""
FACTORS = (Fraction(3, 2), Fraction(2), Fraction(5, 2), Fraction(3))
BICUBIC = "bicubic"


def measure(
    photographs: Sequence[Path], factors: Sequence[Fraction], weights: Sequence[str], **settings: Any
) -> dict[str, Any]:
    """Return PSNR and seconds, means over photographs, by factor and weights; and how they were measured.

    Args:
        photographs: High-resolution images.
        factors: Factors of enlargement, above 1.
        weights: Names or files.
        settings: Device and precision, as `drct.load` takes them.

    Raises:
        DRCTError: if an image or weights cannot be read, or an image is too small.
    """
    upscalers = {Path(name).stem: drct.load(name, **settings) for name in weights}
    found: dict[str, Any] = {}
    for factor in factors:
        rows: list[dict[str, tuple[float, float]]] = []
        for path in photographs:
            rows.append(_measure_photograph(path, factor, upscalers))
            print(f"{float(factor):g} {path.name}", file=sys.stderr)
        means = {name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]}
        found[f"{float(factor):g}"] = {
            name: {"psnr": round(float(psnr), 4), "seconds": round(float(seconds), 4)}
            for name, (psnr, seconds) in means.items()
        }
    first = next(iter(upscalers.values()))
    return {
        "photographs": len(photographs),
        "device": str(first.device),
        "precision": first.precision,
        "factors": found,
    }


def _measure_photograph(
    path: Path, factor: Fraction, upscalers: dict[str, "drct.Upscaler"]
) -> dict[str, tuple[float, float]]:
    """Return PSNR and seconds of bicubic interpolation and of each upscaler."""
    from basicsr.metrics import calculate_psnr  # after drct, which makes BasicSR importable
    from basicsr.utils.matlab_functions import imresize

    truth = read_image(path)
    height, width = (side - side % factor.numerator for side in truth.shape[:2])
    if min(height, width) < 8 * factor.numerator:
        raise DRCTError(f"{path} has {truth.shape[1]} x {truth.shape[0]} pixels: too few to be reduced")
    truth = truth[:height, :width]
    small = as_uint8(imresize(as_float(truth), float(1 / factor))[: int(height / factor), : int(width / factor)])
    rgb = np.ascontiguousarray(small[..., ::-1])
    results, seconds = {BICUBIC: as_uint8(imresize(as_float(small), float(factor)))[:height, :width]}, {BICUBIC: 0.0}
    for name, upscaler in upscalers.items():
        start = time.perf_counter()
        results[name] = upscaler.upscale(rgb, float(factor))[..., ::-1]
        seconds[name] = time.perf_counter() - start
    border = math.ceil(factor)
    return {
        name: (calculate_psnr(result, truth, border, test_y_channel=True), seconds[name])
        for name, result in results.items()
    }


def outscale_table(content: dict[str, Any]) -> str:
    """Return a Markdown table of what `measure` has found, with the weights that 'auto' takes for each factor."""
    rows = []
    for factor, found in content["factors"].items():
        for name, values in found.items():
            seconds = "" if name == BICUBIC else f"{values['seconds']:.2f}"
            taken = "auto" if name == clean_weights(float(factor)) else ""
            rows.append([f"×{factor}", name, taken, format_number(values["psnr"], 2), seconds])
    return markdown_table(["factor", "weights", "taken by", "PSNR-Y (dB)", "seconds per image"], rows, left=3)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="high-resolution photographs")
    factors = f"default: {' '.join(f'{float(factor):g}' for factor in FACTORS)}"
    parser.add_argument("--factors", nargs="+", type=_factor, default=FACTORS, metavar="FACTOR", help=factors)
    weights = f"default: {' '.join(CLEAN_WEIGHTS)}"
    parser.add_argument("--weights", nargs="+", default=list(CLEAN_WEIGHTS), metavar="NAME", help=weights)
    parser.add_argument("--device", help="as of drct upscale")
    parser.add_argument("--precision", default="auto", help="as of drct upscale")
    path = "file to write, default %(default)s"
    parser.add_argument("-o", "--output", type=Path, default=Path("figures/outscale.json"), metavar="FILE", help=path)
    return parser


def _factor(text: str) -> Fraction:
    factor = Fraction(text).limit_denominator(10)
    if factor <= 1:
        raise argparse.ArgumentTypeError(f"{text} does not enlarge")
    return factor


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 if something could not be measured."""
    args = argument_parser().parse_args(argv)
    check_folder(args.folder)
    photographs = list_images(args.folder)
    if not photographs:
        raise DRCTError(f"{args.folder} has no images")
    content = measure(photographs, args.factors, args.weights, device=args.device, precision=args.precision)
    write_text(args.output, json.dumps(content, indent=1) + "\n")
    print(outscale_table(content), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
