"""Measure networks on the ladder, test sets that are degraded more and more, as photographs on the web are.

For each folder of high-resolution images, makes the sets in datasets/NAME, keeping images that exist, and runs the
option files as drct test does, with NAME in place of Set14. The means go to a JSON file, in which other sets and
networks stay, and from which figures/tables.py makes the table of gains over bicubic interpolation.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from measured import read_measured, rounded

from drct.commands import prepare
from drct.commands import test as test_run
from drct.errors import DRCTError, one_line_errors
from drct.evaluation.metric_table import format_metric
from drct.evaluation.results import read_run
from drct.files import write_text
from drct.runtime.yaml_file import load_yaml
from drct.text import markdown_table

EXAMPLES = """examples:
  %(prog)s Set14=datasets/Set14/GTmod12 photographs=~/photographs && python figures/tables.py
  %(prog)s mine=~/mine --opt options/test/Real-DRCT-XS_SRx4_ladder.yml -o mine.json
"""
PLACEHOLDER = "Set14"  # the set of the option files
TITLES = {"psnr": "PSNR-Y", "ssim": "SSIM", "niqe": "NIQE ↓"}
Means = dict[str, float]  # by metric
Ladder = dict[str, dict[str, dict[str, Means]]]  # set -> rung -> bicubic or network -> means


def measure(name: str, option_file: Path) -> dict[str, dict[str, Means]]:
    """Run an option file of the ladder on a set. Return the means of bicubic and network by rung."""
    text = option_file.read_text(encoding="utf-8").replace(PLACEHOLDER, name)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, option_file.name)
        file.write_text(text, encoding="utf-8")
        if test_run.main(["-opt", str(file)]):
            raise DRCTError(f"the test of {option_file} on {name} failed")
        options = load_yaml(str(file))
    run = read_run(options["name"], Path("results", options["name"]))
    network = options["name"].partition("_SRx")[0]
    rungs = [dataset["name"] for dataset in options["datasets"].values()]  # in the order of the option file
    return {
        rung.removeprefix(f"{name}_"): {
            "bicubic": rounded(run.datasets[rung].mean_bicubic()),
            network: rounded(run.datasets[rung].mean()),
        }
        for rung in rungs
    }


def read_ladder(path: Path) -> Ladder:
    """Read what this script has written. Raises `DRCTError` if it cannot be read."""
    return read_measured(path, "ladder.py")


def ladder_table(ladder: Ladder, metrics: list[str]) -> str:
    """Return a Markdown table of bicubic's means and of the gains of networks over them, by set and rung."""
    everything = [sources for rungs in ladder.values() for sources in rungs.values()]
    networks = list(dict.fromkeys(name for sources in everything for name in sources if name != "bicubic"))
    header = ["images", "degradation"]
    header += [title for metric in metrics for title in (f"{TITLES[metric]} of bicubic", *networks)]
    rows = []
    for name, rungs in ladder.items():
        for rung, sources in rungs.items():
            row = [name, rung.replace("_", ", ")]
            for metric in metrics:
                base, *values = [sources.get(name, {}).get(metric) for name in ("bicubic", *networks)]
                gains = [None if base is None or value is None else value - base for value in values]
                row += [format_metric(metric, base), *(format_metric(metric, gain, "+") for gain in gains)]
            rows.append(row)
    return markdown_table(header, rows, left=2)


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="+", metavar="NAME=FOLDER", help="name of a set, and its images")
    options = "option files, default: options/test/*_ladder.yml"
    parser.add_argument("--opt", nargs="+", type=Path, metavar="FILE", help=options)
    path = "file to write or add to, default %(default)s"
    parser.add_argument("-o", "--output", type=Path, default=Path("figures/ladder.json"), metavar="FILE", help=path)
    parser.add_argument("--processes", default=str(os.cpu_count() or 1), help="that make images; default: one per core")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the script. Returns 0, or 2 if something could not be measured."""
    args = argument_parser().parse_args(argv)
    sets = dict(_named_folder(text) for text in args.sets)
    ladder = read_ladder(args.output) if args.output.exists() else {}
    for name, folder in sets.items():
        output = str(Path("datasets", name))
        if prepare.main(["ladder", folder, "-o", output, "--processes", args.processes]):
            raise DRCTError(f"the images of {folder} could not all be degraded")
        rungs = ladder.setdefault(name, {})
        for option_file in args.opt or sorted(Path("options/test").glob("*_ladder.yml")):
            for rung, means in measure(name, option_file).items():
                rungs.setdefault(rung, {}).update(means)
            write_text(args.output, json.dumps(ladder, indent=1) + "\n")
    print(ladder_table(ladder, list(TITLES)), end="")
    return 0


def _named_folder(text: str) -> tuple[str, str]:
    name, _, folder = text.partition("=")
    if not folder or not re.fullmatch(r"[\w-]+", name):
        raise DRCTError(f"{text}: expected NAME=FOLDER, a name of letters and digits, such as Set14=~/Set14_HR")
    return name, str(Path(folder).expanduser())


if __name__ == "__main__":
    sys.exit(main())
