"""Choosing which part of an image to show."""

import cv2
import numpy as np


def most_detailed_area(image: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """Find the area of an image with the most fine detail, by the mean magnitude of the Laplacian of its luminance.

    The image is (H, W, 3), BGR, uint8, no smaller than the area. Returns row and column of the area's top left pixel.
    """
    detail = np.abs(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.CV_32F))
    mean = cv2.boxFilter(detail, -1, (width, height), anchor=(0, 0), borderType=cv2.BORDER_REFLECT)
    inside = mean[: image.shape[0] - height + 1, : image.shape[1] - width + 1]
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    return int(y), int(x)
