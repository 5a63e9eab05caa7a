"""Lists of the images of a folder, and LMDBs of them, as BasicSR reads them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drct.data.file_lists import list_entry
from drct.data.lmdb_writer import check_output, lmdb_key, write_lmdb
from drct.data.parallel import run_parallel
from drct.errors import DRCTError
from drct.files import AlreadyExistsError, write_text
from drct.images.bgr import read_image
from drct.images.listing import check_folder, list_images

Size = tuple[int, int]  # height and width, in pixels


def find_images(folder: Path, recursive: bool = False) -> list[Path]:
    """List the images of a folder. Raises `DRCTError` if there is no such folder or it has no images."""
    check_folder(folder)
    sources = list_images(folder, recursive)
    if not sources:
        raise DRCTError(f"there are no images in {folder}")
    return sources


def image_size(file: Path) -> Size:
    """Return height and width of an image, which is decoded to find out whether it is broken."""
    height, width = read_image(file).shape[:2]
    return height, width


def measure_images(files: Iterable[Path], processes: int, title: str) -> tuple[dict[Path, Size], dict[Path, str]]:
    """Decode images in several processes. Returns their sizes and, for those that are broken, the reasons."""
    return run_parallel({file: partial(image_size, file) for file in files}, processes, title)


def check_list_path(output: Path) -> None:
    """Raise `DRCTError` if a list of images cannot be written to this path because it is a folder."""
    if output.is_dir():
        raise DRCTError(f"the list is a text file, but {output} is a folder: -o {output / 'meta_info.txt'}")


def measure_folder(folder: Path, processes: int) -> tuple[dict[str, Size], list[str]]:
    """Measure the images of a folder and of its subfolders.

    Returns:
        Sizes by path relative to the folder, with slashes; and one line for each image that cannot be listed.

    Raises:
        DRCTError: if there are no images.
    """
    sizes, failed = measure_images(find_images(folder, recursive=True), processes, "meta-info")
    named = {source.relative_to(folder).as_posix(): size for source, size in sizes.items()}
    for name in [name for name in named if " " in name or list_entry(name) != name]:
        del named[name]
        what = "a name with a blank" if " " in name else f"a name, {name!r},"
        failed[folder / name] = f"{folder / name}: {what} which BasicSR's lists cannot hold: rename it"
    return named, sorted(failed.values())


def write_meta_info(output: Path, sizes: Mapping[str, Size], overwrite: bool) -> None:
    """Write a list of images as BasicSR reads it: one `name (h,w,c)` per line, sorted by name.

    Raises:
        DRCTError: if the file exists with other content and is not to be overwritten, or cannot be written.
    """
    text = "".join(f"{name} ({height},{width},3)\n" for name, (height, width) in sorted(sizes.items()))
    try:
        write_text(output, text, replace=overwrite)
    except AlreadyExistsError:
        if output.read_text(encoding="utf-8") != text:
            raise DRCTError(f"{output} exists and lists other images: choose another name, or --overwrite") from None


@dataclass(frozen=True)
class StoredImages:
    """Numbers of images, and one line for each that was not stored."""

    found: int
    stored: int
    failures: list[str]


def store_in_lmdb(source: Path, output: Path, overwrite: bool, processes: int) -> StoredImages:
    """Store the image files of a folder and of its subfolders, unchanged, in an LMDB of BasicSR's layout, `name.lmdb`.

    Images that cannot be decoded are left out. If none can be stored, no LMDB is made.

    Raises:
        DRCTError: if there are no images, two would get the same key, or the LMDB cannot be written.
    """
    check_output(output, overwrite)
    files = find_images(source, recursive=True)
    names: dict[Path, str] = {}
    unusable: list[str] = []
    by_key: dict[str, Path] = {}
    for file in files:
        name = file.relative_to(source).as_posix()
        try:
            key = lmdb_key(name)
        except ValueError as error:
            unusable.append(f"{file}: {error}")
            continue
        if key in by_key:
            raise DRCTError(f"{by_key[key]} and {file} would both get the key {key}: rename one of them")
        by_key[key], names[file] = file, name
    sizes, broken = measure_images(names, processes, "check")
    if sizes:
        write_lmdb(output, {file: name for file, name in names.items() if file in sizes}, sizes)
    return StoredImages(len(files), len(sizes), sorted([*broken.values(), *unusable]))
