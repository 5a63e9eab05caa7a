"""Files and folders: writing them so that they appear whole or not at all, archiving them, paths with ~."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from drct.errors import DRCTError

UNFINISHED = ".drct.tmp"  # end of the names of hidden files and folders that are being written
ABANDONED = 3600  # seconds without a change after which such a file is that of a killed process, if locks do not tell


class AlreadyExistsError(DRCTError):
    """A file that was to be created exists."""


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], object], replace: bool = True) -> None:
    """Create or replace a file, which appears whole or not at all, and the folders above it.

    `write` is called with a temporary file beside it, which is then flushed to the disk and renamed. Without
    `replace`, of several programs that create the same file only the first succeeds.

    Raises:
        AlreadyExistsError: if the file exists and is not to be replaced.
        DRCTError: if the file cannot be written. Nothing is left behind, and an existing file stays as it was.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", suffix=UNFINISHED)
        with os.fdopen(descriptor, "wb") as file:
            lock(descriptor)  # so that no other process takes the file for abandoned
            write(file)
            file.flush()
            os.fsync(descriptor)
            if os.name == "posix":
                _give_name(temporary, path, replace)
        if os.name != "posix":  # where an open file cannot be renamed
            _give_name(temporary, path, replace)
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


def _give_name(temporary: str, path: Path, replace: bool) -> None:
    os.chmod(temporary, 0o666 & ~_umask())  # noqa: PTH101 - mkstemp makes private files
    if replace:
        os.replace(temporary, path)
    else:
        _create(path, temporary)


def lock(descriptor: int) -> bool | None:
    """Lock an open file or folder until it is closed everywhere or its process ends.

    Returns:
        Whether it is locked now; False if another process holds the lock; None if there are no locks on this system.
    """
    if os.name != "posix":
        return None
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _create(path: Path, temporary: str) -> None:
    """Give a temporary file its name, unless there is a file of that name."""
    try:
        if os.name == "nt":
            os.rename(temporary, path)  # noqa: PTH104 - which replaces nothing on Windows
        else:
            _link_or_reserve(path, temporary)
    except FileExistsError as error:
        raise AlreadyExistsError(f"{path} exists") from error


def _link_or_reserve(path: Path, temporary: str) -> None:
    try:
        os.link(temporary, path)  # noqa: PTH200 - Path.hardlink_to takes the names the other way round
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, such as FAT
        path.touch(exist_ok=False)
        os.replace(temporary, path)


def write_bytes(path: str | os.PathLike, data: bytes, replace: bool = True) -> None:
    """Create or replace a file with `write_atomically`."""
    write_atomically(path, lambda file: file.write(data), replace)


def write_text(path: str | os.PathLike, text: str, replace: bool = True) -> None:
    """Create or replace a text file with `write_atomically`. Characters outside of UTF-8 become question marks."""
    write_bytes(path, text.encode("utf-8", "replace"), replace)


def _os_error(error: BaseException | None) -> OSError | None:
    """Find the operating system's error beneath another, such as that of `torch.save`; None if there is none."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def expanded(path: str | os.PathLike) -> Path:
    """Replace a leading ~ by the home folder; unlike `Path.expanduser`, accept file names that begin with ~."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def cache_folder() -> Path | None:
    """Return the folder of what can be made again, in that of the user's programs; None if the user has none.

    As with PyTorch and the Hugging Face Hub, on all systems, the latter is `XDG_CACHE_HOME`, or else ~/.cache.
    """
    folder = expanded(os.environ.get("XDG_CACHE_HOME") or Path("~", ".cache")) / "drct"
    return folder if folder.is_absolute() else None


def is_folder(path: str | os.PathLike) -> bool:
    """Tell whether a folder exists; unlike `Path.is_dir`, also about what cannot be a path, such as one too long."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: str | os.PathLike) -> bool:
    """Tell whether a file exists; unlike `Path.is_file`, also about what cannot be a path, such as one too long."""
    return os.path.isfile(path)  # noqa: PTH113


def remove_leftovers(folder: str | os.PathLike, recursive: bool = False, shared: bool = False) -> None:
    """Delete what a killed process was writing by `write_atomically` or `drct.data.lmdb_writer` in a folder.

    Args:
        folder: The folder; there may be none.
        recursive: Whether to search the folders below it too.
        shared: Whether other processes may be writing there, whose files are spared.
    """
    for path in Path(folder).glob(f"{'**/' * recursive}.*{UNFINISHED}"):
        with suppress(OSError):  # gone meanwhile, or of another user
            if shared and not _is_abandoned(path):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_abandoned(path: Path) -> bool:
    age = time.time() - max(each.stat().st_mtime for each in (path, *path.rglob("*")))
    if path.is_file():
        with open(path, "rb") as file:
            is_free = lock(file.fileno())
        if is_free is not None:
            return is_free and age > 1  # a file is created before it is locked
    return age > ABANDONED


def sha256_of_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits. Raises `OSError` if it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


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
