"""Compare the results of test runs: one page with means and differences of images, and a table as Markdown."""

import argparse
import json
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drct.errors import DRCTError, one_line_errors
from drct.evaluation.metric_table import is_lower_better
from drct.evaluation.pages import PAGES, encoded, formatted
from drct.files import write_atomically
from drct.runs.folders import run_names

Values = dict[str, dict[str, float]]  # image -> metric -> value

LISTED = 10  # names that a note has room for
SAME = 1e-6  # difference of bicubic's metrics that is no difference of images


@dataclass
class Measured:
    """What a run measured of a dataset."""

    images: Values
    bicubic: Values
    failed: dict[str, str]


@dataclass
class Run:
    """The results of a test run: what it measured by dataset, and its options, None if it has no `settings.json`."""

    name: str
    datasets: dict[str, Measured]
    options: dict[str, Any] | None


@dataclass
class Row:
    """A metric of a dataset: means over the images that all runs have, by the name of the run."""

    dataset: str
    metric: str
    lower: bool
    means: dict[str, float | None]
    bicubic: float | None
    best: set[str]


@dataclass
class Comparison:
    """Rows of means, and what stands in the way of comparing them."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------------------ reading


def read_run(name: str, folder: Path) -> Run:
    """Read `metrics_<dataset>.json` and `settings.json` of a folder of results.

    Raises:
        DRCTError: if the folder has no metrics, or a file is not what a test run writes.
    """
    if not folder.is_dir():
        raise DRCTError(f"no such folder: {folder}")
    files = sorted(folder.glob("metrics_*.json"))
    if not files:
        hint = "name folders such as results/DRCT_SRx4, of test runs with ground truth"
        raise DRCTError(f"{folder} has no metrics_<dataset>.json: {hint}")
    contents = [_read_json(file) for file in files]
    settings = folder / "settings.json"
    try:
        datasets = {str(content["dataset"]): _measured(content) for content in contents}
        return Run(name, datasets, _options(_read_json(settings)) if settings.is_file() else None)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DRCTError(f"the files in {folder} are not what a test run writes: {reason}") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DRCTError(f"cannot read {file}: {error}. It should be a file that a test run wrote") from error
    if not isinstance(content, dict):
        raise DRCTError(f"cannot read {file}: it is not a file that a test run wrote")
    return content


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    """What a comparison needs of them: `scale`, and `metrics` as in `val.metrics`."""
    options = settings["options"]
    metrics = options["val"].get("metrics") or {}
    return {"scale": int(options["scale"]), "metrics": {str(name): dict(metric) for name, metric in metrics.items()}}


def _measured(content: dict[str, Any]) -> Measured:
    bicubic = content.get("bicubic", {}).get("images", {})
    failed = {str(path): str(reason) for path, reason in content["failed"].items()}
    return Measured(_values(content["images"]), _values(bicubic), failed)


def _values(images: dict[str, dict[str, Any]]) -> Values:
    """As numbers; JSON has null for what is not a number, and a text for infinity."""
    return {
        image: {metric: math.nan if value is None else float(value) for metric, value in values.items()}
        for image, values in images.items()
    }


# ---------------------------------------------------------------------------------------------------------- comparing


def compare(runs: list[Run]) -> Comparison:
    """Compare runs, and note where they are not of the same images, borders or scale.

    Means are over the images that all runs which have the dataset have measured. The best is marked where two or more
    runs are comparable.
    """
    comparison = Comparison()
    unknown = [run.name for run in runs if run.options is None]
    if unknown and len(runs) > 1:
        comparison.notes.append(f"{_and(unknown)}: no settings.json tells the scale and the borders that were cropped")
    for dataset in _union(run.datasets for run in runs):
        having = [run for run in runs if dataset in run.datasets]
        if len(having) < len(runs):
            lacking = [run.name for run in runs if dataset not in run.datasets]
            comparison.notes.append(f"{dataset} is not in {_and(lacking)}")
        for run in having:
            if failed := run.datasets[dataset].failed:
                comparison.notes.append(f"{dataset}: {len(failed)} failed in {run.name}: {_few(failed)}")
        comparable = _same_scale(dataset, having, comparison.notes)
        for metric in _union(values for run in having for values in run.datasets[dataset].images.values()):
            comparison.rows.append(_row(dataset, metric, having, comparable, comparison.notes))
    comparison.notes = list(dict.fromkeys(comparison.notes))
    return comparison


def _same_scale(dataset: str, runs: list[Run], notes: list[str]) -> bool:
    scales = {run.name: run.options["scale"] for run in runs if run.options}
    if len(set(scales.values())) <= 1:
        return True
    listed = ", ".join(f"×{scale} in {name}" for name, scale in scales.items())
    notes.append(f"{dataset}: the scales differ and are not to be compared: {listed}")
    return False


def _row(dataset: str, metric: str, runs: list[Run], comparable: bool, notes: list[str]) -> Row:
    options = {
        run.name: run.options["metrics"][metric] for run in runs if run.options and metric in run.options["metrics"]
    }
    ways = {name: _way(option) for name, option in options.items()}
    if len(set(ways.values())) > 1:
        listed = "; ".join(f"{way} in {name}" for name, way in ways.items())
        notes.append(f"{dataset}: {metric} was not measured alike and is not to be compared: {listed}")
        comparable = False
    measured = {run.name: _of_metric(run.datasets[dataset].images, metric) for run in runs}
    measured = {name: values for name, values in measured.items() if values}
    common = set.intersection(*(set(values) for values in measured.values()))
    everything = {image for values in measured.values() for image in values}
    if len(common) < len(everything):
        lacking = [
            f"{name} lacks {_few(everything - set(values))}"
            for name, values in measured.items()
            if len(values) < len(everything)
        ]
        scope = "means are over these" if common else "there is nothing to compare"
        images = f"{len(common)} of {len(everything)} images are in all runs"
        notes.append(f"{dataset}: {images}, {scope}: {'; '.join(lacking)}")
    lower = is_lower_better(metric, next(iter(options.values()), {}))
    means = {name: _mean(values, common) for name, values in measured.items()}
    bicubic = _bicubic(dataset, metric, [run for run in runs if run.name in measured], common, notes)
    return Row(dataset, metric, lower, means, bicubic, _best(means, lower) if comparable else set())


def _way(options: dict[str, Any]) -> str:
    """How a metric was measured, but for what it is good for."""
    return ", ".join(f"{key} {value}" for key, value in sorted(options.items()) if key != "better")


def _of_metric(values: Values, metric: str) -> dict[str, float]:
    return {image: of_image[metric] for image, of_image in values.items() if metric in of_image}


def _mean(values: dict[str, float], images: set[str]) -> float | None:
    return sum(values[image] for image in sorted(images)) / len(images) if images else None


def _bicubic(dataset: str, metric: str, runs: list[Run], images: set[str], notes: list[str]) -> float | None:
    recorded = {run.name: _of_metric(run.datasets[dataset].bicubic, metric) for run in runs}
    means = {name: _mean(values, images) for name, values in recorded.items() if images <= set(values)}
    known = [mean for mean in means.values() if mean is not None]
    if known and max(known) - min(known) > SAME * abs(known[0]):
        listed = ", ".join(f"{formatted(metric, mean)} in {name}" for name, mean in means.items())
        notes.append(
            f"{dataset}: {metric} of bicubic upscaling differs, so images or settings are not the same: {listed}"
        )
        return None
    return known[0] if known else None


def _best(means: dict[str, float | None], lower: bool) -> set[str]:
    """The best of two or more, all that are equal to it."""
    known = {name: mean for name, mean in means.items() if mean is not None and not math.isnan(mean)}
    if len(known) < 2:
        return set()
    best = min(known.values()) if lower else max(known.values())
    return {name for name, mean in known.items() if mean == best}


def _few(names: Iterable[str]) -> str:
    """Names in their order, not all of many."""
    ordered = sorted(names)
    return ", ".join(ordered[:LISTED]) + (f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else "")


def _union(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# ------------------------------------------------------------------------------------------------------------- showing


def markdown(runs: list[Run], comparison: Comparison) -> str:
    """The table of means and the notes, as Markdown; the best in bold."""
    with_bicubic = any(row.bicubic is not None for row in comparison.rows)
    names = [run.name for run in runs]
    header = ["dataset", "metric"] + ["bicubic"] * with_bicubic + names
    lines = ["| " + " | ".join(map(_escaped, header)) + " |", "|---|---|" + "---:|" * (len(header) - 2)]
    for row in comparison.rows:
        cells = [_escaped(row.dataset), f"{_escaped(row.metric)} {'↓' if row.lower else '↑'}"]
        cells += [formatted(row.metric, row.bicubic)] * with_bicubic
        for name in names:
            value = formatted(row.metric, row.means.get(name))
            cells.append(f"**{value}**" if name in row.best else value)
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"* {_escaped(note)}" for note in comparison.notes]
    return "\n".join(lines + [""] * bool(notes) + notes) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def page(runs: list[Run], comparison: Comparison) -> str:
    """The page, as HTML."""
    details = [
        {
            "dataset": row.dataset,
            "metric": row.metric,
            "lower": row.lower,
            "runs": [run.name for run in runs if run.name in row.means],
            "images": list(_images(runs, row)),
        }
        for row in comparison.rows
    ]
    return PAGES.get_template("comparison.html").render(
        title="Comparison of " + _and([run.name for run in runs]),
        runs=[run.name for run in runs],
        rows=comparison.rows,
        notes=comparison.notes,
        with_bicubic=any(row.bicubic is not None for row in comparison.rows),
        details=details,
        formatted=formatted,
    )


def _images(runs: list[Run], row: Row) -> Iterable[dict[str, Any]]:
    """Of each image, the values, and their differences to the first run's."""
    measured = [_of_metric(run.datasets[row.dataset].images, row.metric) for run in runs if run.name in row.means]
    for image in sorted({image for values in measured for image in values}):
        first = measured[0].get(image)
        cells = []
        for values in measured:
            value = values.get(image)
            gain = None if value is None or first is None else value - first
            cells.append((formatted(row.metric, value), formatted(row.metric, gain, "+")))
        yield {"name": image, "cells": cells}


