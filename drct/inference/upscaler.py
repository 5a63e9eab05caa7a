"""A network, ready to upscale: the precision, the device and the tiles are chosen here, for every way of using it."""

import logging
import os
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from drct.errors import DRCTError
from drct.images.pictures import Picture, from_pil, read_picture, to_pil
from drct.inference.memory import TILE_PAD, choose_tile, free_memory
from drct.inference.tiling import upscale, upscale_tiled, whole_windows, window_of
from drct.inference.weights import DEFAULT_WEIGHTS, load_network
from drct.runtime.device import PRECISIONS, accelerator, fastest_precision

Tile = tuple[int, int]  # size and overlap, in input pixels
ImageT = TypeVar("ImageT", str, os.PathLike, Image.Image, np.ndarray, Tensor)

logger = logging.getLogger("drct")


def load(
    weights: str | os.PathLike = DEFAULT_WEIGHTS,
    device: str | torch.device | None = None,
    precision: str = "auto",
    tile: Tile | int | str | None = "auto",
    self_ensemble: bool = False,
) -> "Upscaler":
    """Load weights, ready to upscale images.

    Args:
        weights: A file, a name such as 'DRCT-XS_SRx4' (see `drct.inference.weights`), a folder of `save_pretrained` or
            a model on the Hugging Face Hub. The network follows from the weights.
        device: 'cpu', 'cuda', 'cuda:1', 'mps'; None takes the accelerator where there is one.
        precision: 'fp32', 'bf16', 'fp16', or 'auto': what is fastest on the device, where it hardly changes results.
        tile: 'auto' computes the whole image at once if it fits in memory, and else as few tiles as do; None always
            the whole image; a number, or two, the size of tiles and their overlap in input pixels.
        self_ensemble: Average the results of all 8 rotations and reflections: slightly better, 8 times slower.

    Raises:
        DRCTError: if there are no such weights, or the device or precision is not there.

    >>> import drct
    >>> upscaler = drct.load("DRCT-XS_SRx4", device="cpu", precision="fp32")
    >>> upscaler.scale
    4
    >>> upscaler.upscale("photo.png").size  # which has 16x12 pixels
    (64, 48)
    """
    return Upscaler(load_network(weights), device, precision, tile, self_ensemble)


