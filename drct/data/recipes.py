"""Degradations of whole images by recipe, for test sets like the photographs of cameras and the web.

A recipe is `clean`, a chain of steps such as `blur:1.6+noise:8+jpeg:40`, or the degradation of a training option file.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch

from drct.data.degradation import Degradation
from drct.data.prepare import reduce_image
from drct.data.realesrgan_dataset import BlurKernels, final_kernel
from drct.errors import DRCTError, did_you_mean
from drct.images.bgr import as_float, as_uint8
from drct.schema.options import TrainingOptions
from drct.seeding import DEGRADATION, generators_kept, seed_all

Drawn = dict[str, str]  # what an image was given, by the name of the step


class Recipe(Protocol):
    """A degradation of images."""

    text: str

    def degrade(self, image: np.ndarray, scale: int, seed: int, name: str) -> tuple[np.ndarray, Drawn]:
        """Degrade and reduce an image: (H, W, 3) -> (H // scale, W // scale, 3), BGR, uint8.

        Args:
            image: BGR, uint8.
            scale: Factor of the reduction, by MATLAB's antialiased bicubic; 1 for none.
            seed, name: Of the run and of the image. They determine all random numbers, so that an image gets the same
                degradation in any folder.
        """


def _blur(image: np.ndarray, sigma: float, _: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(as_float(image), (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def _add_noise(image: np.ndarray, sigma: float, draws: np.random.Generator) -> np.ndarray:
    return (image + draws.normal(0, sigma, image.shape)).round().clip(0, 255).astype(np.uint8)


def _resize(image: np.ndarray, factor: float, _: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    reduced = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(reduced, (width, height), interpolation=cv2.INTER_CUBIC)


def _compress(image: np.ndarray, quality: float, _: np.random.Generator) -> np.ndarray:
    file = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, round(quality)])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR))


@dataclass(frozen=True)
class Kind:
    """A kind of step: its limits, in words, and what it does with (H, W, 3) BGR uint8 and an amount."""

    lowest: float
    highest: float
    amount: str
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


KINDS = {
    "blur": Kind(0.1, 50, "standard deviation of a Gaussian in pixels before the reduction", _blur),
    "resize": Kind(0.05, 1, "factor of a reduction that is then undone", _resize),
    "noise": Kind(0, 255, "standard deviation of Gaussian noise in 255ths", _add_noise),
    "jpeg": Kind(1, 100, "quality of a JPEG file with subsampled colour", _compress),
}


@dataclass(frozen=True)
class Step:
    """A step of a recipe, whose amount is drawn for each image between two limits, which may be equal."""

    kind: str
    lowest: float
    highest: float


class StepRecipe:
    """A chain of steps. The image is reduced before the first step that is not a blur, or at the end.

    Raises:
        DRCTError: if the text is not a recipe.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps = [] if text == "clean" else [_parse_step(part, text) for part in text.split("+")]
        self.blurs = next((i for i, step in enumerate(self.steps) if step.kind != "blur"), len(self.steps))
        if any(step.kind == "blur" for step in self.steps[self.blurs :]):
            raise DRCTError(f"--recipe {text}: blurs come first, because they act before the image is reduced")

    def degrade(self, image: np.ndarray, scale: int, seed: int, name: str) -> tuple[np.ndarray, Drawn]:
        """Degrade an image as `Recipe` says."""
        draws = np.random.default_rng([seed, zlib.crc32(name.encode())])
        drawn: Drawn = {}
        for i, step in enumerate(self.steps):
            if i == self.blurs:
                image = _reduced(image, scale)
            amount = draws.uniform(step.lowest, step.highest)
            amount = round(amount) if step.kind == "jpeg" else amount
            image = KINDS[step.kind].apply(image, amount, draws)
            drawn[step.kind] = f"{amount:.4g}"
        return (_reduced(image, scale) if self.blurs == len(self.steps) else image), drawn


class TrainingRecipe:
    """The degradation of an option file for the Real-DRCT models. Each image as a whole is degraded as a patch is."""

    def __init__(self, options: TrainingOptions, text: str) -> None:
        self.text = text
        self.options = options
        self.blurs = [BlurKernels(options.datasets.train, suffix) for suffix in ("", "2")]

    def degrade(self, image: np.ndarray, scale: int, seed: int, name: str) -> tuple[np.ndarray, Drawn]:
        """Degrade an image as `Recipe` says."""
        height, width = (side - side % scale for side in image.shape[:2])
        rgb = np.ascontiguousarray(as_float(image)[:height, :width, ::-1].transpose(2, 0, 1))
        degradation = Degradation(self.options.model_copy(update={"scale": scale}))
        with generators_kept(torch.device("cpu")), torch.no_grad():
            seed_all(DEGRADATION, seed, zlib.crc32(name.encode()))
            kernels = [*(blur.draw() for blur in self.blurs), final_kernel(self.options.datasets.train)]
            lq = degradation.degrade(
                torch.from_numpy(rgb)[None], *(torch.from_numpy(kernel)[None] for kernel in kernels)
            )
        bgr = np.ascontiguousarray(lq[0].numpy().transpose(1, 2, 0)[..., ::-1])
        return as_uint8(bgr), degradation.drawn()


def _parse_step(part: str, text: str) -> Step:
    kind, _, amount = part.strip().partition(":")
    if kind not in KINDS:
        raise DRCTError(
            f"--recipe {text}: there is no step {kind!r}{did_you_mean(kind, KINDS)}. Steps are {', '.join(KINDS)}, "
            "such as jpeg:40 or jpeg:30-95, joined by +; clean is a recipe without steps"
        )
    limits = KINDS[kind]
    try:
        lowest, highest = map(float, (amount.split("-") * 2)[:2])
    except ValueError:
        lowest = highest = math.nan
    if amount.count("-") > 1 or not limits.lowest <= lowest <= highest <= limits.highest:
        raise DRCTError(
            f"--recipe {text}: {kind} needs a number from {limits.lowest:g} to {limits.highest:g}, {limits.amount},"
            f" or two such as {kind}:A-B, the smaller first"
        )
    return Step(kind, lowest, highest)


def _reduced(image: np.ndarray, scale: int) -> np.ndarray:
    return reduce_image(image, scale) if scale > 1 else as_uint8(as_float(image))
