"""Running a network on images of any size."""

from drct.inference.upscale import pad_to_multiple, upscale, upscale_tiled

__all__ = ["pad_to_multiple", "upscale", "upscale_tiled"]
