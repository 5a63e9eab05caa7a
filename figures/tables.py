"""Write the tables of a Markdown file anew, from what was measured and published.

A table stands between the lines <!-- table: NAME --> and <!-- end -->; nothing else of the file changes. Names:

  complexity     parameters, operations and memory of networks: complexity.json, by drct complexity -o
  features       of networks that were compared: features.json, by drct analyze features
  parameters     of the networks at x2, x3 and x4
  published      what the paper reports
  results        means of test runs: results/RUN/metrics_DATASET.json, copied there by --results
  speed          speed.json, by drct bench --json
  training-step  training_step.json, by drct bench --json

The files are looked for in the folder figures beside the Markdown file.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from drct.errors import DRCTError, did_you_mean, one_line_errors
from drct.files import write_atomically

EXAMPLES = """examples:
  %(prog)s
  %(prog)s --check
  %(prog)s --results results/DRCT-XS_SRx4
"""
MARKER = re.compile(r"<!-- (?:table: (?P<name>[^>]*?)|end) -->(?P<newline>\r?\n)?")


# ------------------------------------------------------------------------------------------------------------- tables


def _complexity(figures: Path) -> str:
    from drct.analysis import complexity

    return complexity.markdown(complexity.read(figures / "complexity.json"))


def _parameters(figures: Path) -> str:
    import torch

    from drct.archs.drct_arch import DRCT
    from drct.archs.variants import VARIANTS

    rows = []
    for name in VARIANTS:
        with torch.device("meta"):
            networks = [DRCT(**VARIANTS[name], upscale=scale) for scale in (2, 3, 4)]
        counts = [f"{sum(p.numel() for p in network.parameters()):,}" for network in networks]
        rows.append([name, str(len(networks[0].layers)), str(networks[0].conv_first.out_channels), *counts])
    return _markdown(["network", "groups", "channels", "parameters ×2", "×3", "×4"], rows)


def _published(figures: Path) -> str:
    from published import BENCHMARKS, DRCT_PAPER

    header = ["as the paper calls it", *BENCHMARKS, "complexity is of", "parameters (M)", "multi-adds (G)"]
    rows = [
        [
            row.name,
            *(f"{row.psnr[benchmark]:.2f}" for benchmark in BENCHMARKS),
            row.network,
            f"{row.parameters:.3f}",
            f"{row.multi_adds:.2f}",
            f"{row.pass_size:.2f}",
            f"{row.flops:.2f}",
        ]
        for row in DRCT_PAPER
    ]
    return _markdown([*header, "forward/backward pass (MB)", '"FLOPs" (G)'], rows)


def _results(figures: Path) -> str:
    from published import BENCHMARKS

    from drct.evaluation.compare_runs import compare, comparison_markdown
    from drct.evaluation.results import read_run

    folders = sorted(path for path in (figures / "results").glob("*") if path.is_dir())
    if not folders:
        raise DRCTError(f"{figures / 'results'} has no results: drct tables --results results/RUN copies them there")
    runs = [read_run(folder.name, folder) for folder in folders]
    for run in runs:
        known = {name: run.datasets[name] for name in BENCHMARKS if name in run.datasets}
        run.datasets = known | run.datasets  # in the order of published tables
    return comparison_markdown(runs, compare(runs))


def _features(figures: Path) -> str:
    from drct.analysis.feature_tables import cell, read

    _, rows = read(figures / "features.json")
    datasets = list(dict.fromkeys(dataset for row in rows for dataset in row["psnr"]))
    places = {"embedding": "embedding", "last": "last group", "ratio": "last / largest group"}
    columns = {"intensity": "intensity", "normalized": "varying after normalization"}
    header = ["network", "seeds", *(f"{dataset} (dB)" for dataset in datasets)]
    header += [f"{title}: {place}" for title in columns.values() for place in places.values()]
    lines = []
    for row in rows:
        line = [row["network"], str(row["seeds"]), *(cell(row["psnr"].get(dataset), ".2f") for dataset in datasets)]
        line += [cell(row[quantity][place], ".2f") for quantity in columns for place in places]
        lines.append(line)
    return _markdown(header, lines)


def _speed(figures: Path) -> str:
    return _of_benchmark(figures / "speed.json")


def _training_step(figures: Path) -> str:
    return _of_benchmark(figures / "training_step.json")


def _of_benchmark(file: Path) -> str:
    from drct.analysis.speed import Result, read, table

    content = read(file)
    return table([Result(**result) for result in content["results"]], content["reference"]) + "\n"


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES: dict[str, Callable[[Path], str]] = {
    "complexity": _complexity,
    "features": _features,
    "parameters": _parameters,
    "published": _published,
    "results": _results,
    "speed": _speed,
    "training-step": _training_step,
}


# --------------------------------------------------------------------------------------------------------------- file


def with_tables(text: str, figures: Path) -> tuple[str, list[str], list[DRCTError]]:
    """A Markdown text with its tables written anew.

    Args:
        text: The file's.
        figures: Folder of what was measured.

    Returns:
        The text, names of the tables that changed, and what kept others from being made, which stay as they are.

    Raises:
        DRCTError: if a marker names no table, or has no partner.
    """
    made, stale, failures = [], [], []
    position = 0
    for name, newline, start, end in _marked(text):
        made.append(text[position:start])
        position = end
        try:
            table = TABLES[name](figures).replace("\n", newline)
        except DRCTError as error:
            failures.append(DRCTError(f"table {name}: {error}"))
            table = text[start:end]
        if table != text[start:end]:
            stale.append(name)
        made.append(table)
    return "".join((*made, text[position:])), stale, failures


def _marked(text: str) -> list[tuple[str, str, int, int]]:
    """Name, newline, start and end of each table of a text, in their order."""
    found: list[tuple[str, str, int, int]] = []
    opened: re.Match[str] | None = None
    for marker in MARKER.finditer(text):
        line = text.count("\n", 0, marker.start()) + 1
        name = marker["name"]
        if (name is None) == (opened is None):
            wrong = "<!-- end --> without a table before it" if name is None else "a table before the end of another"
            raise DRCTError(f"line {line}: {wrong}")
        if name is None and opened is not None:
            found.append((opened["name"], opened["newline"], opened.end(), marker.start()))
            opened = None
            continue
        if name not in TABLES:
            known = f"the tables are {', '.join(TABLES)}"
            raise DRCTError(f"line {line}: no table {name!r}{did_you_mean(name, TABLES)}; {known}")
        if not marker["newline"]:
            raise DRCTError(f"line {line}: <!-- table: {name} --> needs a line of its own")
        opened = marker
    if opened:
        raise DRCTError(f"table {opened['name']} has no <!-- end -->")
    return found


def keep_results(folder: Path, figures: Path) -> None:
    """Copy what the table of results needs of a test run: its metrics, scale and how it measured.

    Raises:
        DRCTError: if the folder is not of a test run.
    """
    from drct.evaluation.results import read_run

    run = read_run(folder.resolve().name, folder)
    if run.options is None:
        raise DRCTError(f"{folder} has no settings.json, which test runs write: their scale and borders are not known")
    target = figures / "results" / run.name
    settings = {"options": {"scale": run.options.scale, "val": {"metrics": run.options.metrics}}}
    contents = {file.name: file.read_bytes() for file in sorted(folder.glob("metrics_*.json"))}
    contents["settings.json"] = (json.dumps(settings, indent=2) + "\n").encode()
    for earlier in target.glob("metrics_*.json"):
        if earlier.name not in contents:
            earlier.unlink()
    for name, content in contents.items():
        write_atomically(target / name, lambda file, content=content: file.write(content))  # type: ignore[misc]


# -------------------------------------------------------------------------------------------------------- command line


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct tables`."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "file", nargs="?", type=Path, default=Path("README.md"), metavar="FILE", help="default README.md"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--check", action="store_true", help="write nothing; fail if tables are not what they should be"
    )
    action.add_argument(
        "--results",
        nargs="+",
        type=Path,
        default=[],
        metavar="RESULTS",
        help="first copy the metrics of these test runs to figures/results; those of the same name are replaced",
    )
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct tables`. Returns 0; 1 if a table is stale or cannot be made; 2 if the file has errors."""
    args = argument_parser().parse_args(argv)
    figures = args.file.parent / "figures"
    try:
        old = args.file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DRCTError(f"cannot read {args.file}: {error}. It should be a Markdown file") from error
    for folder in args.results:
        keep_results(folder, figures)
    try:
        new, stale, failures = with_tables(old, figures)
    except DRCTError as error:
        raise DRCTError(f"{args.file}: {error}") from error
    for failure in failures:
        print(f"error: {args.file}, {failure}", file=sys.stderr)
    if args.check:
        for name in stale:
            print(f"error: {args.file}, table {name} is stale: drct tables {args.file} writes it anew", file=sys.stderr)
        return int(bool(stale or failures))
    if stale:
        write_atomically(args.file, lambda file: file.write(new.encode()))
    print(f"{args.file}: {', '.join(stale) if stale else 'nothing'} changed", file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
