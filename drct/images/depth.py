"""Bit depths of pixels: uint8, uint16, and float32 in [0, 1]."""

import numpy as np

from drct.errors import DRCTError


def white_level(dtype: np.dtype) -> int:
    """Return the value that stands for white: 255, 65535, or 1 for floats."""
    return 1 if dtype.kind == "f" else int(np.iinfo(dtype).max)


def convert_depth(pixels: np.ndarray, dtype: type[np.generic] | np.dtype) -> np.ndarray:
    """Convert pixels to another depth; integers are rounded to the nearest and clipped to their range."""
    dtype = np.dtype(dtype)
    if pixels.dtype == dtype:
        return pixels
    values = pixels.astype(np.float32) * np.float32(white_level(dtype) / white_level(pixels.dtype))
    return values if dtype.kind == "f" else np.rint(values).clip(0, white_level(dtype)).astype(dtype)


def to_float32(pixels: np.ndarray) -> np.ndarray:
    """Convert floats of any precision to float32.

    Raises:
        DRCTError: if a value is not in [0, 1].
    """
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # in this form the test refuses NaN too
        found = f"from {pixels.min():g} to {pixels.max():g}"
        raise DRCTError(f"its floats range {found}, not from 0 to 1: divide them by the value of white")
    return pixels.astype(np.float32)
