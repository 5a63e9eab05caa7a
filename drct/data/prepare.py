"""Preparing folders of images: low-resolution images, benchmark layouts and sub-images for training."""

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
from drct.files import AlreadyExistsError, remove_leftovers, write_text
from drct.images.bgr import as_float, as_uint8, read_image, write_png

GT_MULTIPLE = 12  # divisible by the scales 2, 3 and 4
BENCHMARK_NAME = re.compile(r"(?P<name>.*?)[_-]?(SRF_\d+[_-]?)?(?P<kind>HR|LR)")
Outputs = dict[Path, Callable[[], np.ndarray]]  # image files to write, and functions that make their pixels
OutputsOf = Callable[["Preparation", np.ndarray, str], Outputs]  # makes them from an image and its name


@dataclass(frozen=True)
class Preparation:
    """A folder of images, and what to make of it."""

    source: Path  # folder of high-resolution images, or of `*HR.png` and `*LR.png` files
    output: Path  # folder to write to
    scales: Sequence[int]  # by which to reduce the images
    factors: Sequence[float] = (1,)  # in (0, 1], of the copies to make of each image; 1 is the image itself
    overwrite: bool = False  # replace files that exist instead of keeping them
    processes: int = 1


@dataclass(frozen=True)
class PreparedImages:
    """Numbers of images and files."""

    found: int  # images in the folder
    prepared: int  # images whose files all exist now
    written: int  # files
    kept: int  # files that existed already
    failures: list[str]  # one line for each image that failed


def reduce_image(image: np.ndarray, scale: int) -> np.ndarray:
    """Reduce an image by MATLAB's antialiased bicubic: (H, W, 3) -> (H // scale, W // scale, 3), uint8."""
    height, width = (side - side % scale for side in image.shape[:2])
    if min(height, width) < 2 * scale + 1:  # the filter reaches that far
        raise DRCTError(f"the image of {image.shape[1]}x{image.shape[0]} is too small to be reduced {scale} times")
    return _resize(image[:height, :width], 1 / scale)


def _resize(image: np.ndarray, factor: float) -> np.ndarray:
    return as_uint8(imresize(as_float(image), factor))


def copy_name(name: str, factor: float) -> str:
    """Return the name of the copy of an image reduced by a factor: `name_x0.8`, or `name` if the factor is 1."""
    return name if factor == 1 else f"{name}_x{factor:g}"


