"""RealESRGANDataset: ground truth with blur kernels, for training pairs that are degraded on the fly."""

import math
import random
from typing import Any, Literal

import cv2
import numpy as np
import torch
from basicsr.data.degradations import circular_lowpass_kernel, random_mixed_kernels
from basicsr.data.transforms import augment
from basicsr.utils import img2tensor

from drct.data.ground_truth import GroundTruthDataset
from drct.images.bgr import as_float
from drct.schema.options import Dataset


class RealESRGANDataset(GroundTruthDataset):
    """Regions of ground truth with the blur kernels of a second-order degradation (Real-ESRGAN, arXiv:2107.10833).

    Takes the place of BasicSR's class of this name, whose random numbers it draws in the same order. Unlike that, it
    reads folders without a list of files, and the size of regions is an option.

    Args:
        opt: Options of the dataset, with `use_hflip` and `use_rot`, and perhaps those of `BlurKeys`.

    Raises:
        ValueError: if there are no images, or kinds of kernels and their weights differ in number.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        self.options = options = Dataset.model_validate(opt)
        self.blur1, self.blur2 = BlurKernels(options, ""), BlurKernels(options, "2")

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a region and what its degradation needs.

        Returns:
            `gt` (3, crop_pad_size, crop_pad_size), RGB, float32 in [0, 1]; `kernel1` and `sinc_kernel`
            (blur_kernel_size, blur_kernel_size) and `kernel2` (blur_kernel_size2, blur_kernel_size2), float32 with sum
            1; the `seed` of all further random numbers; `gt_path`.

        Raises:
            ValueError: if the image cannot be read.
        """
        options, path = self.options, self.paths[index]
        image = augment(self._read(path, "gt"), self.opt["use_hflip"], self.opt["use_rot"])
        region = np.ascontiguousarray(_region(image, options.crop_pad_size))
        return {
            "gt": img2tensor(as_float(region), bgr2rgb=True, float32=True),
            "kernel1": torch.from_numpy(self.blur1.draw()),
            "kernel2": torch.from_numpy(self.blur2.draw()),
            "sinc_kernel": torch.from_numpy(final_kernel(options)),
            "seed": random.getrandbits(62),
            "gt_path": path,
        }


class BlurKernels:
    """Random blur kernels with the options of a stage, whose keys have the suffix "" or "2"."""

    def __init__(self, options: Dataset, suffix: Literal["", "2"]) -> None:
        self.largest: int = getattr(options, f"blur_kernel_size{suffix}")
        self.sinc_prob: float = getattr(options, f"sinc_prob{suffix}")
        self.kinds: list[str] = getattr(options, f"kernel_list{suffix}")
        self.weights: list[float] = getattr(options, f"kernel_prob{suffix}") or [1.0] * len(self.kinds)
        self.sigma: list[float] = getattr(options, f"blur_sigma{suffix}")
        self.betag: list[float] = getattr(options, f"betag_range{suffix}")
        self.betap: list[float] = getattr(options, f"betap_range{suffix}")
        if len(self.kinds) != len(self.weights):
            raise ValueError(
                f"kernel_list{suffix} has {len(self.kinds)} entries, but kernel_prob{suffix} has {len(self.weights)}"
            )

    def draw(self) -> np.ndarray:
        """Draw a kernel of a random size, padded to (largest, largest), float32."""
        size = _random_size(self.largest)
        if np.random.uniform() < self.sinc_prob:
            lowest = np.pi / 3 if size < 13 else np.pi / 5  # the rings of lower frequencies need larger kernels
            kernel = circular_lowpass_kernel(np.random.uniform(lowest, np.pi), size)
        else:
            rotation = [-math.pi, math.pi]
            kernel = random_mixed_kernels(
                self.kinds, self.weights, size, self.sigma, self.sigma, rotation, self.betag, self.betap
            )
        return np.pad(kernel, (self.largest - size) // 2).astype(np.float32)


def _region(image: np.ndarray, size: int) -> np.ndarray:
    """Cut a random square out of an image; sides that are too short are mirrored first."""
    height, width = image.shape[:2]
    missing = (0, max(0, size - height), 0, max(0, size - width))
    if any(missing):
        image = cv2.copyMakeBorder(image, *missing, cv2.BORDER_REFLECT_101)
        height, width = image.shape[:2]
    if height > size or width > size:
        top, left = random.randint(0, height - size), random.randint(0, width - size)
        image = image[top : top + size, left : left + size]
    return image


def final_kernel(options: Dataset) -> np.ndarray:
    """Draw the sinc kernel that ends a degradation, or the kernel that changes nothing: (K, K), float32."""
    largest: int = options.blur_kernel_size
    if np.random.uniform() < options.final_sinc_prob:
        size = _random_size(largest)
        cutoff = np.random.uniform(np.pi / 3, np.pi)
        return circular_lowpass_kernel(cutoff, size, pad_to=largest).astype(np.float32)
    kernel = np.zeros((largest, largest), np.float32)
    kernel[largest // 2, largest // 2] = 1
    return kernel


def _random_size(largest: int) -> int:
    return random.choice(range(min(7, largest), largest + 1, 2))
