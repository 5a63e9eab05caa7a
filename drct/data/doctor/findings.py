"""What the check of a set of images can find, in words, and the limits beyond which it is a finding.

The limits follow from measurements; `figures/doctor_benchmark.py` shows what they find and miss.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from drct.data.doctor.image_measures import ImageMeasures
from drct.data.doctor.pair_measures import PairMeasures

LEAST_TEXTURED = 0.1  # share of blocks that are not flat
SOFT = 12.0  # times weaker than usual
REPEATED = 0.2  # share of rows and columns
SOUND_QUALITY = 85  # of JPEG, from which on traces are not told
CERTAIN = ((75, 0.3), (SOUND_QUALITY, 0.51))  # certainty asked for traces of a quality below; finer steps fit by chance
FITTING = 50.0  # dB; rounding to 8 bits leaves 56 and more
SHIFTED = 0.04  # low-resolution pixels
RECOLOURED = 1.0  # levels
EXPLAINED = 1.5  # dB that undoing a shift or a change of colour must gain
SAME_PICTURE = 0.8  # correlation


@dataclass(frozen=True)
class Kind:
    """A kind of findings."""

    title: str
    remedy: str
    of_set: bool = True  # whether it is a property of the set where most images have it, and no reason to leave out


KINDS = {  # in the order of the page
    "leak": Kind(
        "In a benchmark",
        "Leave these out: a network trained on them knows answers of the benchmark, and its figures mean nothing.",
        of_set=False,
    ),
    "unreadable": Kind("Cannot be read", "Copy or download these files again, or delete them.", of_set=False),
    "alone": Kind(
        "Without a partner",
        "Ground truth and low-resolution image pair by name: add or rename the partner, or delete these.",
        of_set=False,
    ),
    "unlike": Kind("Pairs of different pictures", "One of the two has a wrong name: reduce the ground truth again."),
    "size": Kind(
        "Pairs of other sizes",
        "The ground truth must be larger by exactly the scale: reduce it again with `drct prepare`, which crops it.",
    ),
    "shift": Kind(
        "Shifted pairs",
        "The network learns to shift images, and its PSNR falls: reduce the ground truth again with `drct prepare lr`.",
    ),
    "colour": Kind(
        "Pairs of different colours",
        "The network learns to change colours: reduce the ground truth again with `drct prepare lr`.",
    ),
    "kernel": Kind(
        "Reduced in another way",
        "Figures of the literature are for MATLAB's antialiased bicubic. If you did not degrade these on purpose, "
        "reduce the ground truth again with `drct prepare lr`.",
    ),
    "identical": Kind("Duplicates", "Leave out all but one, or they count twice."),
    "similar": Kind("Near-duplicates", "Leave out all but the largest, unless they differ in what matters to you."),
    "flat": Kind("Hardly any structure", "A network learns nothing from these: leave them out."),
    "soft": Kind(
        "Blurred, or enlarged before",
        "A network learns to blur from these. Reduce them until they are sharp, or leave them out.",
    ),
    "jpeg": Kind(
        "Damaged by JPEG",
        "A network learns to draw blocks and ringing. Find the originals, reduce them by 2 or more, or leave them out.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One fault of one image."""

    name: str  # of the image, relative to its folder, with slashes
    kind: str  # key of `KINDS`
    words: str  # what was measured
    severity: float = 0.0  # the worst comes first on the page
    other: str = ""  # path of an image to show beside it
    leave_out: bool = True  # whether the list of images to leave out has it


def findings_of_image(name: str, measures: ImageMeasures) -> Iterator[Finding]:
    """Judge an image by itself."""
    if measures.textured < LEAST_TEXTURED:
        words = f"{1 - measures.textured:.0%} of its area is flat (limit {1 - LEAST_TEXTURED:.0%})"
        yield Finding(name, "flat", words, -measures.textured)
    elif measures.repeated >= REPEATED:
        words = f"{measures.repeated:.0%} of its rows and columns repeat the one before: enlarged without interpolation"
        yield Finding(name, "soft", words, 1000 * measures.repeated)
    elif measures.weaker is not None and measures.weaker > SOFT:
        words = f"its finest detail is {_times(measures.weaker)} weaker than that of sharp photographs (limit {SOFT:g})"
        yield Finding(name, "soft", words, measures.weaker)
    if measures.textured < LEAST_TEXTURED:
        return  # a soft gradient has coefficients of few sizes, as JPEG has
    asked = next((certain for quality, certain in CERTAIN if measures.jpeg_quality < quality), None)
    if asked is not None and measures.jpeg_certainty >= asked:
        words = f"traces of JPEG of about quality {measures.jpeg_quality} (limit {SOUND_QUALITY})"
        yield Finding(name, "jpeg", words, -measures.jpeg_quality)


def _times(factor: float) -> str:
    return f"{factor:.1f} times" if factor < 10 else f"{factor:,.0f} times" if factor < 1000 else "more than 1000 times"


def findings_of_pair(name: str, measures: PairMeasures, other: str) -> Iterator[Finding]:
    """Judge a pair whose sizes fit."""
    if measures.psnr >= FITTING:
        return
    if measures.correlation < SAME_PICTURE:
        words = f"the correlation of the two is {measures.correlation:.2f}, even once aligned (limit {SAME_PICTURE:g})"
        yield Finding(name, "unlike", words, -measures.correlation, other)
        return
    x, y = measures.shift
    base = measures.psnr
    distance = float((x * x + y * y) ** 0.5)
    if distance >= SHIFTED and (measures.exchanged or measures.moved_psnr > measures.psnr + EXPLAINED):
        words = (
            f"the low-resolution image is shifted by {distance:.2f} of its pixels: {abs(x):.2f} to the "
            f"{'right' if x > 0 else 'left'}, {abs(y):.2f} {'down' if y > 0 else 'up'} (limit {SHIFTED:g})"
        )
        yield Finding(name, "shift", words, distance, other)
        base = measures.moved_psnr
    recoloured = measures.colour >= RECOLOURED and measures.aligned_psnr > measures.moved_psnr + EXPLAINED
    if measures.exchanged:
        yield Finding(name, "colour", "red and blue are exchanged", 256, other)
    elif recoloured:
        words = f"colours differ by {measures.colour:.1f} of 255 levels on average (limit {RECOLOURED:g})"
        yield Finding(name, "colour", words, measures.colour, other)
    base = measures.aligned_psnr if measures.exchanged or recoloured else base
    undone = measures.aligned_psnr > measures.psnr + 8 and (distance >= SHIFTED or recoloured or measures.exchanged)
    if base < FITTING and (measures.kernel or not undone):  # a shift is undone by interpolation, which is not exact
        way = f"it is that of {measures.kernel}" if measures.kernel else "noise, compression or another kernel"
        words = f"{base:.1f} dB from MATLAB's bicubic reduction (limit {FITTING:g}): {way}"
        yield Finding(name, "kernel", words, -base, other)