# -------------------------------------------------------------------------------------------------------- command line


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct report`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n"
        "  drct report results/DRCT_SRx4 results/DRCT-L_SRx4 -o comparison.html\n"
        "  drct report results/* --markdown table.md\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="folder of a test run's results")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("comparison.html"),
        metavar="FILE",
        help="page to write, default comparison.html; an existing one is replaced",
    )
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the table, which is also printed; replaces FILE"
    )
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct report`. Returns 0, or 2 if nothing could be compared."""
    args = argument_parser().parse_args(argv)
    if args.output.suffix.lower() not in (".html", ".htm"):
        raise DRCTError(f"the page is HTML, but {args.output} is not: -o {args.output.with_suffix('.html')}")
    folders = run_names(args.results)
    unmeasured = [folder for folder in folders.values() if folder.is_dir() and not any(folder.glob("metrics_*.json"))]
    if len(unmeasured) < len(folders):
        for folder in unmeasured:
            print(f"{folder} is left out: it has no metrics", file=sys.stderr)
        folders = {name: folder for name, folder in folders.items() if folder not in unmeasured}
    runs = [read_run(name, path) for name, path in folders.items()]
    comparison = compare(runs)
    if not comparison.rows:
        raise DRCTError("the results have no metrics to compare: no image was measured")
    table = markdown(runs, comparison)
    html = page(runs, comparison)
    write_atomically(args.output, lambda file: file.write(encoded(html)))
    if args.markdown:
        write_atomically(args.markdown, lambda file: file.write(encoded(table)))
    encoding = sys.stdout.encoding or "utf-8"
    print(table.encode(encoding, "replace").decode(encoding), end="")  # a terminal may lack arrows
    print(f"report of {len(runs)} run{'s' * (len(runs) > 1)}: {args.output}", file=sys.stderr)
    return 0
