"""The input pixels that a patch of a result depends on: local attribution maps and effective receptive fields."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from drct.analysis.networks import check_pictures
from drct.errors import DRCTError
from drct.images.bgr import as_float
from drct.images.crops import most_detailed_area
from drct.inference.memory import is_out_of_memory
from drct.inference.tiling import pad_to_multiple
from drct.inference.upscaler import Upscaler
from drct.inference.weights import LoadedNetwork
from drct.text import markdown_table

SMOOTHING = 1e-3  # added to the gradient's magnitude, which has no derivative at 0: a quarter of a gray level
SHARES = (50, 90, 99)  # percent of the receptive field


class Area(NamedTuple):
    """A rectangle of an image, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def rows_and_columns(self) -> tuple[slice, slice]:
        """Index of the area in arrays (H, W)."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def surroundings(self, side: int, height: int, width: int) -> "Area":
        """Return the square of this side around the area, moved and cut to lie within an image of height x width."""
        across, down = min(side, width), min(side, height)
        x = min(max(self.x + self.width // 2 - across // 2, 0), width - across)
        y = min(max(self.y + self.height // 2 - down // 2, 0), height - down)
        return Area(x, y, across, down)


class Excerpt(NamedTuple):
    """The part of an image that networks are given, with the patch to explain."""

    image: np.ndarray  # (H, W, 3), RGB, float32 in [0, 1]
    patch: Area  # within the excerpt
    context: Area  # position of the excerpt in the whole image


def most_detailed_patch(pixels: np.ndarray, side: int) -> Area:
    """Return the square of an image (H, W, 3) with the most detail, no larger than the image."""
    side = min(side, *pixels.shape[:2])
    y, x = most_detailed_area(pixels, side, side)
    return Area(x, y, side, side)


def cut_out(pixels: np.ndarray, patch: Area, side: int) -> Excerpt:
    """Cut the square of this side around a patch out of an image (H, W, 3), BGR, uint8."""
    context = patch.surroundings(side, *pixels.shape[:2])
    image = as_float(pixels[context.rows_and_columns])[..., ::-1]
    return Excerpt(image, patch._replace(x=patch.x - context.x, y=patch.y - context.y), context)


def blur_path(image: np.ndarray, steps: int, sigma: float) -> np.ndarray:
    """Return pictures from a blurred image to the image itself: (H, W, C) -> (steps + 1, H, W, C), float64.

    Picture i is the image after a Gaussian of sigma * (1 - i / steps) pixels, cut off at 3 sigma: the path of J. Gu
    and C. Dong, "Interpreting Super-Resolution Networks with Local Attribution Maps", CVPR 2021.
    """
    image = image.astype(np.float64)
    side = 2 * math.ceil(3 * sigma) + 1
    widths = [sigma * (1 - i / steps) for i in range(steps)]
    blurred = [cv2.GaussianBlur(image, (side, side), width, borderType=cv2.BORDER_REFLECT_101) for width in widths]
    return np.stack([*(picture.reshape(image.shape) for picture in blurred), image])  # OpenCV drops a single channel


def detail(patch: Tensor) -> Tensor:
    """Sum the magnitudes of the gradients of a patch's channels, the quantity to attribute: (B, C, H, W) -> scalar."""
    corner = patch[..., :-1, :-1]
    squares = (patch[..., 1:, :-1] - corner).square() + (patch[..., :-1, 1:] - corner).square()
    return (squares + SMOOTHING**2).sqrt().sum()


class Attribution(NamedTuple):
    """Integrated gradients of a quantity."""

    values: np.ndarray  # contribution of each value of the image, (C, H, W), float64
    baseline: float  # the quantity for the first picture of the path
    image: float  # the quantity for the last picture of the path

    @property
    def completeness_error(self) -> float:
        """Difference between the sum of all values and the change of the quantity, relative to that change."""
        change = self.image - self.baseline
        return abs(float(self.values.sum()) - change) / abs(change) if change else math.inf

    @property
    def magnitude(self) -> np.ndarray:
        """Magnitude of the sum over the channels: (H, W)."""
        return np.abs(self.values.sum(0))

    @property
    def diffusion_index(self) -> float:
        """Spread of the magnitude over the pixels (Gu and Dong 2021): 100 if it is even, 0 if one pixel has it all."""
        return 100 * (1 - gini(self.magnitude))


def integrate(quantity: Callable[[Tensor], Tensor], path: Iterable[Tensor]) -> Attribution:
    """Attribute the change of a quantity along a path of pictures to the pictures' values.

    Integrated gradients (M. Sundararajan et al., "Axiomatic Attribution for Deep Networks", 2017) along the straight
    lines between successive pictures, each by its midpoint: the error falls with the square of the number of steps.
    The quantity is a differentiable function from a picture, (1, C, H, W), to a scalar.
    """
    pictures = iter(path)
    first = last = next(pictures)
    total = np.zeros(first.shape[1:])
    for picture in pictures:
        middle = ((last + picture) / 2).requires_grad_()
        (gradient,) = torch.autograd.grad(quantity(middle), middle)
        total += (gradient * (picture - last))[0].cpu().double().numpy()
        last = picture
    with torch.no_grad():
        return Attribution(total, float(quantity(first)), float(quantity(last)))


