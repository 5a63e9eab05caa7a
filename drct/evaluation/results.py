"""Reading the files that a test run leaves in its folder of results."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drct.errors import DRCTError
from drct.evaluation.metric_table import MetricTable, MetricValues


@dataclass
class MeasuringOptions:
    """The options that two runs must share for their metrics to be comparable."""

    scale: int
    metrics: dict[str, dict[str, Any]]  # as in `val.metrics` of the option file


@dataclass
class RunResults:
    """The results of a test run by dataset. `options` is None if the folder has no `settings.json`."""

    name: str
    datasets: dict[str, MetricTable]
    options: MeasuringOptions | None


def has_metrics(folder: Path) -> bool:
    """Return whether a folder holds metrics of a test run."""
    return any(folder.glob("metrics_*.json"))


def read_run(name: str, folder: Path) -> RunResults:
    """Read a folder such as `results/DRCT_SRx4`. Raises `DRCTError` if no test run with metrics has written it."""
    if not folder.is_dir():
        raise DRCTError(f"no such folder: {folder}")
    files = sorted(folder.glob("metrics_*.json"))
    if not files:
        hint = "name folders such as results/DRCT_SRx4, of test runs with ground truth"
        raise DRCTError(f"{folder} has no metrics_<dataset>.json: {hint}")
    contents = [_read_json(file) for file in files]
    settings = folder / "settings.json"
    try:
        tables = {str(content["dataset"]): _metric_table(content) for content in contents}
        return RunResults(name, tables, _measuring_options(_read_json(settings)) if settings.is_file() else None)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DRCTError(f"the files in {folder} were not written by a test run: {reason}") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DRCTError(f"cannot read {file}: {error}. Expected a file written by a test run") from error
    if not isinstance(content, dict):
        raise DRCTError(f"cannot read {file}: it was not written by a test run")
    return content


def _measuring_options(settings: dict[str, Any]) -> MeasuringOptions:
    options = settings["options"]
    metrics = options["val"].get("metrics") or {}
    return MeasuringOptions(int(options["scale"]), {str(name): dict(metric) for name, metric in metrics.items()})


def _metric_table(content: dict[str, Any]) -> MetricTable:
    bicubic = _as_numbers(content.get("bicubic", {}).get("images", {}))
    failed = {str(path): str(reason) for path, reason in content["failed"].items()}
    return MetricTable(content["dataset"], images=_as_numbers(content["images"]), bicubic=bicubic, failed=failed)


def _as_numbers(images: dict[str, dict[str, Any]]) -> MetricValues:
    """Convert the values that JSON cannot hold: NaN is written as null and infinity as text."""
    return {
        image: {metric: math.nan if value is None else float(value) for metric, value in values.items()}
        for image, values in images.items()
    }
