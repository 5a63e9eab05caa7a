"""Finding the image files of a folder."""

import os
from collections.abc import Collection
from pathlib import Path

from drct.errors import DRCTError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}  # what datasets consist of


def check_folder(folder: Path) -> None:
    """Raise `DRCTError` if there is no such folder."""
    if not folder.is_dir():
        raise DRCTError(f"no such folder: {folder}")


def list_images(
    folder: str | os.PathLike, recursive: bool = False, suffixes: Collection[str] = IMAGE_SUFFIXES
) -> list[Path]:
    """List the files of a folder with one of the suffixes, in lower or upper case, sorted by path.

    Hidden files and folders are left out and links are followed. A broken link is listed, so that reading it reports
    the error.
    """
    files: list[Path] = []
    seen = set()  # links may lead in a circle
    for root, folders, names in os.walk(str(folder), followlinks=True):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        if (real := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(real)
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.suffix.lower() in suffixes and (file.is_file() or file.is_symlink()))
