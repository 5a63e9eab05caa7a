"""The pictures of a test run's page: JPEGs, PNGs and error maps, embedded as data URIs."""

import base64
from typing import Any

import cv2
import numpy as np
from basicsr.utils.matlab_functions import imresize

from drct.images.bgr import as_float
from drct.images.crops import most_detailed_area

MAX_SIDE = 1200  # pixels shown of a larger picture: a page of 120 such pictures has about 250 MB
MAP_SIDE = 600  # pixels; error maps are reduced to this, since single pixels do not matter in them
MAX_ERROR = 64  # error in luminance, of 255, from which on the last colour is used
ERROR_COLOURS = cv2.COLORMAP_INFERNO  # its lightness rises evenly, for colour-blind readers and gray prints
JPEG_QUALITY = 90
BICUBIC_MARGIN = 4  # pixels around an area on which its bicubic upscaling depends


def picture_views(
    lq: np.ndarray, img: np.ndarray, img2: np.ndarray | None = None, bicubic: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the variables of `picture.html` for an image: all of it, or the most detailed area of a large one.

    Args:
        lq: Input of the network, (H, W, 3), BGR, uint8, as all pictures here.
        img: Output of the network, (H * scale, W * scale, 3).
        img2: Ground truth. One of another shape than `img` is left out, since its metrics fail, too.
        bicubic: Bicubic upscaling of `lq`; computed where it is missing.
    """
    scale = img.shape[0] // lq.shape[0]
    if img2 is not None and img2.shape != img.shape:
        img2 = bicubic = None
    height, width = (min(side, max(1, MAX_SIDE // scale)) for side in lq.shape[:2])
    whole = (height, width) == lq.shape[:2]
    y, x = (0, 0) if whole else most_detailed_area(lq, height, width)

    def area(picture: np.ndarray) -> np.ndarray:
        return picture[y * scale : (y + height) * scale, x * scale : (x + width) * scale]

    upscaled = area(bicubic) if bicubic is not None else bicubic_of_area(lq, y, x, height, width, scale)
    views = {
        "lr": _data_uri("png", lq[y : y + height, x : x + width]),
        "bicubic": _jpeg(upscaled),
        "result": _jpeg(area(img)),
    }
    maps = []
    if img2 is not None:
        views["truth"] = _jpeg(area(img2))
        maps = [_error_map(label, picture, area(img2)) for label, picture in (("bicubic", upscaled), ("", area(img)))]
    return {
        "views": views,
        "maps": maps,
        "size": (img.shape[1], img.shape[0]),
        "shown": None if whole else (width * scale, height * scale, x * scale, y * scale),
        "width": width * scale,
        "height": height * scale,
    }


def bicubic_of_area(lq: np.ndarray, y: int, x: int, height: int, width: int, scale: int) -> np.ndarray:
    """Upscale an area of an image bicubically, exactly as upscaling the whole image and cropping would."""
    top, left = max(y - BICUBIC_MARGIN, 0), max(x - BICUBIC_MARGIN, 0)
    with_margin = lq[top : y + height + BICUBIC_MARGIN, left : x + width + BICUBIC_MARGIN]
    upscaled = imresize(as_float(with_margin), scale)
    upscaled = upscaled[(y - top) * scale :, (x - left) * scale :][: height * scale, : width * scale]
    return (upscaled.clip(0, 1) * 255).round().astype(np.uint8)


def _error_map(label: str, picture: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Show the error in luminance (BT.601, 0 to 255) in colours. The label is '' for the network's output."""
    gray = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (picture, truth)]
    error = cv2.absdiff(*gray).astype(np.float32)
    mean, factor = float(error.mean()), MAP_SIDE / max(error.shape)
    if factor < 1:
        size = [max(1, round(side * factor)) for side in error.shape[::-1]]
        error = cv2.resize(error, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return {"label": label, "mean": f"{mean:.1f}", "map": _jpeg(_coloured(error))}


def _coloured(error: np.ndarray) -> np.ndarray:
    return cv2.applyColorMap((np.minimum(error, MAX_ERROR) * (255 / MAX_ERROR)).round().astype(np.uint8), ERROR_COLOURS)


def legend_colours() -> list[str]:
    """Return colours of errors from 0 to `MAX_ERROR`, evenly spaced, as CSS writes them."""
    colours = _coloured(np.linspace(0, MAX_ERROR, 17, dtype=np.float32)[None])[0]
    return [f"#{r:02x}{g:02x}{b:02x}" for b, g, r in colours]


def _jpeg(image: np.ndarray) -> str:
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _data_uri("jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *full_colour])


def _data_uri(kind: str, image: np.ndarray, parameters: list[int] | None = None) -> str:
    _, data = cv2.imencode(f".{kind}", image, parameters or [])
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
