"""Images of datasets: (H, W, 3) arrays, BGR, uint8, as in OpenCV and BasicSR."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from drct.errors import DRCTError
from drct.files import write_bytes
from drct.text import first_line


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image as (H, W, 3) BGR uint8: gray is repeated, alpha dropped, EXIF's orientation applied.

    Raises:
        DRCTError: if the file is not an image or is incomplete.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DRCTError(f"cannot read image {path}: {error.strerror or error}") from error
    return decode_image(data, path)


def decode_image(data: bytes | memoryview | None, name: str | os.PathLike, thorough: bool = True) -> np.ndarray:
    """Decode the bytes of an image file as `read_image` does.

    Args:
        data: The bytes; None stands for an image that an LMDB does not have.
        name: Path of the image, for the error.
        thorough: Whether to decode it by Pillow too, which notices damage that OpenCV may fill with gray. Otherwise
            that is done only where the end of the file looks cut off.

    Raises:
        DRCTError: if the image is missing, damaged, or of a format that OpenCV does not know.
    """
    if not data:
        raise DRCTError(f"cannot read image {name}: {'it is not in the LMDB' if data is None else 'the file is empty'}")
    data = bytes(data)
    try:
        if thorough or not _has_end(data):
            with Image.open(io.BytesIO(data)) as image:
                image.load()
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except UnidentifiedImageError as error:
        raise DRCTError(f"cannot read image {name}: it is not an image, or its beginning is damaged") from error
    except Exception as error:  # decoders raise errors of any type for broken files
        raise DRCTError(f"cannot read image {name}: {first_line(error)}") from error
    if pixels is None:
        raise DRCTError(f"cannot read image {name}: it is damaged, or of a format that OpenCV does not know")
    return pixels


def _has_end(data: bytes) -> bool:
    """Whether the end of a PNG, JPEG or BMP file is there; False for other formats."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data[-32:]
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" in data[-32:]
    return data.startswith(b"BM") and int.from_bytes(data[2:6], "little") <= len(data)


def as_float(image: np.ndarray) -> np.ndarray:
    """Convert uint8 to float32 in [0, 1], bit for bit as BasicSR does; return a float image unchanged."""
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image


def as_uint8(image: np.ndarray) -> np.ndarray:
    """Round a float image, [0, 1] but for some overshooting, to uint8."""
    return (image * 255).round().clip(0, 255).astype(np.uint8)


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
