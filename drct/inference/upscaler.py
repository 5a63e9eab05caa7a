"""Upscaling pictures of any kind: `drct.load` and `Upscaler`, the Python API."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from drct.archs import progress
from drct.errors import DRCTError
from drct.images.pictures import Picture, from_pil, read_picture, to_pil
from drct.inference import notes
from drct.inference.alpha import fill_invisible, settle
from drct.inference.memory import TILE_PAD
from drct.inference.runner import NetworkRunner, Tile
from drct.inference.tiling import continue_periodically, whole_windows
from drct.inference.weights import read_network
from drct.runtime.weight_files import (
    AUTO,
    CLEAN_QUALITY,
    CLEAN_WEIGHTS,
    DEFAULT_WEIGHTS,
    PHOTO_WEIGHTS,
    available,
    clean_weights,
)

LARGEST_OUTSCALE = 1000  # times the sides of the image
CONTEXT = 4  # windows of a texture's repetition around it; a change of what lies beyond them is lost in rounding

ImageT = TypeVar("ImageT", str, os.PathLike, Image.Image, np.ndarray, Tensor)


def load(
    weights: str | os.PathLike = AUTO,
    device: str | torch.device | None = None,
    precision: str = "auto",
    tile: Tile | int | str | None = "auto",
    self_ensemble: bool = False,
    network: str | os.PathLike | Mapping[str, Any] | None = None,
    tile_error: float | None = None,
) -> "Upscaler":
    """Load weights, ready to upscale images.

    Args:
        weights: A file, also of another network or an ONNX model, a name such as 'DRCT-XS_SRx4', a folder of a training
            run or of `save_pretrained`, or a model on the Hugging Face Hub: see `drct.inference.weights.read_network`.
            'auto' takes those that come with the project: `AutomaticUpscaler` chooses by image and `outscale`.
        device, precision, tile, self_ensemble, tile_error: See `drct.inference.runner.NetworkRunner`.
        network: Option file, or mapping of the same content, whose `network_g` is the architecture of the weights,
            where that does not follow from them.

    Raises:
        DRCTError: if there are no such weights, or the device or precision is not available.

    >>> import drct
    >>> upscaler = drct.load("DRCT-XS_SRx4", device="cpu", precision="fp32")
    >>> upscaler
    Upscaler(DRCT x4 on cpu, fp32, tile auto)
    >>> upscaler.scale
    4
    >>> upscaler.upscale("photo.png").size  # which has 16x12 pixels
    (64, 48)
    """
    settings = {
        "device": device,
        "precision": precision,
        "tile": tile,
        "self_ensemble": self_ensemble,
        "tile_error": tile_error,
    }
    if weights != AUTO:
        return _load(weights, network, **settings)
    if network is not None:
        raise DRCTError("a network is that of weights: name these too")
    return AutomaticUpscaler(**settings)


def _load(
    weights: str | os.PathLike, network: str | os.PathLike | Mapping[str, Any] | None = None, **settings: Any
) -> "Upscaler":
    loaded = read_network(weights, network)
    upscaler = Upscaler(loaded.network, **settings, traits=loaded.traits)
    upscaler.name = loaded.name
    return upscaler


class Upscaler(NetworkRunner):
    """A super-resolution network that upscales pictures, arrays and tensors. See `NetworkRunner` for the arguments."""

    name = ""  # of its weights

    def for_picture(self, picture: Picture, outscale: float | None = None) -> "Upscaler":
        """Return the upscaler that a picture gets: this one, unless it is chosen by the picture and the factor."""
        return self

    def upscale(self, image: ImageT, outscale: float | None = None, wrap: bool = False) -> Any:
        """Upscale an image of any size.

        Args:
            image: A picture file's path, or a PIL image: returns a PIL image of 8 bits, with alpha, colour profile,
                EXIF and XMP of the original, upright (`upscale_picture` keeps 16 bits). An array (H, W) or (H, W, C) of
                1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha) channels, uint8, uint16 or floats in [0, 1]; or a
                tensor (C, H, W) or (B, C, H, W) of floats in [0, 1] with the network's channels: returns the same
                kind, type and device, in the same range.
            outscale: Factor of the result, which is resized to it if it is not the network's.
            wrap: Whether the image is a texture to be repeated: its edges are computed with the opposite ones beside
                them, so that the result can be repeated without seams.

        Raises:
            DRCTError: if the image cannot be read or is none of these, or the network's result is not finite.

        >>> import drct, numpy, torch
        >>> upscaler = drct.load()
        >>> gray = upscaler.upscale(numpy.zeros((12, 16), numpy.uint16))
        >>> gray.shape, gray.dtype
        ((48, 64), dtype('uint16'))
        >>> upscaler.upscale(torch.rand(2, 3, 12, 16)).shape
        torch.Size([2, 3, 48, 64])
        >>> upscaler.upscale("photo.png", outscale=1.5).size
        (24, 18)
        >>> upscaler.upscale("photo.png", wrap=True).size
        (64, 48)
        """
        if isinstance(image, Tensor):
            return self.upscale_tensor(image, outscale, wrap)
        if isinstance(image, np.ndarray):
            pixels = image[..., None] if image.ndim == 2 else image
            array = self.upscale_pixels(pixels, outscale, wrap)
            return array[..., 0] if image.ndim == 2 else array
        if isinstance(image, Image.Image):
            if 0 in image.size:
                raise DRCTError(f"the image has no pixels, its size is {image.size}")
            return to_pil(self.upscale_picture(from_pil(image), outscale, wrap))
        if isinstance(image, str | os.PathLike):
            return to_pil(self.upscale_picture(read_picture(image), outscale, wrap))
        raise DRCTError(f"an image is a path, a PIL image, an array or a tensor, not {type(image).__name__}")

    def size(self, height: int, width: int, outscale: float | None = None) -> tuple[int, int]:
        """Return the height and width of the result for an image of this size."""
        factor = self.factor(outscale)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def factor(self, outscale: float | None = None) -> float:
        """Return the factor of enlargement, which is the network's scale if None is given."""
        factor = self.scale if outscale is None else outscale
        if not isinstance(factor, Real) or isinstance(factor, bool) or not 0 < factor <= LARGEST_OUTSCALE:
            raise DRCTError(f"outscale must be a number above 0, at most {LARGEST_OUTSCALE}, not {outscale!r}")
        return float(factor)

    def check_pictures(self) -> None:
        """Raise `DRCTError` if the network upscales no pictures."""
        if not self.traits.upscales:
            raise DRCTError("these weights are of a network without a reconstruction head, which upscales nothing")
        if self.traits.channels not in (1, 3):
            raise DRCTError(f"the network takes {self.traits.channels} channels, pictures have 3")

    def upscale_tensor(self, image: Tensor, outscale: float | None = None, wrap: bool = False) -> Tensor:
        """Upscale images as in `upscale`: (C, H, W) or (B, C, H, W) of floats in [0, 1] with the network's channels."""
        c = self.traits.channels
        fits = image.ndim in (3, 4) and image.shape[-3] == c and image.numel()
        dense = image.layout is torch.strided and image.device.type != "meta"
        if not fits or not dense or not image.is_floating_point():
            found = f"{image.dtype} {tuple(image.shape)}".removeprefix("torch.")
            raise DRCTError(f"tensors are (B, {c}, H, W) or ({c}, H, W), floats in [0, 1], not {found}")
        self.size(image.shape[-2], image.shape[-1], outscale)  # refuses what is no factor before computing
        batch = image[None] if image.ndim == 3 else image
        result = self._enlarged(self.run, batch.to(self.device, torch.float32), outscale, wrap).clamp_(0, 1)
        return (result[0] if image.ndim == 3 else result).to(image.device, image.dtype)

    def upscale_picture(self, picture: Picture, outscale: float | None = None, wrap: bool = False) -> Picture:
        """Upscale a picture, which keeps its depth and metadata, and its printed size. See `upscale`."""
        pixels = self.upscale_pixels(picture.pixels, outscale, wrap)
        metadata = picture.metadata.enlarged(self.scale if outscale is None else outscale)
        return replace(picture, pixels=pixels, metadata=metadata, lossy=False, quality=None)

    def upscale_pixels(self, pixels: np.ndarray, outscale: float | None = None, wrap: bool = False) -> np.ndarray:
        """Upscale an array with channels as in `upscale`: (H, W, C) -> (H * scale, W * scale, C) of the same dtype.

        Where the alpha is 0, the result has colours that continue the visible ones around.
        """
        if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or 0 in pixels.shape:
            raise DRCTError(f"an image is an array (H, W) or (H, W, C) of 1 to 4 channels, not {pixels.shape}")
        largest = {"uint8": 255, "uint16": 65535}.get(pixels.dtype.name, 1)
        if largest == 1 and not np.issubdtype(pixels.dtype, np.floating):
            raise DRCTError(f"pixels are uint8, uint16 or floats in [0, 1], not {pixels.dtype}")
        self.check_pictures()
        self.size(pixels.shape[0], pixels.shape[1], outscale)
        if largest == 1 and not (pixels.min() >= 0 and pixels.max() <= 1):  # refuses NaN, too
            raise DRCTError(f"floats are in [0, 1], these are from {pixels.min():g} to {pixels.max():g}: divide them")
        values = torch.from_numpy(pixels.astype(np.float32)).to(self.device) / largest
        values = values.permute(2, 0, 1)[:, None]  # (C, 1, H, W)
        result = self._enlarged(self._run_channels, values, outscale, wrap)
        result = (result.clamp_(0, 1) * largest)[:, 0].permute(1, 2, 0)
        result = result.round() if largest > 1 else result
        return result.cpu().numpy().astype(pixels.dtype, order="C")  # the order that writers of files expect

    def _run_channels(self, values: Tensor) -> Tensor:
        """Run the network on the channels of a picture: (C, 1, H, W) -> (C, 1, H * scale, W * scale)."""
        count = 1 if len(values) < 3 else 3
        colours, alpha = values[:count], values[count:]
        varies = bool(len(alpha) and alpha.max() > alpha.min())  # mostly, alpha is opaque
        with progress.part(0, 1 + varies):
            result = self._run_rgb(fill_invisible(colours, alpha) if varies else colours)
        if varies:
            with progress.part(1, 2):
                result = torch.cat([result, settle(self._run_rgb(alpha), alpha)])
        elif len(alpha):
            result = torch.cat([result, alpha.flatten()[0].expand(1, 1, *result.shape[2:])])
        return result

    def _run_rgb(self, x: Tensor) -> Tensor:
        """Run the network on RGB or gray: (C, 1, H, W) -> (C, 1, H', W'), C = 3 or 1.

        Gray is repeated as RGB; a network of one channel gets each channel of RGB as an image.
        """
        if self.traits.channels == 1:
            return self.run(x)
        result = self.run(x.expand(3, -1, -1, -1).transpose(0, 1)).transpose(0, 1)
        return result if len(x) == 3 else result.mean(0, keepdim=True)

    def _enlarged(self, enlarge: Callable[[Tensor], Tensor], x: Tensor, outscale: float | None, wrap: bool) -> Tensor:
        """Enlarge images (B, C, H, W) by the network's scale with `enlarge`, and resize them to `outscale`."""
        height, width = x.shape[-2:]
        if wrap:
            window = self.traits.window
            context, _ = whole_windows(max(TILE_PAD, CONTEXT * window), 0, window)
            result = enlarge(continue_periodically(x, context, window))
            result = result[..., context * self.scale :, context * self.scale :]
            result = result[..., : height * self.scale, : width * self.scale]
        else:
            result = enlarge(x)
        size = self.size(height, width, outscale)
        return result if result.shape[-2:] == size else _resized(result, size, wrap)


