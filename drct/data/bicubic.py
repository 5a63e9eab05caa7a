"""MATLAB's antialiased bicubic reduction of a part of an image, equal to that part of the whole image's reduction."""

from functools import lru_cache

import numpy as np
import torch
from basicsr.utils.matlab_functions import calculate_weights_indices

from drct.images.bgr import as_float

KERNEL_WIDTH = 4  # of the bicubic kernel before it is widened by the scale


def reduce_region(image: np.ndarray, scale: int, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Reduce an image where it is needed.

    Equal to BasicSR's `imresize(image, 1 / scale)[top : top + height, left : left + width]` up to float rounding
    (some 1e-7), at the image's borders too, where the image is mirrored.

    Args:
        image: (H, W, C), uint8, or float32 in [0, 1]. H and W are multiples of the scale.
        scale: 2, 3, 4, ...
        top, left, height, width: The region, in pixels of the reduced image, within (H / scale, W / scale).

    Returns:
        (height, width, C), float32, in about [0, 1].
    """
    y, down = _filter(image.shape[0], scale, top, height)
    x, across = _filter(image.shape[1], scale, left, width)
    area = as_float(image[y : y + down.shape[1], x : x + across.shape[1]])
    # PyTorch's product and not NumPy's, which in a loader's worker would start a thread per core
    rows = down @ torch.from_numpy(area.reshape(len(area), -1))
    # (height, C, source columns); copied, because PyTorch multiplies a transposed view several times slower
    columns = rows.view(height, -1, image.shape[2]).transpose(1, 2).contiguous()
    return (columns @ across.T).transpose(1, 2).contiguous().numpy()


def _filter(length: int, scale: int, start: int, size: int) -> tuple[int, torch.Tensor]:
    """The reduction of one axis at `size` places: the first source pixel, and (size, source pixels) weights."""
    weights, sources = (array[start : start + size] for array in _taps(length, scale))
    first = int(sources.min())
    matrix = np.zeros((size, int(sources.max()) + 1 - first), np.float32)
    np.add.at(matrix, (np.arange(size)[:, None], sources - first), weights)  # mirroring names a pixel twice
    return first, torch.from_numpy(matrix)


@lru_cache(maxsize=256)  # some 20 kB each; photographs have few different sides
def _taps(length: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel of a reduced axis, the weights and the source pixels, both (length // scale, taps)."""
    weights, indices, padding, _ = calculate_weights_indices(
        length, length // scale, 1 / scale, "cubic", KERNEL_WIDTH, True
    )
    place = (indices.numpy().astype(np.int64) - padding) % (2 * length)  # indices are of the mirrored image
    return weights.numpy(), np.minimum(place, 2 * length - 1 - place)
