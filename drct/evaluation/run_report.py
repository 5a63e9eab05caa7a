"""The report of a test run: an HTML page with its settings and metrics, and the pictures in a folder beside it."""

import hashlib
import math
import os
import shutil
from bisect import bisect
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drct.evaluation.metric_table import MetricTable, is_lower_better
from drct.evaluation.pages.pictures import write_pictures
from drct.evaluation.pages.run import DatasetSection, write_run_page
from drct.evaluation.saved_images import saved_image
from drct.runtime import distributed

MAX_PICTURES = 500  # images of a dataset that have pictures; the lists have all


@dataclass
class ShownImage:
    """An image that has pictures."""

    name: str
    gain: float
    folder: Path
    pictures: dict[str, Any]  # what `write_pictures` returned


class RunReport:
    """Writes pictures during a test run to the folder `report`, and then `report.html`.

    Of more than `MAX_PICTURES` images of a dataset, those that gain most and least keep their pictures. Use the report
    in a `with` statement, which removes the folder if the page is not written. In a distributed run, each process
    writes the pictures of its own images.
    """

    def __init__(self, results: Path, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.page = results / "report.html"
        self.folder = results / "report"
        self.tables: list[MetricTable] = []
        self.shown: dict[str, list[ShownImage]] = {}  # dataset -> images that have pictures, by rising gain
        self.left_out: Counter[str] = Counter()  # dataset -> images without pictures

    def __enter__(self) -> "RunReport":
        return self

    def __exit__(self, *_: object) -> None:
        if not self.page.exists():
            shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, name: str, pictures: dict[str, np.ndarray], table: MetricTable) -> None:
        """Add an image. The pictures are those of `Validator.run`."""
        shown = self.shown.setdefault(table.dataset, [])
        gain = self._gain(name, table)
        place = bisect(shown, gain, key=lambda image: image.gain)
        if len(shown) >= MAX_PICTURES and (place == MAX_PICTURES // 2 or name not in table.images):
            self.left_out[table.dataset] += 1
            return
        folder = self.folder / _folder_name(table.dataset, name)
        written = write_pictures(folder, self.page, self._saved(name, table.dataset), **pictures)
        shown.insert(place, ShownImage(name, gain, folder, written))
        self.left_out[table.dataset] += _remove_middle(shown)

    def _gain(self, name: str, table: MetricTable) -> float:
        """Return by how much the first metric of an image is better than bicubic's, or than 0; 0 without a metric."""
        for metric, value in table.images.get(name, {}).items():
            options = (self.settings["options"]["val"].get("metrics") or {}).get(metric, {})
            gain = value - table.bicubic.get(name, {}).get(metric, 0)
            return 0.0 if math.isnan(gain) else -gain if is_lower_better(metric, options) else gain
        return 0.0

    def _saved(self, name: str, dataset: str) -> Path | None:
        """Return the file of the result, if it was saved below the folder of the page."""
        opt = self.settings["options"]
        if not opt["path"].get("visualization"):
            return None
        file = saved_image(opt, dataset, name)
        return file if file.is_relative_to(self.page.parent) and file.is_file() else None

    def write(self) -> None:
        """Write the page of `self.tables`. Every process must call this; the first one writes."""
        gathered = distributed.gather((self.shown, self.left_out))
        if distributed.rank() == 0:
            sections = []
            for table in self.tables:
                images = [image for shown, _ in gathered for image in shown.get(table.dataset, [])]
                images.sort(key=lambda image: image.gain)
                left_out = sum(count[table.dataset] for _, count in gathered) + _remove_middle(images)
                sections.append(DatasetSection(table, {image.name: image.pictures for image in images}, left_out))
            write_run_page(self.page, self.settings, sections, MAX_PICTURES)
        distributed.barrier()  # the other processes may end only now: they would remove the folder


def _folder_name(dataset: str, name: str) -> str:
    """Return the same name in any run and process; those of images may be too long, or not be allowed for folders."""
    return hashlib.blake2b(os.fsencode(f"{dataset}/{name}"), digest_size=8).hexdigest()


def _remove_middle(images: list[ShownImage]) -> int:
    """Remove the pictures of those images of average gain that are too many. Return their number."""
    surplus = max(0, len(images) - MAX_PICTURES)
    middle = slice(MAX_PICTURES // 2, MAX_PICTURES // 2 + surplus)
    for image in images[middle]:
        shutil.rmtree(image.folder, ignore_errors=True)
    del images[middle]
    return surplus
