"""Upscaling of uploaded files for the web page."""

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from drct.archs import progress as progress_of
from drct.errors import DRCTError
from drct.images.pictures import READABLE, Picture, read_picture, to_pil, write_picture
from drct.inference import notes
from drct.inference.upscaler import Upscaler, installed, weights_for
from drct.inference.weights import read_network
from drct.runtime.weight_files import AUTO, CLEAN_WEIGHTS, DEFAULT_WEIGHTS

PREVIEW_SIDE = 2048  # pixels; larger results are reduced to be shown, not in the file to download


@dataclass
class UpscaledFile:
    """An upscaled file and its previews."""

    before: Path  # JPEG of the input, bicubically resized to the size of `after`
    after: Path  # JPEG of the result, reduced if a side is above `PREVIEW_SIDE`
    file: Path  # the result: PNG, or TIFF if its pixels are floats
    summary: str  # one line with sizes, time and notes for the user


class Service:
    """Upscales uploaded files, one at a time, on a device and in a precision as in `drct.load`.

    Results are written to `folder`, which the caller deletes. Files of more than `max_megapixels` are refused.
    `networks` has the option files that name the architecture of weights which do not tell it themselves.
    """

    def __init__(
        self,
        folder: Path,
        max_megapixels: float,
        device: str | None = None,
        precision: str = "auto",
        networks: Mapping[str, str | None] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.max_megapixels = max_megapixels
        self.device = device
        self.precision = precision
        self._network = lru_cache(2)(lambda weights: read_network(weights, networks.get(weights)))
        self._computing = threading.Lock()
        self._stopped = False

    def upscaler(self, weights: str, self_ensemble: bool = False) -> Upscaler:
        """Return an upscaler with these weights (see `drct.load`). The networks used last are kept in memory."""
        loaded = self._network(weights)
        return Upscaler(loaded.network, self.device, self.precision, self_ensemble=self_ensemble, traits=loaded.traits)

    def upscale(
        self,
        path: Path,
        weights: str,
        self_ensemble: bool = False,
        wrap: bool = False,
        progress: Callable[[float], object] = lambda _: None,
        outscale: float | None = None,
    ) -> UpscaledFile:
        """Upscale a picture file, as `drct.load` and `Upscaler.upscale` do with arguments of the same names.

        The summary names the weights that 'auto' takes. `progress` is called with the share of the work that is done,
        from 0 to 1. Error messages contain the file's name without its folder.

        Raises:
            DRCTError: if the file is too large or not a picture, or the service was stopped.
        """
        try:
            picture = self._read(path)
        except DRCTError as error:
            raise DRCTError(str(error).replace(str(path), path.name)) from error

        def report(share: float) -> None:
            if self._stopped:
                raise DRCTError("the server was stopped")
            progress(share)

        with self._computing:
            report(0)
            with progress_of.watched(report), notes.collected() as found:
                chosen = self._chosen(picture, outscale) if weights == AUTO else weights
                upscaler, kind = self.upscaler(chosen, self_ensemble), self._network(chosen).kind
                start = time.perf_counter()
                result = upscaler.upscale_picture(picture, outscale, wrap)
            seconds = time.perf_counter() - start
        found = [*[f"automatic choice: {chosen}"] * (weights == AUTO), *[f"by {kind}"] * bool(kind), *found]
        return self._write(f"{path.stem}_x{upscaler.factor(outscale):g}", picture, result, seconds, found)

    def _chosen(self, picture: Picture, outscale: float | None) -> str:
        """Name the weights that suit a picture, as `AutomaticUpscaler` takes them."""
        factor = CLEAN_WEIGHTS[DEFAULT_WEIGHTS] if outscale is None else outscale
        return installed(weights_for(picture, factor))

    def stop(self) -> None:
        """Abort the computation in progress: Python crashes if a thread computes while it exits."""
        self._stopped = True
        with self._computing:
            pass

    def _read(self, path: Path) -> Picture:
        """Read a picture, but refuse it before it is decoded if its header says that it is too large."""
        try:
            with Image.open(path, formats=READABLE) as image:
                width, height = image.size
            picture = None
        except Exception:  # Pillow raises errors of any type for headers that `read_picture` may understand
            picture = read_picture(path)
            height, width = picture.pixels.shape[:2]
        megapixels = width * height / 1e6
        if megapixels > self.max_megapixels:
            raise DRCTError(
                f"{path.name} has {width} x {height} pixels, {megapixels:.3g} megapixels: at most "
                f"{self.max_megapixels:g} are taken. Choose a smaller one, or start drct serve with --max-megapixels."
            )
        return picture or read_picture(path)

    def _write(self, name: str, picture: Picture, result: Picture, seconds: float, found: list[str]) -> UpscaledFile:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        file = folder / f"{name}{'.tif' if result.pixels.dtype.kind == 'f' else '.png'}"
        lost = write_picture(file, result)
        (height, width), (large_height, large_width) = picture.pixels.shape[:2], result.pixels.shape[:2]
        reduction = min(1, PREVIEW_SIDE / max(large_height, large_width))
        shown = max(1, round(large_width * reduction)), max(1, round(large_height * reduction))
        for of, path in ((picture, folder / "before.jpg"), (result, folder / "after.jpg")):
            preview(of, shown).save(path, quality=95, subsampling=0, icc_profile=of.metadata.icc_profile)
        parts = (
            f"{width} x {height} to {large_width} x {large_height} pixels in {seconds:.1f} s, "
            f"{large_width * large_height / 1e6 / seconds:.2f} megapixels/s",
            f"shown at {shown[0]} x {shown[1]}, the file has all pixels" if reduction < 1 else "",
            picture.note,
            *found,
            lost,
        )
        return UpscaledFile(folder / "before.jpg", folder / "after.jpg", file, "; ".join(filter(None, parts)))


def preview(picture: Picture, size: tuple[int, int]) -> Image.Image:
    """Return an 8-bit gray or RGB image, on white if it has alpha, bicubically resized to (width, height)."""
    image = to_pil(picture)
    if image.mode in ("LA", "RGBA"):
        opaque = Image.new(image.mode[:-1], image.size, "white")
        opaque.paste(image.convert(opaque.mode), mask=image.getchannel("A"))
        image = opaque
    return image.resize(size, Image.Resampling.BICUBIC)
