"""The page that compares several test runs."""

from pathlib import Path

from drct.evaluation.compare_runs import Comparison, ComparisonRow, listed, values_of
from drct.evaluation.metric_table import format_metric
from drct.evaluation.pages import TEMPLATES
from drct.evaluation.pages.rows import Column, ImageList
from drct.evaluation.results import RunResults
from drct.evaluation.run_differences import HEADER, by_chance
from drct.files import write_text
from drct.text import count


def write_comparison_page(page: Path, runs: list[RunResults], comparison: Comparison) -> None:
    """Write the comparison as HTML: means, notes, differences, and the values of each image.

    Long lists of images go to files in a folder beside the page, which has its name without the suffix.
    """
    names = [run.name for run in runs]
    details = [
        {"dataset": row.dataset, "metric": row.metric, "list": _image_list(number, runs, row).placed(page)}
        for number, row in enumerate(comparison.rows)
    ]
    differences = comparison.differences
    text = TEMPLATES.get_template("comparison.html").render(
        title=f"Comparison of {listed(names) if len(names) < 4 else count(len(names), 'run')}",
        runs=names,
        rows=comparison.rows,
        notes=comparison.notes,
        with_bicubic=any(row.bicubic is not None for row in comparison.rows),
        differences=[difference.cells() for difference in differences],
        header=HEADER,
        chance=by_chance(differences),
        details=details,
        format_metric=format_metric,
    )
    write_text(page, text)


def _image_list(number: int, runs: list[RunResults], row: ComparisonRow) -> ImageList:
    """List the value of each run of each image, and its difference to the first run's."""
    values_by_run = {
        run.name: values_of(run.datasets[row.dataset].images, row.metric) for run in runs if run.name in row.means
    }
    images = sorted(set().union(*values_by_run.values()))
    first = next(iter(values_by_run))
    columns = []
    for name, values in values_by_run.items():
        column = Column(name, row.metric, [values.get(image) for image in images], row.lower_is_better)
        if name != first:
            column.base, column.difference = 0, f"{name} − {first}"
        columns.append(column)
    return ImageList(number, images, columns)
