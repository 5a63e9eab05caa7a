"""Compare the results of several test runs by their means over the images that they share."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from drct.evaluation.metric_table import MetricValues, format_metric, is_lower_better
from drct.evaluation.results import RunResults
from drct.evaluation.run_differences import HEADER, RunDifference, by_chance, differences, spread_of_seeds
from drct.text import markdown_table

MAX_NAMES = 10  # names listed in a note; further ones are counted
BICUBIC_TOLERANCE = 1e-6  # relative; smaller differences of bicubic's metrics come from rounding, not from other images


@dataclass
class ComparisonRow:
    """Means of one metric on one dataset, over the images that all of its runs have measured."""

    dataset: str
    metric: str
    lower_is_better: bool
    means: dict[str, float | None]  # by the name of the run; None if the runs have no image in common
    bicubic: float | None
    best: set[str]  # names of the best runs, more than one if they are equal; empty if the runs cannot be ranked
    differences: list[RunDifference]  # of the other runs to the first; empty if the runs cannot be compared


@dataclass
class Comparison:
    """Rows of means, and notes on what limits their comparison."""

    rows: list[ComparisonRow]
    notes: list[str]

    @property
    def differences(self) -> list[RunDifference]:
        """The differences of all rows."""
        return [difference for row in self.rows for difference in row.differences]


def compare(runs: list[RunResults]) -> Comparison:
    """Compare runs by their means over common images, and note where images, failures, borders or scale differ."""
    rows: list[ComparisonRow] = []
    notes: list[str] = []
    unknown = [run.name for run in runs if run.options is None]
    if unknown and len(runs) > 1:
        notes.append(f"{listed(unknown)}: scale and cropped borders are unknown, because settings.json is missing")
    for dataset in _union(run.datasets for run in runs):
        having = [run for run in runs if dataset in run.datasets]
        if len(having) < len(runs):
            notes.append(f"{dataset} is not in {listed([run.name for run in runs if dataset not in run.datasets])}")
        for run in having:
            if failed := run.datasets[dataset].failed:
                notes.append(f"{dataset}: {len(failed)} failed in {run.name}: {_shortened(failed)}")
        comparable = _have_one_scale(dataset, having, notes)
        for metric in _union(values for run in having for values in run.datasets[dataset].images.values()):
            rows.append(_compare_metric(dataset, metric, having, comparable, notes))
    return Comparison(rows, list(dict.fromkeys(notes)))


def _have_one_scale(dataset: str, runs: list[RunResults], notes: list[str]) -> bool:
    scales = {run.name: run.options.scale for run in runs if run.options}
    if len(set(scales.values())) <= 1:
        return True
    by_run = ", ".join(f"×{scale} in {name}" for name, scale in scales.items())
    notes.append(f"{dataset}: the scales differ, so the runs cannot be compared: {by_run}")
    return False


def _compare_metric(
    dataset: str, metric: str, runs: list[RunResults], comparable: bool, notes: list[str]
) -> ComparisonRow:
    options = {run.name: run.options.metrics[metric] for run in runs if run.options and metric in run.options.metrics}
    comparable &= _have_equal_options(dataset, metric, options, notes)
    values_by_run = {run.name: values_of(run.datasets[dataset].images, metric) for run in runs}
    values_by_run = {name: values for name, values in values_by_run.items() if values}
    images = _common_images(dataset, values_by_run, notes)
    lower = is_lower_better(metric, next(iter(options.values()), {}))
    means = {name: _mean(values, images) for name, values in values_by_run.items()}
    bicubic = _mean_of_bicubic(dataset, metric, [run for run in runs if run.name in means], images, notes)
    if spread := spread_of_seeds(metric, means):
        notes.append(f"{dataset}: {metric}, mean and standard deviation over seeds: {spread}")
    if not comparable:
        return ComparisonRow(dataset, metric, lower, means, bicubic, set(), [])
    between = differences(dataset, metric, lower, values_by_run, images)
    return ComparisonRow(dataset, metric, lower, means, bicubic, _best(means, lower), between)


def _have_equal_options(dataset: str, metric: str, options: dict[str, dict[str, Any]], notes: list[str]) -> bool:
    """Check that all runs measured a metric with the same options; `better` only says how to rank the values."""
    texts = {
        name: ", ".join(f"{key} {value}" for key, value in sorted(of_run.items()) if key != "better")
        for name, of_run in options.items()
    }
    if len(set(texts.values())) <= 1:
        return True
    by_run = "; ".join(f"{text} in {name}" for name, text in texts.items())
    notes.append(f"{dataset}: {metric} was measured differently, so the runs cannot be compared: {by_run}")
    return False


def _common_images(dataset: str, values_by_run: dict[str, dict[str, float]], notes: list[str]) -> set[str]:
    common = set.intersection(*map(set, values_by_run.values()))
    everything = set().union(*values_by_run.values())
    if len(common) < len(everything):
        missing = {name: everything - set(values) for name, values in values_by_run.items()}
        lacking = "; ".join(f"{name} lacks {_shortened(images)}" for name, images in missing.items() if images)
        scope = "means are over these" if common else "there is nothing to compare"
        notes.append(f"{dataset}: {len(common)} of {len(everything)} images are in all runs, {scope}: {lacking}")
    return common


def values_of(images: MetricValues, metric: str) -> dict[str, float]:
    """Return the values of one metric by image."""
    return {image: values[metric] for image, values in images.items() if metric in values}


def _mean(values: dict[str, float], images: set[str]) -> float | None:
    return sum(values[image] for image in sorted(images)) / len(images) if images else None


def _mean_of_bicubic(
    dataset: str, metric: str, runs: list[RunResults], images: set[str], notes: list[str]
) -> float | None:
    """Return the mean of bicubic upscaling, or None if no run has it or the runs disagree."""
    recorded = {run.name: values_of(run.datasets[dataset].bicubic, metric) for run in runs}
    means = {name: _mean(values, images) for name, values in recorded.items() if images <= set(values)}
    known = [mean for mean in means.values() if mean is not None]
    if known and max(known) - min(known) > BICUBIC_TOLERANCE * abs(known[0]):
        by_run = ", ".join(f"{format_metric(metric, mean)} in {name}" for name, mean in means.items())
        notes.append(f"{dataset}: {metric} of bicubic upscaling differs, so images or settings do too: {by_run}")
        return None
    return known[0] if known else None


def _best(means: dict[str, float | None], lower: bool) -> set[str]:
    known = {name: mean for name, mean in means.items() if mean is not None and not math.isnan(mean)}
    if len(known) < 2:
        return set()
    best = min(known.values()) if lower else max(known.values())
    return {name for name, mean in known.items() if mean == best}


def _shortened(names: Iterable[str]) -> str:
    ordered = sorted(names)
    rest = len(ordered) - MAX_NAMES
    return ", ".join(ordered[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _union(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for group in groups for name in group))


def listed(names: list[str]) -> str:
    """Join names as in 'a, b and c'."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def comparison_markdown(runs: list[RunResults], comparison: Comparison) -> str:
    """Return the means as a Markdown table with the best in bold, followed by the notes."""
    with_bicubic = any(row.bicubic is not None for row in comparison.rows)
    names = [run.name for run in runs]
    header = ["dataset", "metric"] + ["bicubic"] * with_bicubic + names
    rows = []
    for row in comparison.rows:
        cells = [_escaped(row.dataset), f"{_escaped(row.metric)} {'↓' if row.lower_is_better else '↑'}"]
        cells += [format_metric(row.metric, row.bicubic)] * with_bicubic
        for name in names:
            value = format_metric(row.metric, row.means.get(name))
            cells.append(f"**{value}**" if name in row.best else value)
        rows.append(cells)
    table = markdown_table([_escaped(title) for title in header], rows, left=2)
    return table + "\n" * bool(comparison.notes) + "".join(f"* {_escaped(note)}\n" for note in comparison.notes)


def differences_markdown(found: list[RunDifference]) -> str:
    """Return the differences as a Markdown table after a blank line; '' if there are none."""
    if not found:
        return ""
    table = markdown_table(HEADER, [[_escaped(cell) for cell in each.cells()] for each in found], left=3)
    chance = by_chance(found)
    return f"\n{table}" + f"\n{chance}\n" * bool(chance)


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))
