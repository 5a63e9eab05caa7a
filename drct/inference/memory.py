"""How much memory an image needs, how much there is, and the tiles that make it fit."""

import math
import os
import re
from pathlib import Path
from typing import Any

import psutil
import torch

SHARE = 0.8  # of the free memory that is taken; estimates and other programs are not exact
TILE_PAD = 32  # input pixels; more changes the result of tiles hardly any more


def free_memory(device: torch.device) -> float:
    """Bytes that this process can allocate on a device; those of a machine's processes share its memory."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    free = min(psutil.virtual_memory().available, _left_to_this_container())  # MPS shares the machine's
    return free / int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # set by torchrun


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated, on any device."""
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "allocate memory" in str(error)


def _left_to_this_container() -> float:
    """Bytes that the control group of a container or of a cluster's job still allows; infinite without one."""
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
    network: Any, height: int, width: int, dtype: torch.dtype, device: torch.device, free: float
) -> tuple[int, int] | None:
    """The fewest tiles with which an image fits in memory.

    Args:
        network: Has `memory_needed`, `window_size`, `upscale` and `conv_first`, as a DRCT has.
        height, width: Of the image, in pixels.
        dtype: What is computed in.
        device: Where it is computed.
        free: Free memory, in bytes.

    Returns:
        Tile size and overlap in input pixels, multiples of the window, for `upscale_tiled`; None for the whole image.
        If not even tiles of a window fit, these are returned.
    """
    if network.memory_needed(height, width, dtype, device) <= SHARE * free:
        return None
    window = network.window_size
    pad = -(-TILE_PAD // window) * window
    # The tiles' results are put together in the whole one
    result = network.conv_first.in_channels * height * width * (1 + network.upscale**2) * 4
    longest = -(-max(height, width) // window)  # windows
    for parts in range(2, longest + 1):
        size = -(-longest // parts) * window
        padded = [min(side, size + 2 * pad) for side in (height, width)]
        if result + network.memory_needed(*padded, dtype, device) <= SHARE * free:
            return size, pad
    return window, pad
