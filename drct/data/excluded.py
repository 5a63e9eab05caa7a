"""Images that a dataset leaves out: those of its `exclude` list."""

import logging
from pathlib import Path
from typing import Any

from drct.data.file_lists import read_list
from drct.errors import DRCTError
from drct.files import expanded
from drct.text import count

logger = logging.getLogger("basicsr")


def leave_out(dataset: Any, options: dict[str, Any]) -> None:
    """Remove the images that the list `exclude` names from the `paths` of a dataset.

    Names are relative to `dataroot_gt`, or to `dataroot_lq` where there is no ground truth; those of an LMDB have no
    suffix. A note tells how many images were left out, a warning which names are those of no image.

    Raises:
        DRCTError: if the list cannot be read, none of its names or all images are excluded by it, or the dataset has no
            `paths`.
    """
    if not options.get("exclude"):
        return
    file = expanded(options["exclude"])
    if not getattr(dataset, "paths", None):
        raise DRCTError(f"{type(dataset).__name__} has no list of images from which to exclude some: remove `exclude`")
    root = Path(options.get("dataroot_gt") or options["dataroot_lq"])
    in_lmdb = options["io_backend"]["type"] == "lmdb"
    keys = [_key(path, root, in_lmdb) for path in dataset.paths]
    named = {_key(name, root, in_lmdb) for name, _ in read_list(file, may_be_empty=True)}  # there may be no faults
    if unknown := sorted(named.difference(keys)):
        words = f"{count(len(unknown), 'name')} of {file} not among the images of {root}, the first: {unknown[0]}"
        if len(unknown) == len(named):
            raise DRCTError(f"exclude: {words}. Names are relative to that folder.")
        logger.warning(f"exclude: {words}")
    kept = [path for path, key in zip(dataset.paths, keys, strict=True) if key not in named]
    if not kept:
        raise DRCTError(f"exclude: {file} names all {len(keys)} images of {root}: none is left")
    logger.info(f"{root}: {len(keys) - len(kept)} of {count(len(keys), 'image')} left out, as {file} says")
    dataset.paths = kept


def _key(entry: Any, root: Path, in_lmdb: bool) -> str:
    """Return the name of an image relative to the folder, with slashes; without suffix in an LMDB."""
    text = entry.get("gt_path") or entry["lq_path"] if isinstance(entry, dict) else str(entry)
    path = Path(text)
    name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
    return Path(name).with_suffix("").as_posix() if in_lmdb else name