class Upscaler:
    """A super-resolution network with the way it is run. See `load` for the arguments.

    Args:
        network: Takes (B, C, H, W) in [0, 1]. Is moved to the device.
        scale: Its factor; `network.upscale` if None.
        window_size: Of what the sides of its input must be multiples; `network.window_size`, or 1, if None.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str | torch.device | None = None,
        precision: str = "auto",
        tile: Tile | int | str | None = "auto",
        self_ensemble: bool = False,
        scale: int | None = None,
        window_size: int | None = None,
    ) -> None:
        self.device = _device(device)
        moved: Any = network.to(self.device)
        self.network = moved
        self.scale: int = scale or moved.upscale
        self.window_size = window_size or window_of(moved)
        if precision == "auto":
            precision = fastest_precision(self.device)
        if precision not in PRECISIONS:
            raise DRCTError(f"precision must be auto, {', '.join(PRECISIONS)}, not {precision!r}")
        self.precision = precision
        self.tile = self._rounded(tile)
        self.self_ensemble = self_ensemble

    def _rounded(self, tile: Tile | int | str | None) -> Tile | str | None:
        """Tiles are whole windows."""
        if tile is None or tile == "auto":
            return tile
        sides: Any = tile if isinstance(tile, tuple | list) else (tile, TILE_PAD)
        whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
        if not whole or len(sides) != 2 or sides[0] < 1 or sides[1] < 0:
            raise DRCTError(f"tile must be auto, a size in pixels, or a size and an overlap, not {tile!r}")
        size, pad = sides
        return whole_windows(size, pad, self.window_size)

    def upscale(self, image: ImageT, outscale: float | None = None) -> Any:
        """Upscale an image of any size.

        Args:
            image: A picture file's path, or a PIL image: returns a PIL image of 8 bits, with alpha, colour profile and
                EXIF of the original, upright (`upscale_picture` keeps 16 bits). An array (H, W) or (H, W, C) of
                1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha) channels, uint8, uint16 or floats in [0, 1]; or a
                tensor (C, H, W) or (B, C, H, W) of floats in [0, 1] with the network's channels: returns the same
                kind, type and device, in the same range.
            outscale: Factor of the result, which is resized to it if it is not the network's.

        Raises:
            DRCTError: if the image cannot be read or is none of these.

        >>> import drct, numpy, torch
        >>> upscaler = drct.load()
        >>> gray = upscaler.upscale(numpy.zeros((12, 16), numpy.uint16))
        >>> gray.shape, gray.dtype
        ((48, 64), dtype('uint16'))
        >>> upscaler.upscale(torch.rand(2, 3, 12, 16)).shape
        torch.Size([2, 3, 48, 64])
        >>> upscaler.upscale("photo.png", outscale=1.5).size
        (24, 18)
        """
        if isinstance(image, Tensor):
            channels = getattr(getattr(self.network, "conv_first", None), "in_channels", image.shape[-3:][0])
            fits = image.ndim in (3, 4) and image.shape[-3] == channels and image.numel()
            if not fits or not image.is_floating_point():
                raise DRCTError(
                    f"tensors are (B, {channels}, H, W) or ({channels}, H, W), floats in [0, 1], not {_named(image)}"
                )
            batch = image[None] if image.ndim == 3 else image
            result = self._resized(self.run(batch.to(self.device, torch.float32)), batch, outscale).clamp_(0, 1)
            return (result[0] if image.ndim == 3 else result).to(image.device, image.dtype)
        if isinstance(image, np.ndarray):
            pixels = image[..., None] if image.ndim == 2 else image
            array = self.upscale_pixels(pixels, outscale)
            return array[..., 0] if image.ndim == 2 else array
        if isinstance(image, Image.Image):
            return to_pil(self.upscale_picture(from_pil(image), outscale))
        if isinstance(image, str | os.PathLike):
            return to_pil(self.upscale_picture(read_picture(image), outscale))
        raise DRCTError(f"an image is a path, a PIL image, an array or a tensor, not {type(image).__name__}")

    def size(self, height: int, width: int, outscale: float | None = None) -> tuple[int, int]:
        """Height and width of the result for an image."""
        factor = self.scale if outscale is None else outscale
        return max(1, round(height * factor)), max(1, round(width * factor))

    def check_pictures(self) -> None:
        """Raise `DRCTError` if the network takes no pictures of any size, RGB, gray or with alpha."""
        network = self.network
        if getattr(network, "upsampler", None) == "":
            raise DRCTError("these weights are of a network without a reconstruction head, which upscales nothing")
        if getattr(network, "absolute_pos_embed", None) is not None:
            raise DRCTError("these weights are of a network with ape, which takes images of one size only")
        if hasattr(network, "conv_first") and network.conv_first.in_channels != 3:
            raise DRCTError(f"the network takes {network.conv_first.in_channels} channels, pictures have 3")

    def upscale_picture(self, picture: Picture, outscale: float | None = None) -> Picture:
        """The same for a picture, which keeps its kind, profile and EXIF."""
        pixels = self.upscale_pixels(picture.pixels, outscale)
        return Picture(pixels, picture.format, picture.icc_profile, picture.exif, picture.note)

    def upscale_pixels(self, pixels: np.ndarray, outscale: float | None = None) -> np.ndarray:
        """(H, W, C) -> (H * scale, W * scale, C) of the same type, C from 1 to 4: gray or RGB, and perhaps alpha."""
        if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or 0 in pixels.shape:
            raise DRCTError(f"an image is an array (H, W) or (H, W, C) of 1 to 4 channels, not {pixels.shape}")
        largest = {"uint8": 255, "uint16": 65535}.get(pixels.dtype.name, 1)
        if largest == 1 and not np.issubdtype(pixels.dtype, np.floating):
            raise DRCTError(f"pixels are uint8, uint16 or floats in [0, 1], not {pixels.dtype}")
        self.check_pictures()
        if largest == 1 and not (pixels.min() >= 0 and pixels.max() <= 1):  # so that NaN is refused too
            raise DRCTError(f"floats are in [0, 1], these are from {pixels.min():g} to {pixels.max():g}: divide them")
        values = torch.from_numpy(pixels.astype(np.float32)).to(self.device) / largest
        values = values.permute(2, 0, 1)[:, None]  # (C, 1, H, W)
        colours = 1 if len(values) < 3 else 3
        result = self._upscale_rgb(values[:colours], outscale)
        if len(values) > colours:
            alpha = values[colours:]
            if alpha.max() == alpha.min():  # mostly opaque
                more = alpha.flatten()[0].expand(1, 1, *result.shape[2:])
            else:
                more = self._upscale_rgb(alpha, outscale)
            result = torch.cat([result, more])
        result = (result.clamp_(0, 1) * largest)[:, 0].permute(1, 2, 0)
        result = result.round() if largest > 1 else result
        return result.cpu().numpy().astype(pixels.dtype, order="C")  # as those who write files expect it

    def _upscale_rgb(self, x: Tensor, outscale: float | None) -> Tensor:
        """(C, 1, H, W) -> (C, 1, H', W'), C = 3, or 1 for gray, which the network gets as RGB."""
        result = self._resized(self.run(x.expand(3, -1, -1, -1).transpose(0, 1)), x, outscale).transpose(0, 1)
        return result if len(x) == 3 else result.mean(0, keepdim=True)

    def _resized(self, result: Tensor, x: Tensor, outscale: float | None) -> Tensor:
        if outscale is None or outscale == self.scale:
            return result
        if not isinstance(outscale, int | float) or not outscale > 0:
            raise DRCTError(f"outscale must be a number above 0, not {outscale!r}")
        return F.interpolate(result, self.size(x.shape[-2], x.shape[-1], outscale), mode="bicubic", antialias=True)

    @torch.no_grad()
    def run(self, x: Tensor) -> Tensor:
        """The network's output for images of any size on its device: (B, C, H, W) -> (B, C, H * scale, W * scale).

        Not clamped. In evaluation mode, whatever mode the network is in.
        """
        was_training = self.network.training
        self.network.eval()
        try:
            if not self.self_ensemble:
                return self._run(x)
            total = torch.zeros((), device=x.device)
            for flip in (False, True):
                for turns in range(4):
                    turned = torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1))
                    result = torch.rot90(self._run(turned), -turns, (-2, -1))
                    total = total + (result.flip(-1) if flip else result)
            return total / 8
        finally:
            self.network.train(was_training)

    def _run(self, x: Tensor) -> Tensor:
        forward = self.network.forward  # not compiled, which it would be for every size
        tile = self._tile_as_needed(*x.shape[-2:]) if self.tile == "auto" else self.tile
        dtype = PRECISIONS[self.precision]
        with torch.autocast(self.device.type, dtype) if dtype else nullcontext():
            if tile:
                return upscale_tiled(forward, x, self.window_size, self.scale, *tile, progress=True)  # type: ignore
            return upscale(forward, x, self.window_size, self.scale)

    def _tile_as_needed(self, height: int, width: int) -> Tile | None:
        """Tiles if an image is too large for the memory that is free."""
        if not hasattr(self.network, "memory_needed"):
            raise DRCTError(
                f"tile: auto needs a network that knows its memory, which {type(self.network).__name__} does not: set "
                "tile: {tile_size: 256, tile_pad: 32}"
            )
        free, dtype = free_memory(self.device), PRECISIONS[self.precision] or torch.float32
        needed = self.network.memory_needed(height, width, dtype, self.device)
        tile = choose_tile(self.network, height, width, dtype, self.device, free)
        how = f"tiles of {tile[0]} pixels" if tile else "as a whole"
        logger.log(
            logging.INFO if tile else logging.DEBUG,
            f"{width}x{height} pixels need about {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free: {how}",
        )
        return tile


def _device(device: str | torch.device | None) -> torch.device:
    try:
        chosen = torch.device(device or accelerator() or "cpu")
        torch.empty(0, device=chosen)
        return chosen
    except (RuntimeError, AssertionError) as error:
        raise DRCTError(f"device {device} is not there: {str(error).splitlines()[0]}") from error


def _named(x: Tensor) -> str:
    return f"{x.dtype} {tuple(x.shape)}".removeprefix("torch.")
