"""Running the dense groups of DRCT in less time and memory.

The dense feature map of a group exists once for the whole image, and each block writes its new channels into it.

The last layer of a block's MLP and the 1x1 convolution after the block are both linear: they are applied as one
product, which takes 15 % fewer operations in the linear layers of DRCT.

Letters in shapes: see `drct.archs.frame`.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from drct.archs import cpu_attention, gpu_switches, progress
from drct.archs.block_execution import (
    GroupExecution,
    Mask,
    attend,
    attended,
    in_all_windows,
    two_layers,
    windows_at_a_time,
)
from drct.archs.gpu_blocks import dense_block_in_place
from drct.archs.gpu_windows import Kinds, in_few_windows
from drct.archs.kernels import in_full_precision, linear
from drct.archs.prepared_weights import (
    AttentionWeights,
    Product,
    attention_weights,
    prepared_weights,
    product_of,
    weight_dtype,
)
from drct.archs.training_weights import training_weights

if TYPE_CHECKING:
    from drct.archs.drct_arch import DenseGroup
    from drct.archs.swin import SwinBlock


class BlockWeights(NamedTuple):
    """Weights of a block and the 1x1 convolution after it, prepared for the products they enter."""

    attention: AttentionWeights
    fc1: Product
    adjust: Product  # the 1x1 convolution after the block
    adjusted_fc2: Product  # fc2, followed by this convolution without its bias


class DenseExecution(GroupExecution):
    """Execution of `DenseGroup`."""

    def at_once(self, group: "DenseGroup", x: Tensor, recompute: bool) -> Tensor:
        """See `GroupExecution.at_once`."""
        for k in range(1, 6):
            block: SwinBlock = getattr(group, f"swin{k}")
            arguments = (group, k, _block_weights(group, k, weight_dtype(x)))
            new = in_all_windows(x, block.window_size, block.shift, recompute, _run_block, *arguments)
            x = torch.cat([x, new], dim=-1) if k < 5 else new
        return x

    def in_place(self, group: "DenseGroup", features: Tensor, tokens: int) -> None:
        """See `GroupExecution.in_place`."""
        for k in range(1, 6):
            block: SwinBlock = getattr(group, f"swin{k}")
            w = block.window_size
            at_most = windows_at_a_time(tokens, w, len(features))
            end = group.dim + (k - 1) * group.growth
            # No other window reads what a window's tokens are written to: block 5, which replaces the input, has no
            # shift, and the others write channels that no block has read yet
            target = features[..., end : end + group.growth] if k < 5 else features[..., : group.dim]
            if gpu_switches.is_gpu(features.device):
                with progress.part(k - 1, 5):
                    dense_block_in_place(group, k, features[..., :end], target, at_most)
                continue
            layers = (block.mlp.fc1, block.mlp.fc2, getattr(group, f"adjust{k}"))
            rows, make = at_most * w * w * len(features), partial(_block_weights, group, k, factor=cpu_attention.FACTOR)
            weights = prepared_weights(group, k, block.attn, layers, features, rows, make)

            def run(windows: Tensor, mask: Mask, k: int = k, weights: BlockWeights = weights) -> Tensor:
                return _run_block(windows, mask, group, k, weights)

            with progress.part(k - 1, 5):
                in_few_windows(features[..., :end], target, w, block.shift, at_most, run)

    def channels(self, group: "DenseGroup") -> int:
        """Return the width of the last block."""
        return group.dim + 4 * group.growth


EXECUTION = DenseExecution()


def _block_weights(group: "DenseGroup", k: int, dtype: torch.dtype, factor: float = 1.0) -> BlockWeights:
    """Prepare the weights of block k of a group, with a factor of the attention logits, for all windows."""
    block: SwinBlock = getattr(group, f"swin{k}")
    adjust = product_of(getattr(group, f"adjust{k}"))
    fc2 = block.mlp.fc2
    with in_full_precision(adjust.weight.device.type):
        adjusted_weight = adjust.weight @ fc2.weight
        adjusted_fc2 = Product(adjusted_weight, None if fc2.bias is None else adjust.weight @ fc2.bias)
    fc1 = product_of(block.mlp.fc1)
    if gpu_switches.is_gpu(fc1.weight.device):
        attention, products = training_weights(block.attn, (fc1, adjust, adjusted_fc2), dtype)
        return BlockWeights(attention, *products)
    attention = attention_weights(block.attn, dtype, factor)
    return BlockWeights(attention, fc1.to(dtype), adjust.to(dtype), adjusted_fc2.to(dtype))


def _run_block(x: Tensor, mask: Mask, group: "DenseGroup", k: int, weights: BlockWeights) -> Tensor:
    """Run block k of a group and what follows it on windows: (B, n, N, C + (k-1) gc) -> (B, n, N, gc or C).

    Args:
        x: Windows; in the order of `gpu_windows`, (n, B, N, C + (k-1) gc), or on a GPU their tokens (n * B * N, ...).
        mask: (1 or n, N, N), added to the logits, or None; in the order of `gpu_windows`, the kinds of the windows.
        group: The group.
        k: Number of the block, from 1.
        weights: Prepared weights of the block.

    Returns:
        What the block adds to the dense features; of the fifth block, the output of the group.
    """
    from drct.archs.drct_arch import DENSE_SCALE, DENSE_SLOPE  # which imports this module

    block: SwinBlock = getattr(group, f"swin{k}")

    def drop_path(added: Tensor) -> Tensor:  # of whole images
        if isinstance(mask, Kinds) and block.drop_path.training:
            by_image = added.view(mask.runs[-1][2], -1, block.attn.keys * added.shape[-1]).transpose(0, 1)
            return block.drop_path(by_image).transpose(0, 1).view(added.shape)
        return block.drop_path(added)

    if isinstance(mask, Kinds) and not gpu_switches.is_gpu(x.device):
        x_attended = attended(block.attn, block.norm1, x, weights.attention, mask)
    else:
        x_attended = x + drop_path(attend(block.attn, block.norm1, x, weights.attention, mask))
    new = _adjusted_mlp(block, x_attended, weights, drop_path)
    return F.leaky_relu(new, DENSE_SLOPE) if k < 5 else new * DENSE_SCALE + x[..., : group.dim]


def _adjusted_mlp(
    block: "SwinBlock", x: Tensor, weights: BlockWeights, drop_path: Callable[[Tensor], Tensor]
) -> Tensor:
    """The 1x1 convolution after a block, of the MLP added to its input: (B, n, N, C) -> (B, n, N, gc or C)."""
    if block.mlp.drop.training and block.mlp.drop.p:  # dropout comes between the two layers that make one product
        return linear(x + drop_path(block.mlp(block.norm2(x))), *weights.adjust)
    through_mlp = two_layers(x, block.norm2, weights.fc1, weights.adjusted_fc2)
    return linear(x, *weights.adjust) + drop_path(through_mlp)
