"""Second-order degradation of training images (Real-ESRGAN, arXiv:2107.10833), made of BasicSR's functions.

Random numbers are drawn as BasicSR's RealESRNetModel draws them for a batch of one image, but each image has its own
seed: it depends neither on the other images of its batch nor on the process that degrades it.
"""

import random
from functools import cache
from typing import Any, Literal

import cv2
import numpy as np
import torch
from basicsr.data.degradations import add_gaussian_noise_pt, add_poisson_noise_pt
from basicsr.data.transforms import paired_random_crop
from basicsr.utils import DiffJPEG, USMSharp
from basicsr.utils.img_process_util import filter2D, usm_sharp
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from drct.schema.options import TrainingOptions
from drct.seeding import DEGRADATION, seed_all


class Stage:
    """Blur, resizing, noise and JPEG with the options of one stage. Images are (1, 3, H, W), RGB in about [0, 1].

    Args:
        options: Options of the run.
        suffix: Suffix of this stage's keys, "" or "2".
        blur_key: Key of the share of images to blur.
    """

    def __init__(self, options: TrainingOptions, suffix: Literal["", "2"], blur_key: str) -> None:
        self.modes: list[Any] = list(options.resize_modes)
        self.codec = options.jpeg_codec
        self.full_chroma_prob = options.jpeg_full_chroma_prob
        self.blur_prob: float = getattr(options, blur_key)
        self.resize_prob: list[float] = getattr(options, f"resize_prob{suffix}")
        self.resize_range: list[float] = getattr(options, f"resize_range{suffix}")
        self.noise_prob: float = getattr(options, f"noise_prob{suffix}")
        self.gaussian_noise_prob: float = getattr(options, f"gaussian_noise_prob{suffix}")
        self.noise_range: list[float] | None = getattr(options, f"noise_range{suffix}")
        self.poisson_scale_range: list[float] | None = getattr(options, f"poisson_scale_range{suffix}")
        self.gray_noise_prob: float = getattr(options, f"gray_noise_prob{suffix}")
        self.jpeg_prob: float = getattr(options, f"jpeg_prob{suffix}")
        self.jpeg_range: list[float] | None = getattr(options, f"jpeg_range{suffix}")
        self.drawn: dict[str, Any] = {}  # what the last image got

    def blur(self, image: Tensor, kernel: Tensor) -> Tensor:
        """Blur some images."""
        if not _happens(self.blur_prob):
            return image
        self.drawn["blur"] = kernel
        return convolve(image, kernel)

    def factor(self) -> float:
        """Draw a factor to resize by."""
        lowest, highest = self.resize_range
        kind = random.choices(["enlarge", "reduce", "neither"], self.resize_prob)[0]
        if kind == "neither":
            return 1
        factor = np.random.uniform(1, highest) if kind == "enlarge" else np.random.uniform(lowest, 1)
        self.drawn["resize"] = factor
        return factor

    def resize(self, image: Tensor, **target: Any) -> Tensor:
        """Resize an image by `scale_factor` or to `size`, with a random interpolation."""
        return interpolate(image, random.choice(self.modes), **target)

    def add_noise(self, image: Tensor) -> Tensor:
        """Add Gaussian or Poisson noise to some images, and clip them."""
        if not _happens(self.noise_prob):
            return image
        gaussian = np.random.uniform() < self.gaussian_noise_prob
        strengths = self.noise_range if gaussian else self.poisson_scale_range
        if strengths is None:
            return image
        lowest, highest = strengths
        strength = torch.rand(1, dtype=image.dtype, device=image.device) * (highest - lowest) + lowest
        gray = (torch.rand(1, dtype=image.dtype, device=image.device) < self.gray_noise_prob).float()
        self.drawn["noise" if gaussian else "Poisson"] = strength
        add = add_gaussian_noise_pt if gaussian else add_poisson_noise_pt
        return add(image, strength, gray_noise=gray, clip=True, rounds=False)

    def compress(self, image: Tensor) -> Tensor:
        """Compress some images by JPEG."""
        if self.jpeg_range is None or not _happens(self.jpeg_prob):
            return image
        quality = image.new_zeros(1).uniform_(*self.jpeg_range)
        image = image.clamp(0, 1)
        self.drawn["jpeg"] = quality.clone()  # DiffJPEG changes it
        if self.codec == "diffjpeg":
            return _diffjpeg(image.device)(image, quality=quality)
        return _libjpeg(image, round(quality.item()), full_chroma=_happens(self.full_chroma_prob))


