"""Upscale image files, folders with their subfolders, and the files that patterns match."""

import logging
import os
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from drct.commands.common import (
    add_device,
    add_network,
    add_precision,
    add_tile,
    add_tile_error,
    command_parser,
    print_failures,
)
from drct.errors import one_line_errors
from drct.files import expanded
from drct.runtime.weight_files import (
    AUTO,
    CLEAN_QUALITY,
    CLEAN_WEIGHTS,
    DEFAULT_WEIGHTS,
    PHOTO_WEIGHTS,
    check_weights,
)
from drct.text import count

if TYPE_CHECKING:
    from drct.inference.batch_plan import ResultOptions

RESULT_FORMATS = ("auto", "png", "jpg", "webp", "tif", "bmp")
EXAMPLES = """examples:
  %(prog)s photo.jpg                          into the folder upscaled
  %(prog)s photo.jpg -o larger.png
  %(prog)s holidays/ portraits/ -o larger     with the folders below them
  %(prog)s 'scans/*.tif' -o larger --format png --suffix _x4
  %(prog)s photo.jpg --weights DRCT_SRx4.pth --precision fp32 --self-ensemble
  %(prog)s photo.jpg --weights experiments/mine   the best or newest weights of a training run
  %(prog)s photo.jpg --weights model.onnx     also SwinIR.pth, RealESRGAN_x4plus.pth, ... with pip install spandrel
  %(prog)s photo.png --outscale 2             twice the size, by the weights for this factor
  torchrun --nproc_per_node=4 -m drct upscale holidays/ -o larger    shared by four processes
"""


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct upscale`."""
    parser = command_parser(__doc__, EXAMPLES)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder, or pattern such as '*.png'")
    output = "folder, or file for one image; default: upscaled"
    parser.add_argument("-o", "--output", type=Path, default=Path("upscaled"), help=output)
    weights = (
        "file, name, or folder of a training run; default: auto, which takes "
        f"{PHOTO_WEIGHTS} for images that were compressed with loss, and for others {DEFAULT_WEIGHTS}, or those of the "
        "scale that --outscale needs; all come with the project"
    )
    parser.add_argument("--weights", default=AUTO, help=weights)
    add_network(parser)
    outscale = "enlarge by this factor, to which results are resized; default: the network's"
    parser.add_argument("--outscale", type=_factor, metavar="FACTOR", help=outscale)
    parser.add_argument("--suffix", default="", help="add this to the names of results, such as _x4")
    parser.add_argument("--format", choices=RESULT_FORMATS, default="auto", help="default: the input's, or png")
    quality = "quality of JPEG and WebP, 1 to 100; default 95"
    parser.add_argument("--quality", type=int, choices=range(1, 101), metavar="Q", default=95, help=quality)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--skip-existing", action="store_true", help="skip images whose result exists")
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist")
    tileable = "the images are textures to be repeated: so can the results be, without seams"
    parser.add_argument("--tileable", action="store_true", help=tileable)
    parser.add_argument("--self-ensemble", action="store_true", help="average 8 rotations and reflections; 8 x slower")
    add_tile(parser)
    add_tile_error(parser)
    add_precision(parser)
    add_device(parser)
    return parser


def _factor(text: str) -> float:
    number = float(text)
    if not 0 < number < 100:
        raise ArgumentTypeError(f"{text} is not between 0 and 100")
    return number


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct upscale`. Returns 0, 1 if some images failed, 2 if nothing could be done."""
    args = argument_parser().parse_args(argv)

    from drct.inference.batch_plan import ResultOptions, reasons_for_none  # --help needs no OpenCV

    results = ResultOptions(
        output=expanded(args.output),
        suffix=args.suffix,
        format=args.format,
        outscale=args.outscale,
        wrap=args.tileable,
        quality=args.quality,
        existing="skip" if args.skip_existing else "replace" if args.overwrite else "refuse",
    )
    if "RANK" not in os.environ:  # several processes report together
        if reasons := reasons_for_none(args.inputs, results):
            print_failures(reasons)
            print(f"0 images upscaled into {results.output}, {len(reasons)} failed")
            return 2
        check_weights(args.weights, args.network, may_be_auto=True)

    from drct.runtime.distributed import reported_once  # PyTorch takes seconds, mistakes should not

    return reported_once(_upscale)(args, results)


def _upscale(args: Namespace, results: "ResultOptions") -> int:
    from drct.inference.batch import upscale_files
    from drct.runtime.distributed import rank

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    settings = {key: getattr(args, key) for key in ("precision", "tile", "tile_error", "self_ensemble", "network")}
    start = time.monotonic()
    tally = upscale_files(args.inputs, results, args.weights, args.device, **settings)
    if rank() == 0:
        if args.weights == AUTO and tally.upscaled:
            print(_choice(tally.weights))
        words = [f"{count(tally.upscaled, 'image')} upscaled into {results.output}"]
        if tally.upscaled:
            words.append(f"{tally.pixels / 1e6:.2f} megapixels in {time.monotonic() - start:.1f} s")
        words += [f"{tally.skipped} existed already"] * bool(tally.skipped)
        words += [f"{tally.failed} failed"] * bool(tally.failed)
        print(", ".join(words))
    return 2 if not tally.planned else int(tally.failed > 0)


def _choice(taken: Counter[str]) -> str:
    """Tell which weights were taken for how many images."""
    clean = f"for clean images (lossless, or JPEG of quality {CLEAN_QUALITY} or above)"
    why = {name: f"{clean} and factors up to {scale}" for name, scale in CLEAN_WEIGHTS.items()}
    why[DEFAULT_WEIGHTS] = clean
    why[PHOTO_WEIGHTS] = f"for compressed photographs (WebP, AVIF, JPEG of quality below {CLEAN_QUALITY})"
    words = [f"{count(number, 'image')} by {name}, {why[name]}" for name, number in taken.most_common()]
    return f"weights: {'; '.join(words)}. --weights NAME takes one for all"
