"""The overlap with which tiles change a picture by no more than is asked for, measured on a sample."""

import logging
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw
from pydantic import ValidationError
from torch import Tensor, nn

from drct.archs import progress
from drct.archs.traits import NetworkTraits
from drct.errors import DRCTError
from drct.files import cache_folder, write_text
from drct.inference.notes import note
from drct.inference.tiling import computed_pixels
from drct.runtime.weight_hashes import hash_of_network
from drct.schema.tile_errors import TileErrors

# Of the error that is allowed, the sample may have one part: pictures differ, and the four sides of a tile add up
MARGIN = 4
HALVES = (64, 128, 256)  # input pixels; about half of the sides of samples, the next taken where one does not suffice
STEP = 8  # input pixels, at least, from one overlap to the next
SHORTEST = 0.1  # seconds that tell how long something takes
DISCS = 0.1  # per pixel of the sample, so that they cover it
RADII = 2, 64  # of the discs, in pixels

Tile = tuple[int, int]  # size and overlap on each side, in input pixels
Compute = Callable[[Tensor, str, Tile | None], Tensor]  # an image (1, C, H, W), in a precision, in tiles or as a whole

logger = logging.getLogger("drct")


def check_tile_error(error: object, tile: object, traits: NetworkTraits) -> None:
    """Raise `DRCTError` if an error is none that tiles can be asked to keep to, or does not go with the other options.

    Args:
        error: Option `tile_error` of `drct.inference.runner.NetworkRunner`.
        tile: Its option `tile`.
        traits: What the network takes.
    """
    if isinstance(error, bool) or not isinstance(error, int | float) or not 0 < error < math.inf:
        raise DRCTError(f"tile_error must be a number above 0, in levels of 255, not {error!r}")
    if traits.only_size is not None:
        height, width = traits.only_size
        raise DRCTError(
            f"tile_error cannot be measured: the network takes images of {width}x{height} pixels only, so there is no "
            "whole image to compare tiles with. Leave it out"
        )
    if tile is None:
        raise DRCTError("tile_error is about tiles, but images are to be computed as a whole: leave out one of them")
    if isinstance(tile, tuple | list):
        raise DRCTError("tile_error chooses the overlap of tiles: give their size only")


