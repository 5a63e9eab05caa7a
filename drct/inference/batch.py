"""Upscaling many files, in one process or in several that share them."""

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from drct.errors import DRCTError
from drct.files import AlreadyExistsError, remove_leftovers
from drct.images.pictures import check_size, read_picture, write_picture
from drct.inference import notes
from drct.inference.batch_plan import Job, ResultOptions, plan
from drct.inference.memory import is_out_of_memory
from drct.inference.upscaler import Upscaler, load
from drct.inference.waiting import BatchProgress
from drct.runtime import distributed
from drct.text import first_line


@dataclass
class Tally:
    """Counts of a batch of images."""

    planned: int = 0  # images that were found and have a file for their result
    upscaled: int = 0  # results written
    skipped: int = 0  # images whose result existed
    failed: int = 0  # inputs and images that could not be upscaled
    pixels: int = 0  # of the results written
    weights: Counter[str] = field(default_factory=Counter)  # results written, by the name of the weights

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{name: mine + getattr(other, name) for name, mine in vars(self).items()})


def upscale_files(
    inputs: Sequence[str], results: ResultOptions, weights: str, device: str | None = None, **settings: Any
) -> Tally:
    """Upscale files, folders (searched recursively) and matches of patterns such as '*.png', in all processes together.

    Each failure is one line on stderr, and does not stop the other images. The network is loaded, by `drct.load` with
    the weights, device and settings, only if there is something to upscale.

    Returns:
        The numbers of all processes together.

    Raises:
        DRCTError: if nothing can be done: no such weights or device, or an output that cannot be written.
    """
    distributed.meet()
    distributed.start("gloo", 0, logging.getLogger("drct"))
    first = distributed.rank() == 0
    jobs, failures = distributed.from_first(plan(inputs, results) if first else None)
    for failure in failures if first else []:
        print(f"error: {failure}", file=sys.stderr)
    folders = {job.target.parent for job in jobs} if first else set()
    for folder in folders:
        remove_leftovers(folder, shared=True)
    tally = Tally(planned=len(jobs), failed=len(failures))
    if not jobs:
        return tally
    if device in (None, "cuda") and distributed.world_size() > 1 and torch.cuda.is_available():
        device = f"cuda:{distributed.local_rank() % torch.cuda.device_count()}"
    upscaler = load(weights, device, **settings)
    upscaler.check_pictures()
    tally = sum(distributed.gather(_upscale_share(jobs, upscaler, results)), tally)
    for folder in folders:  # those of a process killed a moment ago were too young before
        remove_leftovers(folder, shared=True)
    return tally


def _upscale_share(jobs: Sequence[Job], upscaler: Upscaler, options: ResultOptions) -> Tally:
    """Upscale images, one at a time of those that no process has taken yet, until none is left."""
    tally, total = Tally(), len(jobs)
    with closing(BatchProgress(total, hidden=distributed.rank() > 0)) as shown:
        for number in distributed.shared(total):
            job = jobs[number]
            try:
                with shown.image(number, job.source.name):
                    pixels, told, used = _upscale_file(job, upscaler, options)
                tally.upscaled += 1
                tally.pixels += pixels
                tally.weights[used] += 1
                for note in told:
                    shown.write(f"note: {job.source}: {note}")
            except KeyboardInterrupt:
                print(f"interrupted after {tally.upscaled} of {total} images; --skip-existing goes on", file=sys.stderr)
                raise
            except Exception as error:  # one bad file does not stop the others
                if isinstance(error, AlreadyExistsError) and options.existing == "skip":
                    tally.skipped += 1
                    continue
                tally.failed += 1
                shown.write(f"error: {_reason(error, job.source)}")
    return tally


def _upscale_file(job: Job, upscaler: Upscaler, options: ResultOptions) -> tuple[int, list[str], str]:
    """Upscale a file. Returns the number of pixels of the result, notes for the user, and the name of the weights.

    Raises:
        AlreadyExistsError: if the result exists and is not to be replaced.
    """
    replace = options.existing == "replace"
    if job.target.exists() and not replace:
        raise AlreadyExistsError(f"{job.target} exists")
    picture = read_picture(job.source)
    height, width = picture.pixels.shape[:2]
    check_size(job.target, *upscaler.size(height, width, options.outscale))
    with notes.collected() as found:
        upscaler = upscaler.for_picture(picture, options.outscale)
        result = upscaler.upscale_picture(picture, options.outscale, options.wrap)
    lost = write_picture(job.target, result, options.quality, replace)
    told = [note for note in (result.note, *found, lost) if note]
    return result.pixels.shape[0] * result.pixels.shape[1], told, upscaler.name


def _reason(error: Exception, source: Path) -> str:
    """Return one line, with the name of the file, about an error."""
    if isinstance(error, AlreadyExistsError):  # from before, or from another program by now
        return f"{source}: {error}: --overwrite replaces it, --skip-existing leaves it"
    if isinstance(error, DRCTError):
        message = " ".join(str(error).splitlines())  # names of files may contain line breaks
        return message if str(source) in str(error) else f"{source}: {message}"
    if is_out_of_memory(error):
        return f"{source}: out of memory: try --tile 256, or less"
    return f"{source}: {type(error).__name__}: {first_line(error)}"
