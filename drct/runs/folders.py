"""Folders of runs, and what to call them."""

import os
from collections.abc import Iterable
from pathlib import Path

from drct.runs.scalars import FILE_NAME


def run_names(paths: Iterable[str | os.PathLike]) -> dict[str, Path]:
    """Name runs by their folders, with as many of the folders above as it takes to tell equal names apart.

    Args:
        paths: Folders of runs, or csv files. One given twice counts once.

    Returns:
        Path per name, in the order given.
    """
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        folders.setdefault(_folder(path), path)
    return {_shortest(folder, folders): path for folder, path in folders.items()}


def _folder(path: Path) -> Path:
    """The folder of a run; of a csv file by another name, what would be its folder by that name."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - a linked run goes by the name of its link
    if absolute.name == FILE_NAME:
        return absolute.parent
    return absolute.with_suffix("") if absolute.suffix == ".csv" else absolute


def _shortest(folder: Path, folders: Iterable[Path]) -> str:
    others = [other.parts for other in folders if other != folder]
    count = 1
    while count < len(folder.parts) and any(other[-count:] == folder.parts[-count:] for other in others):
        count += 1
    return Path(*folder.parts[-count:]).as_posix()
