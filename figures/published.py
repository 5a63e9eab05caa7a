"""Figures reported in papers, for comparison with those of this project."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from drct.runtime.zoo import release


@dataclass(frozen=True)
class Published:
    """Figures of a network at x4, without pretraining at x2.

    Args:
        name: Name in the paper.
        network: Name in `drct.analysis.networks` of the network that the complexity columns describe.
        parameters: Millions.
        multi_adds: Billions for a 64x64 input, as torchinfo counts them: without attention, and linear layers once.
        pass_size: "Forward/backward pass size" of torchinfo, in MB.
        flops: Billions; how they were counted is not known.
        psnr: dB on the Y channel, by benchmark.
    """

    name: str
    network: str
    parameters: float
    multi_adds: float
    pass_size: float
    flops: float
    psnr: Mapping[str, float] = field(hash=False)


def _psnr(weights: str) -> Mapping[str, float]:
    return release(weights).psnr


# Tables of "DRCT: Saving Image Super-resolution away from Information Bottleneck", arXiv:2404.00722. The complexity
# columns of its first two lines belong to smaller networks than those whose PSNR it reports.
DRCT_PAPER = (
    Published("HAT", "HAT-S", 9.621, 11.22, 2053.42, 42.18, _psnr("HAT_SRx4")),
    Published("DRCT", "DRCT-C144", 10.443, 5.92, 1857.55, 7.92, _psnr("DRCT_SRx4")),
    Published("HAT-L", "HAT-L", 40.846, 76.69, 5165.39, 79.60, _psnr("HAT-L_SRx4_ImageNet-pretrain")),
    Published("DRCT-L", "DRCT-L", 27.580, 9.20, 4278.19, 11.07, _psnr("DRCT-L_SRx4_ImageNet-pretrain")),
)


def published_as(network: str) -> str:
    """Return the name, parameters, multi-adds and pass size that the paper reports for a network; '' if it does not."""
    for row in DRCT_PAPER:
        if row.network == network:
            return f"{row.name}: {row.parameters:.3f} M, {row.multi_adds:.2f} G, {row.pass_size:.2f} MB"
    return ""
