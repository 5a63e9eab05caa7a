"""Numbers of a training run in its scalars.csv, with one `iteration,tag,value` per line: writing and reading."""

import csv
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from drct.errors import DRCTError, did_you_mean
from drct.files import write_text

FILE_NAME = "scalars.csv"
HEADER = ["iteration", "tag", "value"]


class Scalars:
    """Named numbers by iteration, written to a CSV and to TensorBoard.

    Args:
        path: The CSV. Lines up to `iteration` from an earlier part of the run are kept; later lines, which the run is
            about to repeat, are dropped.
        iteration: Iteration that the run starts from.
        metrics_again: Whether the run is about to repeat the validation of this iteration.
        tensorboard: A `SummaryWriter`, or None.
    """

    def __init__(self, path: Path, iteration: int, metrics_again: bool = False, tensorboard: Any | None = None) -> None:
        self.path = path
        self.tensorboard = tensorboard
        last_metrics = iteration - metrics_again
        rows = [row for row in _rows(path) if int(row[0]) <= (last_metrics if "metrics/" in row[1] else iteration)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
        write_text(path, text.getvalue())

    def add_scalar(self, tag: str, value: float, iteration: int) -> None:
        """Record a number; name and arguments are those of TensorBoard's `SummaryWriter`."""
        try:
            with open(self.path, "a", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow([iteration, tag, float(value)])
        except OSError as error:
            raise DRCTError(f"cannot write {self.path}: {error.strerror or error}") from error
        if self.tensorboard:
            self.tensorboard.add_scalar(tag, value, iteration)

    def close(self) -> None:
        """Write the numbers that TensorBoard still holds in memory."""
        if self.tensorboard:
            self.tensorboard.close()


def _rows(path: Path) -> list[list[str]]:
    """Read the complete lines of a scalars.csv, as a killed process may have left part of a line."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [row for row in csv.reader(lines) if len(row) == len(HEADER) and row[0].isdigit()]


def read_scalars(path: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the scalars of a training run from its folder or its `scalars.csv`.

    Lines that a crash has cut short are left out. If an iteration was logged twice, its later value is taken.

    Returns:
        For each tag, in order of appearance: iterations, (N,), int64, ascending, and values, (N,), float64.

    Raises:
        DRCTError: if the file does not exist or holds something else.
    """
    path = _scalars_file(Path(path))
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace").replace("\0", "")
    except OSError as error:
        raise DRCTError(f"cannot read {path}: {error.strerror or error}") from error
    lines = text.split("\n")[:-1]  # a line without its end may lack digits
    if lines and lines[0].rstrip("\r") != ",".join(HEADER):
        raise DRCTError(
            f"{path} holds no scalars, as its first line is not {','.join(HEADER)}: give the folder of a training run"
        )
    points: dict[str, dict[int, float]] = {}
    for line in lines[1:]:
        try:
            iteration, tag, value = next(csv.reader([line]))
            points.setdefault(tag, {})[int(iteration)] = float(value)
        except (StopIteration, ValueError, csv.Error):  # cut short, and appended to later
            continue
    ordered = {tag: sorted(series.items()) for tag, series in points.items() if series}
    return {
        tag: (np.array([i for i, _ in series], np.int64), np.array([value for _, value in series], np.float64))
        for tag, series in ordered.items()
    }


def _scalars_file(path: Path) -> Path:
    if not path.exists():
        hint = did_you_mean(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise DRCTError(f"{path} does not exist{hint}: give the folder of a training run, experiments/<name>")
    if not path.is_dir():
        return path
    if not (path / FILE_NAME).is_file():
        where = "give the folder of a training run, experiments/<name>, where training writes that file"
        raise DRCTError(f"{path} has no {FILE_NAME}: {where}")
    return path / FILE_NAME
