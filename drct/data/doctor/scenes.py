"""Whether two images show the same scene, whole or in part: local features, a similarity that maps them, and pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

SIDE = 400  # pixels to which the longer side of an image is reduced before features are sought
REFERENCE_SIDE = 640  # the same for images of benchmarks, of which parts are sought
FEATURES = 400
REFERENCE_FEATURES = 1000
NEAR = 0.6  # largest distance of two matching descriptors of length 1
CLEARLY_NEARER = 0.85  # than the next of another image
FEWEST_MATCHES = 5  # a similarity has 4 degrees of freedom, which 2 fix
CANDIDATES = 3  # images that are compared pixel by pixel, those with the most matches
TOLERANCE = 3.0  # pixels
SMALLEST_OVERLAP = 32 * 32  # pixels
ALIKE = 0.8  # correlation of pixels above which a part is the same; see figures/doctor_benchmark.py


@dataclass(frozen=True)
class Features:
    """A gray image, (H, W) uint8, reduced, with the places (N, 2) and descriptors (N, 128) of its features."""

    gray: np.ndarray
    places: np.ndarray
    descriptors: np.ndarray

    def mirrored(self) -> "Features":
        """Return the features of the mirrored image, which SIFT would find there."""
        gray = np.ascontiguousarray(self.gray[:, ::-1])
        places = self.places * (-1, 1) + (self.gray.shape[1] - 1, 0)
        # 4x4 cells of 8 directions, relative to the feature's own: mirrored, its rows and the sense of rotation swap
        cells = self.descriptors.reshape(-1, 4, 4, 8)[:, ::-1][..., [0, 7, 6, 5, 4, 3, 2, 1]]
        return Features(gray, places.astype(np.float32), np.ascontiguousarray(cells.reshape(-1, 128)))


@dataclass(frozen=True)
class Overlap:
    """The part that two images share."""

    number: int  # of the reference
    correlation: float  # of the pixels of that part, up to 1
    share: float  # of the image, 0 to 1
    share_of_reference: float
    mirrored: bool


def features_of(gray: np.ndarray, side: int = SIDE, number: int = FEATURES) -> Features:
    """Find the features of a gray image, (H, W) uint8: SIFT, with the square root of Arandjelovic and Zisserman."""
    factor = side / max(gray.shape)
    if factor < 1:
        gray = _reduced(gray, factor)
    found, descriptors = cv2.SIFT_create(number).detectAndCompute(gray, None)  # type: ignore[attr-defined]  # missing in its stubs
    if descriptors is None:
        return Features(gray, np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))
    return Features(gray, np.array([point.pt for point in found], np.float32), root)


class References:
    """Images in which parts of others are sought."""

    def __init__(self, images: Sequence[Features]) -> None:
        self.images = images
        self.owner = np.repeat(np.arange(len(images)), [len(image.places) for image in images])
        self.places = np.concatenate([image.places for image in images])
        self._tree: Any = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": 32})
        self._tree.add([np.concatenate([image.descriptors for image in images])])
        if len(self.places) >= 2:
            self._tree.train()

    def find(self, image: Features) -> Overlap | None:
        """Find the reference that shares the most with an image, or with its mirror image."""
        found = [self._find(version, bool(number)) for number, version in enumerate((image, image.mirrored()))]
        return max(filter(None, found), key=lambda overlap: overlap.share, default=None)

    def _find(self, image: Features, mirrored: bool) -> Overlap | None:
        if len(image.places) < FEWEST_MATCHES or len(self.places) < 2:
            return None
        queries, hits = self._matches(image.descriptors)
        owners, counts = np.unique(self.owner[hits], return_counts=True)
        best = owners[np.argsort(-counts, kind="stable")[:CANDIDATES]]
        overlaps = []
        for number in best:
            chosen = self.owner[hits] == number
            if chosen.sum() >= FEWEST_MATCHES:
                mapping = _similarity(self.places[hits[chosen]], image.places[queries[chosen]])
                if mapping is not None:
                    overlaps.append(_overlap(image.gray, self.images[number].gray, mapping, int(number), mirrored))
        return max(filter(None, overlaps), key=lambda overlap: overlap.share, default=None)

    def _matches(self, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of features of an image, and those of the references that match them."""
        nearest = self._tree.knnMatch(descriptors, 2)
        pairs = [
            (first.queryIdx, first.trainIdx)
            for first, second in (pair for pair in nearest if len(pair) == 2)
            if first.distance < NEAR
            and (
                first.distance < CLEARLY_NEARER * second.distance
                or self.owner[first.trainIdx] == self.owner[second.trainIdx]
            )
        ]
        array = np.array(pairs, np.int64).reshape(-1, 2)
        return array[:, 0], array[:, 1]


def _similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """Estimate the rotation, scale and shift, (2, 3), that map places to others, as most of them agree on."""
    cv2.setRNGSeed(0)
    mapping, inliers = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=TOLERANCE)
    if mapping is None or inliers.sum() < FEWEST_MATCHES:
        return None
    return mapping if 0.05 < np.hypot(*mapping[:, 0]) < 20 else None


def _overlap(
    gray: np.ndarray, reference: np.ndarray, mapping: np.ndarray, number: int, mirrored: bool
) -> Overlap | None:
    """Compare an image with a mapped reference where they overlap; None if the pixels do not agree."""
    scale = float(np.hypot(*mapping[:, 0]))
    if scale < 0.7:  # so that details that the image cannot have do not count
        small = _reduced(reference, scale)
        mapping = mapping @ np.diag([reference.shape[1] / small.shape[1], reference.shape[0] / small.shape[0], 1])
        reference, scale = small, 1.0
    size = gray.shape[::-1]
    mapped = cv2.warpAffine(reference, mapping, size, flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones_like(reference), mapping, size, flags=cv2.INTER_NEAREST) > 0
    area = int(inside.sum())
    if area < SMALLEST_OVERLAP:
        return None
    ours, theirs = (_details(picture)[inside] for picture in (gray, mapped))
    spread = float(ours.std() * theirs.std())
    correlation = float(((ours - ours.mean()) * (theirs - theirs.mean())).mean()) / spread if spread else 0.0
    if correlation < ALIKE:
        return None
    share_of_reference = min(1.0, area / (reference.size * scale**2))
    return Overlap(number, correlation, area / gray.size, share_of_reference, mirrored)


def _reduced(gray: np.ndarray, factor: float) -> np.ndarray:
    """Reduce an image. A strip so narrow that nothing would be left of its width keeps one pixel of it."""
    if min(gray.shape) * factor >= 1:
        return cv2.resize(gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    height, width = (max(1, round(side * factor)) for side in gray.shape)
    return cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA)


def _details(gray: np.ndarray) -> np.ndarray:
    """Remove brightness that changes slowly, which unrelated images may share, and single pixels."""
    image = cv2.GaussianBlur(gray, (0, 0), 1).astype(np.float32)
    return image - cv2.GaussianBlur(image, (0, 0), 8)
