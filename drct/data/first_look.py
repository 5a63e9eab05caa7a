"""A look at a few images of a dataset before a run, which finds sets that cannot work and tells how they are read."""

import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from drct.data.file_lists import read_lmdb_list
from drct.data.image_files import ImageFiles
from drct.data.pair_sizes import Size, mismatch, scales_fit
from drct.errors import DRCTError
from drct.text import count

logger = logging.getLogger("basicsr")
LOOKS = 20  # images, evenly spread over the set


class _Header(NamedTuple):
    size: Size
    alpha: bool
    deep: bool


class _Look(NamedTuple):
    pair: dict[str, str]  # paths by `gt_path` and `lq_path`, or one of them
    headers: dict[str, _Header]  # by the same keys


def check_images(dataset: ImageFiles) -> None:
    """Look at a few images of a dataset, and note alpha channels and 16-bit images, which are not used as such.

    Single images that cannot be used are no matter of this function; they are reported when they are read.

    Raises:
        DRCTError: if none of the files exists, no pair fits the scale, or no image is as large as a training patch.
    """
    pairs = [path if isinstance(path, dict) else {"gt_path": path} for path in dataset.paths]
    step = max(1, -(-len(pairs) // LOOKS))
    pairs = pairs[::step]
    looks = _looks_into_lmdbs(dataset, pairs) if _is_lmdb(dataset) else _looks_at_files(pairs)
    _check_sizes(dataset.opt, looks)
    _note_kinds(looks)


def _is_lmdb(dataset: ImageFiles) -> bool:
    return dataset.io_backend_opt.get("db_paths") is not None


def _looks_at_files(pairs: list[dict[str, str]]) -> list[_Look]:
    for key in pairs[0]:
        if not any(Path(pair[key]).exists() for pair in pairs):
            raise DRCTError(
                f"there is no file {pairs[0][key]}, nor any other of {count(len(pairs), 'image')} looked for: names in "
                "meta_info_file are relative to dataroot_gt"
            )
    found = [
        _Look(pair, {key: header for key, path in pair.items() if (header := _read_header(path))}) for pair in pairs
    ]
    return [look for look in found if len(look.headers) == len(look.pair)]


def _looks_into_lmdbs(dataset: ImageFiles, pairs: list[dict[str, str]]) -> list[_Look]:
    """Take the sizes from the lists, because an LMDB that is open must not be shared with the loader's workers."""
    roots = {key: dataset.opt[f"dataroot_{key[:2]}"] for key in pairs[0] if dataset.opt.get(f"dataroot_{key[:2]}")}
    sizes = {key: read_lmdb_list(Path(root)) for key, root in roots.items()}
    looks = []
    for pair in pairs:
        known = {key: size for key in sizes if (size := sizes[key].get(pair[key]))}
        if len(known) == len(pair):
            looks.append(_Look(pair, {key: _Header(size, False, False) for key, size in known.items()}))
    return looks


def _read_header(path: str) -> _Header | None:
    """Read what the beginning of an image file tells; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.format != "PNG" and image.getexif().get(0x0112, 1) >= 5:  # EXIF's orientation: lies on its side
                width, height = height, width
            alpha = "A" in image.getbands() or "transparency" in image.info
            return _Header((height, width), alpha, bool(re.search(r";16|;32", f"{image.mode} {image.tile}")))
    except Exception:  # Pillow's decoders raise errors of any type for broken files
        return None


def _check_sizes(opt: dict[str, Any], looks: list[_Look]) -> None:
    """Raise `DRCTError` if no pair fits the scale, or no image is as large as a training patch."""
    pairs = [
        (look.pair, look.headers["gt_path"].size, look.headers["lq_path"].size) for look in looks if len(look.pair) > 1
    ]
    if pairs and not any(scales_fit(gt, lq, opt["scale"]) for _, gt, lq in pairs):
        raise DRCTError(mismatch(*pairs[0], opt["scale"]))
    if pairs and opt["phase"] == "train" and all(min(gt) < opt["gt_size"] for _, gt, _ in pairs):
        pair, gt, _ = max(pairs, key=lambda item: min(item[1]))
        largest = min(gt) // opt["scale"] * opt["scale"]
        raise DRCTError(
            f"{count(len(pairs), 'image')} looked at, all smaller than gt_size {opt['gt_size']}; the largest, "
            f"{pair['gt_path']}, is {gt[1]}x{gt[0]}: set gt_size to {largest} at most, or use larger images"
        )


def _note_kinds(looks: list[_Look]) -> None:
    alpha = [look.pair[key] for look in looks for key, header in look.headers.items() if header.alpha]
    deep = [look.pair[key] for look in looks for key, header in look.headers.items() if header.deep]
    if alpha:
        logger.warning(f"{alpha[0]} has transparency, which is ignored: the colours beneath it are used")
    if deep:
        logger.warning(f"{deep[0]} has more than 8 bits per channel, of which the upper 8 are used, as in BasicSR")
