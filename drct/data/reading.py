"""Reading an item of any dataset, with a reason that names the file if that fails."""

from pathlib import Path
from typing import Any

from drct.errors import DRCTError
from drct.images.bgr import read_image


def read_item(dataset: Any, index: int) -> Any:
    """Return an item of a dataset. Raises `DRCTError` with the reason if its file is damaged."""
    try:
        return dataset[index]
    except DRCTError:
        raise
    except Exception:  # BasicSR's datasets stumble over what a decoder returned for a damaged file
        entry = dataset.paths[index] if getattr(dataset, "paths", None) else ""
        for path in entry.values() if isinstance(entry, dict) else [entry]:
            if Path(path).is_file():
                read_image(path)  # raises the reason
        raise
