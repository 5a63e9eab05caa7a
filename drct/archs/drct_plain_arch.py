"""DRCT without its dense connections: what they give is measured against it."""

from typing import cast

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from drct.archs.drct_arch import DENSE_SCALE, DENSE_SLOPE, DRCT, BlockWeights, DenseGroup, SwinBlock

__all__ = ["DRCTPlain"]


class PlainGroup(DenseGroup):
    """Residual group of five Swin blocks, each of which sees only what the one before made.

    It has the blocks, 1x1 convolutions, activations, shifts and residual scaling of a dense group, but C channels
    everywhere.
    """

    def __init__(self, dim: int, growth: int, *args, **options) -> None:
        del growth  # each block replaces all C channels
        super().__init__(dim, dim, *args, **options)

    def width(self, k: int) -> int:
        return self.dim

    def forward(self, x: Tensor, use_checkpoint: bool = False) -> Tensor:
        new = x
        for k in range(1, 6):
            new = self._run_block(k, new, use_checkpoint)
        return new * DENSE_SCALE + x

    def _apply_block(self, k: int, windows: Tensor, weights: BlockWeights, mask: Tensor | None) -> Tensor:
        new = cast(SwinBlock, getattr(self, f"swin{k}")).adjusted(windows, weights, mask)
        return F.leaky_relu(new, DENSE_SLOPE) if k < 5 else new


class DRCTPlain(DRCT):
    """DRCT of `PlainGroup`s. Takes the arguments of `DRCT`; `gc` has no effect.

    For experiments: inference takes the whole image at a time.
    """

    group = PlainGroup

    def _run_in_place(self, x: Tensor) -> Tensor:
        return self._run_at_once(x)
