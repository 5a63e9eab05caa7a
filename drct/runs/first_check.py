"""A first check of an option file for paths that do not exist, before PyTorch is imported, which takes seconds."""

from collections.abc import Iterable, Iterator
from typing import Any

from drct.errors import DRCTError
from drct.files import expanded
from drct.runtime.weight_files import check_weights
from drct.runtime.yaml_file import load_yaml

PREPARE_HINT = "Put the images there or prepare them with `python drct/prepare.py` (see datasets/README.md)."
WEIGHTS_HINTS = {
    "pretrain_network_g": "Put the weight file there (see experiments/pretrained_models/README.md).",
    "resume_state": "Check the path, or use --auto_resume.",
}
NEED_FOLDERS = {
    "PairedImageDataset": ["dataroot_gt", "dataroot_lq"],
    "SingleImageDataset": ["dataroot_lq"],
    "ReducedImageDataset": ["dataroot_gt"],
    "ImageNetPairedDataset": ["dataroot_gt"],
    "RealESRGANDataset": ["dataroot_gt"],
    "RealESRGANPairedDataset": ["dataroot_gt", "dataroot_lq"],
}


def check_paths(file: str, changes: Iterable[str] = ()) -> None:
    """Raise `DRCTError` if an option file cannot be read, or a folder or file that it names does not exist.

    All other mistakes, and paths that `--force_yml` changes, are left to `drct.runs.checks.check_options`.
    """
    opt = load_yaml(file)
    changed = " ".join(changes)
    for key, problem in _missing(opt):
        if key.split(".")[-1] not in changed:
            raise DRCTError(f"{file}: {key}: {problem}")


def _missing(opt: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield key and problem of each path that does not exist, of a file whose sections may be anything."""
    for phase, dataset in _section(opt, "datasets").items():
        kind = _section({"": dataset}, "").get("type")
        for key in NEED_FOLDERS.get(kind, ()) if isinstance(kind, str) else ():
            if _is_path(dataset.get(key)) and not expanded(dataset[key]).is_dir():
                yield f"datasets.{phase}.{key}", f"no such folder: {expanded(dataset[key])}. {PREPARE_HINT}"
    paths = _section(opt, "path")
    for key, hint in WEIGHTS_HINTS.items():
        if not _is_path(paths.get(key)) or expanded(paths[key]).is_file():
            continue
        if key != "pretrain_network_g" or opt.get("network_g") is not None or "train" in opt:
            yield f"path.{key}", f"no such file: {paths[key]}. {hint}"
            continue
        try:  # a test reads the network from weights, which may be a name or a folder
            check_weights(paths[key])
        except DRCTError as error:
            yield f"path.{key}", str(error)


def _section(opt: dict[str, Any], key: str) -> dict[str, Any]:
    return opt[key] if isinstance(opt.get(key), dict) else {}


def _is_path(value: object) -> bool:
    """Whether a value is a path that the operating system accepts and a line can show."""
    return isinstance(value, str) and 0 < len(value) < 200 and value.isprintable()
