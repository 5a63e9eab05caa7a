"""Preparing image folders: low-resolution images, sub-images for training, benchmark layouts, lists of files, LMDBs.

Low-resolution images are MATLAB's antialiased bicubic (BasicSR's `imresize`) of the float image, rounded to 8 bits,
which is what published super-resolution figures are measured on.
"""

import argparse
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from drct.errors import DRCTError, one_line_errors
from drct.files import write_atomically
from drct.images.bgr import read_image, write_png
from drct.images.listing import list_images

GT_MULTIPLE = 12  # of all of the scales 2, 3 and 4
BENCHMARK_NAME = re.compile(r"(?P<name>.*?)[_-]?(SRF_\d+[_-]?)?(?P<kind>HR|LR)")


def reduce_image(image: np.ndarray, scale: int) -> np.ndarray:
    """Reduce an image by MATLAB's antialiased bicubic: (H, W, 3) -> (H // scale, W // scale, 3), uint8."""
    height, width = (side - side % scale for side in image.shape[:2])
    if min(height, width) < 2 * scale + 1:  # the filter reaches that far
        raise DRCTError(f"the image of {image.shape[1]}x{image.shape[0]} is too small to be reduced {scale} times")
    return _resize(image[:height, :width], 1 / scale)


def _resize(image: np.ndarray, factor: float) -> np.ndarray:
    from basicsr.utils.matlab_functions import imresize

    resized = imresize(image.astype(np.float32) / 255, factor)
    return (resized * 255).round().clip(0, 255).astype(np.uint8)


def copy_name(name: str, factor: float) -> str:
    """What the copy of an image is called that is reduced by a factor: `name_x0.8`; the image itself stays `name`."""
    return name if factor == 1 else f"{name}_x{factor:g}"


