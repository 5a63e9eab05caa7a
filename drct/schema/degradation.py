"""Keys of option files for training images that are degraded on the fly, under the names of BasicSR and Real-ESRGAN.

A degradation has two stages of blur, resizing, noise and JPEG. Keys with the suffix 2 belong to the second stage. What
an option file leaves out is off, so that a light degradation takes a few keys.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field

from drct.schema.fields import MustBe, Number, OrNull, Range, Rate, Section, Size, Switch, described

Kernel: TypeAlias = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]


def _holds(condition: bool) -> None:
    if not condition:
        raise ValueError


def _around_one(value: list[float]) -> list[float]:
    _holds(0 < value[0] <= 1 <= value[1])
    return value


def _increasing(value: list[float]) -> list[float]:
    _holds(0 < value[0] < value[1])
    return value


def _within_quality(value: list[float]) -> list[float]:
    _holds(value[0] >= 1 and value[1] <= 99)
    return value


def _not_all_zero(value: list[float]) -> list[float]:
    _holds(sum(value) > 0)
    return value


def _odd(value: int) -> int:
    _holds(value % 2 == 1)
    return value


Weights = Annotated[list[Annotated[Number, Field(ge=0)]], AfterValidator(_not_all_zero)]
ResizeWeights = Annotated[
    Weights, Field(min_length=3, max_length=3), MustBe("three weights: of enlarging, reducing, and neither")
]
KernelWeights = Annotated[Weights, MustBe("a list of weights, not all 0")]
Kernels = Annotated[list[Kernel], Field(min_length=1), MustBe(f"a list of {', '.join(Kernel.__args__)}")]
Factors = Annotated[Range, AfterValidator(_around_one), MustBe("two factors around 1, the smaller first")]
Quality = Annotated[Range, AfterValidator(_within_quality), MustBe("two qualities from 1 to 99, the smaller first")]
Widths = Annotated[Range, AfterValidator(_increasing), MustBe("two different numbers above 0, the smaller first")]
Betas = Annotated[Range, AfterValidator(_around_one), MustBe("two numbers around 1, the smaller first")]
OddSize = Annotated[Size, AfterValidator(_odd), MustBe("an odd number")]
ResizeMode = Literal["area", "bilinear", "bicubic", "antialiased"]
ResizeModes = Annotated[
    list[ResizeMode], Field(min_length=1), MustBe("a list of area, bilinear, bicubic and antialiased")
]


class DegradationKeys(Section):
    """Degradation of training images by the Real-DRCT models."""

    high_order_degradation: OrNull[Switch] = described(
        "Whether the Real-DRCT models degrade the ground truth; false to train on pairs.", True
    )
    gt_usm: Switch | None = described(
        "Whether the ground truth is sharpened before it is degraded, and then learnt by RealDRCTMSEModel; if not "
        "given, as soon as one of the next three keys is true."
    )
    l1_gt_usm: OrNull[Switch] = described("RealDRCTGANModel: whether the pixel loss compares with it sharpened.", False)
    percep_gt_usm: OrNull[Switch] = described("RealDRCTGANModel: the same of the perceptual loss.", False)
    gan_gt_usm: OrNull[Switch] = described("RealDRCTGANModel: the same of the discriminator.", False)

    clean_prob: OrNull[Rate] = described("Share of images that are only reduced, by antialiased bicubic.", 0)
    resize_modes: OrNull[ResizeModes] = described(
        "Interpolations to choose from; bilinear and bicubic reduce without antialiasing, as Real-ESRGAN's do.",
        ["area", "bilinear", "bicubic"],
    )
    jpeg_codec: Annotated[Literal["diffjpeg", "libjpeg"], MustBe("diffjpeg or libjpeg")] = described(
        "diffjpeg for BasicSR's approximation of JPEG, on the device of the network; libjpeg for JPEG files as "
        "programs write them, on the CPU.",
        "diffjpeg",
    )
    jpeg_full_chroma_prob: OrNull[Rate] = described(
        "Share of JPEG images whose colour is not subsampled (4:4:4 in place of 4:2:0); for libjpeg only.", 0
    )

    blur_prob: OrNull[Rate] = described("Share of images that are blurred.", 1)
    resize_prob: OrNull[ResizeWeights] = described("Weights of enlarging, reducing, and neither.", [0, 0, 1])
    resize_range: OrNull[Factors] = described("Smallest and largest factor of resizing.", [1, 1])
    noise_prob: OrNull[Rate] = described("Share of images with noise.", 1)
    gaussian_noise_prob: OrNull[Rate] = described("Share of Gaussian noise, the rest being Poisson noise.", 1)
    noise_range: Range | None = described("Standard deviation of Gaussian noise, in 255ths; none if not given.")
    poisson_scale_range: Range | None = described("Factor of Poisson noise; none if not given.")
    gray_noise_prob: OrNull[Rate] = described("Share of noise that is the same in all colours.", 0)
    jpeg_prob: OrNull[Rate] = described("Share of images that are compressed, if there is a `jpeg_range`.", 1)
    jpeg_range: Quality | None = described("Lowest and highest quality of JPEG; no JPEG if not given.")

    second_blur_prob: OrNull[Rate] = described("`blur_prob` of the second stage.", 0)
    resize_prob2: OrNull[ResizeWeights] = described("`resize_prob` of the second stage.", [0, 0, 1])
    resize_range2: OrNull[Factors] = described("`resize_range` of the second stage, relative to 1 / scale.", [1, 1])
    noise_prob2: OrNull[Rate] = described("`noise_prob` of the second stage.", 1)
    gaussian_noise_prob2: OrNull[Rate] = described("`gaussian_noise_prob` of the second stage.", 1)
    noise_range2: Range | None = described("`noise_range` of the second stage.")
    poisson_scale_range2: Range | None = described("`poisson_scale_range` of the second stage.")
    gray_noise_prob2: OrNull[Rate] = described("`gray_noise_prob` of the second stage.", 0)
    jpeg_prob2: OrNull[Rate] = described("`jpeg_prob` of the second stage.", 1)
    jpeg_range2: Quality | None = described("`jpeg_range` of the second stage.")

    gt_size: Size | None = described("Must be equal to `datasets.train.gt_size`, which is taken if not given.")
    queue_size: Size | None = described(
        "Size of the pool from which training samples are drawn, each to be replaced by the next; none if not given. "
        "Here every sample of a batch is degraded by itself, so that batches need no pool to be mixed."
    )


class BlurKeys(Section):
    """Blur kernels that RealESRGANDataset draws."""

    crop_pad_size: OrNull[Size] = described(
        "RealESRGANDataset: side of the region that is degraded before patches are cut out of it.", 400
    )
    blur_kernel_size: OrNull[OddSize] = described("RealESRGANDataset: largest side of blur kernels in pixels.", 21)
    kernel_list: OrNull[Kernels] = described("RealESRGANDataset: kinds of blur kernels to choose from.", ["iso"])
    kernel_prob: KernelWeights | None = described("RealESRGANDataset: weights of these kinds; equal if not given.")
    sinc_prob: OrNull[Rate] = described("RealESRGANDataset: share of sinc filters among blur kernels.", 0)
    blur_sigma: OrNull[Widths] = described("RealESRGANDataset: standard deviation of kernels in pixels.", [0.2, 3])
    betag_range: OrNull[Betas] = described("RealESRGANDataset: shape of generalized Gaussian kernels.", [0.5, 4])
    betap_range: OrNull[Betas] = described("RealESRGANDataset: shape of plateau kernels.", [1, 2])
    blur_kernel_size2: OrNull[OddSize] = described("`blur_kernel_size` of the second stage.", 21)
    kernel_list2: OrNull[Kernels] = described("`kernel_list` of the second stage.", ["iso"])
    kernel_prob2: KernelWeights | None = described("`kernel_prob` of the second stage.")
    sinc_prob2: OrNull[Rate] = described("`sinc_prob` of the second stage.", 0)
    blur_sigma2: OrNull[Widths] = described("`blur_sigma` of the second stage.", [0.2, 1.5])
    betag_range2: OrNull[Betas] = described("`betag_range` of the second stage.", [0.5, 4])
    betap_range2: OrNull[Betas] = described("`betap_range` of the second stage.", [1, 2])
    final_sinc_prob: OrNull[Rate] = described("RealESRGANDataset: share of images with a sinc filter at the end.", 0)
