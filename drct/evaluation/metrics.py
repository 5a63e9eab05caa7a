"""Metrics of single images: BasicSR's, and those of pyiqa where it is installed."""

import math
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY

from drct.errors import DRCTError, did_you_mean
from drct.text import first_line

NO_REFERENCE = {"calculate_niqe"}  # BasicSR's metrics that need no ground truth
NIQE_BLOCK = 96  # side in pixels
NEED_BORDER = ("calculate_psnr", "calculate_ssim", "calculate_niqe")  # and have no default for it
SET_METRICS = {"fid", "sfid", "fid_dinov2", "inception_score"}  # pyiqa's metrics that compare sets of images
OWN_KEYS = {"type", "better", "crop_border"}  # all other keys are passed to pyiqa


def check_type(where: str, kind: str) -> None:
    """Raise `DRCTError`, with the key `where`, if neither BasicSR nor pyiqa has a metric of this type for images."""
    if kind in METRIC_REGISTRY:
        return
    own = sorted(name for name, _ in METRIC_REGISTRY)
    hint = did_you_mean(kind, own) or f"; there are {', '.join(own)}"
    try:
        import pyiqa
    except ImportError as error:
        why = "is not installed" if getattr(error, "name", None) == "pyiqa" else f"cannot be imported ({error})"
        raise DRCTError(
            f"{where} {kind!r} is unknown{hint}. Those of pyiqa, such as lpips, need it, and it {why}: "
            "pip install pyiqa"
        ) from error
    theirs = pyiqa.list_models()
    if kind not in theirs:
        hint = did_you_mean(kind, own + theirs) or hint + ", and those that pyiqa.list_models() lists"
        raise DRCTError(f"{where} {kind!r} is unknown{hint}")
    if kind in SET_METRICS:
        raise DRCTError(f"{where} {kind!r} measures sets of images, not an image: remove it")


class ImageMetrics:
    """The metrics of an option file. Networks of pyiqa are built once, which may download their weights.

    Args:
        options: `val.metrics`. For a metric of pyiqa without `better`, `better` is set.
        device: Device of pyiqa's networks.
    """

    def __init__(self, options: dict[str, dict[str, Any]], device: torch.device) -> None:
        self.options = options
        self.networks: dict[str, Any] = {}
        for name, opt in options.items():
            if opt["type"] not in METRIC_REGISTRY:
                check_type(f"val.metrics.{name}.type", opt["type"])
                self.networks[name] = network = _pyiqa_metric(name, opt, device)
                opt.setdefault("better", "lower" if network.lower_better else "higher")

    def measure(self, image: np.ndarray, truth: np.ndarray | None) -> dict[str, float]:
        """Measure an image (H, W, 3), BGR, uint8, by each metric; without ground truth, by those that need none.

        Raises `ValueError` if a metric is undefined for the images. Other errors of a metric pass through.
        """
        return {
            name: self._value(name, opt, image, truth)
            for name, opt in self.options.items()
            if truth is not None or self._needs_no_truth(name, opt)
        }

    def _needs_no_truth(self, name: str, opt: dict[str, Any]) -> bool:
        if name in self.networks:
            return self.networks[name].metric_mode == "NR"
        return opt["type"] in NO_REFERENCE

    def _value(self, name: str, opt: dict[str, Any], image: np.ndarray, truth: np.ndarray | None) -> float:
        try:
            if name in self.networks:
                value = self._pyiqa_value(name, opt, image, truth)
            elif opt["type"] == "calculate_niqe" and _niqe_blocks(image, opt) < 2:  # it needs their covariance
                value = math.nan
            else:
                value = float(calculate_metric({"img": image, "img2": truth}, opt))
        except (cv2.error, np.linalg.LinAlgError):
            value = math.nan
        if math.isnan(value):
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise ValueError(f"{name} is undefined: the image of {size} is too small, less crop_border, or flat")
        return value

    def _pyiqa_value(self, name: str, opt: dict[str, Any], image: np.ndarray, truth: np.ndarray | None) -> float:
        network, border = self.networks[name], opt.get("crop_border") or 0
        if truth is not None and truth.shape != image.shape:
            raise ValueError(f"{name}: image shapes are different: {image.shape}, {truth.shape}")
        height, width = image.shape[:2]
        if min(height, width) <= 2 * border:
            return math.nan
        pictures = [_tensor(picture, border) for picture in (image, truth) if picture is not None]
        try:
            with torch.no_grad():
                value = float(network(*pictures))
        except Exception as error:  # networks raise anything, as for an image that is too small for them
            raise ValueError(f"{name} of an image of {width}x{height}: {first_line(error)}") from error
        if math.isnan(value):
            raise ValueError(f"{name} of an image of {width}x{height} is not a number")
        return value


def _pyiqa_metric(name: str, opt: dict[str, Any], device: torch.device) -> Any:
    import pyiqa

    arguments = {key: value for key, value in opt.items() if key not in OWN_KEYS}
    try:
        return pyiqa.create_metric(opt["type"], device=device, **arguments)
    except Exception as error:  # networks and downloads raise anything
        raise DRCTError(
            f"val.metrics.{name}: pyiqa cannot make {opt['type']}: {first_line(error)}. The first time, it downloads "
            "weights from the internet"
        ) from error


def _niqe_blocks(image: np.ndarray, opt: dict[str, Any]) -> int:
    height, width = ((side - 2 * (opt.get("crop_border") or 0)) // NIQE_BLOCK for side in image.shape[:2])
    return height * width


def _tensor(image: np.ndarray, border: int) -> torch.Tensor:
    """Convert (H, W, 3), BGR, uint8, without its border, to (1, 3, H, W), RGB in [0, 1]."""
    cropped = image[border : image.shape[0] - border, border : image.shape[1] - border, ::-1]
    return torch.from_numpy(cropped.transpose(2, 0, 1).astype(np.float32) / 255)[None]