def gini(values: np.ndarray) -> float:
    """Return the Gini coefficient of n values >= 0: 0 if all are equal, 1 - 1 / n if all but one are 0."""
    ordered = np.sort(values, axis=None).astype(np.float64)
    n = ordered.size
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def receptive_field(forward: Callable[[Tensor], Tensor], images: Tensor, y: int, x: int) -> np.ndarray:
    """Return the effective receptive field, (H, W), float64, of pixel (y, x) of the results for images (B, C, H, W).

    It is the magnitude of the gradient of the pixel, whose channels are added up, added over the images' channels and
    averaged over the images. Source: W. Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional
    Neural Networks", 2016.
    """
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(forward(images)[:, :, y, x].sum(), images)
    return gradient.abs().sum(1).mean(0).cpu().double().numpy()


def square_with(share: float, field: np.ndarray, y: int, x: int) -> int:
    """Return the side of the smallest square around (y, x), inside the map or not, with a share of a map's sum."""
    rows, columns = np.indices(field.shape)
    distance = np.maximum(abs(rows - y), abs(columns - x))
    held = np.bincount(distance.ravel(), field.ravel()).cumsum()
    return 2 * int(np.argmax(held >= share * held[-1])) + 1


@dataclass
class Explanation:
    """The findings about a network."""

    name: str
    scale: int
    patch: np.ndarray  # the network's result for the patch, (H, W, 3), RGB, float32 in [0, 1]
    attribution: Attribution  # of the detail in that result
    field: np.ndarray  # receptive field of the patch's centre, (H, W)
    centre: tuple[int, int]  # row and column in input pixels

    @property
    def extent(self) -> tuple[int, int]:
        """Width and height of the area outside which the receptive field is exactly 0."""
        rows, columns = np.nonzero(self.field)
        return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1

    @property
    def squares(self) -> dict[int, int]:
        """Sides of the squares that hold `SHARES` of the receptive field."""
        return {share: square_with(share / 100, self.field, *self.centre) for share in SHARES}

    def numbers(self) -> dict[str, Any]:
        """Return all numbers by name, as `lam.json` has them."""
        return {
            "name": self.name,
            "scale": self.scale,
            "diffusion_index": self.attribution.diffusion_index,
            "gini": gini(self.attribution.magnitude),
            "detail": {"baseline": self.attribution.baseline, "image": self.attribution.image},
            "completeness_error": self.attribution.completeness_error,
            "receptive_field": {
                "squares": {f"{share}%": side for share, side in self.squares.items()},
                "extent": self.extent,
            },
        }


def explain(
    analyzed: LoadedNetwork, image: np.ndarray, patch: Area, steps: int, sigma: float, device: str | None = None
) -> Explanation:
    """Find the input pixels that a patch of a network's result depends on.

    Args:
        analyzed: Moved to the device; its parameters no longer require gradients.
        image: (H, W, 3), RGB, float32 in [0, 1].
        patch: Square of the image.
        steps: Steps of `blur_path`.
        sigma: Blur at the start of `blur_path`, in pixels.
        device: None takes the accelerator where there is one.

    Raises:
        DRCTError: if the network does not take pictures of any size, its gradient does not fit in memory, or the patch
            does not change along the path.
    """
    name, scale = analyzed.name, analyzed.traits.scale
    upscaler = Upscaler(analyzed.network, device, "fp32", None, traits=analyzed.traits)
    check_pictures(upscaler)
    network = analyzed.network.requires_grad_(False)
    height, width = image.shape[:2]

    def forward(x: Tensor) -> Tensor:
        return network(pad_to_multiple(x, analyzed.traits.window))[..., : height * scale, : width * scale]

    rows, columns = Area(*(scale * side for side in patch)).rows_and_columns
    y, x = patch.y + patch.height // 2, patch.x + patch.width // 2
    path = torch.from_numpy(blur_path(image, steps, sigma)).permute(0, 3, 1, 2)[:, None]
    path = path.to(upscaler.device, torch.float32)
    try:
        field = receptive_field(forward, path[-1], y * scale + scale // 2, x * scale + scale // 2)
        with torch.no_grad():
            result = forward(path[-1])[0, :, rows, columns].clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        pictures = tqdm(path, name, leave=False, disable=None)
        attribution = integrate(lambda picture: detail(forward(picture)[..., rows, columns]), pictures)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        what = f"the gradient of {width}x{height} pixels"
        raise DRCTError(f"{name}: {what} does not fit in memory: choose a smaller --context") from error
    if not (attribution.magnitude.any() and field.any()):
        raise DRCTError(f"{name}: blurring the image does not change the patch: choose a --patch with details")
    return Explanation(name, scale, result, attribution, field, (y, x))


def explanations_table(explanations: Sequence[Explanation]) -> str:
    """Return a Markdown table of the numbers of networks."""
    shares = [f"{share} % of the receptive field" for share in SHARES]
    rows = []
    for one in explanations:
        squares = [f"{side}x{side}" for side in one.squares.values()]
        index, error = one.attribution.diffusion_index, one.attribution.completeness_error
        rows.append([one.name, f"{index:.2f}", *squares, f"{error:.2%}"])
    return markdown_table(["network", "diffusion index", *shares, "completeness error"], rows)
