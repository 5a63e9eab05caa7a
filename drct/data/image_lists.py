"""Lists of the images of a folder, and LMDBs of them, as BasicSR reads them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drct.data.lmdb_writer import check_output, lmdb_key, write_lmdb
from drct.data.parallel import run_parallel
from drct.errors import DRCTError
from drct.files import write_text
from drct.images.bgr import read_image
from drct.images.listing import list_images

Size = tuple[int, int]  # height and width, in pixels


def find_images(folder: Path, recursive: bool = False) -> list[Path]:
    """List the images of a folder. Raises `DRCTError` if there is no such folder or it has no images."""
    if not folder.is_dir():
        raise DRCTError(f"no such folder: {folder}")
    sources = list_images(folder, recursive)
    if not sources:
        raise DRCTError(f"there are no images in {folder}")
    return sources


def image_size(file: Path) -> Size:
    """Return height and width of an image, all of which is decoded so that a broken file is found."""
    height, width = read_image(file).shape[:2]
    return height, width


def measure_images(files: Iterable[Path], processes: int, title: str) -> tuple[dict[Path, Size], dict[Path, str]]:
    """Decode images in several processes. Returns their sizes and, for those that are broken, the reasons."""
    return run_parallel({file: partial(image_size, file) for file in files}, processes, title)


# ---------------------------------------------------------------------------------------------------------- meta info


def check_list_path(output: Path) -> None:
    """Raise `DRCTError` if a list of images cannot be written to this path because it is a folder."""
    if output.is_dir():
        raise DRCTError(f"the list is a text file, but {output} is a folder: -o {output / 'meta_info.txt'}")


def measure_folder(folder: Path, processes: int) -> tuple[dict[str, Size], list[str]]:
    """Measure the images of a folder and of the folders below it.

    Args:
        folder: Folder of images.
        processes: Number of processes that decode them.

    Returns:
        Sizes by path relative to the folder, with slashes; and one line for each image that cannot be listed.

    Raises:
        DRCTError: if there are no images.
    """
    sizes, failed = measure_images(find_images(folder, recursive=True), processes, "meta-info")
    named = {source.relative_to(folder).as_posix(): size for source, size in sizes.items()}
    for name in [name for name in named if " " in name]:
        del named[name]
        failed[folder / name] = f"{folder / name}: a name with a blank, which BasicSR's lists cannot hold: rename it"
    return named, sorted(failed.values())


def write_meta_info(output: Path, sizes: Mapping[str, Size], overwrite: bool) -> None:
    """Write a list of images as BasicSR reads it: one `name (h,w,c)` per line, sorted by name.

    Raises:
        DRCTError: if the file exists with other content and is not to be overwritten, or cannot be written.
    """
    text = "".join(f"{name} ({height},{width},3)\n" for name, (height, width) in sorted(sizes.items()))
    if output.exists() and not overwrite and output.read_text(encoding="utf-8") != text:
        raise DRCTError(f"{output} exists and lists other images: choose another name, or --overwrite")
    write_text(output, text)


# --------------------------------------------------------------------------------------------------------------- LMDB


@dataclass(frozen=True)
class StoredImages:
    """Numbers of images that were found and that were stored, and one line for each of the others."""

    found: int
    stored: int
    failures: list[str]


def store_in_lmdb(source: Path, output: Path, overwrite: bool, processes: int) -> StoredImages:
    """Store the files of a folder and of the folders below it in an LMDB of BasicSR's layout, as they are.

    Args:
        source: Folder of images.
        output: LMDB to make, `name.lmdb`.
        overwrite: Replace an LMDB of that name.
        processes: Number of processes that check whether the images can be decoded.

    Returns:
        The numbers of images. If none can be stored, no LMDB is made.

    Raises:
        DRCTError: if there are no images, two would get the same key, or the LMDB cannot be written.
    """
    check_output(output, overwrite)
    names: dict[Path, str] = {}
    unusable: dict[Path, str] = {}
    by_key: dict[str, Path] = {}
    for file in find_images(source, recursive=True):
        name = file.relative_to(source).as_posix()
        try:
            key = lmdb_key(name)
        except ValueError as error:
            unusable[file] = f"{file}: {error}"
            continue
        if key in by_key:
            raise DRCTError(f"{by_key[key]} and {file} would both get the key {key}: rename one of them")
        by_key[key], names[file] = file, name
    sizes, broken = measure_images(names, processes, "check")
    stored = {file: name for file, name in names.items() if file in sizes}
    if stored:
        write_lmdb(output, stored, sizes)
    return StoredImages(len(names) + len(unusable), len(stored), sorted((broken | unusable).values()))
