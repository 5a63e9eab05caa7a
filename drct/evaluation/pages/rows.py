"""Lists of images on pages: their numbers, pictures and histograms, for `rows.html` and `rows.js`."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from drct.evaluation.metric_table import decimals, format_metric
from drct.files import write_text

INLINE_ROWS = 2000  # of a longer list, the numbers are in a file beside the page
MAX_BARS = 30
FEWEST_IN_HISTOGRAM = 8  # images; so few are seen at a glance in the list


@dataclass
class Column:
    """A metric of all images of a list: None where an image has none."""

    label: str
    metric: str
    values: Sequence[float | None]
    lower_is_better: bool
    base: int | None = None  # number of the column to which the difference is shown
    difference: str = ""  # label of the difference


@dataclass
class ImageList:
    """Images, their metrics and pictures. `number` tells the lists of a page apart."""

    number: int
    names: list[str]
    columns: list[Column]
    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name, as `write_pictures` returns them

    def _script(self) -> str:
        """Return the list as JavaScript, which `rows.js` shows."""
        content = {
            "names": self.names,
            "columns": [_column(column) for column in self.columns],
            "pictures": {i: self.pictures[name] for i, name in enumerate(self.names) if name in self.pictures},
        }
        text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")  # no name ends the script
        return f"lists[{self.number}] = {text};"

    def placed(self, page: Path) -> dict[str, Any]:
        """Return the list as `rows.html` shows it. A long one's script is written to a file beside the page."""
        shown: dict[str, Any] = {"number": self.number, "count": len(self.names), "histograms": self._histograms()}
        if len(self.names) <= INLINE_ROWS:
            return shown | {"script": self._script(), "source": None}
        file = page.with_suffix("") / f"rows_{self.number}.js"
        write_text(file, self._script())
        return shown | {"script": None, "source": relative_url(file, page)}

    def _histograms(self) -> list[dict[str, Any]]:
        """Return the distribution of each column's differences."""
        found = []
        for column in self.columns:
            if column.base is not None:
                pairs = zip(column.values, self.columns[column.base].values, strict=True)
                gains = [value - before for value, before in pairs if value is not None and before is not None]
                if histogram := _histogram(column, np.array(gains, dtype=np.float64)):
                    found.append(histogram)
        return found


def relative_url(file: Path, page: Path) -> str:
    """Return the address of a file below the folder of a page."""
    return quote(os.fsencode(file.relative_to(page.parent).as_posix()))


def _column(column: Column) -> dict[str, Any]:
    digits = decimals(column.metric)
    return {
        "label": column.label,
        "digits": digits,
        "lower": column.lower_is_better,
        "base": column.base,
        "difference": column.difference,
        "values": [None if value is None else round(value, digits + 4) for value in column.values],
    }


def _histogram(column: Column, gains: np.ndarray) -> dict[str, Any] | None:
    """Count differences in bars of equal width, none of which is on both sides of 0; None if there is little to see."""
    gains = gains[np.isfinite(gains)]
    if gains.size < FEWEST_IN_HISTOGRAM or gains.min() == gains.max():
        return None
    width = float(gains.max() - gains.min()) / min(MAX_BARS, max(5, math.isqrt(gains.size)))
    first, last = math.floor(gains.min() / width), math.ceil(gains.max() / width)
    edges = np.arange(first, last + 1) * width
    counts, _ = np.histogram(gains.clip(edges[0], edges[-1]), edges)  # rounding may put the ends outside
    lower = column.lower_is_better
    return {
        "label": column.difference,
        **{
            key: format_metric(column.metric, float(value), "+")
            for key, value in {"low": gains.min(), "median": np.median(gains), "high": gains.max()}.items()
        },
        "count": gains.size,
        "losing": int((gains > 0 if lower else gains < 0).sum()),
        "edges": [format_metric(column.metric, float(edge), "+") for edge in edges],
        "zero": -first / len(counts),
        "bars": [
            {"count": int(count), "height": round(100 * count / counts.max(), 1), "worse": (first + i < 0) != lower}
            for i, count in enumerate(counts)
        ],
    }
