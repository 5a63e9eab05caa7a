"""Measure what tiles change, by their overlap: on the sample of `tile_error`, on photographs and on hard patterns.

Of photographs, the middle is taken. Each image is computed as a whole and in nine tiles, in fp32 on the CPU. The
figures go to a JSON file, in which other networks stay, and from which figures/tables.py makes the table tile-errors.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measured import read_measured
from torch import Tensor

import drct
from drct.errors import DRCTError, one_line_errors
from drct.files import write_text
from drct.images.bgr import read_image
from drct.images.listing import list_images
from drct.inference.tile_error import HALVES, TileOverlaps
from drct.inference.tiling import computed_pixels
from drct.runtime.weight_files import DEFAULT_WEIGHTS, PHOTO_WEIGHTS
from drct.text import markdown_table

TILE = 48  # input pixels
SIDE = 3 * TILE
OVERLAPS = 5  # windows in the largest overlap, plus one
KINDS = {"sample": "sample", "photographs": "photographs", "patterns": "hard patterns"}
TileErrorFigures = dict[str, Any]


def pictures(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the middle of photographs and patterns that networks see far in, by kind: (SIDE, SIDE, 3), RGB, uint8."""
    for path in list_images(folder, False):
        image = read_image(path)[..., ::-1]
        top, left = ((side - SIDE) // 2 for side in image.shape[:2])
        if min(top, left) < 0:
            raise DRCTError(f"{path} has less than {SIDE}x{SIDE} pixels")
        yield "photographs", image[top : top + SIDE, left : left + SIDE]
    rows, columns = np.indices((SIDE, SIDE))
    text = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for line in range(12, SIDE, 12):
        cv2.putText(text, "tiles without seams 0123", (1, line), cv2.FONT_HERSHEY_PLAIN, 0.7, (0, 0, 0))
    gray = ((rows + columns) % 2, (rows // 8 + columns // 8) % 2, columns / SIDE)
    yield "patterns", np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    yield "patterns", text
    for pattern in gray:
        yield "patterns", np.repeat((pattern * 255).astype(np.uint8)[..., None], 3, 2)


def measure(weights: str, folder: Path) -> list[dict[str, Any]]:
    """Return what tiles of a network change, a row for each overlap."""
    upscaler = drct.load(weights, "cpu", "fp32")
    network = upscaler.network

    def compute(x: Tensor, precision: str, tile: tuple[int, int] | None) -> Tensor:
        return drct.Upscaler(network, "cpu", precision, tile, traits=upscaler.traits).run(x)

    overlaps = TileOverlaps(1, network, upscaler.traits, torch.device("cpu"), compute, lambda *_: True)
    errors = overlaps.measure(overlaps.fitting(HALVES[0]), "fp32")
    rows: list[dict[str, Any]] = [
        {"overlap": k * errors.step, "sample": errors.worst(k * errors.step)} for k in range(OVERLAPS)
    ]
    seconds = np.zeros(OVERLAPS + 1)
    for kind, image in pictures(folder):
        x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255
        results = []
        for k, tile in enumerate((None, *((TILE, row["overlap"]) for row in rows))):
            start = time.process_time()
            results.append(compute(x, "fp32", tile).clamp(0, 1) * 255)
            seconds[k] += time.process_time() - start
        for row, result in zip(rows, results[1:], strict=True):
            _add(row, kind, result - results[0])
    for row, taken in zip(rows, seconds[1:], strict=True):
        row["pixels"] = computed_pixels(SIDE, SIDE, TILE, row["overlap"]) / SIDE**2
        row["time"] = taken / seconds[0]
    return rows


def _add(row: dict[str, Any], kind: str, difference: Tensor) -> None:
    found = difference.square().mean().sqrt().item(), difference.abs().max().item()
    row[kind] = [max(pair) for pair in zip(row.get(kind, (0, 0)), found, strict=True)]


def read_tile_errors(path: Path) -> TileErrorFigures:
    """Read what this script has written. Raises `DRCTError` if it cannot be read."""
    return read_measured(path, "tile_errors.py")


def tile_error_table(found: TileErrorFigures) -> str:
    """Return a Markdown table of the RMS and the largest difference in levels of 255, by network and overlap."""
    header = ["network", "overlap", *(f"{title}: RMS, largest" for title in KINDS.values()), "pixels", "time"]
    rows = [
        [
            network,
            str(row["overlap"]),
            *(", ".join(f"{value:.0f}" if value >= 10 else f"{value:.2g}" for value in row[kind]) for kind in KINDS),
            f"{row['pixels']:.2f}",
            f"{row['time']:.2f}",
        ]
        for network, overlaps in found.items()
        for row in overlaps
    ]
    return markdown_table(header, rows)


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    weights = f"default: {DEFAULT_WEIGHTS} and {PHOTO_WEIGHTS}"
    parser.add_argument("weights", nargs="*", default=[DEFAULT_WEIGHTS, PHOTO_WEIGHTS], metavar="NAME", help=weights)
    photographs = "folder of photographs, default %(default)s"
    parser.add_argument(
        "--photographs", type=Path, default=Path("datasets/demo/GT"), metavar="FOLDER", help=photographs
    )
    path = "file to write or add to, default %(default)s"
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("figures/tile_errors.json"), metavar="FILE", help=path
    )
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 if something could not be measured."""
    args = argument_parser().parse_args(argv)
    found = read_tile_errors(args.output) if args.output.exists() else {}
    for name in args.weights:
        found[name] = measure(name, args.photographs)
        write_text(args.output, json.dumps(found, indent=1) + "\n")
    print(tile_error_table(found), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
