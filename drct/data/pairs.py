"""Pairs of ground truth and low-resolution files, from folders, lists or LMDBs."""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from drct.data.file_lists import read_list, read_lmdb_list
from drct.errors import DRCTError
from drct.images.listing import list_images
from drct.text import count

logger = logging.getLogger("basicsr")
Pair = dict[str, str]  # lq_path and gt_path, paths or keys of an LMDB; the names that BasicSR's datasets use


def find_pairs(opt: dict[str, Any]) -> list[Pair]:
    """Pair the images of `dataroot_gt` and `dataroot_lq` by their names, as `meta_info_file` and `filename_tmpl` say.

    Raises:
        DRCTError: if an image has no partner or there are no images; the message names the first of them.
    """
    gt, lq, template = Path(opt["dataroot_gt"]), Path(opt["dataroot_lq"]), opt.get("filename_tmpl") or "{}"
    if opt["io_backend"]["type"] == "lmdb":
        return _from_lmdbs(gt, lq)
    if opt.get("meta_info_file"):
        return _from_list(gt, lq, Path(opt["meta_info_file"]), template)
    return _from_folders(gt, lq, template)


def dataset_images(folder: Path, recursive: bool = False) -> list[Path]:
    """List the images of a dataset's folder, and note files that are no images by their names.

    Raises:
        DRCTError: if there are no images.
    """
    images = list_images(folder, recursive)
    others = [path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    others = sorted(set(others) - {path.name for path in images})
    if not images:
        found = f", only files such as {others[0]}" if others else ""
        below = "; images in folders below it are not used" if not recursive and list_images(folder, True) else ""
        raise DRCTError(f"there are no images in {folder}{found}{below}")
    if others:
        logger.info(f"{folder}: {count(len(others), 'file')} not images by their names, such as {others[0]}: skipped")
    return images


def _from_folders(gt: Path, lq: Path, template: str) -> list[Pair]:
    truths, inputs = dataset_images(gt), dataset_images(lq)
    pairs, alone, extra = partners(truths, inputs, template)
    if alone:
        wanted = f"{template.format(alone[0].stem)}{alone[0].suffix}"
        words = (
            f"{count(len(alone), 'image')} of dataroot_gt without a partner in dataroot_lq {lq}, the first: {wanted}"
        )
        found = common_template(truths, {path.stem for path in inputs})
        raise DRCTError(words + (f". With filename_tmpl: '{found}' all have one" if found else ""))
    if extra:
        more = count(len(extra), "image")
        raise DRCTError(f"{more} of dataroot_lq without a partner in dataroot_gt {gt}, the first: {extra[0].name}")
    return [{"lq_path": str(lq), "gt_path": str(gt)} for gt, lq in pairs.items()]


def partners(
    truths: Sequence[Path], inputs: Sequence[Path], template: str
) -> tuple[dict[Path, Path], list[Path], list[Path]]:
    """Pair ground truths with low-resolution images of their names, or of the same stem where only one has it.

    Returns:
        The partner of each ground truth, ground truths without one, and low-resolution images without one, sorted.
    """
    truths_of, inputs_of = Counter(path.stem for path in truths), Counter(path.stem for path in inputs)
    by_name, by_stem = {path.name: path for path in inputs}, {path.stem: path for path in inputs}
    pairs, alone = {}, []
    for truth in truths:
        stem = template.format(truth.stem)
        partner = by_name.get(f"{stem}{truth.suffix}")
        if partner is None and truths_of[truth.stem] == inputs_of[stem] == 1:
            partner = by_stem[stem]  # such as a JPEG of a PNG, or .PNG beside .png
        if partner is None:
            alone.append(truth)
        else:
            pairs[truth] = partner
    return pairs, alone, sorted(set(inputs).difference(pairs.values()))


def common_template(truths: Sequence[Path], inputs: Collection[str]) -> str | None:
    """Return the `filename_tmpl` with which all ground truths have a partner among these stems, if there is one."""
    first = truths[0].stem
    for name in inputs:
        template = name.replace("{", "{{").replace("}", "}}").replace(first, "{}", 1)
        if first in name and all(template.format(path.stem) in inputs for path in truths):
            return template
    return None


def _from_list(gt: Path, lq: Path, file: Path, template: str) -> list[Pair]:
    """Pair listed ground truths with inputs of their names, in the same subfolder or, as in BasicSR, in none."""
    pairs, folders = [], {}
    for listed, _ in read_list(file):
        truth = gt / listed  # an absolute path stays what it is
        parent = truth.relative_to(gt).parent if truth.is_relative_to(gt) else Path()
        if parent not in folders:
            folders[parent] = lq / parent if (lq / parent).is_dir() else lq
        name = f"{template.format(truth.stem)}{truth.suffix}"
        pairs.append({"lq_path": str(folders[parent] / name), "gt_path": str(truth)})
    return pairs


def _from_lmdbs(gt: Path, lq: Path) -> list[Pair]:
    truths, inputs = read_lmdb_list(gt), read_lmdb_list(lq)
    for folder, alone in ((gt, truths.keys() - inputs.keys()), (lq, inputs.keys() - truths.keys())):
        if alone:
            other = lq if folder == gt else gt
            raise DRCTError(f"{count(len(alone), 'image')} of {folder} not in {other}, the first: {min(alone)}")
    return [{"lq_path": key, "gt_path": key} for key in sorted(truths)]
