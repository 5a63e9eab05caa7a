"""Running a network on images of any size: on which device, in which precision, in which tiles."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from drct.archs import progress
from drct.archs.soundness import is_sound
from drct.archs.traits import NetworkTraits, declared_traits
from drct.errors import DRCTError
from drct.inference.measured_memory import MeasuredMemory
from drct.inference.memory import SHARE, TILE_PAD, choose_tile, free_memory
from drct.inference.notes import note
from drct.inference.tile_error import TileOverlaps, check_tile_error
from drct.inference.tiling import pad_to, upscale, upscale_in_equal_tiles, upscale_tiled, whole_windows
from drct.runtime.allocator import keep_freed_memory
from drct.runtime.device import PRECISIONS, accelerator, fastest_precision
from drct.text import first_line

Tile = tuple[int, int]  # size and overlap, in input pixels

logger = logging.getLogger("drct")


class NetworkRunner:
    """A super-resolution network, ready to run on image tensors.

    Args:
        network: Takes (B, C, H, W) in [0, 1]. It is moved to the device.
        device: 'cpu', 'cuda', 'cuda:1', 'mps'; None takes an accelerator if there is one.
        precision: 'fp32', 'bf16', 'fp16', or 'auto', the fastest of those that hardly change results on the device.
        tile: 'auto' computes the whole image at once if it fits in memory, and else in as few tiles as possible; None
            always computes the whole image; a number, or two, is the size of tiles and their overlap in input pixels,
            rounded up to whole windows. A network that takes images of one size always gets tiles of that size.
        self_ensemble: Average the results of all 8 rotations and reflections: slightly better, 8 times slower.
        traits: Requirements of the network; None for networks that declare them.
        tile_error: Choose the overlap of tiles: the smallest with which the result differs from that of the whole image
            by no more than this root mean square, in levels of 255. It is measured for the first image that needs
            tiles, with the network, in the precision in use, and kept: see `drct.inference.tile_error`.

    Raises:
        DRCTError: if the device or precision is not there, or an argument makes no sense.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str | torch.device | None = None,
        precision: str = "auto",
        tile: Tile | int | str | None = "auto",
        self_ensemble: bool = False,
        traits: NetworkTraits | None = None,
        tile_error: float | None = None,
    ) -> None:
        self.traits = traits or declared_traits(network)
        self.device = self.traits.place(device) if self.traits.place else _device(device)
        keep_freed_memory()
        self.network: nn.Module = network.to(self.device)
        fastest = self.traits.precision or fastest_precision(self.device)
        self.precision = fastest if precision == "auto" else precision
        if self.precision not in PRECISIONS:
            raise DRCTError(f"precision must be auto, {', '.join(PRECISIONS)}, not {precision!r}")
        if self.traits.place and self.precision != self.traits.precision:
            raise DRCTError(f"the model computes in {self.traits.precision} only, not in {precision}: take auto")
        self._overlaps: TileOverlaps | None = None
        if tile_error is not None:
            check_tile_error(tile_error, tile, self.traits)
            parts = self.network, self.traits, self.device
            self._overlaps = TileOverlaps(tile_error, *parts, self._computed, self._fits)
        self.tile = self._whole_windows(tile)
        self.self_ensemble = self_ensemble

    def __repr__(self) -> str:
        device, network = f"{self.device}, {self.precision}", type(self.network).__name__
        ensemble = ", self-ensemble" if self.self_ensemble else ""
        return f"{type(self).__name__}({network} x{self.scale} on {device}, tile {self.tile}{ensemble})"

    @property
    def scale(self) -> int:
        """Pixels of the result per pixel of the image, along each axis."""
        return self.traits.scale

    def _whole_windows(self, tile: Tile | int | str | None) -> Tile | str | None:
        if self.traits.only_size is not None:
            side = min(self.traits.only_size)
            pad = min(TILE_PAD, side // 4)
            return side - 2 * pad, pad
        if tile is None or tile == "auto":
            return tile
        sides: Any = tuple(tile) if isinstance(tile, tuple | list) else (tile, TILE_PAD)
        whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
        if not whole or len(sides) != 2 or sides[0] < 1 or sides[1] < 0:
            raise DRCTError(f"tile must be auto, a size in pixels, or a size and an overlap, not {tile!r}")
        size, pad = sides
        rounded = whole_windows(size, pad, self.traits.window)
        if rounded != sides:
            logger.warning(
                f"tile: sizes must be multiples of the window of {self.traits.window}: tile_size {size} is taken as "
                f"{rounded[0]} and tile_pad {pad} as {rounded[1]}"
            )
        return rounded

    @torch.no_grad()
    def run(self, x: Tensor) -> Tensor:
        """Run the network, in evaluation mode, on images of any size that are on its device.

        (B, C, H, W) in [0, 1] -> (B, C, H * scale, W * scale), not clamped. `drct.archs.progress.watched` reports the
        share that is done. What overflows in low precision is computed again in fp32, with a note (see
        `drct.inference.notes`).

        Raises:
            DRCTError: if the result is not finite in fp32 either.
        """
        was_training = self.network.training
        self.network.eval()
        try:
            result = self._compute(x, self.precision)
            if is_sound(result):
                return result
            if not is_sound(x):
                raise DRCTError("the image holds values that are not finite, or far too large")
            if self.precision != "fp32" and not self.traits.place:
                note(f"the network overflows in {self.precision} on this image: computed again in fp32")
                result = self._compute(x, "fp32")
                if is_sound(result):
                    return result
            raise DRCTError("the network's result is not finite: its weights are damaged or belong to other options")
        finally:
            self.network.train(was_training)

    def _compute(self, x: Tensor, precision: str) -> Tensor:
        return self._ensemble(x, precision) if self.self_ensemble else self._run(x, precision)

    def _ensemble(self, x: Tensor, precision: str) -> Tensor:
        total = torch.zeros((), device=x.device)
        for number in range(8):
            flip, turns = number >= 4, number % 4
            with progress.part(number, 8):
                result = self._run(torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1)), precision)
            result = torch.rot90(result, -turns, (-2, -1))
            total = total + (result.flip(-1) if flip else result)
        return total / 8

    def _run(self, x: Tensor, precision: str) -> Tensor:
        height, width = x.shape[-2:]
        tile = self._tile_for(height, width, precision)
        progress.describe(lambda: self._words(height, width, self._dtype(precision) or torch.float32, tile))
        return self._computed(x, precision, tile)

    def _computed(self, x: Tensor, precision: str, tile: Tile | None) -> Tensor:
        dtype = self._dtype(precision)
        with torch.autocast(self.device.type, dtype) if dtype else nullcontext():
            return self._in_tiles(x, tile) if tile else self._whole(x)

    def _dtype(self, precision: str) -> torch.dtype | None:
        """Return the dtype for `torch.autocast`; None without it."""
        return None if self.traits.place else PRECISIONS[precision]

    @property
    def _forward(self) -> Callable[[Tensor], Tensor]:
        return self.network._call_impl  # with hooks, but not compiled, which it would be anew for every size

    def _whole(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        result = upscale(self._forward, pad_to(x, *self.traits.fitting(height, width)), self.traits.window, self.scale)
        return result[..., : height * self.scale, : width * self.scale]

    def _in_tiles(self, x: Tensor, tile: Tile) -> Tensor:
        size, pad = tile
        traits = self.traits
        if traits.only_size is not None:
            return upscale_in_equal_tiles(self._forward, x, self.scale, traits.only_size, 2 * pad)
        if traits.square or traits.minimum > traits.window:  # then not all parts of an image are large enough
            side = size + 2 * pad
            return upscale_in_equal_tiles(self._forward, x, self.scale, traits.fitting(side, side), 2 * pad)
        return upscale_tiled(self._forward, x, traits.window, self.scale, size, pad)

    def _words(self, height: int, width: int, dtype: torch.dtype, tile: Tile | None) -> str:
        """Tell the size of an image, and the memory and the tiles with which it is computed."""
        words, memory = f"{width} x {height} pixels", self.traits.memory
        if memory is not None and (not isinstance(memory, MeasuredMemory) or memory.is_known(dtype, self.device)):
            rows, columns = (min(side, tile[0] + 2 * tile[1]) if tile else side for side in (height, width))
            needed = memory(rows, columns, dtype, self.device)
            words += f", about {needed / 1e9:.1f} GB"
        return words + (f", in tiles of {tile[0]} pixels" if tile else "")

    def _tile_for(self, height: int, width: int, precision: str) -> Tile | None:
        """Return the tiles for an image, if it gets any, with the overlap that `tile_error` asks for."""
        overlaps, tile = self._overlaps, cast(Tile | None, None if self.tile == "auto" else self.tile)
        if self.tile == "auto":
            tile = self._tile_as_needed(height, width, precision)
        elif overlaps and tile and max(height, width) > tile[0]:
            tile = tile[0], overlaps.smallest(precision)
        if overlaps and tile and max(height, width) > tile[0]:  # one tile has no error
            overlaps.tell(height, width, tile, precision)
        return tile

    def _tile_as_needed(self, height: int, width: int, precision: str) -> Tile | None:
        """Choose tiles if the image is too large for the memory that is free."""
        memory, dtype = self._memory, self._dtype(precision) or torch.float32
        if isinstance(memory, MeasuredMemory) and height * width <= memory.larger:
            return None  # to measure would take longer, and as much memory
        free = free_memory(self.device)
        needed = memory(height, width, dtype, self.device)
        overlap = partial(self._overlaps.smallest, precision) if self._overlaps else lambda: TILE_PAD
        tile = choose_tile(self.traits, height, width, dtype, self.device, free, overlap)
        how = f"tiles of {tile[0]} pixels" if tile else "as a whole"
        logger.log(
            logging.INFO if tile else logging.DEBUG,
            f"{width}x{height} pixels need about {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free: {how}",
        )
        return tile

    def _fits(self, height: int, width: int, precision: str) -> bool:
        """Return whether the free memory suffices for a whole image of this size."""
        needed = self._memory(height, width, self._dtype(precision) or torch.float32, self.device)
        return needed <= SHARE * free_memory(self.device)

    @property
    def _memory(self) -> Callable[[int, int, torch.dtype, torch.device], int]:
        memory = self.traits.memory or MeasuredMemory(self._forward, self.traits)
        self.traits = replace(self.traits, memory=memory)  # the next image needs no other measurement
        return memory


def _device(device: str | torch.device | None) -> torch.device:
    try:
        chosen = torch.device(device or accelerator() or "cpu")
        torch.zeros(1, device=chosen).item()  # 'meta' holds no values
        return chosen
    except Exception as error:  # of any type, as there are many kinds of devices
        raise DRCTError(f"device {device} is not there: {first_line(error)}") from error
