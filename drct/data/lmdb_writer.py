"""Writing image files into an LMDB, in BasicSR's layout.

`data.mdb` holds the bytes of the files, by their paths without suffix. `meta_info.txt` lists the files, one
`name.ext (h,w,c) compression` per line; BasicSR takes everything before the first dot as the key.

Files are stored unchanged. BasicSR's own `make_lmdb_from_imgs` would convert them to PNG, which is several times larger
than JPEG, guess the size of the LMDB from the first image, and stop halfway at a broken one.
"""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import lmdb
from tqdm import tqdm

from drct.errors import DRCTError
from drct.files import UNFINISHED, remove_leftovers

FILES = {"data.mdb", "lock.mdb", "meta_info.txt"}
LONGEST_KEY = 511  # bytes, LMDB's limit
FIRST_MAP_SIZE = 64 << 20  # bytes


def lmdb_key(name: str) -> str:
    """Return the key of an image by its path relative to the folder, with slashes.

    Raises:
        ValueError: if BasicSR could not find an image of this name; the message says why and what to do.
    """
    key = name.rpartition(".")[0]
    if re.search(r"\s", name):
        raise ValueError("a name with a blank, which BasicSR's lists cannot hold: rename it")
    if "." in key:
        raise ValueError("a name with a second dot, at which BasicSR's lists would end the key: rename it")
    if not key.isascii():
        raise ValueError("a name with characters outside of ASCII, which BasicSR's keys cannot hold: rename it")
    if len(key) > LONGEST_KEY:
        raise ValueError(f"a path of more than {LONGEST_KEY} characters, the limit of a key: shorten it")
    return key


def check_output(output: Path, overwrite: bool) -> None:
    """Raise `DRCTError` if an LMDB cannot be written to this path: a wrong suffix, or something in its place."""
    if output.suffix != ".lmdb":
        raise DRCTError(f"{output} must end in .lmdb, by which BasicSR recognizes it: -o {output}.lmdb")
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise DRCTError(f"{output} exists: choose another name, or --overwrite")
    if not output.is_dir() or {path.name for path in output.iterdir()} - FILES:
        raise DRCTError(f"{output} holds other files or is not an LMDB, and is not overwritten: choose another name")


def write_lmdb(output: Path, images: Mapping[Path, str], sizes: Mapping[Path, tuple[int, int]]) -> None:
    """Write an LMDB, which appears whole or not at all and replaces an existing one.

    The same images under the same names give identical files, regardless of their order.

    Args:
        output: Folder to create.
        images: Name in the LMDB, `folder/name.ext`, by path of the image file. No two may have the same `lmdb_key`.
        sizes: (height, width) by path.

    Raises:
        DRCTError: if the LMDB cannot be written or an image cannot be read. Nothing is left behind.
    """
    remove_leftovers(output.parent, shared=True)
    work = output.with_name(f".{output.name}.{os.getpid()}{UNFINISHED}")
    shutil.rmtree(work, ignore_errors=True)  # left by a killed process of the same number
    try:
        work.mkdir(parents=True)
        keys = dict(sorted(((path, lmdb_key(name)) for path, name in images.items()), key=lambda item: item[1]))
        with lmdb.open(str(work), map_size=FIRST_MAP_SIZE, mode=0o644, sync=False) as environment:
            for path, key in tqdm(keys.items(), "lmdb", unit="image"):
                _put(environment, key.encode("ascii"), path.read_bytes())
            environment.sync(True)
        # The last column is the compression level of PNG files that BasicSR encodes itself
        lines = [f"{images[path]} ({sizes[path][0]},{sizes[path][1]},3) 0\n" for path in keys]
        with (work / "meta_info.txt").open("w", encoding="ascii", newline="\n") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        _replace(work, output)
    except (OSError, lmdb.Error) as error:
        raise DRCTError(f"cannot write {output}: {error}. Free space or choose another folder.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _put(environment: lmdb.Environment, key: bytes, data: bytes) -> None:
    """Append an item. The map grows only when it is full, because on Windows the file is as large as the map."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                transaction.put(key, data, append=True)
            return
        except lmdb.MapFullError:
            size = environment.info()["map_size"]
            environment.set_mapsize(size + max(min(size, 1 << 30), 2 * len(data)))  # doubled, up to 1 GiB at a time


def _replace(work: Path, output: Path) -> None:
    """Rename a finished LMDB to its final name, and delete the one it replaces."""
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
