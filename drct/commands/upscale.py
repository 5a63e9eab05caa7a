"""Upscale images: files, folders with all below them, and patterns. Weights, device, precision and tiles are chosen."""

import argparse
import glob
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from drct.errors import DRCTError, one_line_errors
from drct.files import expanded, make_folder

if TYPE_CHECKING:
    from drct.inference.upscaler import Upscaler

FORMATS = ("png", "jpg", "webp", "tif", "bmp")
EXAMPLES = """examples:
  %(prog)s photo.jpg                          into the folder upscaled
  %(prog)s photo.jpg -o larger.png
  %(prog)s holidays/ portraits/ -o larger     with the folders below them
  %(prog)s 'scans/*.tif' -o larger --format png --suffix _x4
  %(prog)s photo.jpg --weights DRCT_SRx4.pth --precision fp32 --self-ensemble
  %(prog)s photo.jpg --outscale 2             four times larger, then reduced to twice the size
  torchrun --nproc_per_node=4 -m drct upscale holidays/ -o larger    shared by four processes
"""


class Job(NamedTuple):
    """An image to upscale."""

    source: Path
    target: Path


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct upscale`."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder, or pattern such as '*.png'")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("upscaled"), help="folder, or file for one image; default: upscaled"
    )
    parser.add_argument("--weights", default=None, help="file or name; default: those that come with the project")
    parser.add_argument("--outscale", type=factor, metavar="FACTOR", help="of the result, by resizing the network's")
    parser.add_argument("--suffix", default="", help="added to the names of results, such as _x4")
    parser.add_argument("--format", choices=("auto", *FORMATS), default="auto", help="default: the input's, or png")
    parser.add_argument(
        "--quality",
        type=int,
        choices=range(1, 101),
        metavar="Q",
        default=95,
        help="of JPEG and WebP, 1 to 100; default 95",
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--skip-existing", action="store_true", help="leave out images whose result exists")
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--self-ensemble", action="store_true", help="average 8 rotations and reflections; 8 x slower")
    parser.add_argument(
        "--tile",
        type=tile_size,
        default="auto",
        metavar="SIZE",
        help="in input pixels; default: only if memory needs it",
    )
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="default: fastest"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: an accelerator if there is one")
    return parser


def factor(text: str) -> float:
    """A factor of sizes, from the command line."""
    number = float(text)
    if not 0 < number < 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100")
    return number


def tile_size(text: str) -> int | str | None:
    """A size of tiles, from the command line."""
    if text in ("auto", "off"):
        return None if text == "off" else text
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not auto, off or a number of pixels")
    return int(text)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct upscale`. Returns 0, 1 if some images failed, 2 if nothing could be done."""
    args = argument_parser().parse_args(argv)

    from drct.runtime.distributed import reported_once

    return reported_once(_run)(args)


def _run(args: argparse.Namespace) -> int:
    import logging

    from drct.runtime import distributed

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    distributed.meet()
    distributed.start("gloo", 0, logging.getLogger("drct"))
    args.output = expanded(args.output)
    jobs, failures = distributed.from_first(_plan(args) if distributed.rank() == 0 else None)
    for failure in failures if distributed.rank() == 0 else []:
        print(f"error: {failure}", file=sys.stderr)
    failed, done, skipped, pixels, start = len(failures), 0, 0, 0, time.monotonic()
    if jobs:
        parts = distributed.gather(_upscale_all(jobs, _upscaler(args), args))
        done, skipped, more, pixels = (sum(counts) for counts in zip(*parts, strict=True))
        failed += more
    if distributed.rank() == 0:
        words = [f"{done} image{'s' * (done != 1)} upscaled into {args.output}"]
        words += [f"{pixels / 1e6:.2f} megapixels in {time.monotonic() - start:.1f} s"] * bool(done)
        words += [f"{skipped} existed already"] * bool(skipped) + [f"{failed} failed"] * bool(failed)
        print(", ".join(words))
    return 2 if not jobs else int(failed > 0)


def _upscaler(args: argparse.Namespace) -> "Upscaler":
    import torch

    from drct.inference.upscaler import load
    from drct.inference.weights import DEFAULT_WEIGHTS
    from drct.runtime import distributed

    device = args.device
    if device in (None, "cuda") and distributed.world_size() > 1 and torch.cuda.is_available():
        device = f"cuda:{distributed.local_rank() % torch.cuda.device_count()}"
    upscaler = load(args.weights or DEFAULT_WEIGHTS, device, args.precision, args.tile, args.self_ensemble)
    upscaler.check_pictures()
    return upscaler


# --------------------------------------------------------------------------------------------------------- planning


def _plan(args: argparse.Namespace) -> tuple[list[Job], list[str]]:
    """What to upscale and where to, and what cannot be."""
    failures: list[str] = []
    found = list(_find(args, failures))
    to_file = _is_file(args, [source for source, _ in found])
    if found:
        make_folder(args.output.parent if to_file else args.output)
    sources = {_real(source) for source, _ in found}
    jobs: dict[Path, Job] = {}
    for source, relative in found:
        target = args.output if to_file else args.output / _result_name(relative, args)
        earlier = jobs.get(_real(target))
        if _real(target) in sources:
            failures.append(f"{source}: its result would overwrite the input {target}: choose another -o or --suffix")
        elif earlier and _real(earlier.source) != _real(source):
            failures.append(f"{source}: its result would be {target}, as that of {earlier.source}: rename one of them")
        else:
            jobs[_real(target)] = Job(source, target)
    return list(jobs.values()), failures


def _is_file(args: argparse.Namespace, found: list[Path]) -> bool:
    """Whether the output is the file of the only image, and not a folder. Raises `DRCTError` if it can be neither."""
    from drct.images.pictures import PICTURE_SUFFIXES, format_of

    output = args.output
    if output.is_dir() or (output.suffix.lower() not in PICTURE_SUFFIXES and not output.is_file()):
        return False
    if len(args.inputs) != 1 or len(found) != 1 or Path(args.inputs[0]).is_dir():
        raise DRCTError(f"-o {output} is a file; for {len(found)} images of {', '.join(args.inputs)} name a folder")
    format_of(output)
    if args.suffix or args.format not in ("auto", output.suffix[1:].lower()):
        raise DRCTError(f"-o {output} says the result's name already: leave out --suffix and --format")
    return True


def _find(args: argparse.Namespace, failures: list[str]) -> Iterator[tuple[Path, Path]]:
    """Images, and the paths of their results below the output folder."""
    for given in args.inputs:
        path = Path(given) if os.path.lexists(given) else expanded(given)
        if not given:
            failures.append("an input without a name: is a variable not set?")
        elif path.is_dir():
            # Of one folder the contents go to the output; several keep their names apart
            root = Path() if len(args.inputs) == 1 else Path(_real(path).name)
            files = _images_below(path, args)
            if not files:
                failures.append(f"{path}: the folder has no images")
            yield from ((file, root / file.relative_to(path)) for file in files)
        elif os.path.lexists(path):
            yield path, Path(path.name)
        else:
            # Absolute patterns too, which Path.glob does not take
            matches = sorted(match for match in glob.glob(str(path), recursive=True) if not Path(match).is_dir())  # noqa: PTH207
            if not matches:
                failures.append(f"{given}: no such file")
            yield from ((Path(match), Path(Path(match).name)) for match in matches)


def _images_below(folder: Path, args: argparse.Namespace) -> list[Path]:
    """The images of a folder, without results of an earlier run, where they are below it."""
    from drct.images.listing import list_images
    from drct.images.pictures import PICTURE_SUFFIXES

    files, output = list_images(folder, True, PICTURE_SUFFIXES), _real(args.output)
    if output == _real(folder):
        results = {folder / _result_name(file.relative_to(folder), args) for file in files} if args.suffix else set()
        return [file for file in files if file not in results]
    return [file for file in files if not _real(file).is_relative_to(output)]


def _result_name(path: Path, args: argparse.Namespace) -> Path:
    from drct.images.pictures import WRITABLE

    suffix = path.suffix if path.suffix.lower() in WRITABLE else ".png"
    return path.with_name(path.stem + args.suffix + (suffix if args.format == "auto" else f".{args.format}"))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve, it bears links that lead in a circle


# ---------------------------------------------------------------------------------------------------------- working


def _upscale_all(jobs: list[Job], upscaler: "Upscaler", args: argparse.Namespace) -> tuple[int, int, int, int]:
    """Upscale what this process gets of the images. Returns how many were done, existed, failed, and the pixels."""
    from tqdm import tqdm

    from drct.runtime import distributed

    done = skipped = failed = 0
    pixels, start = 0, time.monotonic()
    with tqdm(total=len(jobs), unit="image", disable=True if distributed.rank() else None) as progress:
        for number in distributed.shared(len(jobs)):
            job = jobs[number]
            progress.update(number - progress.n)
            speed = pixels / 1e6 / max(time.monotonic() - start, 1e-3)
            progress.set_postfix_str(f"{speed:.2f} megapixels/s, {job.source.name}")
            try:
                if args.skip_existing and job.target.exists():
                    skipped += 1
                    continue
                more, notes = _upscale_file(job, upscaler, args)
                pixels, done = pixels + more, done + 1
                for note in notes:
                    progress.write(f"note: {job.source}: {note}", file=sys.stderr)
            except KeyboardInterrupt:
                print(f"interrupted after {done} of {len(jobs)} images; --skip-existing goes on", file=sys.stderr)
                raise
            except Exception as error:  # one bad file does not stop the others
                failed += 1
                progress.write(f"error: {_reason(error, job.source)}", file=sys.stderr)
        progress.update(len(jobs) - progress.n)
    return done, skipped, failed, pixels


def _upscale_file(job: Job, upscaler: "Upscaler", args: argparse.Namespace) -> tuple[int, list[str]]:
    """Upscale a file. Returns the pixels of the result, and what the user should know."""
    from drct.images.pictures import check_size, read_picture, write_picture

    if job.target.exists() and not args.overwrite:
        raise DRCTError(f"{job.source}: {job.target} exists: --overwrite replaces it, --skip-existing leaves it")
    picture = read_picture(job.source)
    height, width = picture.pixels.shape[:2]
    check_size(job.target, *upscaler.size(height, width, args.outscale))
    result = upscaler.upscale_picture(picture, args.outscale)
    lost = write_picture(job.target, result, args.quality)
    return result.pixels.shape[0] * result.pixels.shape[1], [note for note in (result.note, lost) if note]


def _reason(error: Exception, source: Path) -> str:
    from drct.inference.memory import is_out_of_memory

    if isinstance(error, DRCTError):
        message = " ".join(str(error).splitlines())  # names of files may have several lines
        return message if str(source) in str(error) else f"{source}: {message}"
    if is_out_of_memory(error):
        return f"{source}: out of memory: try --tile 256, or less"
    first = (str(error).splitlines() or [""])[0]
    return f"{source}: {type(error).__name__}: {first}"


if __name__ == "__main__":
    sys.exit(main())
