"""Degrading the images of a folder by a recipe, with a list of what each image got."""

import csv
import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drct.data.image_lists import find_images
from drct.data.parallel import run_parallel
from drct.data.prepare import ground_truths
from drct.data.recipes import Recipe
from drct.errors import DRCTError
from drct.files import write_text
from drct.images.bgr import read_image, write_png

HEADER = ("image", "recipe", "scale", "seed", "got")


@dataclass(frozen=True)
class DegradedFolder:
    """Numbers of images, the list that was written, and one line for each image that failed."""

    found: int
    written: int
    kept: int
    listed_in: Path
    failures: list[str]


def degrade_folder(
    source: Path, output: Path, recipe: Recipe, scale: int, seed: int, overwrite: bool, processes: int
) -> DegradedFolder:
    """Degrade each image of a folder: `<output>/<name>.png`, listed in `<output>.csv`.

    Args:
        source: Folder of high-resolution images.
        output: Folder to write to.
        recipe: The degradation.
        scale: Factor of the reduction; 1 for none.
        seed: Of the random numbers, which depend on this and on the name of the image only.
        overwrite: Whether to make images anew that exist.
        processes: Number of processes.

    Raises:
        DRCTError: if there are no images, two would get the same name, or the folder holds images of another recipe.
    """
    names = ground_truths(find_images(source))
    record = output.with_name(f"{output.name}.csv")
    settings = (recipe.text, str(scale), str(seed))
    got = {} if overwrite else _read_list(record, output, settings)
    files = {file: output / f"{name}.png" for file, name in names.items()}
    for file in files.values() if not overwrite else ():
        if file.stem not in got and file.exists():
            raise DRCTError(f"{file} exists, but is not listed in {record}: choose another -o, or --overwrite")
    missing = {file: path for file, path in files.items() if not got.get(path.stem) or not path.exists()}
    # Listed before they are written, so that those of an interrupted run are known as images of this recipe
    got |= dict.fromkeys((path.stem for path in missing.values()), "")
    _write_list(record, settings, got)
    jobs = {file: partial(_degrade_file, file, path, recipe, scale, seed) for file, path in missing.items()}
    results, failed = run_parallel(jobs, processes, "degrade")
    got |= {missing[file].stem: words for file, words in results.items()}
    _write_list(record, settings, {name: words for name, words in got.items() if words})
    return DegradedFolder(len(files), len(results), len(files) - len(missing), record, sorted(failed.values()))


def _degrade_file(source: Path, target: Path, recipe: Recipe, scale: int, seed: int) -> str:
    """Degrade an image file. Return what it got in words."""
    image, drawn = recipe.degrade(read_image(source), scale, seed, target.stem)
    write_png(target, image)
    return ", ".join(f"{name} {amount}" for name, amount in drawn.items()) or "clean"


def _read_list(record: Path, output: Path, settings: tuple[str, str, str]) -> dict[str, str]:
    """Read what each image got; nothing if there is no list. Raises `DRCTError` if it is of other settings."""
    if not record.exists():
        return {}
    try:
        header, *rows = csv.reader(record.read_text(encoding="utf-8").splitlines())
        got = {name: words for name, _, _, _, words in rows}
    except ValueError:
        header, rows, got = [], [], {}
    if tuple(header) != HEADER:
        raise DRCTError(f"{record} is not a list of degraded images: choose another -o, or --overwrite")
    for _, *earlier, _ in rows:
        if tuple(earlier) != settings:
            described = "recipe {}, scale {}, seed {}".format(*earlier)
            raise DRCTError(f"{output} holds images of {described}: choose another -o, or --overwrite")
    return got


def _write_list(record: Path, settings: tuple[str, str, str], got: dict[str, str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([HEADER, *((name, *settings, words) for name, words in sorted(got.items()))])
    write_text(record, text.getvalue())
