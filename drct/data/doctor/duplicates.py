"""Images of a set that show the same: perceptual hashes find candidates, features and pixels decide."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import cv2
import imagehash
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from drct.data.doctor.scenes import Features, Overlap, References, features_of
from drct.data.parallel import run_parallel
from drct.images.bgr import read_image

NEAR = 14  # bits of 64 in which perceptual hashes of the same picture differ at most
MOST_CANDIDATES = 16  # of an image, the nearest; of a thousand alike, such as frames of a film, links suffice
SAME_SHARE = 0.7  # of both images, which near-duplicates show
ROWS = 2048  # images whose hashes are compared with all at once
_VERSION = re.compile(r"(_x0\.\d+)?(_s\d{3,})?$")  # copies and patches, as `drct prepare` names them


def source_of(name: str) -> str:
    """Return the name of what an image was made of: itself, or the image of which it is a reduced copy or a patch."""
    return _VERSION.sub("", name.rpartition(".")[0])


def sources_of(names: Sequence[str]) -> list[str]:
    """Return the sources of images. Files whose names differ in the suffix only are not of one source."""
    sources = [source_of(name) for name in names]
    whole = [source == name.rpartition(".")[0] for source, name in zip(sources, names, strict=True)]
    number = Counter(source for source, is_whole in zip(sources, whole, strict=True) if is_whole)
    return [
        name if is_whole and number[source] > 1 else source
        for name, source, is_whole in zip(names, sources, whole, strict=True)
    ]


def perceptual_hashes(gray: np.ndarray) -> np.ndarray:
    """Return the hashes of a gray image and of its mirror image, (2, 64), bool."""
    small = cv2.resize(gray, (128, 128), interpolation=cv2.INTER_AREA)
    return np.stack([imagehash.phash(Image.fromarray(version)).hash.ravel() for version in (small, small[:, ::-1])])


def identical_groups(labels: Sequence[Hashable], sources: Sequence[str]) -> list[list[int]]:
    """Group images of the same label, such as the digest of their pixels.

    Copies and patches of one source do not count as duplicates.
    """
    members: dict[Hashable, list[int]] = {}
    for number, label in enumerate(labels):
        members.setdefault(label, []).append(number)
    return [group for group in members.values() if len({sources[number] for number in group}) > 1]


def candidates(hashes: np.ndarray, digests: Sequence[str], sources: Sequence[str]) -> list[tuple[int, int]]:
    """List pairs of different images of different sources whose hashes, (images, 2, 64), are near.

    Of an image that has more than `MOST_CANDIDATES` such, they are those with the nearest.
    """
    signs = np.where(hashes, 1, -1).astype(np.float32)
    same = [np.unique(labels, return_inverse=True)[1] for labels in (digests, sources)]
    most = min(MOST_CANDIDATES, len(signs))
    found = set()
    for first in range(0, len(signs), ROWS):
        rows = slice(first, first + ROWS)
        nearness = np.maximum(*(signs[rows, 0] @ signs[:, version].T for version in range(2)))  # 64 - 2 * distance
        for labels in same:
            nearness[labels[rows, None] == labels] = -64
        nearest = np.argpartition(-nearness, most - 1, axis=1)[:, :most]
        near = np.take_along_axis(nearness, nearest, 1) >= 64 - 2 * NEAR
        owners = np.broadcast_to(np.arange(first, first + len(nearest))[:, None], nearest.shape)
        found |= {(min(pair), max(pair)) for pair in zip(owners[near].tolist(), nearest[near].tolist(), strict=True)}
    return sorted(found)


def similar_pairs(
    files: Sequence[Path], pairs: Iterable[tuple[int, int]], processes: int
) -> list[tuple[int, int, Overlap]]:
    """Compare candidates by their features and pixels. Returns those that show the same picture."""
    partners: dict[Path, list[int]] = {}
    numbers = {file: number for number, file in enumerate(files)}
    for a, b in pairs:
        partners.setdefault(files[a], []).append(b)
    jobs = {file: partial(_same_pictures, file, [files[b] for b in others]) for file, others in partners.items()}
    results, _ = run_parallel(jobs, processes, "compare") if jobs else ({}, {})
    return sorted(
        (
            (numbers[file], b, overlap)
            for file, overlaps in results.items()
            for b, overlap in zip(partners[file], overlaps, strict=True)
            if overlap
        ),
        key=lambda pair: pair[:2],
    )


def _same_pictures(file: Path, others: Sequence[Path]) -> list[Overlap | None]:
    reference = References([_features(file)])
    overlaps = [reference.find(_features(other)) for other in others]
    return [
        overlap if overlap and min(overlap.share, overlap.share_of_reference) >= SAME_SHARE else None
        for overlap in overlaps
    ]


@lru_cache(maxsize=64)  # 200 kB each
def _features(file: Path) -> Features:
    return features_of(cv2.cvtColor(read_image(file), cv2.COLOR_BGR2GRAY))


def groups(pairs: Iterable[tuple[int, int]], sources: Sequence[str]) -> list[list[int]]:
    """Join images that are linked by pairs, with all copies and patches of their sources, to groups."""
    edges = list(pairs)
    linked = {sources[number] for pair in edges for number in pair}
    first: dict[str, int] = {}
    for number, source in enumerate(sources):
        if source in linked:
            edges.append((first.setdefault(source, number), number))
    if not edges:
        return []
    rows, columns = zip(*edges, strict=True)
    size = len(sources)
    _, labels = connected_components(coo_array((np.ones(len(edges)), (rows, columns)), (size, size)), directed=False)
    return identical_groups(labels.tolist(), sources)
