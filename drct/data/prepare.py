"""Preparing folders of images: low-resolution images, benchmark layouts and sub-images for training.

Low-resolution images are MATLAB's antialiased bicubic (BasicSR's `imresize`) of the float image, rounded to 8 bits:
published super-resolution results are measured on such images.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from basicsr.utils.matlab_functions import imresize

from drct.data.image_lists import find_images
from drct.data.parallel import run_parallel
from drct.errors import DRCTError
from drct.files import write_text
from drct.images.bgr import read_image, write_png

GT_MULTIPLE = 12  # divisible by the scales 2, 3 and 4
BENCHMARK_NAME = re.compile(r"(?P<name>.*?)[_-]?(SRF_\d+[_-]?)?(?P<kind>HR|LR)")
Outputs = dict[Path, Callable[[], np.ndarray]]  # image files to write, and functions that make their pixels


@dataclass(frozen=True)
class PreparedImages:
    """Result of preparing a folder.

    Attributes:
        found: Number of images in the folder.
        prepared: Number of those of which all files are there now.
        written: Number of files written.
        kept: Number of files that existed and were kept.
        failures: One line for each image that failed.
    """

    found: int
    prepared: int
    written: int
    kept: int
    failures: list[str]


# -------------------------------------------------------------------------------------------------------------- pixels


def reduce_image(image: np.ndarray, scale: int) -> np.ndarray:
    """Reduce an image by MATLAB's antialiased bicubic: (H, W, 3) -> (H // scale, W // scale, 3), uint8."""
    height, width = (side - side % scale for side in image.shape[:2])
    if min(height, width) < 2 * scale + 1:  # the filter reaches that far
        raise DRCTError(f"the image of {image.shape[1]}x{image.shape[0]} is too small to be reduced {scale} times")
    return _resize(image[:height, :width], 1 / scale)


def _resize(image: np.ndarray, factor: float) -> np.ndarray:
    resized = imresize(image.astype(np.float32) / 255, factor)
    return (resized * 255).round().clip(0, 255).astype(np.uint8)


def crop_to_multiple(image: np.ndarray, multiple: int) -> np.ndarray:
    """Cut pixels off the right and the bottom until both sides are divisible by `multiple`."""
    height, width = (side - side % multiple for side in image.shape[:2])
    if not height or not width:
        raise DRCTError(f"the image of {image.shape[1]}x{image.shape[0]} is smaller than {multiple} pixels")
    return image[:height, :width]


def copy_name(name: str, factor: float) -> str:
    """Return the name of the copy of an image reduced by a factor: `name_x0.8`, or `name` if the factor is 1."""
    return name if factor == 1 else f"{name}_x{factor:g}"


