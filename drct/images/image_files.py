"""Reading and writing image files. Arrays are (H, W, 3), BGR, uint8: what OpenCV and BasicSR use."""

import os
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from drct.errors import DRCTError
from drct.files import write_atomically

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}


def list_images(
    folder: str | os.PathLike, recursive: bool = False, suffixes: Collection[str] = IMAGE_SUFFIXES
) -> list[Path]:
    """Image files of a folder, by their suffix, sorted by name. Links are followed; what is hidden is left out.

    Links that lead nowhere are among them, so that whoever reads them tells of it.
    """
    files: list[Path] = []
    seen = set()  # links may lead in a circle
    for root, folders, names in os.walk(str(folder), followlinks=True):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        if (real := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(real)
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(file for file in files if file.suffix.lower() in suffixes and (file.is_file() or file.is_symlink()))


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image as (H, W, 3) BGR uint8; gray is repeated, alpha dropped, EXIF orientation applied.

    Raises:
        DRCTError: if the file is not a whole image.
    """
    try:
        with Image.open(path) as image:
            image.load()  # unlike OpenCV, Pillow does not take a truncated file for a gray area
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them raise
        raise DRCTError(f"cannot read image {path}: {error}") from error
    if pixels is None:
        raise DRCTError(f"cannot read image {path}: OpenCV does not know its format")
    return pixels


def as_float(image: np.ndarray) -> np.ndarray:
    """Values of 0 to 255 as float32 in [0, 1], exactly as BasicSR makes them; a float image is returned as it is."""
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image


def write_png(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image, (H, W, 3) BGR or (H, W) gray, uint8, as PNG; the file appears whole or not at all."""
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise DRCTError(f"cannot encode {path} as PNG")
    write_atomically(path, lambda file: file.write(data.tobytes()))
