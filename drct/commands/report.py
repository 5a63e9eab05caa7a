"""Compare the results of test runs: means, which differences are more than chance, and the values of each image."""

import sys
from argparse import ArgumentParser
from pathlib import Path

from drct.commands.common import command_parser, print_failures, print_table
from drct.errors import DRCTError, one_line_errors
from drct.evaluation.compare_runs import compare, comparison_markdown, differences_markdown
from drct.evaluation.pages.comparison import write_comparison_page
from drct.evaluation.results import has_metrics, read_run
from drct.files import write_text
from drct.runs.folders import repeated, run_names
from drct.text import count

EXAMPLES = """examples:
  %(prog)s results/DRCT_SRx4 results/DRCT-L_SRx4 -o comparison.html
  %(prog)s results/* --markdown table.md
"""


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct report`."""
    parser = command_parser(__doc__, EXAMPLES)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="folder of a test run's results")
    page = "page to write, default %(default)s; replaced if it exists; long lists go to a folder beside it"
    parser.add_argument("-o", "--output", type=Path, default="comparison.html", metavar="FILE", help=page)
    table = "also write the printed tables to FILE; replaced if it exists"
    parser.add_argument("--markdown", type=Path, metavar="FILE", help=table)
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct report`. Returns 0, or 2 if nothing could be compared."""
    args = argument_parser().parse_args(argv)
    if args.output.suffix.lower() not in (".html", ".htm"):
        raise DRCTError(f"the page is HTML, but {args.output} is not: -o {args.output.with_suffix('.html')}")
    print_failures((f"{path} is given twice and counts once" for path in repeated(args.results)), "note")
    runs = [read_run(name, folder) for name, folder in _with_metrics(run_names(args.results)).items()]
    comparison = compare(runs)
    if not comparison.rows:
        raise DRCTError("the results have no metrics to compare: no image was measured")
    write_comparison_page(args.output, runs, comparison)
    table = comparison_markdown(runs, comparison) + differences_markdown(comparison.differences)
    if args.markdown:
        write_text(args.markdown, table)
    print_table(table)
    print(f"report of {count(len(runs), 'run')}: {args.output}", file=sys.stderr)
    return 0


def _with_metrics(folders: dict[str, Path]) -> dict[str, Path]:
    """Leave out the folders of runs without ground truth, unless no folder has metrics."""
    measured = {name: folder for name, folder in folders.items() if not folder.is_dir() or has_metrics(folder)}
    if not measured:
        return folders
    for folder in folders.values():
        if folder not in measured.values():
            print(f"{folder} is left out: it has no metrics", file=sys.stderr)
    return measured
