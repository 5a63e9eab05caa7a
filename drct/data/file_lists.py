"""Lists of files: BasicSR's `meta_info` text files and the lists within LMDBs."""

import re
from pathlib import Path
from typing import NamedTuple

from drct.errors import DRCTError
from drct.images.listing import IMAGE_SUFFIXES

Size = tuple[int, int]  # height and width, in pixels
_WITH_SIZE = re.compile(r"(?P<name>.+?)\s*\(\s*(?P<height>\d+)\s*,\s*(?P<width>\d+)\s*(,.*)?\).*")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, as PowerShell's `>` writes them


class Listed(NamedTuple):
    """A line of a list."""

    name: str  # path of the file with slashes, usually relative to the folder of the images
    size: Size | None  # if the line tells it


def read_list(file: Path, may_be_empty: bool = False) -> list[Listed]:
    """Read a list of files, one `name (h,w,c)` or `name` per line.

    Blank lines, lines that begin with #, blanks around a line, Windows line ends, backslashes and byte order marks are
    accepted.

    Raises:
        DRCTError: if the file cannot be read, is no text, or lists nothing, unless it may be empty.
    """
    try:
        data = file.read_bytes()
        text = data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except OSError as error:
        raise DRCTError(f"cannot read the list {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DRCTError(f"the list {file} is not text in UTF-8: save it as UTF-8") from error
    lines = [line.strip() for line in text.splitlines()]
    listed = [_listed(line) for line in lines if line and not line.startswith("#")]
    if not listed and not may_be_empty:
        raise DRCTError(f"the list {file} names no files: write one name per line, or remove the key for all files")
    return listed


def _listed(line: str) -> Listed:
    if match := _WITH_SIZE.fullmatch(line):
        return Listed(match["name"].replace("\\", "/"), (int(match["height"]), int(match["width"])))
    name = line if Path(line).suffix.lower() in IMAGE_SUFFIXES else line.split()[0]
    return Listed(name.replace("\\", "/"), None)


def list_entry(name: str) -> str | None:
    """Return the line from which `read_list` reads a name, None if there is none, as for names with a line break."""
    if name.encode("utf-8", "replace").decode("utf-8") != name:
        return None
    for line in (name, f"./{name}"):  # the latter for names that begin with # or a blank
        is_one = line.splitlines() == [line] == [line.strip()] and not line.startswith("#")
        if is_one and Path(_listed(line).name) == Path(name):
            return line
    return None


def read_lmdb_list(folder: Path) -> dict[str, Size | None]:
    """Return the sizes of the images of an LMDB by their keys, in the order of its list.

    Raises:
        DRCTError: if it is not an LMDB of BasicSR's layout, or its list is broken or empty.
    """
    if folder.suffix != ".lmdb":
        raise DRCTError(f"io_backend is lmdb, but {folder} does not end in .lmdb: set type: disk for a folder of files")
    for name in ("data.mdb", "meta_info.txt"):
        if not (folder / name).is_file():
            raise DRCTError(f"{folder} is not an LMDB of images, it has no {name}: make one with `drct prepare lmdb`")
    return {name.split(".")[0]: size for name, size in read_list(folder / "meta_info.txt")}
