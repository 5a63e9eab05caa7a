"""Prepare folders of images: low-resolution images, sub-images for training, benchmark layouts, degraded images, the
ladder, lists of files, LMDBs; and check them.

Low-resolution images are MATLAB's antialiased bicubic (BasicSR's `imresize`) of the float image, rounded to 8 bits:
published super-resolution results are measured on such images.
"""

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drct.commands import prepare_check
from drct.commands.common import command_parser, print_failures
from drct.errors import DRCTError, one_line_errors
from drct.files import AlreadyExistsError
from drct.images.listing import check_folder

if TYPE_CHECKING:
    from drct.data.prepare import PreparedImages

EXAMPLES = """examples:
  %(prog)s benchmark ~/Set5_HR -o datasets/Set5              GTmod12/ and LRbicx2/ LRbicx3/ LRbicx4/
  %(prog)s subimages ~/DF2K_HR -o datasets/DF2K              DF2K_HR_sub/, DF2K_bicx2_sub/ ..., a list
  %(prog)s lr datasets/mine/HR -o datasets/mine --scales 4   LRbicx4/
  %(prog)s degrade datasets/Set5/GTmod12 -o datasets/Set5/LRx4_jpeg30 --recipe jpeg:30
  %(prog)s ladder datasets/Set14/GTmod12 -o datasets/Set14   LRbicx4/ LRx4_jpeg90/ ... for options/test/*_ladder.yml
  %(prog)s degrade photo.jpg --show sheet.png                one image at twelve degradations
  %(prog)s meta-info datasets/ImageNet/GT -o datasets/ImageNet/meta_info_ImageNet_GT.txt
  %(prog)s lmdb datasets/ImageNet/GT -o datasets/ImageNet/GT.lmdb    all images in one file
  %(prog)s check datasets/mine/HR datasets/mine/LRbicx4 --against datasets/Set5 datasets/Set14    faults and leaks
"""

SHOWN = [  # by --show without --recipe
    *("clean", "jpeg:90", "jpeg:75", "jpeg:40", "noise:4", "noise:8", "noise:8+jpeg:40", "blur:1.6", "blur:3.2"),
    *("blur:1.6+noise:8+jpeg:40", "resize:0.5", "resize:0.5+jpeg:75"),
]


def argument_parser() -> ArgumentParser:
    """Return the parser of `drct prepare`."""
    parser = command_parser(__doc__, EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True)
    images = ArgumentParser(add_help=False)
    images.add_argument("source", type=Path, help="folder of high-resolution images, or of *HR.png and *LR.png files")
    images.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    images.add_argument("--scales", type=int, nargs="+", default=[2, 3, 4], choices=[2, 3, 4], help="default: 2 3 4")
    common = ArgumentParser(add_help=False)
    common.add_argument("--overwrite", action="store_true", help="replace existing files instead of keeping them")
    common.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one per core")
    copies = ArgumentParser(add_help=False)
    factors = "also make copies of each image reduced by these: more and sharper images to train on; default 1"
    copies.add_argument("--factors", type=_factor, nargs="+", default=[1.0], help=factors)

    layout = "crop HR images and reduce them: the layout of benchmarks"
    commands.add_parser("benchmark", parents=[images, copies, common], help=layout)
    commands.add_parser("lr", parents=[images, common], help="only reduce images")
    cut = "reduce and cut into patches for training"
    sub = commands.add_parser("subimages", parents=[images, copies, common], help=cut)
    sub.add_argument("--name", help="prefix of the folders; default: the name of the output folder")
    sub.add_argument("--size", type=int, default=480, help="side of a patch in HR pixels, default 480")
    sub.add_argument("--step", type=int, default=240, help="distance of patches in HR pixels, default 240")
    _add_degrade(commands, common)
    words = "make the layout of benchmarks and five sets of it that are degraded more and more, as photographs are"
    ladder = commands.add_parser("ladder", parents=[common], help=words, description=words)
    ladder.add_argument("source", type=Path, help="folder of high-resolution images")
    ladder.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    ladder.add_argument("--scale", type=int, default=4, choices=[2, 3, 4], help="of the reduction; default 4")
    meta = commands.add_parser("meta-info", parents=[common], help="list the images of a folder and their sizes")
    meta.add_argument("source", type=Path, help="folder, searched recursively")
    meta.add_argument("-o", "--output", type=Path, required=True, help="text file to write")
    store = commands.add_parser("lmdb", parents=[common], help="store the images of a folder in an LMDB of BasicSR")
    store.add_argument("source", type=Path, help="folder, searched recursively; the files are stored as they are")
    store.add_argument("-o", "--output", type=Path, required=True, help="name.lmdb, a folder to make")
    prepare_check.add_check(commands)
    return parser


