"""The sub-pixel upsampler and the convolution after it, as one convolution of the small image, for inference.

No activation stands between them, so that together they are a convolution of 5x5 pixels. For x4 it takes a tenth of the
operations, and none of the memory for the many channels between them. Near the border it has other kernels: each of the
convolutions sees zeros beyond its image, and not what the one before would compute there. That is different for the
first and last pixel of each row and column only.

Letters in shapes: see `drct.archs.frame`; f is the factor of a stage, and C' are the channels of the enlarged image. Of
k = 3 kinds are the places along an axis: the first one, those between, the last one.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from drct.archs.kernels import in_full_precision, linear
from drct.archs.regions import Region

RADIUS = 2  # pixels that the kernels see on each side
FEWEST = 2  # pixels of a side, which are a first and a last one
FIRST, INNER, LAST = range(3)  # kinds of places


class UpsamplerKernels(NamedTuple):
    """Kernels of the small image, by the kinds of a pixel's row and column."""

    weight: Tensor  # (k, k, C' * upscale ** 2, C, 5, 5)
    bias: Tensor  # (k, k, C' * upscale ** 2)
    upscale: int


def upsampler_kernels(upsample: Any, last: nn.Conv2d, dtype: torch.dtype) -> UpsamplerKernels:
    """Prepare the kernels of an upsampler.

    Args:
        upsample: Pairs of a 3x3 convolution C -> C * f * f and a pixel shuffle by f, at least one.
        last: 3x3 convolution C -> C' after them.
        dtype: Dtype of the result.
    """
    precise = torch.promote_types(last.weight.dtype, torch.float32)
    with in_full_precision(last.weight.device.type):
        weight = last.weight.to(precise).expand(3, 3, -1, -1, -1, -1)
        bias = last.weight.new_zeros((), dtype=precise) if last.bias is None else last.bias.to(precise)
        bias = bias.expand(3, 3, len(last.weight))
        scale = 1
        for i in range(len(upsample) - 2, -1, -2):
            conv, factor = upsample[i], upsample[i + 1].upscale_factor
            weight, bias = _before_stage(weight, bias, conv.weight.to(precise), conv.bias, factor)
            scale *= factor
        bias = _in_shuffled_order(bias, len(last.weight), upsample)
        weight = _in_shuffled_order(weight, len(last.weight), upsample)
    return UpsamplerKernels(weight.to(dtype), bias.to(dtype), scale)


def _before_stage(
    weight: Tensor, bias: Tensor, conv: Tensor, conv_bias: Tensor | None, factor: int
) -> tuple[Tensor, Tensor]:
    """Turn kernels for the image after a stage into kernels for the image before it.

    Args:
        weight: (k, k, o, C, D, D), of 3x3 or 5x5 pixels.
        bias: (k, k, o).
        conv: Kernel of the stage, (C * f * f, C, 3, 3).
        conv_bias: Its bias.
        factor: Factor f of the stage.

    Returns:
        (k, k, o * f * f, C, 5, 5) and (k, k, o * f * f), with the place within a group of f * f pixels last.
    """
    within = torch.ones(3, factor, dtype=torch.long)  # kind of each pixel of a group of each kind
    within[FIRST, 0], within[LAST, -1] = FIRST, LAST
    rows, columns = within[:, :, None, None], within[None, None]  # (k, f, k, f)
    bias = bias[rows, columns]  # (k, p, k, q, o)
    to = places(factor, weight.shape[-1], weight)
    wide = torch.einsum("apbqocde,apdtu,bqesv->abopquvcts", weight[rows, columns], to, to)
    pairs = wide.flatten(2, 4).flatten(-3)  # (k, k, o * f * f, 3, 3, C * f * f)
    products = linear(pairs, conv.flatten(1).t().contiguous(), None).unflatten(-1, conv.shape[1:])
    both = products.new_zeros(*pairs.shape[:3], conv.shape[1], 5, 5)
    for u in range(3):
        for v in range(3):
            both[..., u : u + 3, v : v + 3] += products[:, :, :, u, v]
    bias = bias.permute(0, 2, 4, 1, 3).flatten(2)
    return both, bias if conv_bias is None else bias + pairs.sum((3, 4)) @ conv_bias.to(pairs.dtype)


def places(factor: int, side: int, like: Tensor) -> Tensor:
    """Return where the entries of a row of a kernel get to: (k, f, side, f, 3), 1 or 0.

    A pixel p of a group of f sees, at entry d of the kernel, pixel t of the group at entry u, counted from the one
    before: f * (u - 1) + t = p + d - side // 2. Groups beyond the image are zeros.
    """
    line = torch.zeros(3, factor, side, 3 * factor, dtype=like.dtype, device=like.device)
    for p in range(factor):
        for d in range(side):
            line[:, p, d, factor + p + d - side // 2] = 1
    line[FIRST, ..., :factor] = 0
    line[LAST, ..., -factor:] = 0
    return line.unflatten(-1, (3, factor)).transpose(-1, -2)


def _in_shuffled_order(x: Tensor, channels: int, upsample: Any) -> Tensor:
    """Bring the places that stages have added to channels into the order of a single pixel shuffle.

    Args:
        x: (k, k, C' * f * f of the last stage * ... * f * f of the first stage, ...).
        channels: C'.
        upsample: The stages.
    """
    sides = [layer.upscale_factor for layer in upsample[-1::-2] for _ in range(2)]
    x = x.unflatten(2, (channels, *sides))
    rows, columns = (range(start + len(sides), start, -2) for start in (1, 2))  # the first stage is the coarsest
    rest = range(3 + len(sides), x.ndim)
    return x.permute(0, 1, 2, *rows, *columns, *rest).flatten(2, 2 + len(sides))


def enlarged(x: Tensor, region: Region, size: tuple[int, int], kernels: UpsamplerKernels) -> Tensor:
    """Compute a region of the enlarged image.

    Args:
        x: The small image within `region.grow(RADIUS)`, with zeros beyond the image: (B, C, h + 4, w + 4).
        region: Region of the small image.
        size: Height and width of the small image, at least `FEWEST`.
        kernels: Kernels of the upsampler.

    Returns:
        (B, C', region.height * upscale, region.width * upscale). Beyond the image it is undefined.
    """
    y = F.conv2d(x, kernels.weight[INNER, INNER], kernels.bias[INNER, INNER])
    rows = _spans(region.top, region.height, size[0])
    columns = _spans(region.left, region.width, size[1])
    for row, top, height in rows:
        for column, left, width in columns:  # the corners come after the sides that they are part of
            if (row, column) != (INNER, INNER):
                part = x[:, :, top : top + height + 2 * RADIUS, left : left + width + 2 * RADIUS]
                values = F.conv2d(part, kernels.weight[row, column], kernels.bias[row, column])
                y[:, :, top : top + height, left : left + width] = values
    return F.pixel_shuffle(y, kernels.upscale)


def _spans(start: int, length: int, end: int) -> list[tuple[int, int, int]]:
    """Return kinds of places in a stretch of an axis, which ends at `end`: kind, first place and number of places."""
    ends = [(kind, at - start, 1) for kind, at in ((FIRST, 0), (LAST, end - 1)) if 0 <= at - start < length]
    return [(INNER, 0, length), *ends]
