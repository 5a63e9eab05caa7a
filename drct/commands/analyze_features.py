"""Measure how large the features of networks are through their depth, and how much of them varies over the image.

Writes a table (features.json, features.csv), curves (features.png), maps (strip_<network>.png) and an animation
(features.gif). What is measured, and where, is told in features.json and in drct/analysis/feature_maps.py.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drct.analysis.plotting import needs_matplotlib
from drct.errors import DRCTError, one_line_errors
from drct.files import expanded, make_folder, write_atomically
from drct.runs.folders import run_names

if TYPE_CHECKING:
    from drct.analysis.feature_maps import Measured
    from drct.inference.upscaler import Upscaler

SEED = r"(.+?)_seed\d+"  # of names of runs that differ by their seed alone
METRICS = "metrics/*/psnr"  # tags of a training run's scalars
EXAMPLES = """examples:
  %(prog)s DRCT-XS_SRx4 --input photo.png -o features
  %(prog)s SwinIR.pth HAT.pth DRCT.pth --input small/ -o features
  %(prog)s --show features/features.json -o redrawn
  %(prog)s experiments/mine_seed* experiments/other_seed* --names mine other --input photo.png -o features

Of runs whose folders are named alike up to _seed<number>, the curves give the median and the range, and the table the
mean and the standard deviation.
"""


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct analyze features`."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help="weights of DRCT (file or name), of SwinIR or HAT (file; needs spandrel), or folder of a training run",
    )
    parser.add_argument(
        "--input",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="images or folders of them, of about 100 to 300 pixels a side: the whole image is computed at a time",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="FOLDER", help="older files of these names are replaced"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the networks; runs by seeds have one")
    parser.add_argument(
        "--map",
        choices=("intensity", "variation", "normalized"),
        default="intensity",
        help="what maps and animation show; default: intensity",
    )
    parser.add_argument(
        "--show", type=Path, metavar="JSON", help="draw the curves and print the table of a features.json, nothing else"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: an accelerator if there is one")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point of `drct analyze features`. Returns 0, 1 if some images failed, 2 if nothing could be done."""
    args = argument_parser().parse_args(argv)
    needs_matplotlib("pictures of features need")
    if args.show:
        if args.networks or args.input or args.names:
            raise DRCTError("--show draws what was measured: it takes no networks, --input or --names")
        return _show(args.show, args.output)
    if not args.networks or not args.input:
        raise DRCTError("give networks to look at, and images after --input")

    from drct.analysis import feature_pictures, feature_tables
    from drct.analysis.feature_maps import QUANTITIES

    sources = run_names(expanded(source) for source in args.networks)
    groups = group_by_seed(sources, args.names)
    upscalers = {name: _load(source, args.device) for name, source in sources.items()}
    pictures, failed = _read_all(args.input)
    folder = make_folder(expanded(args.output))
    measured = _measure_all(upscalers, pictures)
    _check_alike(groups, measured)
    metrics = {name: _metrics(source) for name, source in sources.items()}
    networks = {label: [measured[name] for name in names] for label, names in groups.items()}
    psnr = {label: [metrics[name] for name in names] for label, names in groups.items()}
    rows = feature_tables.summarize(networks, psnr)
    table = feature_tables.markdown(rows)
    report = {
        "images": list(pictures),
        "quantities": QUANTITIES,
        "sizes": "mean, maximum and standard deviation of absolute values over positions and channels, averaged over "
        "images; relative: the mean divided by that of the embedding",
        "networks": {
            name: {
                "source": str(sources[name]),
                "group": label,
                "psnr": metrics[name],
                "stages": feature_tables.stages(measured[name]),
            }
            for label, names in groups.items()
            for name in names
        },
        "summary": rows,
        "markdown": table,
    }
    _write(folder / "features.json", json.dumps(report, indent=1).encode())
    _write(folder / "features.csv", feature_tables.as_csv(measured).encode())
    _save(folder / "features.png", feature_pictures.draw_curves(networks))
    picture = next(iter(pictures.values()))
    for label, (name, *others) in groups.items():
        title = f"{label} ({name})" if others else label
        strip = feature_pictures.draw_strip(title, measured[name], picture, args.map)
        _save(folder / f"strip_{_file_name(label)}.png", strip)
    _write(folder / "features.gif", feature_pictures.animation(networks, args.map))
    print(table)
    print(f"features of {_count(len(measured), 'network')} on {_count(len(pictures), 'image')}: {folder}")
    return int(failed > 0)


