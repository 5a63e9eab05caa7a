"""Writing files so that they appear whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from drct.errors import DRCTError


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> None:
    """Create `path` by `write(file)`: a temporary file beside it is filled, flushed to the disk and renamed.

    Raises:
        DRCTError: if the file cannot be written. Nothing is left behind and an older file of that name is intact.
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
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's files are private
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        raise DRCTError(
            f"cannot write {path}: {cause.strerror or cause}. Free space or choose another folder."
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Create a file of these bytes by `write_atomically`."""
    write_atomically(path, lambda file: file.write(data))


def write_text(path: str | os.PathLike, text: str) -> None:
    """Create a UTF-8 text file by `write_atomically`. Characters UTF-8 cannot hold become question marks."""
    write_bytes(path, text.encode("utf-8", "replace"))


def _os_error(error: BaseException | None) -> OSError | None:
    """The operating system's error behind an error (`torch.save` raises its own over it), or None."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def expanded(path: str | os.PathLike) -> Path:
    """A path with the home folder in the place of ~; unlike `Path.expanduser`, it bears names that begin with ~."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete the temporary files that a process left behind when it was killed while writing."""
    for path in Path(folder).glob(".*.tmp"):
        path.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike) -> Path:
    """Create a folder and those above it. Raises `DRCTError` if it cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DRCTError(f"cannot write {path}: {error.strerror or error}. Choose another folder.") from error
    return Path(path)


def _sync_folder(folder: Path) -> None:
    """Make a renaming outlast a power failure, where folders can be opened (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def archive(path: str | os.PathLike) -> Path | None:
    """Move an existing file or folder out of the way, as BasicSR does: `name_archived_<time>`. Returns its new path."""
    import time

    path = Path(path)
    if not path.exists():
        return None
    stamp = time.strftime("%Y%m%d_%H%M%S")
    target = path.with_name(f"{path.name}_archived_{stamp}")
    count = 1
    while target.exists():
        count += 1
        target = path.with_name(f"{path.name}_archived_{stamp}_{count}")
    path.rename(target)
    return target