def _copies(image: np.ndarray, name: str, factors: Iterable[float]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and copies of an image, reduced by factors in (0, 1] and cropped to multiples of `GT_MULTIPLE`."""
    for factor in factors:
        copy = image if factor == 1 else _resize(image, factor)  # rounds sides up, as MATLAB does
        height, width = (side - side % GT_MULTIPLE for side in copy.shape[:2])
        if not height or not width:
            raise DRCTError(f"the image of {copy.shape[1]}x{copy.shape[0]} is smaller than {GT_MULTIPLE} pixels")
        yield copy_name(name, factor), copy[:height, :width]


def prepare_lr(task: Preparation) -> PreparedImages:
    """Write reduced images, `LRbicx<scale>/<name>.png`. Raises `DRCTError` as `prepare_benchmark` does."""
    return _prepare_images("lr", task, _lr_outputs)


def prepare_benchmark(task: Preparation) -> PreparedImages:
    """Write cropped and reduced images, the layout of benchmarks: `GTmod12/<name>.png` and `LRbicx<scale>/<name>.png`.

    Raises:
        DRCTError: if there are no images, or two images or copies would get the same name.
    """
    return _prepare_images("benchmark", task, _benchmark_outputs)


def prepare_subimages(task: Preparation, prefix: str, size: int, step: int) -> PreparedImages:
    """Write patches for training: `<prefix>_HR_sub/<name>_s001.png` and `<prefix>_bicx<scale>_sub/<name>_s001.png`.

    Args:
        task: What to prepare.
        prefix: Start of the names of the folders.
        size, step: Side and distance of patches in pixels of the high-resolution image, multiples of 12.

    Raises:
        DRCTError: if there are no images, two images or copies would get the same name, the size or step is not a
            multiple of 12, or the folder holds patches of another size, step or factors.
    """
    for key, pixels in (("size", size), ("step", step)):
        if pixels <= 0 or pixels % GT_MULTIPLE:
            raise DRCTError(f"--{key} must be a multiple of {GT_MULTIPLE}, not {pixels}")
    _check_same_cut(task, prefix, size, step)
    return _prepare_images("subimages", task, partial(_subimage_outputs, prefix=prefix, size=size, step=step))


def _check_same_cut(task: Preparation, prefix: str, size: int, step: int) -> None:
    """Refuse to mix patches of different cuts, whose names are the same; record the cut for the next time."""
    folder, record = task.output / f"{prefix}_HR_sub", task.output / f"{prefix}_HR_sub.json"
    cut = {"size": size, "step": step} | ({"factors": list(task.factors)} if list(task.factors) != [1] else {})
    if folder.is_dir() and any(folder.iterdir()):
        earlier = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
        if earlier != cut:
            raise DRCTError(
                f"{folder} holds patches of {earlier or 'an unknown cut'}, not of {cut}: choose another --name, or "
                "delete its folders"
            )
    write_text(record, json.dumps(cut))


def _prepare_images(title: str, task: Preparation, outputs_of: OutputsOf) -> PreparedImages:
    """Write the outputs of each ground truth of a folder."""
    names = ground_truths(find_images(task.source))
    _check_copies(names, task.factors)
    remove_leftovers(task.output, recursive=True, shared=True)
    jobs = {file: partial(_write_missing, task, outputs_of, file, name) for file, name in names.items()}
    results, failed = run_parallel(jobs, task.processes, title)
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


def _write_missing(task: Preparation, outputs_of: OutputsOf, source: Path, name: str) -> tuple[int, int]:
    """Write the outputs of a file that do not exist, or all. Returns the numbers of files written and kept."""
    written = kept = 0
    for path, make in outputs_of(task, read_image(source), name).items():
        if path.exists() and not task.overwrite:
            kept += 1
            continue
        try:
            write_png(path, make(), replace=task.overwrite)
            written += 1
        except AlreadyExistsError:  # by now, from another program
            kept += 1
    return written, kept


def _lr_outputs(task: Preparation, image: np.ndarray, name: str) -> Outputs:
    return {task.output / f"LRbicx{s}" / f"{name}.png": partial(reduce_image, image, s) for s in task.scales}


def _benchmark_outputs(task: Preparation, image: np.ndarray, name: str) -> Outputs:
    outputs: Outputs = {}
    for copy, cropped in _copies(image, name, task.factors):
        outputs[task.output / f"GTmod{GT_MULTIPLE}" / f"{copy}.png"] = partial(np.asarray, cropped)
        outputs |= _lr_outputs(task, cropped, copy)
    return outputs


def _subimage_outputs(task: Preparation, image: np.ndarray, name: str, prefix: str, size: int, step: int) -> Outputs:
    """Cut the image and its reductions at the same places. Reducing comes first, so that patches have no borders."""
    outputs: Outputs = {}
    for copy, cropped in _copies(image, name, task.factors):
        reduced = {s: reduce_image(cropped, s) for s in task.scales}
        height, width = cropped.shape[:2]
        corners = ((y, x) for y in _starts(height, size, step) for x in _starts(width, size, step))
        for number, (y, x) in enumerate(corners, 1):
            file = f"{copy}_s{number:03d}.png"
            outputs[task.output / f"{prefix}_HR_sub" / file] = partial(np.asarray, cropped[y:, x:][:size, :size])
            for s, small in reduced.items():
                patch = small[y // s :, x // s :][: size // s, : size // s]
                outputs[task.output / f"{prefix}_bicx{s}_sub" / file] = partial(np.asarray, patch)
    return outputs


def _starts(length: int, size: int, step: int) -> list[int]:
    """Return the starts of patches along one axis: every `step`, and one for a last patch that ends at the border."""
    if length <= size:
        return [0]
    starts = list(range(0, length - size + 1, step))
    return starts if starts[-1] + size == length else [*starts, length - size]
