"""The last stage of a sub-pixel upsampler and the convolution after it, as one convolution of the smaller image.

No activation stands between them, so that together they are a convolution of 5x5 pixels, which takes a fifth of the
operations and none of the memory for the many channels between them. It differs at the border, where the second
convolution sees zeros instead of what the first would compute beyond the image; this ring is computed and subtracted.

Letters in shapes: see `drct.archs.frame`; f is the factor of the stage, C' are the channels of the enlarged image.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from drct.archs.kernels import in_full_precision
from drct.archs.upsampler_kernels import INNER, places

if TYPE_CHECKING:
    from drct.archs.frame import Frame


def reconstruct(network: "Frame", shallow: Tensor, features: Tensor) -> Tensor:
    """Compute `Frame.reconstruct` of a network whose layers are as they were built."""
    upsample: Any = network.upsample
    if not len(upsample):  # a network that does not enlarge
        return network.reconstruct(shallow, features)
    deep = network.conv_after_body(network.norm(features).permute(0, 3, 1, 2)) + shallow
    *before, conv, shuffle = upsample
    x = network.conv_before_upsample(deep)
    for layer in before:
        x = layer(x)
    return enlarge(x, conv, shuffle.upscale_factor, network.conv_last)


def enlarge(x: Tensor, conv: nn.Conv2d, factor: int, last: nn.Conv2d) -> Tensor:
    """Compute `last(pixel_shuffle(conv(x), factor))`: (B, C, H, W) -> (B, C', H * f, W * f).

    Args:
        x: The smaller image.
        conv: 3x3 convolution, zero-padded: C -> c * f * f.
        factor: Factor of the pixel shuffle, above 1.
        last: 3x3 convolution, zero-padded: c -> C'.
    """
    with in_full_precision(x.device.type):
        second = _before_shuffle(last.weight, factor)  # (C' * f * f, c * f * f, 3, 3)
        both = F.conv2d(conv.weight.transpose(0, 1), second.flip(2, 3), padding=2).transpose(0, 1)
        bias = None if last.bias is None else last.bias.repeat_interleave(factor**2)
        if conv.bias is not None:
            through = second.sum((2, 3)) @ conv.bias
            bias = through if bias is None else bias + through
    y = F.conv2d(x, both, bias, padding=2)
    return F.pixel_shuffle(_WithoutBorder.apply(y, *_beyond_the_border(x, conv.weight, conv.bias, second)), factor)


def _before_shuffle(weight: Tensor, factor: int) -> Tensor:
    """Turn a 3x3 kernel for a shuffled image into one for the image before: (C', c, 3, 3) -> (C' f f, c f f, 3, 3)."""
    place = places(factor, 3, weight)[INNER]
    wide = torch.einsum("ocrs,prtu,qszv->opqctzuv", weight, place, place)
    return wide.flatten(3, 5).flatten(0, 2)


Sides = tuple[Tensor, Tensor, Tensor, Tensor]  # of an image: above, below, left, right, each one pixel wide


def _beyond_the_border(x: Tensor, first: Tensor, bias: Tensor | None, second: Tensor) -> Sides:
    """Return what the second of two 3x3 convolutions gets from pixels of the first one beyond the image.

    Args:
        x: Image, (B, C, H, W).
        first: Kernel of the first convolution, (i, C, 3, 3).
        bias: Its bias, (i,), or None.
        second: Kernel of the second convolution, (o, i, 3, 3).

    Returns:
        What to subtract from the sides of an image (B, o, H, W). Corners are on two sides.
    """
    above, below, left, right = _Border.apply(x)
    above = F.conv2d(F.conv2d(above, first[:, :, 2:], bias, padding=(0, 2)), second[:, :, :1])
    below = F.conv2d(F.conv2d(below, first[:, :, :1], bias, padding=(0, 2)), second[:, :, 2:])
    # What is beyond the corners went into the sides above and below
    left = F.conv2d(F.conv2d(left, first[..., 2:], bias, padding=(1, 0)), second[..., :1], padding=(1, 0))
    right = F.conv2d(F.conv2d(right, first[..., :1], bias, padding=(1, 0)), second[..., 2:], padding=(1, 0))
    return above, below, left, right


def _sides(x: Tensor) -> Sides:
    return x[:, :, :1], x[:, :, -1:], x[..., :1], x[..., -1:]


class _Border(torch.autograd.Function):
    """The sides of an image, whose gradients become one image at a time instead of four to be added."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Sides:
        ctx.shape, ctx.stride = x.shape, x.stride()
        above, below, left, right = (side.clone() for side in _sides(x))
        return above, below, left, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        result = grads[0].new_empty_strided(ctx.shape, ctx.stride).zero_()
        for side, grad in zip(_sides(result), grads, strict=True):
            side += grad
        return result


class _WithoutBorder(torch.autograd.Function):
    """An image with something subtracted from its sides."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *subtracted: Tensor) -> Tensor:
        result = x.clone()
        for side, less in zip(_sides(result), subtracted, strict=True):
            side -= less
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad, *(-side for side in _sides(grad))