def weights_for(picture: Picture, factor: float) -> str:
    """Choose, of the weights that come with the project, those that suit a picture and the factor of its enlargement.

    Pictures that were compressed with loss get `PHOTO_WEIGHTS`, which do not take the traces of compression for
    details: JPEG of a quality below `CLEAN_QUALITY`, WebP and AVIF. All others get `clean_weights`.
    """
    lossy = picture.lossy and (picture.quality or 0) < CLEAN_QUALITY
    return PHOTO_WEIGHTS if lossy else clean_weights(factor)


def installed(name: str) -> str:
    """Return weights chosen by `weights_for`, or `DEFAULT_WEIGHTS` and a note if there is no file for their scale."""
    if name not in CLEAN_WEIGHTS or name in available():
        return name
    notes.note(f"{name} is not installed: {DEFAULT_WEIGHTS} takes its place, whose results are reduced")
    return DEFAULT_WEIGHTS


class AutomaticUpscaler(Upscaler):
    """Upscales with the weights that come with the project, those that suit the picture and its result better.

    `weights_for` chooses for pictures. Arrays and tensors, which do not tell where they come from, are taken for clean
    images. Networks other than that of `DEFAULT_WEIGHTS` are loaded when they are first needed. Settings are those of
    `load`.
    """

    def __init__(self, **settings: Any) -> None:
        loaded = read_network(DEFAULT_WEIGHTS)
        super().__init__(loaded.network, **settings, traits=loaded.traits)
        self.name = loaded.name
        self._settings = settings
        self._others: dict[str, Upscaler | None] = {DEFAULT_WEIGHTS: None}  # by the wanted weights; None: this one

    def for_picture(self, picture: Picture, outscale: float | None = None) -> Upscaler:
        """Return the upscaler with the weights that suit the picture and the factor."""
        return self._with(weights_for(picture, self.factor(outscale)))

    def _for_clean(self, outscale: float | None) -> Upscaler:
        return self._with(clean_weights(self.factor(outscale)))

    def _with(self, wanted: str) -> Upscaler:
        if wanted not in self._others:
            name = installed(wanted)
            self._others[wanted] = None if name == DEFAULT_WEIGHTS else _load(name, **self._settings)
        return self._others[wanted] or self

    def upscale_picture(self, picture: Picture, outscale: float | None = None, wrap: bool = False) -> Picture:
        """Upscale a picture as `Upscaler.upscale_picture` does, with the weights that suit it."""
        chosen = self.for_picture(picture, outscale)
        if chosen is not self:
            return chosen.upscale_picture(picture, outscale, wrap)
        return super().upscale_picture(picture, outscale, wrap)

    def upscale_pixels(self, pixels: np.ndarray, outscale: float | None = None, wrap: bool = False) -> np.ndarray:
        """Upscale an array as `Upscaler.upscale_pixels` does, with the weights that suit the factor."""
        chosen = self._for_clean(outscale)
        if chosen is not self:
            return chosen.upscale_pixels(pixels, outscale, wrap)
        return super().upscale_pixels(pixels, outscale, wrap)

    def upscale_tensor(self, image: Tensor, outscale: float | None = None, wrap: bool = False) -> Tensor:
        """Upscale images as `Upscaler.upscale_tensor` does, with the weights that suit the factor."""
        chosen = self._for_clean(outscale)
        if chosen is not self:
            return chosen.upscale_tensor(image, outscale, wrap)
        return super().upscale_tensor(image, outscale, wrap)


def _resized(x: Tensor, size: tuple[int, int], wrap: bool) -> Tensor:
    """Resize images (B, C, H, W), as textures to be repeated if `wrap`."""
    if not wrap:
        return F.interpolate(x, size, mode="bicubic", antialias=True)
    for dim, length in zip((2, 3), size, strict=True):
        x = torch.cat([x] * 3, dim)
        larger = [*x.shape[2:]]
        larger[dim - 2] = 3 * length
        x = F.interpolate(x, larger, mode="bicubic", antialias=True).narrow(dim, length, length)
    return x
