"""Running networks on images of any size, from weights by name to pictures and exported programs."""

from drct.inference.memory import choose_tile, free_memory
from drct.inference.tiling import pad_to_multiple, upscale, upscale_tiled

__all__ = ["choose_tile", "free_memory", "pad_to_multiple", "upscale", "upscale_tiled"]