def _show(file: Path, output: Path) -> int:
    from drct.analysis import feature_pictures, feature_tables

    networks, rows = feature_tables.read(file)
    folder = make_folder(expanded(output))
    _save(folder / "features.png", feature_pictures.draw_curves(networks))
    print(feature_tables.markdown(rows))
    return 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def group_by_seed(names: Iterable[str], labels: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Put networks together whose names end in _seed<number> and are else the same.

    Args:
        names: Of the networks.
        labels: What to call the groups instead, in the order in which their first network comes.

    Returns:
        Names per label. A network without a seed is alone and called by its name.

    Raises:
        DRCTError: if there are not as many labels as groups, or two would have the same files.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        match = re.fullmatch(SEED, name)
        groups.setdefault(match[1] if match else name, []).append(name)
    if labels is not None and len(labels) != len(groups):
        raise DRCTError(
            f"--names has {_count(len(labels), 'name')} for {_count(len(groups), 'network')}: {', '.join(groups)}"
        )
    named = dict(zip(labels or groups, groups.values(), strict=False))
    if len({_file_name(label) for label in named}) < len(groups):
        raise DRCTError(f"networks have the same name: give {len(groups)} different ones after --names")
    return named


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.-]+", "_", label)


# ---------------------------------------------------------------------------------------------------------- measuring


def _load(source: Path, device: str | None) -> "Upscaler":
    """A network on its device. Raises `DRCTError` if it cannot be analyzed."""
    from drct.analysis import networks
    from drct.analysis.feature_maps import stages
    from drct.archs.traits import NetworkTraits
    from drct.inference.upscaler import Upscaler

    loaded = networks.load(source)
    try:
        stages(loaded.network)
    except DRCTError as error:
        raise DRCTError(f"{source}: {error}") from error
    network = loaded.network.requires_grad_(False)
    upscaler = Upscaler(network, device, "fp32", None, traits=NetworkTraits(loaded.scale, loaded.window))
    upscaler.check_pictures()
    return upscaler


def _read_all(paths: Iterable[Path]) -> tuple[dict[str, np.ndarray], int]:
    """Pictures by their paths, (H, W, 3), RGB in [0, 1], and the number of those that could not be read."""
    from drct.images.depth import convert_depth
    from drct.images.listing import list_images
    from drct.images.pictures import PICTURE_SUFFIXES, read_picture

    pictures: dict[str, np.ndarray] = {}
    failed = 0
    for path in map(expanded, paths):
        files = list_images(path, True, PICTURE_SUFFIXES) if path.is_dir() else [path]
        if not files:
            print(f"error: {path}: the folder has no images", file=sys.stderr)
            failed += 1
        for file in files:
            try:
                pixels = convert_depth(read_picture(file).pixels, np.float32)
            except DRCTError as error:
                print(f"error: {error}", file=sys.stderr)
                failed += 1
                continue
            pictures[str(file)] = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)
    if not pictures:
        raise DRCTError("none of the images could be read: give others after --input")
    return pictures, failed


def _measure_all(
    upscalers: Mapping[str, "Upscaler"], pictures: Mapping[str, np.ndarray]
) -> dict[str, list["Measured"]]:
    import torch
    from tqdm import tqdm

    from drct.analysis.feature_maps import average, measure
    from drct.inference.memory import is_out_of_memory

    measured = {}
    with tqdm(total=len(upscalers) * len(pictures), unit="image", disable=None) as progress:
        for name, upscaler in upscalers.items():
            progress.set_postfix_str(name)
            images: list[list[Measured]] = []
            for path, pixels in pictures.items():
                image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(upscaler.device)
                try:
                    found = measure(upscaler.network, image, upscaler.traits.window)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    raise DRCTError(f"{path} does not fit in memory, in {name}: give a smaller image") from error
                # Only the maps of the first image are shown
                images.append([one._replace(maps={}) for one in found] if images else found)
                progress.update()
            measured[name] = average(images)
    return measured


def _check_alike(groups: Mapping[str, list[str]], measured: Mapping[str, list["Measured"]]) -> None:
    for first, *others in groups.values():
        for other in others:
            if [one.stage for one in measured[first]] != [one.stage for one in measured[other]]:
                raise DRCTError(f"{first} and {other} differ by more than their seed: rename one of them")


def _metrics(source: Path) -> dict[str, float]:
    """PSNR that a training run has measured last, in dB, by dataset, but where images failed. {} of anything else."""
    from drct.runs.scalars import FILE_NAME, read_scalars

    if not (source / FILE_NAME).is_file():
        return {}
    psnr = {}
    for tag, (iterations, values) in read_scalars(source).items():
        if fnmatchcase(tag, METRICS):
            dataset = tag.split("/")[1]
            table = source / "metrics" / f"metrics_{dataset}_{iterations[-1]}.json"
            if table.is_file() and (failed := json.loads(table.read_text(encoding="utf-8")).get("failed")):
                missing = _count(len(failed), "image")
                print(f"note: {source}: {missing} of {dataset} failed: PSNR of the others left out", file=sys.stderr)
            else:
                psnr[dataset] = float(values[-1])
    return psnr


def _write(path: Path, data: bytes) -> None:
    write_atomically(path, lambda file: file.write(data))


def _save(path: Path, figure: Any) -> None:
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
