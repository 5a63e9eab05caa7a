"""MATLAB's antialiased bicubic downscaling of a region of an image, for training pairs that are made on the fly."""

from functools import lru_cache

import numpy as np
import torch
from basicsr.utils.matlab_functions import calculate_weights_indices

from drct.images.bgr import as_float


def reduce_region(image: np.ndarray, scale: int, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Compute a region of the downscaled image without computing the rest.

    The result equals BasicSR's `imresize(image, 1 / scale)[top : top + height, left : left + width]` up to float
    rounding (about 1e-7), also at the borders of the image, beyond which it is mirrored.

    Args:
        image: (H, W, C), uint8, or float32 in [0, 1]. H and W are multiples of the scale.
        scale: 2, 3, 4, ...
        top, left, height, width: The region in pixels of the downscaled image, within (H / scale, W / scale).

    Returns:
        (height, width, C), float32. The kernel overshoots [0, 1] a little at edges.
    """
    y, down = _filter(image.shape[0], scale, top, height)
    x, across = _filter(image.shape[1], scale, left, width)
    area = as_float(image[y : y + down.shape[1], x : x + across.shape[1]])
    # Multiplied by PyTorch, because NumPy would start a thread per core in every loader worker
    rows = down @ torch.from_numpy(area.reshape(len(area), -1))
    # (height, C, source columns); copied, because PyTorch multiplies a transposed view several times slower
    columns = rows.view(height, -1, image.shape[2]).transpose(1, 2).contiguous()
    return (columns @ across.T).transpose(1, 2).contiguous().numpy()


def _filter(length: int, scale: int, start: int, size: int) -> tuple[int, torch.Tensor]:
    """Return the filter of one axis for `size` pixels: the first source pixel, and (size, source pixels) weights."""
    weights, sources = (array[start : start + size] for array in _taps(length, scale))
    first = int(sources.min())
    matrix = np.zeros((size, int(sources.max()) + 1 - first), np.float32)
    np.add.at(matrix, (np.arange(size)[:, None], sources - first), weights)  # mirrored, a pixel may occur twice
    return first, torch.from_numpy(matrix)


@lru_cache(maxsize=256)  # about 20 kB each; a dataset has few different side lengths
def _taps(length: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights and source pixels of every pixel of a downscaled axis, both (length // scale, taps)."""
    weights, indices, padding, _ = calculate_weights_indices(
        length, length // scale, 1 / scale, kernel="cubic", kernel_width=4, antialiasing=True
    )
    place = (indices.numpy().astype(np.int64) - padding) % (2 * length)  # indices count in the mirrored image
    return weights.numpy(), np.minimum(place, 2 * length - 1 - place)
