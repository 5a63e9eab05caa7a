"""The pictures of a test run's page, which lie in files beside it: JPEGs, PNGs, error maps and thumbnails."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from basicsr.utils.matlab_functions import imresize

from drct.errors import DRCTError
from drct.evaluation.pages.rows import relative_url
from drct.files import make_folder
from drct.images.bgr import as_float
from drct.images.crops import most_detailed_area

MAX_SIDE = 4096  # pixels shown of a larger picture, which browsers may not show
MAP_SIDE = 600  # pixels; error maps are reduced to this, since single pixels do not matter in them
THUMBNAIL_SIDE = 128  # pixels
MAX_ERROR = 64  # error in luminance, of 255, from which on the last colour is used
ERROR_COLOURS = cv2.COLORMAP_INFERNO  # its lightness rises evenly, for colour-blind readers and gray prints
JPEG_QUALITY = 95
BICUBIC_MARGIN = 4  # pixels around an area on which its bicubic upscaling depends


def write_pictures(
    folder: Path,
    page: Path,
    saved: Path | None,
    lq: np.ndarray,
    img: np.ndarray,
    img2: np.ndarray | None = None,
    bicubic: np.ndarray | None = None,
) -> dict[str, Any]:
    """Write the pictures of an image and describe them as `viewer.js` reads it.

    Args:
        folder: Folder to write to, below that of the page.
        page: Path of the page.
        saved: File of the output of the network, if there is one. It is shown where the whole image is.
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

    def written(name: str, data: bytes) -> str:
        try:
            (folder / name).write_bytes(data)  # at once: without the page, which is written last, it is of no use
        except OSError as error:
            raise DRCTError(f"cannot write {folder / name}: {error.strerror or error}. Free space for it.") from error
        return relative_url(folder / name, page)

    make_folder(folder)

    upscaled = area(bicubic) if bicubic is not None else bicubic_of_area(lq, y, x, height, width, scale)
    views = {
        "lr": written("lr.png", _encoded("png", lq[y : y + height, x : x + width])),
        "bicubic": written("bicubic.jpg", _jpeg(upscaled)),
        "result": relative_url(saved, page) if whole and saved else written("result.jpg", _jpeg(area(img))),
    }
    maps = []
    if img2 is not None:
        views["truth"] = written("truth.jpg", _jpeg(area(img2)))
        for label, picture in (("bicubic", upscaled), ("", area(img))):
            error, mean = _error_map(picture, area(img2))
            file = f"error_{label or 'result'}.jpg"
            maps.append({"label": label, "mean": f"{mean:.1f}", "map": written(file, _jpeg(error))})
    return {
        "views": views,
        "maps": maps,
        "thumbnail": written("thumbnail.jpg", thumbnail(area(img))),
        "size": (img.shape[1], img.shape[0]),
        "area": None if whole else (x * scale, y * scale),
        "width": width * scale,
        "height": height * scale,
    }


def thumbnail(image: np.ndarray) -> bytes:
    """Reduce an image to at most `THUMBNAIL_SIDE` pixels and encode it as JPEG."""
    return _jpeg(_reduced(image, THUMBNAIL_SIDE))


def bicubic_of_area(lq: np.ndarray, y: int, x: int, height: int, width: int, scale: int) -> np.ndarray:
    """Upscale an area of an image bicubically, exactly as upscaling the whole image and cropping would."""
    top, left = max(y - BICUBIC_MARGIN, 0), max(x - BICUBIC_MARGIN, 0)
    with_margin = lq[top : y + height + BICUBIC_MARGIN, left : x + width + BICUBIC_MARGIN]
    upscaled = imresize(as_float(with_margin), scale)
    upscaled = upscaled[(y - top) * scale :, (x - left) * scale :][: height * scale, : width * scale]
    return (upscaled.clip(0, 1) * 255).round().astype(np.uint8)


def _error_map(picture: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, float]:
    """Show the error in luminance (BT.601, 0 to 255) in colours. Return the picture and the mean error."""
    gray = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (picture, truth)]
    error = cv2.absdiff(*gray).astype(np.float32)
    return _coloured(_reduced(error, MAP_SIDE)), float(error.mean())


def _reduced(picture: np.ndarray, side: int) -> np.ndarray:
    """Reduce a picture whose longer side has more than some pixels."""
    factor = side / max(picture.shape[:2])
    if factor >= 1:
        return picture
    height, width = (max(1, round(length * factor)) for length in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _coloured(error: np.ndarray) -> np.ndarray:
    return cv2.applyColorMap((np.minimum(error, MAX_ERROR) * (255 / MAX_ERROR)).round().astype(np.uint8), ERROR_COLOURS)


def legend_colours() -> list[str]:
    """Return colours of errors from 0 to `MAX_ERROR`, evenly spaced, as CSS writes them."""
    colours = _coloured(np.linspace(0, MAX_ERROR, 17, dtype=np.float32)[None])[0]
    return [f"#{r:02x}{g:02x}{b:02x}" for b, g, r in colours]


def _jpeg(image: np.ndarray) -> bytes:
    full_colour = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encoded("jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, *full_colour])


def _encoded(kind: str, image: np.ndarray, parameters: list[int] | None = None) -> bytes:
    _, data = cv2.imencode(f".{kind}", image, parameters or [])
    return data.tobytes()
