"""Images of any size for networks of windows: padding to whole windows, and tiles."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from drct.archs.progress import part
from drct.archs.tracing import is_traced

Span = tuple[int, int, int, int]  # start and end of a tile along one axis, without and with its overlap


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad the bottom and right of images with their reflection: (B, C, H, W) -> (B, C, H', W').

    H' and W' are the next multiples. See `pad_to`.
    """
    return pad_to(x, *((side + multiple - 1) // multiple * multiple for side in x.shape[-2:]))


def pad_to(x: Tensor, padded_height: int, padded_width: int) -> Tensor:
    """Pad the bottom and right of images with their reflection: (B, C, H, W) -> (B, C, padded_height, padded_width).

    An image that is too small for one reflection is reflected back and forth.
    """
    height, width = x.shape[-2:]
    if is_traced() or height != padded_height:  # a recorded program is for any size
        x = x[..., _reflected_indices(height, padded_height, x.device), :]
    if is_traced() or width != padded_width:
        x = x[..., _reflected_indices(width, padded_width, x.device)]
    return x


def _reflected_indices(length: int, padded: int, device: torch.device) -> Tensor:
    """Return the indices 0, 1, .. length-1, length-2, .. 0, 1, .. up to a padded length."""
    period = 2 * (length - 1) + 1 // length  # 1 for a single pixel; a recorded program cannot have a condition
    phase = torch.arange(padded, device=device) % period
    return torch.minimum(phase, period - phase)


def continue_periodically(x: Tensor, context: int, multiple: int) -> Tensor:
    """Surround images with their repetition, as if they tiled the plane: (B, C, H, W) -> (B, C, H', W').

    Args:
        x: Images.
        context: Pixels to add on each side, a multiple of `multiple`. Below and on the right, more are added up to
            the next multiple.
        multiple: Sides of the result are multiples of this.
    """
    rows, columns = (
        torch.arange(-context, -(-(length + context) // multiple) * multiple, device=x.device) % length
        for length in x.shape[-2:]
    )
    return x[..., rows, :][..., columns]


@torch.no_grad()
def upscale(network: Callable[[Tensor], Tensor], x: Tensor, window_size: int, scale: int) -> Tensor:
    """Upscale whole images of any size: (B, C, H, W) -> (B, C, H * scale, W * scale), not clamped."""
    height, width = x.shape[-2:]
    return network(pad_to_multiple(x, window_size))[..., : height * scale, : width * scale]


@torch.no_grad()
def upscale_tiled(
    network: Callable[[Tensor], Tensor],
    x: Tensor,
    window_size: int,
    scale: int,
    tile_size: int,
    tile_pad: int,
) -> Tensor:
    """Upscale images tile by tile, for limited memory: (B, C, H, W) -> (B, C, H * scale, W * scale).

    Each tile is computed with `tile_pad` pixels of its surroundings, which are cropped from the result. The padded
    image is cut at multiples of the window, so a single tile gives exactly the result of `upscale`; several do not,
    since the network sees further than `tile_pad`.

    Args:
        network, x, window_size, scale: As in `upscale`.
        tile_size: Side of a tile in input pixels, a multiple of `window_size` (see `whole_windows`).
        tile_pad: Overlap on each side in input pixels, a multiple of `window_size`.
    """
    height, width = x.shape[-2:]
    padded = pad_to_multiple(x, window_size)
    rows, columns = (list(_spans(side, tile_size, tile_pad)) for side in padded.shape[-2:])
    return _assembled(network, padded, scale, rows, columns)[..., : height * scale, : width * scale]


@torch.no_grad()
def upscale_in_equal_tiles(
    network: Callable[[Tensor], Tensor], x: Tensor, scale: int, size: tuple[int, int], overlap: int
) -> Tensor:
    """Upscale images in tiles of exactly one size: (B, C, H, W) -> (B, C, H * scale, W * scale).

    Tiles lie within the image, evenly spaced, and the result changes from one to the next in the middle of their
    overlap. An image that is smaller than a tile is padded with its reflection.

    Args:
        network, x, scale: As in `upscale`.
        size: Height and width of the tiles.
        overlap: Pixels that two tiles have in common at least, where there are several; less than a side.
    """
    height, width = x.shape[-2:]
    padded = pad_to(x, max(height, size[0]), max(width, size[1]))
    rows, columns = (_equal_spans(*sides, overlap) for sides in zip(padded.shape[-2:], size, strict=True))
    return _assembled(network, padded, scale, rows, columns)[..., : height * scale, : width * scale]


def _assembled(
    network: Callable[[Tensor], Tensor], x: Tensor, scale: int, rows: list[Span], columns: list[Span]
) -> Tensor:
    """Compute the tile of each row and column, and put together what lies within their starts and ends."""
    batch, channels, height, width = x.shape
    result = x.new_empty(batch, channels, height * scale, width * scale)
    tiles = [(row, column) for row in rows for column in columns]
    for number, ((y0, y1, top, bottom), (x0, x1, left, right)) in enumerate(tiles):
        with part(number, len(tiles)):
            tile = network(x[..., top:bottom, left:right])
        tile = tile[..., (y0 - top) * scale : (y1 - top) * scale, (x0 - left) * scale : (x1 - left) * scale]
        result[..., y0 * scale : y1 * scale, x0 * scale : x1 * scale] = tile
    return result


def _spans(length: int, tile_size: int, tile_pad: int) -> Iterator[Span]:
    """Yield the start and end of each tile along one axis, without and with its overlap."""
    for start in range(0, length, tile_size):
        end = min(start + tile_size, length)
        yield start, end, max(start - tile_pad, 0), min(end + tile_pad, length)


def computed_pixels(height: int, width: int, tile_size: int, tile_pad: int) -> int:
    """Return the number of pixels that `upscale_tiled` computes for an image of this size, overlaps included."""
    rows, columns = (
        sum(bottom - top for _, _, top, bottom in _spans(side, tile_size, tile_pad)) for side in (height, width)
    )
    return rows * columns


def _equal_spans(length: int, size: int, overlap: int) -> list[Span]:
    """Return the start and end of each of the fewest tiles along one axis, without and with its overlap."""
    count = 1 + max(0, -(-(length - size) // (size - overlap)))
    starts = [round(number * (length - size) / max(1, count - 1)) for number in range(count)]
    cuts = [(before + size + after) // 2 for before, after in pairwise(starts)]
    return [
        (start, end, first, first + size) for first, start, end in zip(starts, [0, *cuts], [*cuts, length], strict=True)
    ]


def whole_windows(tile_size: int, tile_pad: int, window: int) -> tuple[int, int]:
    """Round the size and the overlap of tiles up to multiples of the window."""
    return max(1, -(-tile_size // window)) * window, -(-tile_pad // window) * window
