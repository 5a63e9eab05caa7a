"""Measuring one image of a set, in a process of its own."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from drct.data.doctor.duplicates import perceptual_hashes
from drct.data.doctor.image_measures import ImageMeasures, measure_image
from drct.data.doctor.pair_measures import PairMeasures, measure_pair
from drct.data.doctor.scenes import REFERENCE_FEATURES, REFERENCE_SIDE, Overlap, References, features_of
from drct.data.pair_sizes import Size, whole_scale
from drct.errors import DRCTError
from drct.images.bgr import read_image

SMALLEST = 8  # pixels; side of the smallest low-resolution image whose pair is compared


@dataclass(frozen=True)
class Examined:
    """What was measured of an image and its partner."""

    size: Size
    digest: str  # of size and pixels
    hashes: np.ndarray  # of the image and its mirror image, (2, 64), bool
    measures: ImageMeasures
    lq_size: Size | None = None
    pair: PairMeasures | None = None  # None where there is no partner, or sizes do not fit
    lq_problem: str = ""  # why the partner cannot be read
    leak: tuple[Path, Overlap] | None = None  # the image of a benchmark that it shows, whole or in part


def examine(gt: Path, lq: Path | None, benchmarks: tuple[Path, ...]) -> Examined:
    """Measure an image, its low-resolution partner and its likeness to images of benchmarks.

    Raises:
        DRCTError: if the image cannot be read. A partner that cannot be read is a finding.
    """
    image = read_image(gt)
    size = image.shape[:2]
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    lq_size, pair, problem = None, None, ""
    if lq is not None:
        try:
            lq_image = read_image(lq)
            lq_size, pair = lq_image.shape[:2], _compare(image, lq_image)
        except DRCTError as error:
            problem = str(error)
    return Examined(
        size=size,
        digest=hashlib.sha256(f"{size}".encode() + image.tobytes()).hexdigest(),
        hashes=perceptual_hashes(gray),
        measures=measure_image(image),
        lq_size=lq_size,
        pair=pair,
        lq_problem=problem,
        leak=_leak(gray, benchmarks) if benchmarks else None,
    )


def _compare(gt: np.ndarray, lq: np.ndarray) -> PairMeasures | None:
    scale = whole_scale(gt.shape[:2], lq.shape[:2])
    return measure_pair(gt, lq, scale) if scale and scale > 1 and min(lq.shape[:2]) >= SMALLEST else None


def _leak(gray: np.ndarray, benchmarks: tuple[Path, ...]) -> tuple[Path, Overlap] | None:
    references = _references(benchmarks)
    overlap = references.find(features_of(gray))
    return (benchmarks[overlap.number], overlap) if overlap else None


@lru_cache(1)
def _references(benchmarks: tuple[Path, ...]) -> References:
    """Find the features of the images of benchmarks, once in each process."""
    images = [cv2.cvtColor(read_image(file), cv2.COLOR_BGR2GRAY) for file in benchmarks]
    return References([features_of(image, REFERENCE_SIDE, REFERENCE_FEATURES) for image in images])
