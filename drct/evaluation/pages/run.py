"""The page of one test run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drct.evaluation.metric_table import MetricTable, format_metric, is_lower_better
from drct.evaluation.pages import TEMPLATES
from drct.evaluation.pages.pictures import JPEG_QUALITY, MAP_SIDE, MAX_ERROR, MAX_SIDE, legend_colours
from drct.evaluation.pages.rows import Column, ImageList
from drct.evaluation.protocols import protocol_cells, protocol_rows
from drct.evaluation.run_settings import settings_line, settings_rows
from drct.files import write_text


@dataclass
class DatasetSection:
    """What the page shows of one dataset."""

    table: MetricTable
    pictures: dict[str, dict[str, Any]]  # image -> what `write_pictures` returned
    left_out: int  # images that have no pictures


def write_run_page(page: Path, settings: dict[str, Any], sections: list[DatasetSection], max_pictures: int) -> None:
    """Write the page. It explains that it shows the pictures of at most `max_pictures` images of a dataset."""
    text = TEMPLATES.get_template("run.html").render(
        title=settings["name"],
        lead=settings_line(settings),
        settings=settings_rows(settings),
        network=settings["network"],
        datasets=[_dataset(number, section, settings, page) for number, section in enumerate(sections)],
        colours=legend_colours(),
        ticks=[MAX_ERROR * i // 4 for i in range(5)],
        limits={"pictures": max_pictures, "side": MAX_SIDE, "map": MAP_SIDE, "quality": JPEG_QUALITY},
    )
    write_text(page, text)


def _dataset(number: int, section: DatasetSection, settings: dict[str, Any], page: Path) -> dict[str, Any]:
    table, scale = section.table, settings["options"]["scale"]
    metrics = settings["options"]["val"].get("metrics") or {}
    directions = {metric: is_lower_better(metric, metrics.get(metric, {})) for metric in table.mean()}
    names = sorted(table.images.keys() | section.pictures.keys())
    images = ImageList(number, names, _columns(table, names, directions, settings["network"]), section.pictures)
    return {
        "name": table.dataset,
        "metrics": [{"name": name, "arrow": "↓" if lower else "↑"} for name, lower in directions.items()],
        "bicubic": bool(table.bicubic),
        "images": len(table.images),
        "mean": _mean_row(table.mean(), table.mean_bicubic()),
        "failed": table.failed,
        "protocols": [protocol_cells(row) for row in protocol_rows(table.protocols, scale)] if table.protocols else [],
        "measured": len(table.protocols),
        "list": images.placed(page),
        "pictures": bool(section.pictures),
        "left_out": section.left_out,
    }


def _columns(table: MetricTable, names: list[str], directions: dict[str, bool], network: str) -> list[Column]:
    """List, for each metric, the values of bicubic upscaling, where there are some, and of the network."""
    columns: list[Column] = []
    for metric, lower in directions.items():
        base = None
        if table.bicubic:
            base = len(columns)
            values = [table.bicubic.get(name, {}).get(metric) for name in names]
            columns.append(Column(f"{metric} bicubic", metric, values, lower))
        values = [table.images.get(name, {}).get(metric) for name in names]
        label = f"{metric} {network}" if table.bicubic else metric
        columns.append(Column(label, metric, values, lower, base, f"{metric} gain"))
    return columns


def _mean_row(means: dict[str, float], bicubic: dict[str, float]) -> dict[str, Any]:
    cells = []
    for metric, value in means.items():
        before = bicubic.get(metric)
        texts = {"value": format_metric(metric, value), "bicubic": format_metric(metric, before)}
        gain = format_metric(metric, None if before is None else value - before, "+")
        cells.append({"metric": metric, **texts, "gain": gain})
    return {"cells": cells}
