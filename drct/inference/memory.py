"""How much memory is free, and the tiles with which an image fits in it."""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from drct.archs.traits import NetworkTraits
from drct.inference.tiling import whole_windows

SHARE = 0.8  # of the free memory to use; neither the estimate nor other programs are exact
TILE_PAD = 32  # input pixels; more hardly changes the result of tiles any further
SMALLEST_TILE = 8  # input pixels; the overlap of smaller ones would take almost all of the time


def free_memory(device: torch.device) -> float:
    """Return the bytes that this process can allocate on a device; the processes of a machine share its memory."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    free = min(psutil.virtual_memory().available, _left_to_this_container())  # MPS shares the machine's
    return free / int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # set by torchrun


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be allocated, on any device."""
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "allocate memory" in str(error)


def _left_to_this_container() -> float:
    """Return the bytes that the control group of a container or cluster job still allows; infinity without one."""
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            allowed = int(Path(folder, limit).read_text())  # "max" without a limit
            cached = re.search(r"inactive_file (\d+)", Path(folder, "memory.stat").read_text())
            return max(0, allowed - int(Path(folder, used).read_text()) + (int(cached[1]) if cached else 0))
        except (OSError, ValueError):
            continue
    return math.inf


def choose_tile(
    traits: NetworkTraits,
    height: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
    free: float,
    overlap: Callable[[], int] = lambda: TILE_PAD,
) -> tuple[int, int] | None:
    """Choose the fewest tiles with which an image fits in `free` bytes of memory.

    `overlap` returns the least overlap of tiles in input pixels; it is called only if there are tiles.

    Returns:
        Tile size and overlap in input pixels, multiples of the window, for `upscale_tiled`; None for the whole image.
        If not even the smallest fit, these are returned: of a window, or several of `SMALLEST_TILE` pixels together.

    Raises:
        ValueError: if the traits do not say how much memory the network needs.
    """
    if traits.memory is None:
        raise ValueError("the memory that the network needs is not known")
    if traits.memory(height, width, dtype, device) <= SHARE * free:
        return None
    window = traits.window
    smallest, pad = whole_windows(SMALLEST_TILE, overlap(), window)
    # The results of the tiles are assembled in the whole one
    result = traits.channels * height * width * (1 + traits.scale**2) * 4
    longest = -(-max(height, width) // window)  # windows
    for parts in range(2, longest + 1):
        size = max(smallest, -(-longest // parts) * window)
        rows, columns = (min(side, size + 2 * pad) for side in (height, width))
        if result + traits.memory(rows, columns, dtype, device) <= SHARE * free:
            return size, pad
        if size == smallest:
            break
    return smallest, pad
