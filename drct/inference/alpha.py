"""Transparency: what a network must not see of a picture, and what it must not make of it.

Alpha is straight: pixels have their colours whatever their opacity, and an invisible pixel can have any. A network
mixes neighbours, so that the invisible ones, mostly black, would show as a fringe around what is visible.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_WEIGHT = 1e-3  # of a visible pixel, so that products of it do not underflow
REACH = 2  # input pixels around one that decide whether it lies within an opaque or an invisible area


def fill_invisible(colours: Tensor, alpha: Tensor) -> Tensor:
    """Replace the colours of invisible pixels by those of the visible ones around them.

    The nearest weigh most, and the more opaque ones more than others. Visible pixels stay as they are, and so does a
    picture without any. The colours come down a pyramid of pictures, each with half the sides of the one before: the
    push-pull of S. Gortler et al., "The Lumigraph", SIGGRAPH 1996.

    Args:
        colours: (C, 1, H, W).
        alpha: (1, 1, H, W) in [0, 1]; 0 is invisible.

    Returns:
        (C, 1, H, W).
    """
    visible = alpha > 0
    if not visible.any():
        return colours
    return _filled(colours, torch.where(visible, alpha.clamp_min(LEAST_WEIGHT), 0))


def _filled(colours: Tensor, weight: Tensor) -> Tensor:
    """Fill in the colours of the pixels of weight 0."""
    known = weight > 0
    if known.all():
        return colours
    height, width = weight.shape[2:]
    to_even = 0, width % 2, 0, height % 2
    sums = F.avg_pool2d(F.pad(torch.cat([colours * weight, weight]), to_even), 2)
    smaller = _filled(sums[:-1] / sums[-1:].clamp_min(torch.finfo(sums.dtype).tiny), sums[-1:])
    return torch.where(known, colours, F.interpolate(smaller, scale_factor=2, mode="bilinear")[..., :height, :width])


def settle(upscaled: Tensor, alpha: Tensor) -> Tensor:
    """Make alpha exactly 0 within invisible areas and exactly 1 within opaque ones, which a network hits roughly.

    Args:
        upscaled: Alpha of the result, (1, 1, H * scale, W * scale).
        alpha: Alpha of the picture, (1, 1, H, W) in [0, 1].

    Returns:
        (1, 1, H * scale, W * scale).
    """
    highest = F.max_pool2d(alpha, 2 * REACH + 1, 1, REACH)  # around each pixel
    lowest = -F.max_pool2d(-alpha, 2 * REACH + 1, 1, REACH)
    invisible, opaque = (
        F.interpolate(area.to(upscaled.dtype), upscaled.shape[2:]) > 0 for area in (highest <= 0, lowest >= 1)
    )
    return upscaled.masked_fill(invisible, 0).masked_fill(opaque, 1)
