"""Decoding by OpenCV, and silence for what the C libraries beneath OpenCV and Pillow print."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from drct.errors import DRCTError

_RGB_ORDER = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}  # OpenCV's BGR and BGRA to RGB and RGBA, by number of channels
_redirecting = threading.Lock()


def decode_with_opencv(data: bytes) -> np.ndarray:
    """Decode an image file as (H, W, C), gray, RGB or RGBA, of its depth. Raises `DRCTError` if it is damaged."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DRCTError("it is damaged (OpenCV cannot decode it)")
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels[..., _RGB_ORDER[pixels.shape[2]]]


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Discard what libtiff and OpenCV print on standard error about odd files; their errors are raised as well."""
    with _redirecting:
        try:
            original = os.dup(2)
        except OSError:  # a program without standard error
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
