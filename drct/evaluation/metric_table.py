"""Metrics of a dataset: per image, their mean, as text, CSV and JSON."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from drct.files import write_atomically


class MetricTable:
    """Metrics per image and their mean, the average of the images' values as is the field's custom.

    Args:
        dataset: Its name.
        iteration: Training iteration that the images are from, if they are from training.
        show_bicubic: Whether text and files show the metrics of bicubic upscaling.
    """

    def __init__(self, dataset: str, iteration: int | None = None, show_bicubic: bool = True) -> None:
        self.dataset = dataset
        self.iteration = iteration
        self.show_bicubic = show_bicubic
        self.images: dict[str, dict[str, float]] = {}
        self.bicubic: dict[str, dict[str, float]] = {}
        self.failed: dict[str, str] = {}

    @classmethod
    def joined(cls, parts: Iterable["MetricTable"]) -> "MetricTable":
        """The table of all images, from tables of some; in the order of names."""
        parts = list(parts)
        table = cls(parts[0].dataset, parts[0].iteration, parts[0].show_bicubic)
        for part in parts:
            table.images |= part.images
            table.bicubic |= part.bicubic
            table.failed |= part.failed
        for records in (table.images, table.bicubic, table.failed):
            ordered = sorted(records.items())
            records.clear()
            records.update(ordered)  # type: ignore[arg-type]
        return table

    def add(self, image: str, values: dict[str, float]) -> None:
        """Record the metrics of an image's result."""
        self.images[image] = values

    def add_bicubic(self, image: str, values: dict[str, float]) -> None:
        """Record the metrics of bicubic upscaling of the same image."""
        self.bicubic[image] = values

    def fail(self, path: str, reason: str) -> None:
        """Record a file that could not be processed."""
        self.failed[path] = reason

    def mean(self) -> dict[str, float]:
        """Mean over images, by metric."""
        return _mean(self.images)

    def mean_bicubic(self) -> dict[str, float]:
        """Mean of bicubic upscaling over images, by metric."""
        return _mean(self.bicubic)

    def text(self) -> str:
        """The table for people, one line per image and one for the mean."""
        header, rows = self._rows()
        cells = [header] + [[row[0]] + [f"{value:.4f}" for value in row[1:]] for row in rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        return "\n".join(
            "  " + "  ".join([row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)])
            for row in cells
        )

    def write(self, folder: str | os.PathLike, suffix: str = "") -> None:
        """Write `metrics_<dataset><suffix>.json` and, if any image was measured, `.csv`."""
        header, rows = self._rows()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        stem = Path(folder, f"metrics_{self.dataset}{suffix}")
        if rows:
            write_atomically(f"{stem}.csv", lambda file: file.write(text.getvalue().encode()))
        content: dict[str, Any] = {
            "dataset": self.dataset,
            "mean": self.mean(),
            "images": self.images,
            "failed": self.failed,
        }
        if self.iteration is not None:
            content["iteration"] = self.iteration
        if self.bicubic and self.show_bicubic:
            content |= {"bicubic": {"mean": self.mean_bicubic(), "images": self.bicubic}}
        data = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(f"{stem}.json", lambda file: file.write(data.encode()))

    def _rows(self) -> tuple[list[str], list[list[Any]]]:
        metrics = list(next(iter(self.images.values()), {}))
        bicubic = self.bicubic if self.show_bicubic else {}
        header = ["image"] + metrics + [f"bicubic {metric}" for metric in metrics if bicubic]
        rows = [[image, *values.values(), *bicubic.get(image, {}).values()] for image, values in self.images.items()]
        if rows:
            rows.append(["mean", *self.mean().values(), *_mean(bicubic).values()])
        return header, rows


def _mean(images: dict[str, dict[str, float]]) -> dict[str, float]:
    metrics = next(iter(images.values()), {})
    return {metric: sum(values[metric] for values in images.values()) / len(images) for metric in metrics}


def _finite(content: Any) -> Any:
    """JSON has no infinities (the PSNR of equal images) and no NaN (an image smaller than the cropped border)."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, float) and not math.isfinite(content):
        return None if math.isnan(content) else str(content)
    return content


LOWER_IS_BETTER = ("niqe", "lpips", "dists", "fid", "mae", "mse", "rmse")


def lower_is_better(tag: str) -> bool:
    """Whether a metric measures an error or a distance, by its name."""
    return tag.rsplit("/", 1)[-1].lower().startswith(LOWER_IS_BETTER)


def decimals(tag: str) -> int:
    """Digits after the point that a metric is given with, by its name."""
    return 2 if "psnr" in tag.lower() else 4


def is_lower_better(metric: str, options: dict[str, Any]) -> bool:
    """Whether a metric is an error or a distance: by its options, or else by its name."""
    better = options.get("better")
    return better == "lower" if better else lower_is_better(metric)


def format_metric(metric: str, value: float | None, sign: str = "") -> str:
    """Write a metric's value for readers; '–' if there is none. With sign '+', differences above zero get one."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:{sign}.{decimals(metric)}f}".replace("inf", "∞").replace("-", "−")
