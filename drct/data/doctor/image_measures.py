"""How much detail an image has, whether it has lost the finest, and traces of JPEG."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from drct.images.crops import most_detailed_area
from drct.images.jpeg import STANDARD, scaled_step

AREA = 512  # pixels; side of the most detailed area, by which an image is judged: a background may be out of focus
BLOCK = 64  # pixels; side of the blocks whose spectra are taken
FLAT_BLOCK = 16  # pixels
FAINT = 4.0  # levels of brightness; a standard deviation in a block that is hardly seen
USUAL_FINE = -1.92  # median over sharp photographs of what `_fine_detail` returns
DIRECTIONS = (0, 45, 90, 135)  # degrees
JPEG_AREA = 207  # pixels: 25 blocks of 8, from each of 8 places
QUALITIES = range(5, 101)
ROUNDING_POWER = 0.15  # of the finest detail, which rounding to 8 bits leaves in the strongest blur
BIN, BINS = 0.25, 1024  # width and number of bins of coefficients
ROUNDING = 0.25  # levels; standard deviation of what rounding adds to coefficients of brightness
# The lowest frequencies of a block of 8x8, as (down, across), which the coarsest steps leave
FREQUENCIES = (
    *((0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2)),
    *((2, 1), (3, 0), (4, 0), (3, 1), (2, 2), (1, 3), (0, 4)),
)


@dataclass(frozen=True)
class ImageMeasures:
    """What is measured of the pixels of an image."""

    textured: float  # share of its blocks that are not flat, 0 to 1
    weaker: float | None  # how many times weaker than usual its finest detail is; None for too small or flat images
    repeated: float  # share of rows and columns that repeat the one before
    jpeg_quality: int  # as which it was saved, 1 to 100 as in libjpeg; 100 if there are no traces
    jpeg_certainty: float  # 0 to 1


def measure_image(image: np.ndarray) -> ImageMeasures:
    """Measure an image, (H, W, 3), BGR, uint8."""
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    textured = _textured(gray)
    size = [min(AREA, side) for side in gray.shape]
    y, x = most_detailed_area(image, *size)
    area = gray[y : y + size[0], x : x + size[1]]
    weaker = None
    if min(size) >= BLOCK and textured:
        weaker = float(10 ** (USUAL_FINE - _fine_detail(area.astype(np.float32))))
    quality, certainty = _jpeg_traces(image)
    return ImageMeasures(textured, weaker, _repeated(area), quality, certainty)


def _textured(gray: np.ndarray) -> float:
    side = min(FLAT_BLOCK, *gray.shape)
    height, width = (length // side for length in gray.shape)
    blocks = gray[: height * side, : width * side].astype(np.float32).reshape(height, side, width, side)
    return float((blocks.std((1, 3)) > FAINT).mean())


def _fine_detail(area: np.ndarray) -> float:
    """Return the strength of the finest detail over that of coarser detail, as a power of 10.

    It is that of the direction with the least, since moving the camera blurs along one, in the third of the blocks with
    the most coarse detail of that direction.
    """
    height, width = area.shape
    starts = ((y, x) for y in range(0, height - BLOCK + 1, BLOCK // 2) for x in range(0, width - BLOCK + 1, BLOCK // 2))
    blocks = np.stack([area[y : y + BLOCK, x : x + BLOCK] for y, x in starts])
    blocks -= blocks.mean((1, 2), keepdims=True)
    window = np.outer(np.hanning(BLOCK), np.hanning(BLOCK)).astype(np.float32)
    power = np.abs(np.fft.rfft2(blocks * window)) ** 2 / (window**2).sum()
    ratios = []
    for coarse, fine in _bands():
        strength = power[:, coarse].mean(1)
        chosen = np.argsort(strength)[-max(3, len(blocks) // 3) :]
        finest = max(float(power[chosen][:, fine].mean()) - ROUNDING_POWER, 0.0)
        ratios.append(finest / max(float(strength[chosen].mean()), 1e-6))
    return float(np.log10(max(min(ratios), 1e-6)))


@lru_cache(1)
def _bands() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each direction which frequencies are coarse, 5 to 17 pixels long, and which the finest, about 2.

    Those in the middle of the coarse ones do not suffice: a moved or unfocused camera takes away some of them too.
    """
    down, across = np.fft.fftfreq(BLOCK)[:, None], np.fft.rfftfreq(BLOCK)[None]
    length, angle = np.hypot(down, across), np.degrees(np.arctan2(down, across))
    bands = []
    for direction in DIRECTIONS:
        along = np.abs((angle - direction + 90) % 180 - 90) <= 22.5
        bands.append((along & (length >= 0.06) & (length < 0.22), along & (length >= 0.43) & (length <= 0.5)))
    return bands


