"""Magnitude of a network's features, stage after stage through its depth, and their variation over the image.

A stage is a place that all compared networks have in common:

* the embedding: the input of the first group;
* a block: the output of a Swin Transformer block, including its own residual connections. In SwinIR and HAT it is the
  feature map that the next block gets. In DRCT it is the feature map that the 1x1 convolution reduces to the channels
  passed on to the next blocks; it has more channels from block to block. HAT's overlapping attention counts as the last
  block of its group;
* a group: the output of a residual (dense) group (SwinIR's RSTB, HAT's RHAG, DRCT's RDG), which is the input of the
  next. These stages compare best: they have the same number of channels everywhere, and nothing bypasses them except
  the long skip connection;
* the norm: the normalized output of the last group. Its magnitude follows from the weights of the normalization.

The paper ("DRCT: Saving Image Super-resolution away from Information Bottleneck", arXiv:2404.00722) shows feature maps
through the depth but does not say how they are computed from which tensors; this is our choice.

Letters in shapes: H x W positions of the image, C channels.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from drct.errors import DRCTError
from drct.inference.tiling import pad_to_multiple

# Names of the modules whose output is a stage, by family of architectures. The first number is that of the group.
BLOCKS = {
    "DRCT": r"layers\.(\d+)\.swin\d",
    "SwinIR and HAT": r"layers\.(\d+)\.residual_group\.(?:blocks\.\d+|overlap_attn)",
}
GROUPS = r"layers\.(\d+)"
EMBEDDING, NORM = "pos_drop", "norm"

QUANTITIES = {  # title and definition; see `StageFeatures`
    "intensity": ("intensity", "mean of |features|"),
    "variation": ("spatial variation", "mean of |features - their mean over the image|"),
    "normalized": ("spatial variation after normalization", "mean of |normalized - its mean over the image|"),
    "added": ("added by the block or group", "mean of |output - input|"),
}


class Stage(NamedTuple):
    """A place in a network.

    Attributes:
        kind: 'embedding', 'block', 'group' or 'norm'.
        group: Number from 1; 0 if the stage belongs to no group.
        block: Number within the group from 1; 0 if the stage is no block.
        depth: From 0, the embedding, to 1, the last group. Groups are equally far apart, and so are, within each, its
            blocks and its end.
    """

    kind: str
    group: int
    block: int
    depth: float

    @property
    def label(self) -> str:
        """Name of the stage, such as 'group 2, block 3'."""
        if self.kind == "block":
            return f"group {self.group}, block {self.block}"
        return f"group {self.group}" if self.kind == "group" else self.kind


class Magnitude(NamedTuple):
    """Mean, maximum and standard deviation of absolute values."""

    mean: float
    maximum: float
    std: float


class StageFeatures(NamedTuple):
    """Measurements at a stage.

    Attributes:
        stage: The stage.
        sizes: Magnitudes by the name of a quantity, over all positions p of the image and all channels c of the
            features x:
            'intensity', |x[p, c]|;
            'variation', |x[p, c] - mean over p of x[:, c]|: the difference from place to place; the rest says nothing
            about the image;
            'normalized', the variation of x after a LayerNorm without weights, at each position over the channels.
            Blocks normalize their input: the scale of features is the network's free choice, and channels that are
            large everywhere leave less for the others, unless the weights of the normalization compensate for it;
            'added', |x[p, c] - input[p, c]|: the difference between output and input of a block or group; absent at
            other stages.
        maps: Means over the channels by quantity, (H, W), float32.
    """

    stage: Stage
    sizes: dict[str, Magnitude]
    maps: dict[str, np.ndarray]


def stages(network: nn.Module) -> dict[str, Stage]:
    """Return the stages of a network, in the order of the depth, by the names of the modules that output them.

    Raises:
        DRCTError: if the network is of no known family.
    """
    names = [name for name, _ in network.named_modules()]
    blocks: dict[int, list[str]] = {}
    for name in names:
        for pattern in BLOCKS.values():
            if match := re.fullmatch(pattern, name):
                blocks.setdefault(int(match[1]), []).append(name)
    groups = [name for name in names if re.fullmatch(GROUPS, name)]
    if not groups or len(groups) != len(blocks) or not {EMBEDDING, NORM} <= set(names):
        kind = type(network).__name__
        raise DRCTError(f"where {kind} has its blocks and groups is not known, only of {', '.join(BLOCKS)}")
    found = {EMBEDDING: Stage("embedding", 0, 0, 0.0)}
    for i, (group, members) in enumerate(zip(groups, blocks.values(), strict=True)):
        for k, name in enumerate(members, 1):
            found[name] = Stage("block", i + 1, k, (i + k / (len(members) + 1)) / len(groups))
        found[group] = Stage("group", i + 1, 0, (i + 1) / len(groups))
    return found | {NORM: Stage("norm", 0, 0, 1.0)}


def measure(network: nn.Module, image: Tensor, window: int) -> list[StageFeatures]:
    """Run a network on an image and measure its features at every stage.

    The image is padded to whole windows as for upscaling; features of the padding are not counted.

    Args:
        network: In evaluation mode.
        image: (3, H, W), RGB in [0, 1], on the network's device.
        window: Height and width of the network's input must be divisible by this.

    Raises:
        DRCTError: if the architecture is not known, or its features have another size than the image.
    """
    height, width = image.shape[-2:]
    padded = pad_to_multiple(image[None], window)
    places = stages(network)
    modules = dict(network.named_modules())
    found: dict[str, StageFeatures] = {}

    def cropped(tokens: Tensor) -> Tensor:
        if tokens.numel() != tokens.shape[-1] * padded[0, 0].numel():
            raise DRCTError(f"features of {type(network).__name__} have another size than its input: not supported")
        return tokens.detach().reshape(*padded.shape[-2:], -1)[:height, :width].float()  # (H, W, C)

    def watch(name: str, stage: Stage) -> RemovableHandle:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            before = cropped(inputs[0]) if stage.kind in ("block", "group") else None
            found[name] = _measured(stage, cropped(output), before)

        return modules[name].register_forward_hook(hook)

    handles = [watch(name, stage) for name, stage in places.items()]
    try:
        with torch.no_grad():
            network(padded)
    finally:
        for handle in handles:
            handle.remove()
    return [found[name] for name in places]


def _measured(stage: Stage, x: Tensor, before: Tensor | None) -> StageFeatures:
    """Measure the output (H, W, C) of a stage, and its difference from the input of the same shape if there is one."""
    values = {"intensity": x, "variation": _varying(x), "normalized": _varying(F.layer_norm(x, x.shape[-1:]))}
    if before is not None:
        values["added"] = x - before
    features = StageFeatures(stage, {}, {})
    for quantity, signed in values.items():
        size = signed.abs()
        features.sizes[quantity] = Magnitude(float(size.mean()), float(size.max()), float(size.std(correction=0)))
        features.maps[quantity] = size.mean(-1).cpu().numpy()
    return features


def _varying(x: Tensor) -> Tensor:
    return x - x.mean((0, 1))


def average(images: Sequence[list[StageFeatures]]) -> list[StageFeatures]:
    """Average the magnitudes over images, and keep the maps of the first image."""
    return [
        StageFeatures(
            at[0].stage,
            {name: Magnitude(*np.mean([one.sizes[name] for one in at], axis=0).tolist()) for name in at[0].sizes},
            at[0].maps,
        )
        for at in zip(*images, strict=True)
    ]
