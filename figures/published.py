"""Figures reported in papers, for comparison with those of this project."""

from dataclasses import dataclass, field


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
    psnr: dict[str, float] = field(hash=False)


BENCHMARKS = ("Set5", "Set14", "BSD100", "Urban100", "Manga109")


def _psnr(*values: float) -> dict[str, float]:
    return dict(zip(BENCHMARKS, values, strict=True))


# Tables of "DRCT: Saving Image Super-resolution away from Information Bottleneck", arXiv:2404.00722. The complexity
# columns of its first two lines belong to smaller networks than those whose PSNR it reports.
DRCT_PAPER = (
    Published("HAT", "HAT-S", 9.621, 11.22, 2053.42, 42.18, _psnr(33.04, 29.23, 28.00, 27.97, 32.48)),
    Published("DRCT", "DRCT-C144", 10.443, 5.92, 1857.55, 7.92, _psnr(33.11, 29.35, 28.18, 28.06, 32.59)),
    Published("HAT-L", "HAT-L", 40.846, 76.69, 5165.39, 79.60, _psnr(33.30, 29.47, 28.09, 28.60, 33.09)),
    Published("DRCT-L", "DRCT-L", 27.580, 9.20, 4278.19, 11.07, _psnr(33.37, 29.54, 28.16, 28.70, 33.14)),
)


def published_as(network: str) -> str:
    """Return the name, parameters, multi-adds and pass size that the paper reports for a network; '' if it does not."""
    for row in DRCT_PAPER:
        if row.network == network:
            return f"{row.name}: {row.parameters:.3f} M, {row.multi_adds:.2f} G, {row.pass_size:.2f} MB"
    return ""