class Degradation:
    """The degradation of an option file: two stages, with a reduction by the scale and a sinc filter in the second."""

    def __init__(self, options: TrainingOptions) -> None:
        self.scale = options.scale
        self.gt_size = options.datasets.train.gt_size
        self.clean_prob = options.clean_prob
        self.first = Stage(options, "", "blur_prob")
        self.second = Stage(options, "2", "second_blur_prob")
        self.sharpens = options.gt_usm
        if self.sharpens is None:
            self.sharpens = options.l1_gt_usm or options.percep_gt_usm or options.gan_gt_usm

    @torch.no_grad()
    def pair(self, sample: dict[str, Any]) -> dict[str, Tensor]:
        """Make a training pair of a sample of `RealESRGANDataset`, on the device of its tensors.

        Returns:
            `gt` (3, gt_size, gt_size), `lq` (3, gt_size / scale, gt_size / scale) in steps of 1/255, and, if the ground
            truth is sharpened before it is degraded, `gt_usm`, the same part of that. RGB, float32 in [0, 1].
        """
        seed_all(DEGRADATION, int(sample["seed"]))
        images = {"gt": sample["gt"][None]}
        if self.sharpens:
            images["gt_usm"] = sharpen(images["gt"])
        kernels = [sample[name][None] for name in ("kernel1", "kernel2", "sinc_kernel")]
        lq = self.degrade(list(images.values())[-1], *kernels)
        cropped, lq = paired_random_crop(list(images.values()), lq, self.gt_size, self.scale)
        cropped = cropped if self.sharpens else [cropped]
        return {"lq": lq[0].contiguous()} | {
            name: crop[0].contiguous() for name, crop in zip(images, cropped, strict=True)
        }

    def degrade(self, gt: Tensor, kernel1: Tensor, kernel2: Tensor, sinc_kernel: Tensor) -> Tensor:
        """Degrade an image: (1, 3, H, W) -> (1, 3, H / scale, W / scale), in steps of 1/255 from 0 to 1.

        Args:
            gt: RGB in [0, 1].
            kernel1, kernel2, sinc_kernel: Kernels of the first blur, the second blur and the last filter, (1, K, K).
        """
        height, width = gt.shape[-2:]
        size = (height // self.scale, width // self.scale)
        self.first.drawn, self.second.drawn = {}, {}
        if _happens(self.clean_prob):
            return _eight_bit(interpolate(gt, "antialiased", size=size))
        image = self.first.blur(gt, kernel1)
        factor = self.first.factor()
        image = self.first.resize(image, scale_factor=factor)
        image = self.first.compress(self.first.add_noise(image))

        stage = self.second
        image = stage.blur(image, kernel2)
        factor = stage.factor()
        image = stage.resize(image, size=(int(height / self.scale * factor), int(width / self.scale * factor)))
        image = stage.add_noise(image)
        if np.random.uniform() < 0.5:
            image = stage.compress(convolve(stage.resize(image, size=size), sinc_kernel))
        else:
            image = convolve(stage.resize(stage.compress(image), size=size), sinc_kernel)
        return _eight_bit(image)

    def drawn(self) -> dict[str, str]:
        """Return what the last image got: widths of kernels in pixels, factors, strengths of noise, qualities."""
        stages = {"": self.first.drawn, "2": self.second.drawn}
        amounts = {f"{name}{suffix}": value for suffix, drawn in stages.items() for name, value in drawn.items()}
        return {
            name: f"{kernel_width(value) if name.startswith('blur') else float(value):.3g}"
            for name, value in amounts.items()
        }


class DegradedImages(Dataset):
    """Training pairs of a `RealESRGANDataset`, degraded in the process that reads them."""

    def __init__(self, images: Any, degradation: Degradation) -> None:
        self.images = images
        self.paths = images.paths
        self.degradation = degradation

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.images[index]
        return self.degradation.pair(sample) | {"gt_path": sample["gt_path"]}


def interpolate(image: Tensor, mode: str, **target: Any) -> Tensor:
    """Resize an image by `scale_factor` or to `size`; the mode antialiased is MATLAB's bicubic, but for the borders."""
    if target.get("scale_factor") == 1 or target.get("size") == tuple(image.shape[-2:]):
        return image
    antialiased = mode == "antialiased"
    return F.interpolate(image, mode="bicubic" if antialiased else mode, antialias=antialiased, **target)


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Filter an image (1, C, H, W) with a kernel (1, K, K), mirrored at the borders."""
    if image.device.type != "cpu":
        return filter2D(image, kernel)
    side = kernel.shape[-1]
    used = kernel[0].nonzero()  # most kernels are smaller than their array
    half = int((used - side // 2).abs().max()) if len(used) else 0
    inner = slice(side // 2 - half, side // 2 + half + 1)
    if half == 0 and kernel[0, side // 2, side // 2] == 1:
        return image
    # OpenCV is several times faster than PyTorch on a CPU
    filtered = cv2.filter2D(_to_numpy(image), -1, kernel[0, inner, inner].numpy(), borderType=cv2.BORDER_REFLECT_101)
    return _from_numpy(filtered)


def kernel_width(kernel: Tensor) -> float:
    """Return the standard deviation of a kernel (1, K, K) in pixels, the mean of both axes; negative parts count 0."""
    weights = kernel[0].clamp(min=0).double()
    weights /= weights.sum()
    place = torch.arange(len(weights), dtype=torch.double) - len(weights) // 2
    squares = (weights.sum(0) + weights.sum(1)) / 2 @ place**2
    return float(squares.sqrt())


def sharpen(images: Tensor) -> Tensor:
    """Sharpen images (B, 3, H, W) in [0, 1] by unsharp masking, as Real-ESRGAN does."""
    if images.device.type != "cpu":
        return _usm_sharp(images.device)(images)
    return torch.cat([_from_numpy(usm_sharp(_to_numpy(image[None]))) for image in images])


@cache
def _diffjpeg(device: torch.device) -> DiffJPEG:
    return DiffJPEG(differentiable=False).to(device)


@cache
def _usm_sharp(device: torch.device) -> USMSharp:
    return USMSharp().to(device)


def _libjpeg(image: Tensor, quality: int, full_chroma: bool) -> Tensor:
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if full_chroma else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    rgb = (_to_numpy(image) * 255).round().astype(np.uint8)
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    file = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), settings)[1]
    decoded: Any = cv2.imdecode(file, cv2.IMREAD_COLOR)
    return _from_numpy(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32) / 255)


def _to_numpy(image: Tensor) -> np.ndarray:
    """Return an image (1, C, H, W) as (H, W, C)."""
    return np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())


def _from_numpy(image: np.ndarray) -> Tensor:
    """Return an image (H, W, C) as (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def _eight_bit(image: Tensor) -> Tensor:
    return torch.clamp((image * 255.0).round(), 0, 255) / 255.0


def _happens(probability: float) -> bool:
    """Draw whether something happens, without drawing if that is certain."""
    return probability >= 1 or (probability > 0 and np.random.uniform() < probability)
