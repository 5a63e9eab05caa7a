"""The page of one test run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drct.evaluation.metric_table import MetricTable, format_metric, is_lower_better
from drct.evaluation.pages import TEMPLATES
from drct.evaluation.pages.pictures import JPEG_QUALITY, MAP_SIDE, MAX_ERROR, MAX_SIDE, legend_colours, picture_views
from drct.evaluation.run_settings import settings_line, settings_rows


@dataclass
class DatasetSection:
    """What the page shows of one dataset."""

    table: MetricTable
    pictures: dict[str, Path]  # image -> file with its section
    left_out: int  # images that have no section


def picture_section(name: str, network: str, pictures: dict[str, np.ndarray], table: MetricTable) -> str:
    """Return the HTML that shows the pictures of an image, which `picture_views` describes, and its metrics."""
    return TEMPLATES.get_template("picture.html").render(
        name=name,
        network=network,
        scores=_row(name, table.images.get(name, {}), table.bicubic.get(name))["cells"],
        ticks=[MAX_ERROR * i // 4 for i in range(5)],
        **picture_views(**pictures),
    )


def run_page(settings: dict[str, Any], sections: list[DatasetSection], max_pictures: int) -> Iterator[str]:
    """Generate the page in pieces, since its pictures may not fit in memory together.

    It explains that it shows at most `max_pictures` images of a dataset.
    """
    metrics = settings["options"]["val"].get("metrics") or {}
    return TEMPLATES.get_template("run.html").generate(
        title=settings["name"],
        lead=settings_line(settings),
        settings=settings_rows(settings),
        network=settings["network"],
        datasets=[_dataset(number, section, metrics) for number, section in enumerate(sections)],
        colours=legend_colours(),
        limits={"pictures": max_pictures, "side": MAX_SIDE, "map": MAP_SIDE, "quality": JPEG_QUALITY},
    )


def _dataset(number: int, section: DatasetSection, metrics: dict[str, dict[str, Any]]) -> dict[str, Any]:
    table, names = section.table, sorted(section.pictures)
    directions = {metric: is_lower_better(metric, metrics.get(metric, {})) for metric in table.mean()}
    anchors = {name: f"d{number}i{i}" for i, name in enumerate(names)}
    return {
        "name": table.dataset,
        "metrics": [{"name": name, "arrow": "↓" if lower else "↑"} for name, lower in directions.items()],
        "bicubic": bool(table.bicubic),
        "rows": [_row(name, values, table.bicubic.get(name)) for name, values in table.images.items()],
        "mean": _row("mean", table.mean(), table.mean_bicubic()),
        "failed": table.failed,
        "anchors": anchors,
        "pictures": ((anchors[name], section.pictures[name].read_text(encoding="utf-8")) for name in names),
        "left_out": section.left_out,
    }


def _row(name: str, values: dict[str, float], bicubic: dict[str, float] | None) -> dict[str, Any]:
    cells = []
    for metric, value in values.items():
        before = (bicubic or {}).get(metric)
        texts = {"value": format_metric(metric, value), "bicubic": format_metric(metric, before)}
        gain = format_metric(metric, None if before is None else value - before, "+")
        cells.append({"metric": metric, **texts, "gain": gain})
    return {"name": name, "cells": cells}
