"""The page that compares several test runs."""

from collections.abc import Iterable
from typing import Any

from drct.evaluation.compare_runs import Comparison, ComparisonRow, listed, values_of
from drct.evaluation.metric_table import format_metric
from drct.evaluation.pages import TEMPLATES
from drct.evaluation.results import RunResults


def comparison_page(runs: list[RunResults], comparison: Comparison) -> str:
    """Return the comparison as HTML: means, notes, and the values of each image."""
    names = [run.name for run in runs]
    details = [
        {
            "dataset": row.dataset,
            "metric": row.metric,
            "runs": [name for name in names if name in row.means],
            "images": list(_image_rows(runs, row)),
        }
        for row in comparison.rows
    ]
    return TEMPLATES.get_template("comparison.html").render(
        title=f"Comparison of {listed(names)}",
        runs=names,
        rows=comparison.rows,
        notes=comparison.notes,
        with_bicubic=any(row.bicubic is not None for row in comparison.rows),
        details=details,
        format_metric=format_metric,
    )


def _image_rows(runs: list[RunResults], row: ComparisonRow) -> Iterable[dict[str, Any]]:
    """Yield, for each image, the value of each run and its difference to the first run's."""
    values_by_run = [values_of(run.datasets[row.dataset].images, row.metric) for run in runs if run.name in row.means]
    for image in sorted(set().union(*values_by_run)):
        first = values_by_run[0].get(image)
        cells = []
        for values in values_by_run:
            value = values.get(image)
            difference = None if value is None or first is None else value - first
            cells.append((format_metric(row.metric, value), format_metric(row.metric, difference, "+")))
        yield {"name": image, "cells": cells}
