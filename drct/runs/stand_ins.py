"""Stand-ins for images and weights that are not here, to try the training of an option file without them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from drct.files import expanded, is_file, is_folder
from drct.images.bgr import write_png
from drct.runs.first_check import NEED_FOLDERS

SIDE = 480  # pixels of an image, as `drct prepare subimages` cuts them
IMAGES = 8


def with_stand_ins(given: dict[str, Any], folder: Path) -> list[str]:
    """Make options run where their data are missing.

    Training images that are not here become random ones in `folder`; sets of validation images are left out, and
    weights become random.

    Args:
        given: Options of a training run, which are changed; mistakes in them stay.
        folder: Folder for images.

    Returns:
        One line about each change.
    """
    notes = []
    paths = _section(given, "path")
    for key in ("pretrain_network_g", "pretrain_network_d"):
        if isinstance(paths.get(key), str) and not is_file(expanded(paths[key])):
            notes.append(f"path.{key} {paths[key]} is not here: random weights in its place")
            paths[key] = None
    datasets = _section(given, "datasets")
    for name in list(datasets):
        dataset = _section(datasets, name)
        if (missing := _missing(dataset)) is None:
            continue
        if name == "train":
            size = _write_images(given, dataset, folder)
            notes.append(f"datasets.train: {missing} is not here: {IMAGES} random images of {size}x{size} in its place")
        else:
            del datasets[name]
            notes.append(f"datasets.{name}: {missing} is not here: left out")
    if not any(str(name).startswith("val") for name in datasets):
        _section(given, "logger").pop("save_best", None)  # which needs one
    return notes


def _section(options: dict[str, Any], key: Any) -> dict[str, Any]:
    return options[key] if isinstance(options.get(key), dict) else {}


def _missing(dataset: dict[str, Any]) -> str | None:
    """Return the first folder or list of a dataset that is not here."""
    kind = dataset.get("type")
    for key in NEED_FOLDERS.get(kind, ()) if isinstance(kind, str) else ():
        path = dataset.get(key)
        if isinstance(path, str) and not (is_folder(expanded(path)) and any(expanded(path).iterdir())):
            return path
    return None


def _write_images(given: dict[str, Any], dataset: dict[str, Any], folder: Path) -> int:
    """Write random images in place of those of a training set. Return their side."""
    scale = given.get("scale")
    scale = scale if isinstance(scale, int) and 1 <= scale <= 8 else 1
    wanted = [value for key in ("gt_size", "crop_pad_size") if isinstance(value := dataset.get(key), int)]
    side = -(-max(SIDE, *(min(size, 4096) for size in wanted), 0) // scale) * scale
    rng = np.random.default_rng(0)
    for key, size in (("dataroot_gt", side), ("dataroot_lq", side // scale)):
        if key not in dataset:
            continue
        for number in range(IMAGES):
            coarse = rng.integers(0, 256, (size // 8 + 1, size // 8 + 1, 3), dtype=np.uint8)
            image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
            write_png(folder / key / f"{number}.png", image)
        dataset[key] = str(folder / key)
    for key in ("meta_info_file", "meta_info", "exclude", "filename_tmpl"):
        dataset.pop(key, None)
    dataset["io_backend"] = {"type": "disk"}
    return side
