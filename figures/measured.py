"""Reading the JSON files of measured figures."""

import json
from pathlib import Path
from typing import Any

from drct.errors import DRCTError


def read_measured(path: Path, script: str) -> Any:
    """Read a file of figures. Raises `DRCTError`, which names the script that makes it, if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DRCTError(f"cannot read {path}: {error}. python figures/{script} makes it") from error


def rounded(means: dict[str, float]) -> dict[str, float]:
    """Round the means of metrics to as many digits as a file of figures keeps."""
    return {metric: round(value, 5) for metric, value in means.items()}
