"""Images of any size for networks of windows: padding to whole windows, and tiles."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from drct.archs.progress import part
from drct.archs.tracing import is_traced


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad the bottom and right of images with their reflection: (B, C, H, W) -> (B, C, H', W').

    H' and W' are the next multiples. An image that is too small for one reflection is reflected back and forth.
    """
    height, width = x.shape[-2:]
    if is_traced() or height % multiple:  # a recorded program is for any size
        x = x[..., _reflected_indices(height, multiple, x.device), :]
    if is_traced() or width % multiple:
        x = x[..., _reflected_indices(width, multiple, x.device)]
    return x


def _reflected_indices(length: int, multiple: int, device: torch.device) -> Tensor:
    """Return the indices 0, 1, .. length-1, length-2, .. 0, 1, .. up to the next multiple."""
    padded = (length + multiple - 1) // multiple * multiple
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
    batch, channels, padded_height, padded_width = padded.shape
    result = x.new_empty(batch, channels, padded_height * scale, padded_width * scale)
    rows = list(_spans(padded_height, tile_size, tile_pad))
    columns = list(_spans(padded_width, tile_size, tile_pad))
    tiles = [(row, column) for row in rows for column in columns]
    for number, ((y0, y1, top, bottom), (x0, x1, left, right)) in enumerate(tiles):
        with part(number, len(tiles)):
            tile = network(padded[..., top:bottom, left:right])
        tile = tile[..., (y0 - top) * scale : (y1 - top) * scale, (x0 - left) * scale : (x1 - left) * scale]
        result[..., y0 * scale : y1 * scale, x0 * scale : x1 * scale] = tile
    return result[..., : height * scale, : width * scale]


def _spans(length: int, tile_size: int, tile_pad: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the start and end of each tile along one axis, without and with its overlap."""
    for start in range(0, length, tile_size):
        end = min(start + tile_size, length)
        yield start, end, max(start - tile_pad, 0), min(end + tile_pad, length)


def whole_windows(tile_size: int, tile_pad: int, window: int) -> tuple[int, int]:
    """Round the size and the overlap of tiles up to multiples of the window."""
    return max(1, -(-tile_size // window)) * window, -(-tile_pad // window) * window