def _add_degrade(commands: Any, common: ArgumentParser) -> None:
    words = "make low-resolution images like those of cameras and the web, and list what each image got"
    degrade = commands.add_parser("degrade", parents=[common], help=words, description=words)
    degrade.add_argument("source", type=Path, help="folder of high-resolution images; with --show also an image")
    degrade.add_argument("-o", "--output", type=Path, help="folder to write to; the list is written beside it, as .csv")
    recipe = (
        "steps joined by +, such as blur:1.6+noise:8+jpeg:40 or jpeg:30-95 (blur, resize, noise, jpeg); clean; real or "
        "light, for the degradations of Real-DRCT and Real-DRCT-XS; or a training option file"
    )
    degrade.add_argument("--recipe", help=recipe)
    degrade.add_argument("--scale", type=int, default=4, choices=[1, 2, 3, 4], help="of the reduction; default 4")
    degrade.add_argument("--seed", type=int, default=0, help="of the random numbers; default 0")
    degrade.add_argument("--show", type=Path, metavar="PNG", help="only draw a sheet of the first image")


def _factor(text: str) -> float:
    factor = float(text)
    if not 0 < factor <= 1:
        raise ArgumentTypeError(f"{text} is not in (0, 1]")
    return factor


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct prepare`. Returns 0; 1 if files failed or `check` has findings; 2 if nothing was done."""
    args = argument_parser().parse_args(argv)
    if args.command == "degrade" and args.show and not args.source.is_dir():
        return _show(args)
    check_folder(args.source)
    if args.command == "check":
        return prepare_check.main(args)
    if args.command == "meta-info":
        return _list_images(args.source, args.output, args)
    if args.command == "lmdb":
        return _store(args)
    if args.command == "degrade":
        return _degrade(args)

    from drct.data import ladder, prepare  # BasicSR takes seconds, --help and the other commands should not

    if args.command == "ladder":
        made = ladder.prepare_ladder(args.source, args.output, args.scale, args.overwrite, args.processes)
        return _report(made, args.output)

    factors = [1] if args.command == "lr" else args.factors
    task = prepare.Preparation(args.source, args.output, args.scales, factors, args.overwrite, args.processes)
    if args.command == "lr":
        return _report(prepare.prepare_lr(task), args.output)
    if args.command == "benchmark":
        return _report(prepare.prepare_benchmark(task), args.output)
    prefix = args.name or args.output.resolve().name
    status = _report(prepare.prepare_subimages(task, prefix, args.size, args.step), args.output)
    folder = args.output / f"{prefix}_HR_sub"
    if not folder.is_dir():  # every image failed
        return status
    return max(status, _list_images(folder, args.output / f"meta_info_{prefix}_HR_sub.txt", args))


def _report(images: "PreparedImages", output: Path) -> int:
    kept = _kept(images.kept)
    print(f"{images.prepared} of {images.found} images prepared in {output}: {images.written} files written{kept}")
    print_failures(images.failures, "failed")
    return int(bool(images.failures))


def _kept(number: int) -> str:
    return f", {number} that existed kept (--overwrite replaces them)" if number else ""


def _degrade(args: Namespace) -> int:
    if args.seed < 0:
        raise DRCTError(f"--seed {args.seed}: a seed is 0 or a whole number above")
    if args.show:
        return _show(args)
    if not args.output or not args.recipe:
        raise DRCTError("degrade needs -o FOLDER and --recipe, or --show FILE.png")
    from drct.data.degrade import degrade_folder  # with PyTorch
    from drct.runs.recipes import read_recipe

    recipe = read_recipe(args.recipe)
    done = degrade_folder(args.source, args.output, recipe, args.scale, args.seed, args.overwrite, args.processes)
    degraded = f"{done.written} of {done.found} images degraded in {args.output}{_kept(done.kept)}"
    print(f"{degraded}; what each got: {done.listed_in}")
    print_failures(done.failures, "failed")
    return int(bool(done.failures))


def _show(args: Namespace) -> int:
    from drct.data.image_lists import find_images  # with PyTorch
    from drct.evaluation.degradation_sheet import draw_degradations
    from drct.images.bgr import read_image, write_png
    from drct.runs.recipes import read_recipe

    if args.show.suffix.lower() != ".png":
        raise DRCTError(f"--show {args.show}: the sheet is a .png file")
    source = find_images(args.source)[0] if args.source.is_dir() else args.source
    recipes = [read_recipe(args.recipe)] if args.recipe else [read_recipe(text) for text in SHOWN]
    sheet = draw_degradations(read_image(source), recipes, args.scale, args.seed)
    try:
        write_png(args.show, sheet, replace=args.overwrite)
    except AlreadyExistsError as error:
        raise DRCTError(f"{error}: choose another name, or --overwrite") from error
    print(f"{source} at twelve degradations: {args.show}")
    return 0


def _list_images(folder: Path, output: Path, args: Namespace) -> int:
    from drct.data import image_lists  # with PyTorch

    image_lists.check_list_path(output)
    sizes, failures = image_lists.measure_folder(folder, args.processes)
    print_failures(failures, "failed")
    image_lists.write_meta_info(output, sizes, args.overwrite)
    print(f"{len(sizes)} images listed in {output}")
    return int(bool(failures))


def _store(args: Namespace) -> int:
    from drct.data.image_lists import store_in_lmdb  # with PyTorch

    images = store_in_lmdb(args.source, args.output, args.overwrite, args.processes)
    print_failures(images.failures, "failed")
    if not images.stored:
        raise DRCTError(f"none of the images of {args.source} can be stored")
    print(f"{images.stored} of {images.found} images stored in {args.output}")
    return int(bool(images.failures))
