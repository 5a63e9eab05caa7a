"""Reading and writing picture files."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass
class Picture:
    """A picture."""

    pixels: np.ndarray
    format: str = "PNG"
    icc_profile: bytes | None = None
    exif: bytes | None = None
    note: str = ""


def from_pil(image: Image.Image) -> Picture:
    pixels = np.asarray(image)
    return Picture(pixels[..., None] if pixels.ndim == 2 else pixels)


def to_pil(picture: Picture) -> Image.Image:
    pixels = picture.pixels
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def read_picture(path) -> Picture:
    return from_pil(Image.open(path))


def write_picture(path, picture: Picture, quality: int = 95) -> str:
    to_pil(picture).save(path)
    return ""
