"""How a low-resolution image differs from MATLAB's bicubic reduction of its ground truth."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from PIL import Image

from drct.data.bicubic import reduce_region
from drct.images.crops import most_detailed_area

AREA = 160  # pixels; side of the compared area of the low-resolution image, which is its most detailed
BORDER = 4  # low-resolution pixels, which differ where whole images were reduced and then cut into patches
STEPS = 8  # of the estimate of a shift, which gains two digits in each
FARTHEST = 8.0  # low-resolution pixels; a larger shift is no longer one

_RESAMPLING = Image.Resampling
_CV_KERNELS = {
    "OpenCV's INTER_CUBIC": cv2.INTER_CUBIC,
    "OpenCV's INTER_LINEAR": cv2.INTER_LINEAR,
    "OpenCV's INTER_AREA": cv2.INTER_AREA,
    "OpenCV's INTER_LANCZOS4": cv2.INTER_LANCZOS4,
    "the nearest pixel (OpenCV's INTER_NEAREST)": cv2.INTER_NEAREST,
}
_PILLOW_KERNELS = {
    "Pillow's BILINEAR": _RESAMPLING.BILINEAR,
    "Pillow's LANCZOS": _RESAMPLING.LANCZOS,
    "Pillow's HAMMING": _RESAMPLING.HAMMING,
}


@dataclass(frozen=True)
class PairMeasures:
    """Differences between a low-resolution image and the reduction of its ground truth."""

    psnr: float  # dB, of all channels
    moved_psnr: float  # dB, once the shift is undone
    aligned_psnr: float  # dB, once shift and colour are undone
    correlation: float  # of the brightness, once the shift is undone
    shift: tuple[float, float]  # right and down, in low-resolution pixels
    colour: float  # mean difference of colours of areas, in levels of 255
    exchanged: bool  # whether red and blue are
    kernel: str  # the known one that it was made by, "" if none fits


def measure_pair(gt: np.ndarray, lq: np.ndarray, scale: int) -> PairMeasures:
    """Compare a pair, (H, W, 3) and (H // scale, W // scale, 3), BGR, uint8, in the most detailed area."""
    height, width = lq.shape[:2]
    margin = BORDER if min(height, width) > 4 * BORDER else 0
    inner = lq[margin : height - margin, margin : width - margin]
    size = [min(AREA, side) for side in inner.shape[:2]]
    y, x = most_detailed_area(inner, *size)
    box = (y + margin, x + margin, *size)
    gt = gt[: height * scale, : width * scale]
    given = _crop(lq, *box).astype(np.float32)
    expected = _reduced(gt, scale, box)
    psnr = _psnr(given, expected)
    if psnr > 58:  # about what rounding to 8 bits allows: there is nothing to find
        return PairMeasures(psnr, psnr, psnr, 1.0, (0.0, 0.0), 0.0, False, "")
    return _compared(gt, scale, box, given, expected)


def _compared(
    gt: np.ndarray, scale: int, box: tuple[int, ...], given: np.ndarray, expected: np.ndarray
) -> PairMeasures:
    exchanged = _psnr(given[..., ::-1], expected) > _psnr(given, expected) + 3
    shown = np.ascontiguousarray(given[..., ::-1]) if exchanged else given
    shift = _shift(_gray(expected), _gray(shown))
    moved = expected
    if max(map(abs, shift)) > 0.01:
        matrix = np.array([[1, 0, shift[0] * scale], [0, 1, shift[1] * scale]], np.float32)
        size = gt.shape[1::-1]
        whole = cv2.warpAffine(gt, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        moved = _reduced(whole, scale, box)
    recoloured = _recoloured(moved, shown)
    colour = 255.0 if exchanged else _areas_differ(moved, given)
    correlation = float(np.corrcoef(_gray(moved).ravel(), _gray(shown).ravel())[0, 1]) if _gray(shown).std() else 0.0
    return PairMeasures(
        psnr=_psnr(given, expected),
        moved_psnr=_psnr(given, moved),
        aligned_psnr=_psnr(shown, recoloured),
        correlation=correlation,
        shift=shift,
        colour=colour,
        exchanged=exchanged,
        kernel=_kernel(gt, scale, box, shown),
    )


def _reduced(gt: np.ndarray, scale: int, box: tuple[int, ...]) -> np.ndarray:
    """Reduce the ground truth to an area of the low-resolution image, float32 in [0, 255], not rounded."""
    return (reduce_region(gt, scale, *box) * 255).clip(0, 255)


def _crop(image: np.ndarray, y: int, x: int, height: int, width: int) -> np.ndarray:
    return image[y : y + height, x : x + width]


def _psnr(image: np.ndarray, other: np.ndarray) -> float:
    error = float(np.mean((image - other) ** 2))
    return 10 * np.log10(255**2 / max(error, 1e-6))


def _gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(image, np.float32), cv2.COLOR_BGR2GRAY)


def _recoloured(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mix the channels of an image, with a constant, so that it comes nearest to another."""
    pixels = np.concatenate([image.reshape(-1, 3), np.ones((image.size // 3, 1), np.float32)], 1)
    mixing, *_ = np.linalg.lstsq(pixels, target.reshape(-1, 3), rcond=None)
    return (pixels @ mixing).reshape(image.shape)


def _areas_differ(image: np.ndarray, other: np.ndarray) -> float:
    """Return the mean difference of colours of areas, in which kernels, noise and small shifts average out."""
    means = [cv2.resize(picture, (6, 6), interpolation=cv2.INTER_AREA) for picture in (image, other)]
    return float(np.abs(means[0] - means[1]).mean())


def _shift(image: np.ndarray, moved: np.ndarray) -> tuple[float, float]:
    """Estimate by how much an image has moved, right and down, to fractions of a pixel.

    Phase correlation gives the first estimate, Gauss and Newton's method (Lucas and Kanade) the digits.
    """
    window = cv2.createHanningWindow(image.shape[::-1], cv2.CV_32F)
    image, moved = (_standardized(picture) for picture in (image, moved))
    (x, y), _ = cv2.phaseCorrelate(image, moved, window)
    best, least = (0.0, 0.0), np.inf
    for start in ((0.0, 0.0), (x, y)):
        found, error = _refined(image, moved, window, *start)
        if error < least:
            best, least = found, error
    return best


def _refined(
    image: np.ndarray, moved: np.ndarray, window: np.ndarray, x: float, y: float
) -> tuple[tuple[float, float], float]:
    """Refine an estimate of a shift. Returns it, and the mean squared error that is left."""
    error = np.inf
    for _ in range(STEPS):
        if not max(abs(x), abs(y)) <= FARTHEST:
            return (0.0, 0.0), np.inf
        placed = cv2.warpAffine(
            image,
            np.array([[1, 0, x], [0, 1, y]], np.float32),
            image.shape[::-1],
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        along = [cv2.Sobel(placed, cv2.CV_32F, *order, ksize=3, scale=1 / 8) * window for order in ((1, 0), (0, 1))]
        rest = (placed - moved) * window
        error = float((rest**2).mean())
        normal = np.array([[float((a * b).sum()) for b in along] for a in along])
        if np.linalg.cond(normal) > 1e4:
            return (0.0, 0.0), error
        dx, dy = np.linalg.solve(normal, [float((a * rest).sum()) for a in along])
        x, y = x + float(dx), y + float(dy)
    return (x, y), error


def _standardized(image: np.ndarray) -> np.ndarray:
    return (image - image.mean()) / max(float(image.std()), 1e-3)


def _kernel(gt: np.ndarray, scale: int, box: tuple[int, ...], given: np.ndarray) -> str:
    """Name the kernel of a library that reduces the ground truth to the given image, "" if none does."""
    y, x, height, width = box
    margin = min(y, x, BORDER)
    top, left = y - margin, x - margin
    region = np.ascontiguousarray(
        gt[top * scale : (y + height + margin) * scale, left * scale : (x + width + margin) * scale]
    )
    size = (region.shape[1] // scale, region.shape[0] // scale)
    ways: dict[str, Callable[[], np.ndarray]] = {
        name: partial(cv2.resize, region, size, interpolation=kind) for name, kind in _CV_KERNELS.items()
    }
    ways |= {name: partial(_by_pillow, region, size, kind) for name, kind in _PILLOW_KERNELS.items()}
    psnrs = {
        name: _psnr(_crop(way(), margin, margin, height, width).astype(np.float32), given) for name, way in ways.items()
    }
    best = max(psnrs, key=lambda name: psnrs[name])
    return best if psnrs[best] > 42 else ""


def _by_pillow(image: np.ndarray, size: tuple[int, int], kind: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(size, kind))
