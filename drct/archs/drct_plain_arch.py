"""DRCT without its dense connections, to measure what these add."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from drct.archs.drct_arch import DENSE_SCALE, DENSE_SLOPE, DRCT, SHIFTED_BLOCKS, blocks_of
from drct.archs.frame import on_tokens
from drct.archs.swin import SwinBlock

__all__ = ["DRCTPlain"]


class PlainGroup(nn.Module):
    """Residual group of five Swin blocks, each of which sees only the output of the one before.

    It has the blocks, 1x1 convolutions, activations, shifts and residual scaling of a dense group, but C channels
    everywhere. See `DenseGroup` for the arguments.
    """

    def __init__(
        self, dim: int, window_size: int, shift: int, num_heads: int, mlp_ratio: float, **block_options: Any
    ) -> None:
        super().__init__()
        for k in range(1, 6):
            block_shift, ratio = shift if k in SHIFTED_BLOCKS else 0, mlp_ratio if k <= 3 else 1
            block = SwinBlock(dim, window_size, block_shift, num_heads, ratio, **block_options)
            self.add_module(f"swin{k}", block)
            self.add_module(f"adjust{k}", nn.Conv2d(dim, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W multiples of the window."""
        *first_four, (block, adjust) = blocks_of(self)
        new = x
        for earlier, earlier_adjust in first_four:
            new = F.leaky_relu(on_tokens(earlier_adjust, earlier(new)), DENSE_SLOPE)
        return on_tokens(adjust, block(new)) * DENSE_SCALE + x


class DRCTPlain(DRCT):
    """DRCT of plain groups, for experiments. Takes the arguments of `DRCT`; `gc` has no effect."""

    def make_group(self, dim: int, growth: int, num_heads: int, **block_options: Any) -> PlainGroup:
        """Make one of `layers`."""
        return PlainGroup(dim, self.window_size, self.shift, num_heads, **block_options)
