"""SHA-256 of what a test run depends on: of contents, whatever the files they come from."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from drct.files import sha256_of_file

# Options that say where things are, not what is computed
LOCATIONS = frozenset(
    (
        *("pretrain_network_g", "dataroot_gt", "dataroot_lq", "meta_info_file", "meta_info", "exclude"),
        *("io_backend", "num_gpu"),
    )
)


def hash_of_pixels(image: np.ndarray) -> str:
    """Hash an image: its shape, then its numbers, row by row."""
    digest = hashlib.sha256(f"{image.dtype} {'x'.join(map(str, image.shape))}\n".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def hash_of_file(path: Path) -> str | None:
    """Hash a file; None if there is none."""
    return sha256_of_file(path) if path.is_file() else None


def hashes_of_options(options: Mapping[str, Any]) -> dict[str, str]:
    """Hash the options of each section, but for those of `LOCATIONS`."""
    sections: dict[str, dict[str, Any]] = {}
    for key, value in flat_options(options):
        sections.setdefault(key.split(".")[0], {})[key] = value
    return {
        section: hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
        for section, values in sorted(sections.items())
    }


def flat_options(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield options by their keys, such as `val.metrics.psnr.crop_border`, but for those of `LOCATIONS`."""
    for key, value in options.items():
        if key in LOCATIONS:
            continue
        if isinstance(value, dict) and value:
            yield from flat_options(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
