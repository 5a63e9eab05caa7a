"""Images of datasets: (H, W, 3) arrays, BGR, uint8, as in OpenCV and BasicSR."""

import os

import cv2
import numpy as np
from PIL import Image

from drct.errors import DRCTError
from drct.files import write_bytes


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image as (H, W, 3) BGR uint8: gray is repeated, alpha dropped, EXIF's orientation applied.

    Raises:
        DRCTError: if the file is not an image or is incomplete.
    """
    try:
        with Image.open(path) as image:
            image.load()  # Pillow refuses a truncated file, in which OpenCV would fill the missing part with gray
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except Exception as error:  # Pillow's decoders raise errors of any type for broken files
        raise DRCTError(f"cannot read image {path}: {error}") from error
    if pixels is None:
        raise DRCTError(f"cannot read image {path}: OpenCV does not know its format")
    return pixels


def as_float(image: np.ndarray) -> np.ndarray:
    """Convert uint8 to float32 in [0, 1], bit for bit as BasicSR does; return a float image unchanged."""
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image


def write_png(path: str | os.PathLike, image: np.ndarray, replace: bool = True) -> None:
    """Write (H, W, 3) BGR or (H, W) gray uint8 as PNG; the file appears whole or not at all.

    Raises:
        AlreadyExistsError: if the file exists, unless it is to be replaced.
        DRCTError: if it cannot be encoded or written.
    """
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise DRCTError(f"cannot encode {path} as PNG")
    write_bytes(path, data.tobytes(), replace)
