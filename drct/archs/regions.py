"""Rectangles of an image, and 3x3 convolutions of an image computed rectangle by rectangle."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE_COST = 1000  # cost of starting the convolutions of a tile, in pixels
TILE_HALO = 8  # rows and columns, four on each side, of a tile's surroundings that the convolutions after the body see


class Region(NamedTuple):
    """A rectangle of pixels, which may reach beyond the image."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: Tensor) -> Tensor:
        """Return a view of the region of an image (..., H, W) that contains it."""
        return image[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def of_tokens(self, tokens: Tensor) -> Tensor:
        """Return a view of the region of a feature map (B, H, W, C) that contains it."""
        return tokens[:, self.top : self.top + self.height, self.left : self.left + self.width]

    def grow(self, pixels: int) -> "Region":
        """Add pixels on each side."""
        return Region(self.top - pixels, self.left - pixels, self.height + 2 * pixels, self.width + 2 * pixels)

    def clip(self, height: int, width: int) -> "Region":
        """Return the part inside an image of this size, which must not be empty."""
        top, left = max(0, self.top), max(0, self.left)
        bottom, right = min(height, self.top + self.height), min(width, self.left + self.width)
        return Region(top, left, bottom - top, right - left)

    def relative_to(self, other: "Region") -> "Region":
        """Return the same pixels, counted from the corner of another region."""
        return self._replace(top=self.top - other.top, left=self.left - other.left)

    def enlarge(self, factor: int) -> "Region":
        """Return the region in an image that is larger by an integer factor."""
        return Region(*(factor * number for number in self))

    def reduce(self, factor: int) -> "Region":
        """Return the smallest region of an image smaller by an integer factor that covers this one."""
        top, left = self.top // factor, self.left // factor
        bottom, right = (-(-end // factor) for end in (self.top + self.height, self.left + self.width))
        return Region(top, left, bottom - top, right - left)


def read(image: Tensor, region: Region) -> Tensor:
    """Return a region of an image (B, C, H, W), with zeros beyond the image."""
    inside = region.clip(*image.shape[2:])
    return pad(inside.of(image), inside, region)


def pad(x: Tensor, inside: Region, region: Region) -> Tensor:
    """Surround the values (B, C, h, w) of a part of a region with zeros, up to the whole region."""
    top, left, height, width = inside.relative_to(region)
    margins = left, region.width - left - width, top, region.height - top - height
    return F.pad(x, margins) if any(margins) else x


def convolve(conv: nn.Conv2d, x: Tensor, region: Region, size: tuple[int, int]) -> Tensor:
    """Compute a region of a zero-padded 3x3 convolution.

    Args:
        conv: The convolution.
        x: Its input within `region.grow(1)`, with zeros beyond the image.
        region: What to compute.
        size: Height and width of the image.

    Returns:
        (B, C, region.height, region.width), with zeros beyond the image, as the next convolution wants them.
    """
    x = F.conv2d(x, conv.weight, conv.bias)
    inside = region.clip(*size)
    top, left, height, width = inside.relative_to(region)
    x[:, :, :top] = 0
    x[:, :, top + height :] = 0
    x[..., :left] = 0
    x[..., left + width :] = 0
    return x


def tiles(height: int, width: int, tokens: int) -> Iterator[Region]:
    """Cover an image with square tiles, of which the last ones may reach beyond it. See `tile_side`."""
    side = tile_side(height, width, tokens)
    return (Region(top, left, side, side) for top in range(0, height, side) for left in range(0, width, side))


def tile_side(height: int, width: int, tokens: int) -> int:
    """Choose the side of tiles for convolutions: of at most `tokens` pixels, and making the least work.

    It is always one of a few: every size of a convolution leaves some 100 KB in PyTorch's caches on the CPU.
    """
    sides = [side for side in (2**i for i in range(4, 12)) if side**2 <= tokens] or [16]
    return min(sides, key=lambda side: -(-height // side) * -(-width // side) * ((side + TILE_HALO) ** 2 + TILE_COST))


def autocast_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that products of a tensor are computed in: autocast's where that is enabled."""
    kind = x.device.type
    enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if enabled else x.dtype
