"""Metrics of the images of a dataset and their mean, as text, CSV and JSON; which direction of a metric is better."""

import csv
import io
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drct.files import write_text

MetricValues = dict[str, dict[str, float]]  # image -> metric -> value

LOWER_IS_BETTER = ("niqe", "lpips", "dists", "fid", "mae", "mse", "rmse")


def is_lower_better(metric: str, options: dict[str, Any]) -> bool:
    """Tell whether a metric measures an error or a distance, by `better` of its options or else by its name."""
    better = options.get("better")
    return better == "lower" if better else lower_is_better(metric)


def lower_is_better(tag: str) -> bool:
    """Tell whether a metric measures an error or a distance, by its name or its tag in the scalars."""
    return tag.rsplit("/", 1)[-1].lower().startswith(LOWER_IS_BETTER)


def decimals(tag: str) -> int:
    """Return the number of digits after the point to show of a metric, by its name or tag."""
    return 2 if "psnr" in tag.lower() else 4


def format_metric(metric: str, value: float | None, sign: str = "") -> str:
    """Write a metric's value for readers; '–' if there is none. With sign '+', differences above zero get one."""
    return format_number(value, decimals(metric), sign)


def format_number(value: float | None, digits: int, sign: str = "") -> str:
    """Write a number with some digits after the point, as `format_metric` does."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:{sign}.{digits}f}".replace("inf", "∞").replace("-", "−")


@dataclass
class MetricTable:
    """Metrics of each image of a dataset and their mean, which weighs all images equally, as is usual in the field."""

    dataset: str
    iteration: int | None = None  # of the network's training; None outside of training
    show_bicubic: bool = True  # whether text and files show the metrics of bicubic upscaling
    images: MetricValues = field(default_factory=dict)
    bicubic: MetricValues = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # path of a file that could not be processed -> reason
    protocols: dict[str, Any] = field(default_factory=dict)  # see `Errors` in protocols.py; empty if not asked for
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)  # of a test's images -> lq, gt, result -> SHA-256

    @classmethod
    def joined(cls, parts: list["MetricTable"]) -> "MetricTable":
        """Merge tables of different images of a dataset, sorted by name."""
        images = dict(sorted(item for part in parts for item in part.images.items()))
        bicubic = dict(sorted(item for part in parts for item in part.bicubic.items()))
        failed = dict(sorted(item for part in parts for item in part.failed.items()))
        protocols = dict(sorted(item for part in parts for item in part.protocols.items()))
        hashes = dict(sorted(item for part in parts for item in part.hashes.items()))
        first = parts[0]
        return cls(first.dataset, first.iteration, first.show_bicubic, images, bicubic, failed, protocols, hashes)

    def mean(self) -> dict[str, float]:
        """Return the mean over the images by metric."""
        return _mean(self.images)

    def mean_bicubic(self) -> dict[str, float]:
        """Return the mean of bicubic upscaling by metric."""
        return _mean(self.bicubic)

    def text(self) -> str:
        """Format the table for the log, with one line per image and one for the mean."""
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
            write_text(f"{stem}.csv", text.getvalue())
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
        write_text(f"{stem}.json", json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False))

    def _rows(self) -> tuple[list[str], list[list[Any]]]:
        metrics = list(next(iter(self.images.values()), {}))
        bicubic = self.bicubic if self.show_bicubic else {}
        header = ["image"] + metrics + [f"bicubic {metric}" for metric in metrics if bicubic]
        rows = [[image, *values.values(), *bicubic.get(image, {}).values()] for image, values in self.images.items()]
        if rows:
            rows.append(["mean", *self.mean().values(), *_mean(bicubic).values()])
        return header, rows


def _mean(images: MetricValues) -> dict[str, float]:
    metrics = next(iter(images.values()), {})
    return {metric: sum(values[metric] for values in images.values()) / len(images) for metric in metrics}


def finite(content: Any) -> Any:
    """Replace what JSON cannot hold: infinities, such as the PSNR of equal images, by text, and NaN by null."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, float) and not math.isfinite(content):
        return None if math.isnan(content) else str(content)
    return content
