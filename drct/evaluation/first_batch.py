"""A picture of images that a network trains on."""

import cv2
import numpy as np
from basicsr.utils import tensor2img
from torch import Tensor

from drct.evaluation.comparison_sheet import PANEL, draw_panel

ROWS = 8  # images shown at most


def draw_batch(lq: Tensor, result: Tensor, gt: Tensor) -> np.ndarray:
    """Draw a row for each of the first images of a batch: low-resolution image, result and ground truth.

    Args:
        lq, result, gt: (B, C, H, W), RGB in about [0, 1].

    Returns:
        (height, width, 3), BGR, uint8.
    """
    rows = []
    for images in list(zip(lq, result, gt, strict=True))[:ROWS]:
        panels = []
        for label, image in zip(("low resolution", "result", "ground truth"), images, strict=True):
            picture = tensor2img(image.float())
            picture = picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
            magnified = cv2.resize(picture, (PANEL, PANEL), interpolation=cv2.INTER_NEAREST)
            panels.append(draw_panel(label, f"{picture.shape[1]}x{picture.shape[0]}", magnified))
        rows.append(np.concatenate(panels, axis=1))
    return np.concatenate(rows)