def _copies(image: np.ndarray, name: str, factors: Iterable[float]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and copies of an image, reduced by factors in (0, 1]. Sides are rounded up, as by MATLAB."""
    for factor in factors:
        yield copy_name(name, factor), image if factor == 1 else _resize(image, factor)


def crop_to_multiple(image: np.ndarray, multiple: int) -> np.ndarray:
    """Cut the right and bottom so that both sides are multiples."""
    height, width = (side - side % multiple for side in image.shape[:2])
    if not height or not width:
        raise DRCTError(f"the image of {image.shape[1]}x{image.shape[0]} is smaller than {multiple} pixels")
    return image[:height, :width]


# ------------------------------------------------------------------------------------------------- one file's work


@dataclass
class Written:
    """What became of the outputs of one input."""

    new: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)


def _write_missing(outputs: Mapping[Path, Callable[[], np.ndarray]], overwrite: bool) -> Written:
    written = Written()
    for path, make in outputs.items():
        if path.exists() and not overwrite:
            written.kept.append(path)
        else:
            write_png(path, make())
            written.new.append(path)
    return written


def _lr(source: Path, name: str, out: Path, scales: list[int], overwrite: bool) -> Written:
    image = read_image(source)
    outputs = {out / f"LRbicx{s}" / f"{name}.png": partial(reduce_image, image, s) for s in scales}
    return _write_missing(outputs, overwrite)


def _benchmark(source: Path, name: str, out: Path, scales: list[int], overwrite: bool, factors: list[float]) -> Written:
    outputs: dict[Path, Callable[[], np.ndarray]] = {}
    for file, copy in _copies(read_image(source), name, factors):
        image = crop_to_multiple(copy, GT_MULTIPLE)
        outputs[out / f"GTmod{GT_MULTIPLE}" / f"{file}.png"] = partial(np.asarray, image)
        outputs |= {out / f"LRbicx{s}" / f"{file}.png": partial(reduce_image, image, s) for s in scales}
    return _write_missing(outputs, overwrite)


def _subimages(
    source: Path,
    name: str,
    out: Path,
    scales: list[int],
    overwrite: bool,
    factors: list[float],
    prefix: str,
    size: int,
    step: int,
) -> Written:
    """Reduce the whole image, then cut it and its reductions at the same places: no border inside the picture."""
    outputs: dict[Path, Callable[[], np.ndarray]] = {}
    for stem, copy in _copies(read_image(source), name, factors):
        image = crop_to_multiple(copy, GT_MULTIPLE)
        reduced = {s: reduce_image(image, s) for s in scales}
        corners = ((y, x) for y in _starts(image.shape[0], size, step) for x in _starts(image.shape[1], size, step))
        for number, (y, x) in enumerate(corners, 1):
            file = f"{stem}_s{number:03d}.png"
            outputs[out / f"{prefix}_HR_sub" / file] = partial(_cut, image, y, x, size)
            for s, small in reduced.items():
                outputs[out / f"{prefix}_bicx{s}_sub" / file] = partial(_cut, small, y // s, x // s, size // s)
    return _write_missing(outputs, overwrite)


def _cut(image: np.ndarray, y: int, x: int, size: int) -> np.ndarray:
    return image[y : y + size, x : x + size]


def _starts(length: int, size: int, step: int) -> list[int]:
    """Where patches start along one axis: every `step`, and one that ends at the border. One for a short axis."""
    if length <= size:
        return [0]
    starts = list(range(0, length - size + 1, step))
    return starts if starts[-1] + size == length else [*starts, length - size]


def _size(source: Path) -> tuple[int, int]:
    return read_image(source).shape[:2]


# ------------------------------------------------------------------------------------------------------ all the files


def run_parallel(jobs: dict[Path, Callable], processes: int, title: str) -> tuple[dict[Path, object], dict[Path, str]]:
    """Run one job per file in several processes, with a progress bar.

    Returns:
        Results and, for the files whose job failed, the reasons. A failure does not stop the rest.
    """
    results: dict[Path, object] = {}
    failed: dict[Path, str] = {}

    def finish(source: Path, get: Callable[[], object]) -> None:
        try:
            results[source] = get()
        except Exception as error:  # whatever a strange file leads to
            failed[source] = str(error) if str(source) in str(error) else f"{source}: {error}"

    if processes <= 1 or len(jobs) <= 1:
        for source, job in tqdm(jobs.items(), title, unit="image"):
            finish(source, job)
        return results, failed
    # Not forked: a fork of a process in which PyTorch has computed with several threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(jobs)), context, initializer=_single_thread) as pool:
        futures: dict[Future, Path] = {pool.submit(job): source for source, job in jobs.items()}
        try:
            for future in tqdm(as_completed(futures), title, total=len(futures), unit="image"):
                finish(futures[future], future.result)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results, failed


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _sources(folder: Path, recursive: bool = False) -> list[Path]:
    if not folder.is_dir():
        raise DRCTError(f"no such folder: {folder}")
    sources = list_images(folder, recursive)
    if not sources:
        raise DRCTError(f"there are no images in {folder}")
    return sources


def ground_truths(sources: Iterable[Path]) -> dict[Path, str]:
    """Ground truth files and the names to give them.

    In a folder of `*HR.png` and `*LR.png` alone these are the HR files, named by what stands before
    (`img_001_SRF_4_HR.png` becomes img_001); elsewhere, all files. Blanks become underscores, because they end a name
    in BasicSR's lists.

    Raises:
        DRCTError: if two files would get the same name, or the folder has HR and LR files of one name among others.
    """
    sources = list(sources)
    matches = {source: BENCHMARK_NAME.fullmatch(source.stem) for source in sources}
    names = {source: match["name"] or source.stem for source, match in matches.items() if match}
    high = {source: name for source, name in names.items() if source.stem.endswith("HR")}
    if len(names) < len(sources):
        low = {match["name"] for source, match in matches.items() if match and source not in high}
        if any(matches[source]["name"] in low for source in high):  # type: ignore[index]
            other = next(source for source, match in matches.items() if not match)
            raise DRCTError(f"{other} is named neither *HR nor *LR, unlike other files of its folder: move it away")
    if len(names) < len(sources) or not high:
        high = {source: source.stem for source in sources}
    by_name: dict[str, Path] = {}
    for source, name in high.items():
        name = high[source] = re.sub(r"\s", "_", name)
        if name in by_name:
            raise DRCTError(f"{by_name[name]} and {source} would both become {name}.png: rename one of them")
        by_name[name] = source
    return high


def _check_copies(names: Mapping[Path, str], factors: Sequence[float]) -> None:
    """Refuse factors whose copies would get the name of another image."""
    copies = [copy_name("", factor) for factor in factors]
    if len(set(copies)) < len(copies):
        raise DRCTError(f"--factors {' '.join(f'{factor:g}' for factor in factors)}: one is given twice")
    by_name = {name: source for source, name in names.items()}
    for source, name in names.items():
        for factor in factors:
            other = by_name.get(copy_name(name, factor), source)
            if other != source:
                raise DRCTError(f"{other} has the name of a copy of {source} reduced by {factor:g}: rename one of them")


def meta_info(sizes: dict[str, tuple[int, int]]) -> str:
    """A list of files as BasicSR reads it: one `name (h,w,c)` per line, sorted."""
    return "".join(f"{name} ({height},{width},3)\n" for name, (height, width) in sorted(sizes.items()))


# ----------------------------------------------------------------------------------------------------------- commands


def _run_images(args: argparse.Namespace, work: Callable[..., Written], **options) -> int:
    names = ground_truths(_sources(args.source))
    _check_copies(names, options.get("factors", []))
    jobs: dict[Path, Callable] = {
        source: partial(work, source, name, args.output, args.scales, args.overwrite, **options)
        for source, name in names.items()
    }
    results, failed = run_parallel(jobs, args.processes, args.command)
    written = [result for result in results.values() if isinstance(result, Written)]
    new, kept = sum(len(w.new) for w in written), sum(len(w.kept) for w in written)
    print(f"{len(results)} of {len(jobs)} images prepared in {args.output}: {new} files written", end="")
    print(f", {kept} that existed kept (--overwrite replaces them)" if kept else "")
    return _report(failed)


def _report(failed: dict[Path, str]) -> int:
    for reason in sorted(failed.values()):
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _run_subimages(args: argparse.Namespace) -> int:
    for key in ("size", "step"):
        if getattr(args, key) <= 0 or getattr(args, key) % GT_MULTIPLE:
            raise DRCTError(f"--{key} must be a multiple of {GT_MULTIPLE}, not {getattr(args, key)}")
    prefix = args.name or args.output.resolve().name
    _check_same_cut(args, prefix)
    status = _run_images(args, _subimages, factors=args.factors, prefix=prefix, size=args.size, step=args.step)
    folder = args.output / f"{prefix}_HR_sub"
    if not folder.is_dir():  # every image failed
        return status
    return max(status, _list_images(folder, args.output / f"meta_info_{prefix}_HR_sub.txt", args))


def _check_same_cut(args: argparse.Namespace, prefix: str) -> None:
    """Refuse to mix patches of different cuts, whose names are the same; remember the cut for the next time."""
    folder, record = args.output / f"{prefix}_HR_sub", args.output / f"{prefix}_HR_sub.json"
    cut = {"size": args.size, "step": args.step} | ({"factors": args.factors} if args.factors != [1] else {})
    if folder.is_dir() and any(folder.iterdir()):
        earlier = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
        if earlier != cut:
            raise DRCTError(
                f"{folder} holds patches of {earlier or 'an unknown cut'}, not of {cut}: choose another --name, or "
                "delete its folders"
            )
    write_atomically(record, lambda file: file.write(json.dumps(cut).encode()))


def _run_meta_info(args: argparse.Namespace) -> int:
    return _list_images(args.source, args.output, args)


def _list_images(folder: Path, output: Path, args: argparse.Namespace) -> int:
    if output.is_dir():
        raise DRCTError(f"the list is a text file, but {output} is a folder: -o {output / 'meta_info.txt'}")
    sources = _sources(folder, recursive=True)
    results, failed = run_parallel({source: partial(_size, source) for source in sources}, args.processes, "meta-info")
    sizes = {source.relative_to(folder).as_posix(): size for source, size in results.items()}
    for name in [name for name in sizes if " " in name]:
        failed[folder / name] = f"{folder / name}: a name with a blank, which BasicSR's lists cannot hold: rename it"
        del sizes[name]
    text = meta_info(sizes)  # type: ignore[arg-type]
    if output.exists() and not args.overwrite and output.read_text(encoding="utf-8") != text:
        _report(failed)
        raise DRCTError(f"{output} exists and lists other images: choose another name, or --overwrite")
    write_atomically(output, lambda file: file.write(text.encode()))
    print(f"{len(sizes)} images listed in {output}")
    return _report(failed)


def _run_lmdb(args: argparse.Namespace) -> int:
    from drct.data.lmdb_writer import check_output, lmdb_key, write_lmdb

    check_output(args.output, args.overwrite)
    names: dict[Path, str] = {}
    unusable: dict[Path, str] = {}
    by_key: dict[str, Path] = {}
    for source in _sources(args.source, recursive=True):
        name = source.relative_to(args.source).as_posix()
        try:
            key = lmdb_key(name)
        except ValueError as error:
            unusable[source] = f"{source}: {error}"
            continue
        if key in by_key:
            raise DRCTError(f"{by_key[key]} and {source} would both get the key {key}: rename one of them")
        by_key[key], names[source] = source, name
    sizes, failed = run_parallel({source: partial(_size, source) for source in names}, args.processes, "check")
    stored = {source: name for source, name in names.items() if source in sizes}
    if not stored:
        _report(failed | unusable)
        raise DRCTError(f"none of the images of {args.source} can be stored")
    write_lmdb(args.output, stored, sizes)  # type: ignore[arg-type]
    print(f"{len(stored)} of {len(names) + len(unusable)} images stored in {args.output}")
    return _report(failed | unusable)


def _factor(text: str) -> float:
    factor = float(text)
    if not 0 < factor <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in (0, 1]")
    return factor


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct/prepare.py`."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n"
        "  %(prog)s benchmark ~/Set5_HR -o datasets/Set5              GTmod12/ and LRbicx2/ LRbicx3/ LRbicx4/\n"
        "  %(prog)s subimages ~/DF2K_HR -o datasets/DF2K              DF2K_HR_sub/, DF2K_bicx2_sub/ ..., a list\n"
        "  %(prog)s lr datasets/mine/HR -o datasets/mine --scales 4   LRbicx4/\n"
        "  %(prog)s meta-info datasets/ImageNet/GT -o datasets/ImageNet/meta_info_ImageNet_GT.txt\n"
        "  %(prog)s lmdb datasets/ImageNet/GT -o datasets/ImageNet/GT.lmdb    all images in one file\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    images = argparse.ArgumentParser(add_help=False)
    images.add_argument("source", type=Path, help="folder of high-resolution images, or of *HR.png and *LR.png files")
    images.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    images.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4], choices=[2, 3, 4], help="default: 2 3 4")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--overwrite", action="store_true", help="replace existing files instead of keeping them")
    common.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one per core")

    several = argparse.ArgumentParser(add_help=False)
    several.add_argument(
        "--factors",
        type=_factor,
        nargs="+",
        default=[1.0],
        help="also make copies of each image reduced by these: more and sharper images to train on; default 1",
    )

    layout = "crop HR images and reduce them: the test layout"
    commands.add_parser("benchmark", parents=[images, several, common], help=layout)
    commands.add_parser("lr", parents=[images, common], help="only reduce images")
    cut = "reduce and cut into patches for training"
    sub = commands.add_parser("subimages", parents=[images, several, common], help=cut)
    sub.add_argument("--name", help="prefix of the folders; default: the name of the output folder")
    sub.add_argument("--size", type=int, default=480, help="side of a patch in HR pixels, default 480")
    sub.add_argument("--step", type=int, default=240, help="distance of patches in HR pixels, default 240")
    meta = commands.add_parser("meta-info", parents=[common], help="list the images of a folder and their sizes")
    meta.add_argument("source", type=Path, help="folder, searched recursively")
    meta.add_argument("-o", "--output", type=Path, required=True, help="text file to write")
    store = commands.add_parser("lmdb", parents=[common], help="store the images of a folder in an LMDB of BasicSR")
    store.add_argument("source", type=Path, help="folder, searched recursively; the files are stored as they are")
    store.add_argument("-o", "--output", type=Path, required=True, help="name.lmdb, a folder to make")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct/prepare.py`. Returns 0, 1 if some files failed, 2 if nothing could be done."""
    args = argument_parser().parse_args(argv)
    if args.command == "benchmark":
        return _run_images(args, _benchmark, factors=args.factors)
    if args.command == "lr":
        return _run_images(args, _lr)
    if args.command == "subimages":
        return _run_subimages(args)
    if args.command == "lmdb":
        return _run_lmdb(args)
    return _run_meta_info(args)
