"""Datasets and loaders of an option file."""

from typing import Any

from basicsr.data import build_dataset
from torch.utils.data import DataLoader

from drct.errors import DRCTError


def make_dataset(phase: str, options: dict[str, Any]) -> Any:
    """Build a dataset. Raises `DRCTError` naming it when its files do not make one."""
    try:
        dataset = build_dataset(options)
    except (AssertionError, OSError, ValueError, KeyError) as error:
        problem = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise DRCTError(
            f"datasets.{phase} ({options['name']}): {problem}. Ground truth and low-resolution files must "
            "have the same names; `python drct/prepare.py benchmark` makes such folders from high-resolution images."
        ) from error
    if not len(dataset):
        raise DRCTError(f"datasets.{phase} ({options['name']}) has no images")
    return dataset


def evaluation_loaders(opt: dict[str, Any], phase: str) -> list[DataLoader]:
    """Loaders of the datasets `val`, `val_1`, .. or `test`, `test_1`, .., one image at a time."""
    return [
        DataLoader(make_dataset(name, options), batch_size=1)
        for name, options in sorted(opt["datasets"].items())
        if options["phase"] == phase
    ]
