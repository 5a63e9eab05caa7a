"""The report of a test run: one HTML page with its settings, metrics and pictures."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from drct.evaluation.metric_table import MetricTable
from drct.evaluation.pages.run import DatasetSection, picture_section, run_page
from drct.files import write_atomically, write_text
from drct.runtime import distributed

MAX_PICTURES = 120  # images of a dataset that are shown; the tables list all


class RunReport:
    """Collects pictures and tables during a test run and writes them as `report.html`.

    Each picture waits in a temporary file until the page is written. Use the report in a `with` statement, which
    removes these files. In a distributed run, each process collects the pictures of its own images.
    """

    def __init__(self, results: Path, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.page = results / "report.html"
        self.parts = results / f".report_{distributed.rank()}"
        self.tables: list[MetricTable] = []
        self.pictures: dict[str, dict[str, Path]] = {}  # dataset -> image -> file with its part of the page
        self.left_out: Counter[str] = Counter()  # dataset -> images without a picture

    def __enter__(self) -> "RunReport":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.parts, ignore_errors=True)

    def add(self, name: str, pictures: dict[str, np.ndarray], table: MetricTable) -> None:
        """Add an image, unless the page has enough of its dataset. The pictures are those of `Validator.run`."""
        shown = self.pictures.setdefault(table.dataset, {})
        if len(shown) * distributed.world_size() >= MAX_PICTURES:
            self.left_out[table.dataset] += 1
            return
        part = self.parts / f"{sum(map(len, self.pictures.values()))}.html"
        write_text(part, picture_section(name, self.settings["network"], pictures, table))
        shown[name] = part

    def write(self) -> None:
        """Write the page of `self.tables`. Every process must call this; the first one writes."""
        gathered = distributed.gather((self.pictures, self.left_out))
        if distributed.rank() == 0:
            sections = [
                DatasetSection(
                    table,
                    {name: part for pictures, _ in gathered for name, part in pictures.get(table.dataset, {}).items()},
                    sum(left_out[table.dataset] for _, left_out in gathered),
                )
                for table in self.tables
            ]
            chunks = run_page(self.settings, sections, MAX_PICTURES)
            data = (chunk.encode("utf-8", "replace") for chunk in chunks)  # file names may be no valid text
            write_atomically(self.page, lambda file: file.writelines(data))
        distributed.barrier()  # until here, the first process reads the files of the others
