"""The options of a test that is described by arguments: weights and folders of images, without an option file."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from drct.errors import DRCTError
from drct.inference.memory import TILE_PAD
from drct.runtime.device import accelerator, fastest_precision
from drct.runtime.weight_files import WEIGHT_SUFFIXES
from drct.text import count, first_line

GENERAL = re.compile(r"(gt|hr)(mod\d+)?|high|original|images?", re.IGNORECASE)  # names below a benchmark's folder


def plain_options(
    weights: str,
    data: Sequence[Path],
    lr: Sequence[Path] = (),
    scale: int | None = None,
    name: str | None = None,
    device: str | None = None,
    precision: str = "fp32",
    tile: int | str | None = "auto",
    self_ensemble: bool = False,
    tile_error: float | None = None,
) -> dict[str, Any]:
    """Return options for `read_options`: PSNR and SSIM on Y without a border of `scale` pixels, beside bicubic.

    Args:
        weights: File or name of weights, from which the network is read.
        data: Folders of high-resolution images.
        lr: Folders of their low-resolution images; by default these are made by MATLAB's bicubic.
        scale: Scale that the network must have; any if None.
        name: Name of the run; that of the weights if None.
        device: 'cpu', 'cuda', 'cuda:1', 'mps'; None takes an accelerator if there is one.
        precision: 'fp32', 'bf16', 'fp16', or 'auto', the fastest on the device.
        tile: Side of tiles in input pixels; 'auto' for tiles only if memory needs them; None for none.
        self_ensemble: Average the results of the 8 rotations and reflections.
        tile_error: Choose the overlap of tiles by this error, see `drct.inference.runner.NetworkRunner`.

    Raises:
        DRCTError: if the device is not there, or the numbers of folders differ.
    """
    if lr and len(lr) != len(data):
        times = [count(len(folders), "time") for folders in (lr, data)]
        raise DRCTError(f"--lr is given {times[0]}, --data {times[1]}: give one for each, in their order")
    num_gpu, kind = _device(device)
    return {
        "name": name or _name_of(weights),
        "model_type": "DRCTModel",
        "scale": scale,
        "num_gpu": num_gpu,
        "manual_seed": 0,
        "precision": fastest_precision(kind) if precision == "auto" else precision,
        "self_ensemble": self_ensemble,
        **_tiles(tile, tile_error),
        "datasets": _datasets(data, lr),
        "path": {"pretrain_network_g": weights},
        "val": {
            "save_img": True,
            "bicubic": True,
            "metrics": {kind: {"type": f"calculate_{kind}", "test_y_channel": True} for kind in ("psnr", "ssim")},
        },
    }


def _tiles(tile: int | str | None, error: float | None) -> dict[str, Any]:
    if error is None:
        return {"tile": {"tile_size": tile, "tile_pad": TILE_PAD} if isinstance(tile, int) else tile}
    return {"tile": {"tile_size": tile} if isinstance(tile, int) else tile, "tile_error": error}


def _device(device: str | None) -> tuple[int, torch.device]:
    """Return `num_gpu` and the device. A certain GPU becomes the current one."""
    there = accelerator()
    try:
        chosen = torch.device(device or there or "cpu")
        if chosen.type not in ("cpu", there):
            raise DRCTError(f"device {device} is not there: there is {f'{there} and ' if there else 'only '}cpu")
        if chosen.type == "cuda" and chosen.index is not None:
            torch.cuda.set_device(chosen)
    except RuntimeError as error:
        raise DRCTError(f"device {device} is not there: {first_line(error)}") from error
    return int(chosen.type != "cpu"), chosen


def _name_of(weights: str) -> str:
    path = Path(weights)
    return path.stem if path.suffix in (*WEIGHT_SUFFIXES, ".onnx") else path.name


def _datasets(data: Sequence[Path], lr: Sequence[Path]) -> dict[str, Any]:
    datasets: dict[str, Any] = {}
    names: list[str] = []
    for number, folder in enumerate(data):
        name = _dataset_name(folder)
        name = next(n for n in (name, *(f"{name}_{k}" for k in range(2, len(data) + 2))) if n not in names)
        names.append(name)
        given = {"dataroot_gt": str(folder)} | ({"dataroot_lq": str(lr[number])} if lr else {})
        kind = "PairedImageDataset" if lr else "ReducedImageDataset"
        datasets[f"test_{number + 1:03d}"] = {"name": name, "type": kind, **given, "io_backend": {"type": "disk"}}
    return datasets


def _dataset_name(folder: Path) -> str:
    """Name a set by its folder: Set5 for Set5, Set5/GTmod12 and Set5/HR."""
    path = Path(os.path.abspath(folder))  # noqa: PTH100 - keeps the name of a symbolic link
    return path.parent.name if GENERAL.fullmatch(path.name) and path.parent.name else path.name or "data"
