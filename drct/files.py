"""Files and folders: writing them so that they appear whole or not at all, archiving them, paths with ~."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from drct.errors import DRCTError


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace a file, which appears whole or not at all, and the folders above it.

    `write` is called with a temporary file beside it, which is then flushed to the disk and renamed.

    Raises:
        DRCTError: if the file cannot be written. Nothing is left behind, and an existing file stays as it was.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", suffix=".tmp")
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        reason = cause.strerror or cause
        raise DRCTError(f"cannot write {path}: {reason}. Free space or choose another folder.") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Create or replace a file with `write_atomically`."""
    write_atomically(path, lambda file: file.write(data))


def write_text(path: str | os.PathLike, text: str) -> None:
    """Create or replace a text file with `write_atomically`. Characters outside of UTF-8 become question marks."""
    write_bytes(path, text.encode("utf-8", "replace"))


def _os_error(error: BaseException | None) -> OSError | None:
    """Find the operating system's error beneath another, such as that of `torch.save`; None if there is none."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def expanded(path: str | os.PathLike) -> Path:
    """Replace a leading ~ by the home folder; unlike `Path.expanduser`, accept file names that begin with ~."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def is_folder(path: str | os.PathLike) -> bool:
    """Tell whether a folder exists; unlike `Path.is_dir`, also about what cannot be a path, such as one too long."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | os.PathLike) -> bool:
    """Tell whether a file exists; unlike `Path.is_file`, also about what cannot be a path, such as one too long."""
    return os.path.isfile(path)  # noqa: PTH113


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete temporary files of `write_atomically` that a killed process left in a folder."""
    for path in Path(folder).glob(".*.tmp"):
        path.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike) -> Path:
    """Create a folder and its parents. Raises `DRCTError` if that fails."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DRCTError(f"cannot write {path}: {error.strerror or error}. Choose another folder.") from error
    return Path(path)


def _sync_folder(folder: Path) -> None:
    """Make a renaming survive a power failure, where folders can be opened (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems do not support it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def archive(path: str | os.PathLike) -> Path | None:
    """Rename a file or folder, if it exists, to `name_archived_<time>`, as BasicSR does. Returns the new path."""
    path = Path(path)
    if not path.exists():
        return None
    target = path.with_name(f"{path.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}")
    name, count = target.name, 1
    while target.exists():
        count += 1
        target = path.with_name(f"{name}_{count}")
    return path.rename(target)
