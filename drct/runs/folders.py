"""Names of training runs, from their folders."""

import os
from collections.abc import Iterable
from pathlib import Path

from drct.runs.scalars import FILE_NAME


def run_names(paths: Iterable[str | os.PathLike]) -> dict[str, Path]:
    """Name runs by their folders, with as many parent folders as it takes to tell equal names apart.

    The paths are folders of runs or CSV files of scalars; duplicates count once. The order stays.
    """
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        folders.setdefault(_folder(path), path)
    return {_shortest(folder, folders): path for folder, path in folders.items()}


def repeated(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """Return the paths that name the run of an earlier one, of which `run_names` takes the first."""
    given = [Path(path) for path in paths]
    return [path for i, path in enumerate(given) if _folder(path) in map(_folder, given[:i])]


def _folder(path: Path) -> Path:
    """Return the folder of a run; for a CSV file not named scalars.csv, its path without the suffix."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - keeps the name of a symbolic link
    if absolute.name == FILE_NAME:
        return absolute.parent
    return absolute.with_suffix("") if absolute.suffix == ".csv" else absolute


def _shortest(folder: Path, folders: Iterable[Path]) -> str:
    others = [other.parts for other in folders if other != folder]
    count = 1
    while count < len(folder.parts) and any(other[-count:] == folder.parts[-count:] for other in others):
        count += 1
    return Path(*folder.parts[-count:]).as_posix()