def _copies(image: np.ndarray, name: str, factors: Iterable[float]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and copies of an image, reduced by factors in (0, 1]. Sides are rounded up, as MATLAB does."""
    for factor in factors:
        yield copy_name(name, factor), image if factor == 1 else _resize(image, factor)


# ------------------------------------------------------------------------------------------------------------- folders


def prepare_lr(
    source: Path, output: Path, scales: Sequence[int], *, overwrite: bool = False, processes: int = 1
) -> PreparedImages:
    """Write reduced images: `LRbicx<scale>/<name>.png`.

    Args:
        source: Folder of high-resolution images, or of `*HR.png` and `*LR.png` files.
        output: Folder to write to.
        scales: How many times to reduce the images.
        overwrite: Replace files that exist instead of keeping them.
        processes: Number of processes.

    Raises:
        DRCTError: if there are no images, or two would get the same name.
    """
    outputs_of = partial(_lr_outputs, output=output, scales=scales)
    return _prepare_images("lr", source, outputs_of, [1], overwrite, processes)


def prepare_benchmark(
    source: Path,
    output: Path,
    scales: Sequence[int],
    *,
    factors: Sequence[float] = (1,),
    overwrite: bool = False,
    processes: int = 1,
) -> PreparedImages:
    """Write cropped and reduced images, the layout of benchmarks: `GTmod12/<name>.png` and `LRbicx<scale>/<name>.png`.

    Args:
        source, output, scales, overwrite, processes: See `prepare_lr`.
        factors: Factors in (0, 1] of the copies to make of each image; 1 is the image itself.

    Raises:
        DRCTError: if there are no images, or two images or copies would get the same name.
    """
    outputs_of = partial(_benchmark_outputs, output=output, scales=scales, factors=factors)
    return _prepare_images("benchmark", source, outputs_of, factors, overwrite, processes)


def prepare_subimages(
    source: Path,
    output: Path,
    prefix: str,
    scales: Sequence[int],
    *,
    size: int = 480,
    step: int = 240,
    factors: Sequence[float] = (1,),
    overwrite: bool = False,
    processes: int = 1,
) -> PreparedImages:
    """Write patches for training: `<prefix>_HR_sub/<name>_s001.png` and `<prefix>_bicx<scale>_sub/<name>_s001.png`.

    Args:
        source, output, scales, factors, overwrite, processes: See `prepare_benchmark`.
        prefix: Start of the names of the folders.
        size, step: Side and distance of patches in pixels of the high-resolution image, multiples of 12.

    Raises:
        DRCTError: if there are no images, two images or copies would get the same name, the size or step is not a
            multiple of 12, or the folder holds patches of another size, step or factors.
    """
    for key, pixels in (("size", size), ("step", step)):
        if pixels <= 0 or pixels % GT_MULTIPLE:
            raise DRCTError(f"--{key} must be a multiple of {GT_MULTIPLE}, not {pixels}")
    _check_same_cut(output, prefix, size, step, factors)
    outputs_of = partial(
        _subimage_outputs, output=output, scales=scales, factors=factors, prefix=prefix, size=size, step=step
    )
    return _prepare_images("subimages", source, outputs_of, factors, overwrite, processes)


def _check_same_cut(output: Path, prefix: str, size: int, step: int, factors: Sequence[float]) -> None:
    """Refuse to mix patches of different cuts, whose names are the same; record the cut for the next time."""
    folder, record = output / f"{prefix}_HR_sub", output / f"{prefix}_HR_sub.json"
    cut = {"size": size, "step": step} | ({"factors": list(factors)} if list(factors) != [1] else {})
    if folder.is_dir() and any(folder.iterdir()):
        earlier = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
        if earlier != cut:
            raise DRCTError(
                f"{folder} holds patches of {earlier or 'an unknown cut'}, not of {cut}: choose another --name, or "
                "delete its folders"
            )
    write_text(record, json.dumps(cut))


def _prepare_images(
    title: str,
    source: Path,
    outputs_of: Callable[[np.ndarray, str], Outputs],
    factors: Sequence[float],
    overwrite: bool,
    processes: int,
) -> PreparedImages:
    """Write the outputs of each ground truth of a folder, as `outputs_of` makes them from its pixels and its name."""
    names = ground_truths(find_images(source))
    _check_copies(names, factors)
    jobs = {file: partial(_write_missing, file, name, outputs_of, overwrite) for file, name in names.items()}
    results, failed = run_parallel(jobs, processes, title)
    written, kept = (sum(numbers) for numbers in zip((0, 0), *results.values(), strict=True))
    return PreparedImages(len(jobs), len(results), written, kept, sorted(failed.values()))


def ground_truths(sources: Iterable[Path]) -> dict[Path, str]:
    """Select the ground truth files of a folder, and name them.

    In a folder that has only `*HR.png` and `*LR.png` files these are the HR files, each named by the text before
    that ending (`img_001_SRF_4_HR.png` becomes img_001); elsewhere, all files. Blanks become underscores, because
    they end a name in BasicSR's lists.

    Raises:
        DRCTError: if two files would get the same name, or the folder has HR and LR files of one name among others.
    """
    sources = list(sources)
    matches = {source: match for source in sources if (match := BENCHMARK_NAME.fullmatch(source.stem))}
    high = {source: match["name"] or source.stem for source, match in matches.items() if match["kind"] == "HR"}
    if len(matches) < len(sources):
        low = {match["name"] for match in matches.values() if match["kind"] == "LR"}
        if any(matches[source]["name"] in low for source in high):
            other = next(source for source in sources if source not in matches)
            raise DRCTError(f"{other} is named neither *HR nor *LR, unlike other files of its folder: move it away")
    if len(matches) < len(sources) or not high:
        high = {source: source.stem for source in sources}
    by_name: dict[str, Path] = {}
    for source, name in high.items():
        name = high[source] = re.sub(r"\s", "_", name)
        if name in by_name:
            raise DRCTError(f"{by_name[name]} and {source} would both become {name}.png: rename one of them")
        by_name[name] = source
    return high


def _check_copies(names: Mapping[Path, str], factors: Sequence[float]) -> None:
    """Refuse factors if a copy would get the name of another image."""
    copies = [copy_name("", factor) for factor in factors]
    if len(set(copies)) < len(copies):
        raise DRCTError(f"--factors {' '.join(f'{factor:g}' for factor in factors)}: one is given twice")
    by_name = {name: source for source, name in names.items()}
    for source, name in names.items():
        for factor in factors:
            other = by_name.get(copy_name(name, factor), source)
            if other != source:
                raise DRCTError(f"{other} has the name of a copy of {source} reduced by {factor:g}: rename one of them")


# ----------------------------------------------------------------------------------- one file, in a process of its own


def _write_missing(
    source: Path, name: str, outputs_of: Callable[[np.ndarray, str], Outputs], overwrite: bool
) -> tuple[int, int]:
    """Write the outputs of a file that do not exist, or all. Returns the numbers of files written and kept."""
    written = kept = 0
    for path, make in outputs_of(read_image(source), name).items():
        if path.exists() and not overwrite:
            kept += 1
        else:
            write_png(path, make())
            written += 1
    return written, kept


def _lr_outputs(image: np.ndarray, name: str, output: Path, scales: Sequence[int]) -> Outputs:
    return {output / f"LRbicx{s}" / f"{name}.png": partial(reduce_image, image, s) for s in scales}


def _benchmark_outputs(
    image: np.ndarray, name: str, output: Path, scales: Sequence[int], factors: Sequence[float]
) -> Outputs:
    outputs: Outputs = {}
    for copy, pixels in _copies(image, name, factors):
        cropped = crop_to_multiple(pixels, GT_MULTIPLE)
        outputs[output / f"GTmod{GT_MULTIPLE}" / f"{copy}.png"] = partial(np.asarray, cropped)
        outputs |= _lr_outputs(cropped, copy, output, scales)
    return outputs


def _subimage_outputs(
    image: np.ndarray,
    name: str,
    output: Path,
    scales: Sequence[int],
    factors: Sequence[float],
    prefix: str,
    size: int,
    step: int,
) -> Outputs:
    """Cut the image and its reductions at the same places. Reducing comes first, so that patches have no borders."""
    outputs: Outputs = {}
    for copy, pixels in _copies(image, name, factors):
        cropped = crop_to_multiple(pixels, GT_MULTIPLE)
        reduced = {s: reduce_image(cropped, s) for s in scales}
        height, width = cropped.shape[:2]
        corners = ((y, x) for y in _starts(height, size, step) for x in _starts(width, size, step))
        for number, (y, x) in enumerate(corners, 1):
            file = f"{copy}_s{number:03d}.png"
            outputs[output / f"{prefix}_HR_sub" / file] = partial(_cut, cropped, y, x, size)
            for s, small in reduced.items():
                outputs[output / f"{prefix}_bicx{s}_sub" / file] = partial(_cut, small, y // s, x // s, size // s)
    return outputs


def _cut(image: np.ndarray, y: int, x: int, size: int) -> np.ndarray:
    return image[y : y + size, x : x + size]


def _starts(length: int, size: int, step: int) -> list[int]:
    """Return the starts of patches along one axis: every `step`, and one for a last patch that ends at the border."""
    if length <= size:
        return [0]
    starts = list(range(0, length - size + 1, step))
    return starts if starts[-1] + size == length else [*starts, length - size]
