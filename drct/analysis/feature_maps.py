"""How large the features of a network are, stage after stage through its depth, and how much they vary over the image.

A stage is a place in the network, at which all networks that are compared have the same thing:

* the embedding: what enters the first group;
* a block: the output of a Swin Transformer block, with its own residual connections. In SwinIR and HAT it is the
  feature map that the next block gets. In DRCT it is the feature map that the 1x1 convolution reduces to the channels
  which the next blocks get too; it has more channels from block to block. HAT's overlapping attention is the last block
  of its group;
* a group: the output of a residual (dense) group (SwinIR's RSTB, HAT's RHAG, DRCT's RDG), which is the input of the
  next. Of all stages these compare best: the channels are as many everywhere, and nothing flows past them but the
  long skip connection;
* the norm: the last group's output, normalized. Its size is that of the normalization's weights.

The paper ("DRCT: Saving Image Super-resolution away from Information Bottleneck", arXiv:2404.00722) shows feature maps
through the depth without telling which numbers of which tensors they are; this is our choice.

Letters in shapes: H x W positions of the image, C channels.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from drct.errors import DRCTError
from drct.inference.tiling import pad_to_multiple

# Names of the modules whose output is a stage, by family of architectures. The first number is that of the group.
BLOCKS = {
    "DRCT": r"layers\.(\d+)\.swin\d",
    "SwinIR and HAT": r"layers\.(\d+)\.residual_group\.(?:blocks\.\d+|overlap_attn)",
}
GROUPS = r"layers\.(\d+)"
EMBEDDING, NORM = "pos_drop", "norm"

QUANTITIES = {  # title and definition; see `Measured`
    "intensity": ("intensity", "mean of |features|"),
    "variation": ("spatial variation", "mean of |features - their mean over the image|"),
    "normalized": ("spatial variation after normalization", "mean of |normalized - its mean over the image|"),
    "added": ("added by the block or group", "mean of |output - input|"),
}


class Stage(NamedTuple):
    """A place in a network.

    Attributes:
        kind: 'embedding', 'block', 'group' or 'norm'.
        group, block: Numbers from 1; 0 where they do not apply.
        depth: From 0, the embedding, to 1, the last group, in which every group takes as much and, within it, every
            block and the group's end.
    """

    kind: str
    group: int
    block: int
    depth: float

    @property
    def label(self) -> str:
        """Such as 'group 2, block 3'."""
        if self.kind == "block":
            return f"group {self.group}, block {self.block}"
        return f"group {self.group}" if self.kind == "group" else self.kind


class Size(NamedTuple):
    """Of a set of absolute values: their mean, their maximum and their standard deviation."""

    mean: float
    maximum: float
    std: float


class Measured(NamedTuple):
    """What is measured at a stage.

    Attributes:
        stage: Where.
        sizes: By the name of a quantity. Each is taken over all positions p of the image and all channels c of the
            features x:
            'intensity', |x[p, c]|;
            'variation', |x[p, c] - mean over p of x[:, c]|: what differs from place to place, as the rest tells nothing
            of the image;
            'normalized', the same of x normalized as by a LayerNorm without weights, at each position over the
            channels. Blocks normalize what they get: the scale of features is the network's free choice, and channels
            that are large everywhere leave less for the others, but for what the weights of the normalization mend;
            'added', |x[p, c] - input[p, c]|: what a block or group adds to its input. Others have none.
        maps: Their means over the channels, (H, W), float32.
    """

    stage: Stage
    sizes: dict[str, Size]
    maps: dict[str, np.ndarray]


def stages(network: nn.Module) -> dict[str, Stage]:
    """The stages of a network by the names of the modules whose output they are, in the order of the depth.

    Raises:
        DRCTError: if it is of no family that is known.
    """
    names = [name for name, _ in network.named_modules()]
    blocks: dict[int, list[str]] = {}
    for name in names:
        match = next((match for pattern in BLOCKS.values() if (match := re.fullmatch(pattern, name))), None)
        if match:
            blocks.setdefault(int(match[1]), []).append(name)
    groups = [name for name in names if re.fullmatch(GROUPS, name)]
    if not groups or len(groups) != len(blocks) or not {EMBEDDING, NORM} <= set(names):
        raise DRCTError(
            f"where {type(network).__name__} has its blocks and groups is not known, only of {', '.join(BLOCKS)}"
        )
    found = {EMBEDDING: Stage("embedding", 0, 0, 0.0)}
    for i, (group, members) in enumerate(zip(groups, blocks.values(), strict=True)):
        for k, name in enumerate(members, 1):
            found[name] = Stage("block", i + 1, k, (i + k / (len(members) + 1)) / len(groups))
        found[group] = Stage("group", i + 1, 0, (i + 1) / len(groups))
    return found | {NORM: Stage("norm", 0, 0, 1.0)}


def measure(network: nn.Module, image: Tensor, window: int) -> list[Measured]:
    """Run a network on an image and measure its features at every stage.

    The image is padded to whole windows as for upscaling; what lies in the padding is not counted.

    Args:
        network: In evaluation mode. Its parameters should not require gradients, or memory is needed as in training.
        image: (3, H, W), RGB in [0, 1], on the network's device.
        window: Sides of the network's input must be multiples of this.

    Raises:
        DRCTError: if the architecture is not known, or its features have another size than the image.
    """
    height, width = image.shape[-2:]
    padded = pad_to_multiple(image[None], window)
    modules = dict(network.named_modules())
    found = stages(network)
    measured: dict[str, Measured] = {}

    def watch(name: str) -> Any:
        stage = found[name]

        def features(x: Tensor) -> Tensor:
            if x.numel() != x.shape[-1] * padded[0, 0].numel():
                raise DRCTError(f"features of {type(network).__name__} have another size than its input: not supported")
            return x.detach().reshape(*padded.shape[-2:], -1)[:height, :width].float()

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            before = features(inputs[0]) if stage.kind in ("block", "group") else None
            measured[name] = _measured(stage, features(output), before)

        return modules[name].register_forward_hook(hook)

    handles = [watch(name) for name in found]
    try:
        network(padded)
    finally:
        for handle in handles:
            handle.remove()
    return [measured[name] for name in found]


def _measured(stage: Stage, x: Tensor, before: Tensor | None) -> Measured:
    """x, before: (H, W, C)."""
    values = {"intensity": x, "variation": _varying(x), "normalized": _varying(F.layer_norm(x, x.shape[-1:]))}
    if before is not None:
        values["added"] = x - before
    values = {name: of.abs() for name, of in values.items()}
    return Measured(
        stage,
        {name: Size(float(of.mean()), float(of.max()), float(of.std(correction=0))) for name, of in values.items()},
        {name: of.mean(-1).cpu().numpy() for name, of in values.items()},
    )


def _varying(x: Tensor) -> Tensor:
    return x - x.mean((0, 1))


def average(images: Sequence[list[Measured]]) -> list[Measured]:
    """The numbers' means over images, and the maps of the first."""
    return [
        Measured(
            at[0].stage,
            {name: Size(*np.mean([one.sizes[name] for one in at], axis=0).tolist()) for name in at[0].sizes},
            at[0].maps,
        )
        for at in zip(*images, strict=True)
    ]
