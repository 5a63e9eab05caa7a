"""Planning to upscale many files: which images there are, and the file that each result is written to."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from drct.errors import DRCTError
from drct.files import expanded, make_folder
from drct.images.listing import list_images
from drct.images.pictures import PICTURE_SUFFIXES, WRITABLE, format_of


class Job(NamedTuple):
    """An image to upscale and the file to write the result to."""

    source: Path
    target: Path


@dataclass(frozen=True)
class ResultOptions:
    """Where results are written, and how."""

    output: Path  # folder for the results, or file for the result of a single image
    suffix: str = ""  # added to the names of results, such as '_x4'
    format: str = "auto"  # suffix of the results without the dot; 'auto': the input's if it can be written, else png
    outscale: float | None = None  # factor to which results are resized; None: the network's
    wrap: bool = False  # whether images are textures to be repeated
    quality: int = 95  # of JPEG and WebP, 1 to 100
    existing: Literal["refuse", "skip", "replace"] = "refuse"  # for an image whose result exists

    def result_name(self, path: Path) -> Path:
        """Return a result's path relative to the output folder, given the image's path relative to its folder."""
        suffix = path.suffix if path.suffix.lower() in WRITABLE else ".png"
        return path.with_name(path.stem + self.suffix + (suffix if self.format == "auto" else f".{self.format}"))


def plan(inputs: Sequence[str], options: ResultOptions) -> tuple[list[Job], list[str]]:
    """Find the images of files, folders and patterns, make the output folder, and name the file of each result.

    Returns:
        The jobs, each with a result of its own, and one message for each input that cannot be upscaled.

    Raises:
        DRCTError: if the output can be neither the folder nor the file of the results.
    """
    failures: list[str] = []
    found = list(_find(inputs, options, failures))
    to_file = _is_file(inputs, options, len(found))
    if found:
        make_folder(options.output.parent if to_file else options.output)
    sources = {_real(source) for source, _ in found}
    jobs: dict[Path, Job] = {}
    for source, relative in found:
        target = options.output if to_file else options.output / options.result_name(relative)
        earlier = jobs.get(_real(target))
        if _real(target) in sources:
            failures.append(f"{source}: its result would overwrite the input {target}: choose another -o or --suffix")
        elif earlier and _real(earlier.source) != _real(source):
            failures.append(f"{source}: its result would be {target}, as that of {earlier.source}: rename one of them")
        else:
            jobs[_real(target)] = Job(source, target)
    return list(jobs.values()), failures


def reasons_for_none(inputs: Sequence[str], options: ResultOptions) -> list[str]:
    """Return one message for each input if there is no image in any, else none. This is fast."""
    failures: list[str] = []
    return failures if next(_find(inputs, options, failures), None) is None else []


def _is_file(inputs: Sequence[str], options: ResultOptions, images: int) -> bool:
    """Whether the output is the file of the only image, not a folder. Raises `DRCTError` if it can be neither."""
    output = options.output
    if output.is_dir() or (output.suffix.lower() not in PICTURE_SUFFIXES and not output.is_file()):
        return False
    if len(inputs) != 1 or images != 1 or Path(inputs[0]).is_dir():
        raise DRCTError(f"-o {output} is a file; for {images} images of {', '.join(inputs)} name a folder")
    format_of(output)  # raises for a format that is only read
    if options.suffix or options.format not in ("auto", output.suffix[1:].lower()):
        raise DRCTError(f"-o {output} says the result's name already: leave out --suffix and --format")
    return True


def _find(inputs: Sequence[str], options: ResultOptions, failures: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yield images, each with the relative path that `ResultOptions.result_name` takes."""
    for given in inputs:
        path = Path(given) if os.path.lexists(given) else expanded(given)
        if not given:
            failures.append("an input without a name: is a variable not set?")
        elif path.is_dir():
            # Results of a single folder go directly into the output; of several, each into a folder of its name
            root = Path() if len(inputs) == 1 else Path(_real(path).name)
            files = _images_below(path, options)
            if not files:
                failures.append(f"{path}: the folder has no images")
            yield from ((file, root / file.relative_to(path)) for file in files)
        elif os.path.lexists(path):
            yield path, Path(path.name)
        else:
            # Path.glob takes no absolute patterns
            matches = sorted(match for match in glob.glob(str(path), recursive=True) if not Path(match).is_dir())  # noqa: PTH207
            if not matches:
                failures.append(f"{given}: no such file")
            yield from ((Path(match), Path(Path(match).name)) for match in matches)


def _images_below(folder: Path, options: ResultOptions) -> list[Path]:
    """List the images of a folder, except the results of earlier runs that lie below it."""
    files, output = list_images(folder, True, PICTURE_SUFFIXES), _real(options.output)
    if output == _real(folder):
        results = {folder / options.result_name(file.relative_to(folder)) for file in files}
        return [file for file in files if file not in results or not options.suffix]
    return [file for file in files if not _real(file).is_relative_to(output)]


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises where links lead in a circle
