"""Measure weights on sets of images in fp32, in bf16, with self-ensemble and in tiles, as drct test does.

The means of PSNR and SSIM on Y go to a JSON file, in which other weights and sets stay, and from which
figures/tables.py makes a table.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from measured import read_measured, rounded

from drct.commands import test as test_run
from drct.errors import DRCTError, one_line_errors
from drct.evaluation.metric_table import format_metric
from drct.evaluation.results import read_run
from drct.files import write_text
from drct.runtime.weight_files import CLEAN_WEIGHTS, PHOTO_WEIGHTS, find_weights
from drct.runtime.zoo import BENCHMARKS
from drct.text import markdown_table

EXAMPLES = """examples:
  %(prog)s --data datasets/Set5/GTmod12 datasets/Set14/GTmod12 && python figures/tables.py
  %(prog)s mine.pth --data ~/photographs --modes fp32 bf16 -o mine.json
"""
MODES = {
    "fp32": ["--tile", "off"],
    "bf16": ["--tile", "off", "--precision", "bf16"],
    "self-ensemble": ["--tile", "off", "--self-ensemble"],
    "tiles of 64": ["--tile", "64"],
}
BICUBIC = "bicubic"
Means = dict[str, float]  # by metric
Figures = dict[str, dict[str, dict[str, Means]]]  # weights -> set -> mode or bicubic -> means


def measure(weights: str, folders: list[Path], mode: str) -> dict[str, dict[str, Means]]:
    """Test weights in a mode, into results/NAME_MODE. Return the means of network and bicubic by set."""
    name = f"{find_weights(weights).stem}_{mode.replace(' ', '_')}"
    data = [argument for folder in folders for argument in ("--data", str(folder))]
    if test_run.main(["--weights", weights, *data, "--name", name, *MODES[mode], "--force_yml", "val:save_img=false"]):
        raise DRCTError(f"the test of {weights} in the mode {mode} failed")
    tables = read_run(name, Path("results", name)).datasets
    return {
        dataset: {BICUBIC: rounded(table.mean_bicubic()), mode: rounded(table.mean())}
        for dataset, table in tables.items()
    }


def weights_table(figures: Figures) -> str:
    """Return a Markdown table with a row for each of the weights on each set, in the order of published tables."""
    rows = []
    for weights in sorted(figures):
        found = figures[weights]
        for dataset in sorted(found, key=lambda name: (*BENCHMARKS, name).index(name)):
            values = [found[dataset].get(mode, {}) for mode in (BICUBIC, *MODES)]
            psnr = [format_metric("psnr", each.get("psnr")) for each in values]
            ssim = [format_metric("ssim", each.get("ssim")) for each in values[:2]]
            rows.append([weights, dataset, *psnr, *ssim])
    header = ["weights", "images", *(f"PSNR {mode}" for mode in (BICUBIC, *MODES)), "SSIM bicubic", "SSIM fp32"]
    return markdown_table(header, rows, left=2)


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ours = [*CLEAN_WEIGHTS, PHOTO_WEIGHTS]
    parser.add_argument("weights", nargs="*", default=ours, metavar="WEIGHTS", help=f"default: {' '.join(ours)}")
    data = "folders of high-resolution images, named as by drct test"
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="FOLDER", help=data)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES), help="default: all")
    path = "file to write or add to, default %(default)s"
    parser.add_argument("-o", "--output", type=Path, default=Path("figures/weights.json"), metavar="FILE", help=path)
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 if something could not be measured."""
    args = argument_parser().parse_args(argv)
    files = {weights: find_weights(weights) for weights in args.weights}
    figures: dict[str, Any] = read_measured(args.output, "weights_table.py") if args.output.exists() else {}
    for weights, file in files.items():
        for mode in args.modes:
            for dataset, means in measure(weights, args.data, mode).items():
                figures.setdefault(file.stem, {}).setdefault(dataset, {}).update(means)
            write_text(args.output, json.dumps(figures, indent=1) + "\n")
    print(weights_table(figures), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