def _repeated(area: np.ndarray) -> float:
    """Return the share of columns, or of rows if that is less, that equal the one before."""
    if min(area.shape) < 2:
        return 0.0
    return float(min((area[:, 1:] == area[:, :-1]).all(0).mean(), (area[1:] == area[:-1]).all(1).mean()))


def _jpeg_traces(image: np.ndarray) -> tuple[int, float]:
    """Estimate the quality of JPEG as which an image was saved, wherever its blocks of 8x8 begin, and the certainty.

    JPEG rounds each frequency of a block to multiples of a step. Where its blocks begin, there are thus many zeros;
    and of the tables of steps that libjpeg has, one fits best.
    """
    size = [min(JPEG_AREA, side) for side in image.shape[:2]]
    if min(size) < 24:
        return 100, 0.0
    y, x = most_detailed_area(image, *size)
    brightness = image[y : y + size[0], x : x + size[1]].astype(np.float32) @ np.array(
        [0.114, 0.587, 0.299], np.float32
    )
    found = [_coefficients(brightness[top:, left:]) for top in range(8) for left in range(8)]
    zeros = [_zeros(coefficients) for coefficients in found]
    best = np.argsort(zeros)[-3:]  # places at which blocks may begin
    return max((_quality(found[number]) for number in best), key=lambda guess: guess[1])


def _coefficients(brightness: np.ndarray) -> np.ndarray:
    """Return the magnitudes of `FREQUENCIES` of all blocks, (blocks, frequencies)."""
    height, width = (side // 8 for side in brightness.shape)
    blocks = brightness[: height * 8, : width * 8].reshape(height, 8, width, 8).swapaxes(1, 2).reshape(-1, 64)
    return np.abs(blocks @ _basis().T)


@lru_cache(1)
def _basis() -> np.ndarray:
    cosines = cv2.dct(np.eye(8, dtype=np.float32), flags=cv2.DCT_ROWS).T  # (frequency, place)
    return np.stack([np.outer(cosines[down], cosines[across]).ravel() for down, across in FREQUENCIES])


def _zeros(coefficients: np.ndarray) -> float:
    """Return how much more often coefficients are about zero than near it, for fine and for coarse steps."""
    zero, near, far = ((coefficients < limit).sum() for limit in (0.75, 2.25, 9))
    return float(zero / max(near, 1) + zero / max(far, 1))


def _quality(coefficients: np.ndarray) -> tuple[int, float]:
    """Return the quality whose steps the coefficients are multiples of, and how well they are, up to about 1."""
    bins = np.minimum(coefficients / BIN, BINS - 1).astype(np.int64) + BINS * np.arange(len(FREQUENCIES))
    histogram = np.bincount(bins.ravel(), minlength=BINS * len(FREQUENCIES)).astype(np.float32)
    agreement, most = (weights @ histogram for weights in _agreement())
    scores = agreement / np.maximum(most, 20)
    best = int(np.argmax(scores))
    return QUALITIES[best], float(scores[best])


@lru_cache(1)
def _agreement() -> tuple[np.ndarray, ...]:
    """Return how well the values of bins agree with the steps of a quality, and how well they can, as matrices.

    It is 1 for a multiple of the step and -1 for the middle between two, but for small values, which are of no step in
    particular. Middles of the first two multiples count, so that values of finer steps do not agree.
    """
    values = (np.arange(BINS, dtype=np.float32) + 0.5) * BIN
    table = [[scaled_step(STANDARD[8 * y + x], quality) for y, x in FREQUENCIES] for quality in QUALITIES]
    steps = np.array(table, np.float32)[..., None]  # (qualities, frequencies, 1)
    counted = (values > 0.4 * steps) & (values < BIN * (BINS - 1))
    agreement = np.where(counted, np.cos(2 * np.pi * values / steps), 0)
    most = np.where(counted, np.exp(-2 * (np.pi * ROUNDING / steps) ** 2), 0)  # rounding of pixels blurs the cosine
    return tuple(weights.reshape(len(QUALITIES), -1).astype(np.float32) for weights in (agreement, most))
