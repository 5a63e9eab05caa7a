"""Writing images into an LMDB of BasicSR's layout.

`data.mdb` and `lock.mdb` hold the bytes of the image files by key, the path without its suffix; `meta_info.txt` lists
`name.ext (h,w,c) compression`, of which BasicSR reads what stands before the first point.

The files are stored as they are: BasicSR decodes whatever OpenCV can, so nothing is lost or computed, and a JPEG does
not grow to the several times larger PNG that BasicSR's own `make_lmdb_from_imgs` would make of it. That function is
not used for other reasons too: it takes LMDB's size from the first image, and stops half way at a broken one.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import lmdb
from tqdm import tqdm

from drct.errors import DRCTError

FILES = {"data.mdb", "lock.mdb", "meta_info.txt"}
LONGEST_KEY = 511  # LMDB's limit, in bytes
FIRST_MAP_SIZE = 64 << 20
LARGEST_GROWTH = 1 << 30
COMPRESSION = 0  # BasicSR's column for the level of the PNG files that it makes; none are made


def lmdb_key(name: str) -> str:
    """The key of an image, given its path relative to the folder, with slashes.

    Raises:
        ValueError: for a name that BasicSR's readers could not find again; the message says why.
    """
    key = name.rpartition(".")[0]
    if re.search(r"\s", name):
        raise ValueError("a name with a blank, which BasicSR's lists cannot hold: rename it")
    if "." in key:
        raise ValueError("a name with a second point, at which BasicSR's lists would end the key: rename it")
    if not key.isascii():
        raise ValueError("a name that is not ASCII, as BasicSR's keys must be: rename it")
    if len(key) > LONGEST_KEY:
        raise ValueError(f"a path of more than the {LONGEST_KEY} letters that a key may have: shorten it")
    return key


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse a name that BasicSR would not take, and what must not be replaced.

    Raises:
        DRCTError: in these cases.
    """
    if output.suffix != ".lmdb":
        raise DRCTError(f"{output} must end in .lmdb, by which BasicSR knows it: -o {output}.lmdb")
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise DRCTError(f"{output} exists: choose another name, or --overwrite")
    if not output.is_dir() or {path.name for path in output.iterdir()} - FILES:
        raise DRCTError(f"{output} is not an LMDB alone and is not overwritten: choose another name")


def write_lmdb(output: Path, images: Mapping[Path, str], sizes: Mapping[Path, tuple[int, int]]) -> None:
    """Write an LMDB; it appears whole or not at all, and takes the place of one of that name.

    Equal images under equal names give equal files, whatever the order of the mappings.

    Args:
        output: The folder to make.
        images: Paths of image files and their names, `folder/name.ext`, from which `lmdb_key` makes different keys.
        sizes: (height, width) of the files.

    Raises:
        DRCTError: if it cannot be written, or a file not be read. Nothing is left behind.
    """
    work = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)  # of a killed process that had the same number
    try:
        work.mkdir(parents=True)
        ordered = sorted(images, key=lambda path: lmdb_key(images[path]))
        _fill(work, {path: lmdb_key(images[path]) for path in ordered})
        lines = [f"{images[path]} ({sizes[path][0]},{sizes[path][1]},3) {COMPRESSION}\n" for path in ordered]
        with (work / "meta_info.txt").open("w", encoding="ascii", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        _replace(work, output)
    except (OSError, lmdb.Error) as error:
        raise DRCTError(f"cannot write {output}: {error}. Free space or choose another folder.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _fill(folder: Path, keys: Mapping[Path, str]) -> None:
    with lmdb.open(str(folder), map_size=FIRST_MAP_SIZE, mode=0o644, sync=False) as environment:
        for path, key in tqdm(keys.items(), "lmdb", unit="image"):
            _put(environment, key.encode("ascii"), path.read_bytes())
        environment.sync(True)


def _put(environment: lmdb.Environment, key: bytes, data: bytes) -> None:
    """Store one item. The map grows when it is full, because Windows makes the file as large as the map at once."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                transaction.put(key, data, append=True)
            return
        except lmdb.MapFullError:
            size = environment.info()["map_size"]
            environment.set_mapsize(size + max(min(size, LARGEST_GROWTH), 2 * len(data)))


def _replace(work: Path, output: Path) -> None:
    if not output.exists():
        work.rename(output)
        return
    old = output.with_name(f"{work.name}.old")
    output.rename(old)
    try:
        work.rename(output)
    except BaseException:
        old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)
