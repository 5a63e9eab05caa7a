"""Time that ImageNetPairedDataset takes for a training pair, against making it the plain way.

The dataset reduces only the patch. The plain way decodes the image to floats, reduces all of it, and then crops. Both
run in turns in one process on one thread, from one JPEG file made for the purpose.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import drct  # noqa: F401 - mends BasicSR when that is imported

# isort: split

import basicsr  # noqa: F401 - before its modules, so that it is mended
import cv2
import numpy as np
import torch
from basicsr.data.transforms import augment, mod_crop, paired_random_crop
from basicsr.utils import imfrombytes, img2tensor
from basicsr.utils.matlab_functions import imresize

from drct.data.bicubic import reduce_region
from drct.data.imagenet_paired_dataset import ImageNetPairedDataset
from drct.errors import DRCTError, one_line_errors
from drct.images.bgr import as_float

TOLERANCE = 1e-6


def plain_pair(path: Path, scale: int, gt_size: int) -> dict[str, Any]:
    """Return a pair as ImageNetPairedDataset does, the plain way: reduce the whole image, then crop, flip and turn."""
    gt = mod_crop(imfrombytes(path.read_bytes(), float32=True), scale)
    height, width = (max(side, gt_size) for side in gt.shape[:2])
    if (height, width) != gt.shape[:2]:
        gt = cv2.resize(gt, (width, height), interpolation=cv2.INTER_LINEAR)
    lq = np.ascontiguousarray(imresize(gt, 1 / scale))
    gt, lq = augment(list(paired_random_crop(gt, lq, gt_size, scale, path)))
    gt, lq = img2tensor([np.ascontiguousarray(gt), np.ascontiguousarray(lq)])
    return {"gt": gt, "lq": lq}


def write_photo(path: Path, height: int, width: int, quality: int = 95) -> None:
    """Write a JPEG file with the edges and the grain of a photograph, about as large as ImageNet's (100 kB)."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 8, (height, width, 3))
    if not cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality]):
        raise DRCTError(f"cannot write {path}: is {width}x{height} a valid size of an image?")


def interleaved(ways: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Return median times in milliseconds of functions called in turns, so that other load affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions + 1):
        for name, way in ways.items():
            random.seed(repetition)  # all draw the same patches
            start = time.perf_counter()
            way()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values[1:]) for name, values in times.items()}  # the first one warms up


def largest_difference(dataset: ImageNetPairedDataset, path: Path, scale: int, gt_size: int, pairs: int = 50) -> float:
    """Return the largest difference of a pixel between pairs made both ways with the same places, flips and turns."""
    largest = 0.0
    for seed in range(pairs):
        random.seed(seed)
        plain = plain_pair(path, scale, gt_size)
        random.seed(seed)
        ours = dataset[0]
        largest = max([largest, *((plain[key] - ours[key]).abs().max().item() for key in ("gt", "lq"))])
    return largest


def measure(path: Path, scale: int, gt_size: int, repetitions: int) -> dict[str, float]:
    """Return median times of the parts of making a pair, in milliseconds."""
    dataset = make_dataset(path, scale, gt_size)
    data = path.read_bytes()
    image = dataset.prepare(imfrombytes(data))
    whole = as_float(image)
    size = gt_size // scale

    def reduce_patch() -> np.ndarray:
        top, left = (random.randint(0, side // scale - size) for side in image.shape[:2])
        return reduce_region(image, scale, top, left, size, size)

    return interleaved(
        {
            "decode": lambda: imfrombytes(data),
            "reduce, plain": lambda: paired_random_crop(whole, imresize(whole, 1 / scale), gt_size, scale),
            "reduce, patch": reduce_patch,
            "pair, plain": lambda: plain_pair(path, scale, gt_size),
            "pair, patch": lambda: dataset[0],
        },
        repetitions,
    )


def make_dataset(path: Path, scale: int, gt_size: int) -> ImageNetPairedDataset:
    """Return the training dataset of the folder that holds a file."""
    options = {"dataroot_gt": str(path.parent), "io_backend": {"type": "disk"}, "phase": "train"}
    return ImageNetPairedDataset(options | {"scale": scale, "gt_size": gt_size, "use_hflip": True, "use_rot": True})


def report(times: Mapping[str, float]) -> str:
    """Return the times as lines of text."""
    lines = ["median ms          plain    patch    ratio"]
    for name, title in (("reduce", "reduce and crop"), ("pair", "whole pair")):
        plain, patch = times[f"{name}, plain"], times[f"{name}, patch"]
        lines.append(f"{title:16}{plain:8.2f} {patch:8.2f} {plain / patch:7.1f}x")
    shares = [f"{times['decode'] / times[f'pair, {way}']:.0%} of the {way} pair" for way in ("plain", "patch")]
    return "\n".join([*lines, f"decoding the JPEG takes {times['decode']:.2f} ms: {', '.join(shares)}"])


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=500, help="of the image, default 500")
    parser.add_argument("--height", type=int, default=375, help="of the image, default 375")
    parser.add_argument("--scale", type=int, default=4, choices=[2, 3, 4], help="default 4")
    parser.add_argument("--gt-size", type=int, default=256, help="side of the patch, default 256")
    parser.add_argument("--repetitions", type=int, default=100, help="default 100")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Print the times. Returns 0, or 1 if the pixels of the two ways differ by more than rounding."""
    args = argument_parser().parse_args(argv)
    if args.gt_size <= 0 or args.gt_size % args.scale:
        raise DRCTError(f"--gt-size {args.gt_size} is not a multiple of --scale {args.scale}")
    if min(args.height, args.width) < 16 or args.repetitions < 1:
        raise DRCTError("--height and --width must be at least 16, --repetitions at least 1")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)  # as in a loader's worker
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo.jpg")
        write_photo(path, args.height, args.width)
        dataset = make_dataset(path, args.scale, args.gt_size)
        difference = largest_difference(dataset, path, args.scale, args.gt_size)
        print(
            f"{args.width}x{args.height} JPEG of {path.stat().st_size // 1000} kB, x{args.scale}, gt_size "
            f"{args.gt_size}; {args.repetitions} repetitions, one thread"
        )
        print(report(measure(path, args.scale, args.gt_size, args.repetitions)))
    print(f"largest difference of a pixel: {difference:.1e} (of 1)")
    return 0 if difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