class TileOverlaps:
    """Overlaps with which the tiles of a network keep to an error, by precision.

    What a network needs is measured once, when it is first asked for, and kept in the user's cache folder.

    Args:
        error: Root mean square of the differences to the whole picture that is allowed, in levels of 255.
        network: The network.
        traits: What it takes.
        device: Where it is.
        compute: Runs it.
        fits: Tells whether the memory suffices for an image of this height and width in a precision.
    """

    def __init__(
        self,
        error: float,
        network: nn.Module,
        traits: NetworkTraits,
        device: torch.device,
        compute: Compute,
        fits: Callable[[int, int, str], bool],
    ) -> None:
        self.error = float(error)
        self._network = network
        self._traits = traits
        self._device = device
        self._compute = compute
        self._fits = fits
        self._found: dict[str, tuple[int, TileErrors]] = {}
        self._told: set[tuple[Tile, str]] = set()

    def smallest(self, precision: str) -> int:
        """Return the smallest overlap with which tiles keep to the error, in input pixels.

        Raises:
            DRCTError: if none does, or the memory does not suffice to measure it.
        """
        if precision not in self._found:
            progress.describe(lambda: "measuring how much tiles must overlap")
            with progress.span(0, 0):
                self._found[precision] = self._find(precision)
        return self._found[precision][0]

    def tell(self, height: int, width: int, tile: Tile, precision: str) -> None:
        """Tell the user, once for tiles of a size, what they change and cost for an image of this size."""
        if (tile, precision) in self._told:
            return
        self._told.add((tile, precision))
        overlap, errors = self._found[precision]
        rms, largest = errors.worst(overlap)
        times = computed_pixels(height, width, *tile) / (height * width)
        note(
            f"tiles of {tile[0]} pixels with {overlap} around each, to differ from the whole image by no more than "
            f"{self.error:g} of 255 levels (RMS); beside the cuts of the sample it was {rms:.2g}, at most "
            f"{largest:.2g}. {times:.2f} times the pixels are computed, which takes about "
            f"{times * errors.slowdown:.1f} times as long"
        )

    def _find(self, precision: str) -> tuple[int, TileErrors]:
        traits = self._traits
        sizes = traits.scale, traits.window, traits.channels, traits.minimum, traits.square
        key = hash_of_network(self._network, precision, self._device.type, *sizes)
        errors = None
        for half in sorted({self.fitting(half) for half in HALVES}):  # the same whatever was measured before
            found = _read(f"{key}_{half}", half, self.step)
            if found is None:
                if not self._fits(2 * half, 2 * half, precision):
                    raise DRCTError(_refusal(self.error, errors, no_memory=True))
                found = self.measure(half, precision)
                _write(f"{key}_{half}", found)
            errors = found
            overlap = errors.overlap(self.error / MARGIN)
            if overlap is not None:
                return overlap, errors
        raise DRCTError(_refusal(self.error, errors, no_memory=False))

    @property
    def step(self) -> int:
        """Input pixels from one overlap to the next: whole windows."""
        return -(-STEP // self._traits.window) * self._traits.window

    def fitting(self, half: int) -> int:
        """Return a side of at least `half` pixels: windows in an odd number, so that no larger unit divides it."""
        window = self._traits.window
        windows = -(-max(half, 4 * window, self._traits.minimum) // window)
        return (windows + 1 - windows % 2) * window

    def measure(self, half: int, precision: str) -> TileErrors:
        """Compare the four quarters of a sample, of side `half` and each computed by itself, with the whole."""
        x = sample(2 * half, self._traits.channels).to(self._device)
        self._compute(x[..., :half, :half], precision, None)  # prepares what only the first image waits for
        results, seconds = [], []
        on_cpu = self._device.type == "cpu" and not self._traits.place
        clock = time.process_time if on_cpu else time.perf_counter  # other programs do not change the former
        tiles: tuple[Tile | None, ...] = None, (half, 0)
        for tile in tiles:
            start = clock()
            results.append(self._compute(x, precision, tile).float().clamp(0, 1).cpu())
            seconds.append(clock() - start)
        whole, tiled = results
        rms, largest = _beside_cuts((whole - tiled) * 255, half, self.step)
        if not np.isfinite(rms).all():
            raise DRCTError("tile_error cannot be measured: the network's result is not finite. Try precision fp32")
        slowdown = seconds[1] / seconds[0] if min(seconds) > SHORTEST else 1.0
        return TileErrors(half=half, step=self.step, rms=rms, largest=largest, slowdown=slowdown)


def _refusal(error: float, errors: TileErrors | None, no_memory: bool) -> str:
    if errors is None:
        return "tile_error: the free memory does not suffice to measure it. Give tiles an overlap instead"
    why = "the memory does not suffice to try larger ones" if no_memory else "larger ones are not tried"
    least = MARGIN * min(max(errors.rms[k:]) for k in range(len(errors.rms)))
    overlap = (len(errors.rms) - 1) * errors.step
    return (
        f"tile_error {error:g} cannot be kept: with an overlap of {overlap} pixels, no less "
        f"than {_rounded_up(least)} of 255 levels can be promised, and {why}. Ask for that, for precision fp32 or for "
        "whole images"
    )


def _rounded_up(number: float) -> str:
    """Format a positive number with two digits, not below it."""
    return next(text for text in (f"{number * factor:.2g}" for factor in (1, 1.02, 1.1)) if float(text) >= number)


def sample(side: int, channels: int) -> Tensor:
    """Return a picture of discs that hide each other, of all sizes and colours: (1, channels, side, side) in [0, 1].

    Sizes are distributed as those of things in photographs, and so are edges at any scale (Lee, Mumford and Huang
    2001, "Occlusion Models for Natural Images"). It is the same each time.
    """
    rng = np.random.default_rng(0)
    picture = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(picture)
    smallest, largest = (1 / radius**2 for radius in RADII)
    for _ in range(int(DISCS * side**2)):
        radius = (smallest - rng.random() * (smallest - largest)) ** -0.5
        x, y = rng.random(2) * side
        colour = tuple(rng.integers(0, 256, 3).tolist())
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    return pixels[:, [channel % 3 for channel in range(channels)]]


def _beside_cuts(difference: Tensor, half: int, step: int) -> tuple[list[float], list[float]]:
    """Return the RMS and the largest difference of an upscaled sample by distance to the cuts in its middle.

    Args:
        difference: (1, C, H, W), between the tiles and the whole.
        half: Input pixels before and after a cut.
        step: Input pixels of distance that belong together.
    """
    scale = difference.shape[-1] // (2 * half)
    position = torch.arange(2 * half * scale) // scale
    to_cut = torch.where(position < half, half - 1 - position, position - half)
    ring = torch.minimum(to_cut[:, None], to_cut) // step
    rings = [difference[..., ring == k].double() for k in range(half // step)]
    return [r.square().mean().sqrt().item() for r in rings], [r.abs().max().item() for r in rings]


def _read(key: str, half: int, step: int) -> TileErrors | None:
    """Return what an earlier run has measured in such a sample; None if there is none, or the file is damaged."""
    folder = cache_folder()
    try:
        content = (folder / "tiles" / f"{key}.json").read_bytes() if folder else b""
        errors = TileErrors.model_validate_json(content)
        return errors if (errors.half, errors.step) == (half, step) else None
    except (OSError, ValidationError):
        return None


def _write(key: str, errors: TileErrors) -> None:
    """Keep what was measured, if that is possible: else it is measured again the next time."""
    folder = cache_folder()
    try:
        if folder is None:
            raise DRCTError("there is no home folder")
        write_text(folder / "tiles" / f"{key}.json", errors.model_dump_json(indent=1))
    except DRCTError as error:
        logger.info(f"what tiles change is measured again the next time: {error}")
