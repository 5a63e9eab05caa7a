"""Comparison of the features of several networks: from weights and images to tables and pictures."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from drct.analysis import feature_pictures, networks
from drct.analysis.feature_maps import QUANTITIES, StageFeatures, average, measure, stages
from drct.analysis.feature_tables import features_csv, stage_entries, summarize, summary_tables
from drct.analysis.plotting import save_png
from drct.errors import DRCTError
from drct.files import expanded, write_bytes, write_text
from drct.images.depth import convert_depth
from drct.images.listing import list_images
from drct.images.pictures import PICTURE_SUFFIXES, read_picture
from drct.inference.memory import is_out_of_memory
from drct.inference.upscaler import Upscaler
from drct.runs.scalars import FILE_NAME, read_scalars
from drct.text import count

SEED = r"(.+?)_seed\d+"  # names of runs that differ by their seed alone
PSNR_TAGS = "metrics/*/psnr"  # of a training run's scalars


@dataclass
class FeatureComparison:
    """Measurements of several networks.

    Raises:
        DRCTError: if networks of a group do not have the same stages.
    """

    groups: dict[str, list[str]]  # names of networks that differ by their seed alone, by their common label
    sources: dict[str, Path]  # file or folder of each network
    measured: dict[str, list[StageFeatures]]  # of each network
    psnr: dict[str, dict[str, float]]  # of each network, in dB by dataset
    pictures: dict[str, np.ndarray]  # images that were measured, (H, W, 3), RGB in [0, 1], by their path

    def __post_init__(self) -> None:
        for first, *others in self.groups.values():
            for other in others:
                if [one.stage for one in self.measured[first]] != [one.stage for one in self.measured[other]]:
                    raise DRCTError(f"{first} and {other} differ by more than their seed: rename one of them")

    def write(self, folder: Path, quantity: str) -> str:
        """Write tables and pictures, with maps of a quantity, and return the summary as Markdown."""
        measured = {label: [self.measured[name] for name in names] for label, names in self.groups.items()}
        rows = summarize(measured, {label: [self.psnr[name] for name in names] for label, names in self.groups.items()})
        table = summary_tables(rows)
        write_text(folder / "features.json", json.dumps(self._report(rows, table), indent=1))
        write_text(folder / "features.csv", features_csv(self.measured))
        save_png(folder / "features.png", feature_pictures.draw_depth_curves(measured))
        picture = next(iter(self.pictures.values()))
        for label, (name, *others) in self.groups.items():
            title = f"{label} ({name})" if others else label
            strip = feature_pictures.draw_strip(title, self.measured[name], picture, quantity)
            save_png(folder / f"strip_{_file_name(label)}.png", strip)
        write_bytes(folder / "features.gif", feature_pictures.animation(measured, quantity))
        return table

    def _report(self, rows: list[dict[str, Any]], table: str) -> dict[str, Any]:
        """Return the content of `features.json`."""
        return {
            "images": list(self.pictures),
            "quantities": QUANTITIES,
            "sizes": "mean, maximum and standard deviation of absolute values over positions and channels, averaged "
            "over images; relative: the mean divided by that of the embedding",
            "networks": {
                name: {
                    "source": str(self.sources[name]),
                    "group": label,
                    "psnr": self.psnr[name],
                    "stages": stage_entries(self.measured[name]),
                }
                for label, names in self.groups.items()
                for name in names
            },
            "summary": rows,
            "markdown": table,
        }


def group_by_seed(names: Iterable[str], labels: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Group networks whose names are equal up to an ending _seed<number>; any other network is a group of its own.

    Args:
        names: Names of the networks.
        labels: Labels of the groups, in the order in which their first network comes; by default the common name.

    Raises:
        DRCTError: if there are not as many labels as groups, or two groups would have the same files.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        match = re.fullmatch(SEED, name)
        groups.setdefault(match[1] if match else name, []).append(name)
    if labels is not None and len(labels) != len(groups):
        numbers = f"{count(len(labels), 'name')} for {count(len(groups), 'network')}"
        raise DRCTError(f"--names has {numbers}: {', '.join(groups)}")
    named = dict(zip(labels or groups, groups.values(), strict=False))
    if len({_file_name(label) for label in named}) < len(groups):
        raise DRCTError(f"networks have the same name: give {len(groups)} different ones after --names")
    return named


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.-]+", "_", label)


def load_upscaler(source: Path, device: str | None, network: str | None = None) -> Upscaler:
    """Load a network, ready to run on its device. Raises `DRCTError` if it cannot be analyzed."""
    loaded = networks.load(source, network)
    try:
        stages(loaded.network)
    except DRCTError as error:
        raise DRCTError(f"{source}: {error}") from error
    upscaler = Upscaler(loaded.network.requires_grad_(False), device, "fp32", None, traits=loaded.traits)
    networks.check_pictures(upscaler)
    return upscaler


def read_pictures(paths: Iterable[Path]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read images and folders of them.

    Returns:
        Images by their path, (H, W, 3), RGB in [0, 1]; and a message for each that could not be read.
    """
    pictures: dict[str, np.ndarray] = {}
    failures = []
    for path in map(expanded, paths):
        files = list_images(path, True, PICTURE_SUFFIXES) if path.is_dir() else [path]
        if not files:
            failures.append(f"{path}: the folder has no images")
        for file in files:
            try:
                pixels = convert_depth(read_picture(file).pixels, np.float32)
            except DRCTError as error:
                failures.append(str(error))
                continue
            pictures[str(file)] = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, axis=2)
    return pictures, failures


def measure_all(
    upscalers: Mapping[str, Upscaler], pictures: Mapping[str, np.ndarray]
) -> dict[str, list[StageFeatures]]:
    """Measure every network on every picture, averaged over the pictures; maps are those of the first picture."""
    measured = {}
    with tqdm(total=len(upscalers) * len(pictures), unit="image", disable=None) as progress:
        for name, upscaler in upscalers.items():
            progress.set_postfix_str(name)
            images: list[list[StageFeatures]] = []
            for path, pixels in pictures.items():
                image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).to(upscaler.device)
                try:
                    found = measure(upscaler.network, image, upscaler.traits.window)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    raise DRCTError(f"{path} does not fit in memory, in {name}: give a smaller image") from error
                # Other maps would only take memory
                images.append([one._replace(maps={}) for one in found] if images else found)
                progress.update()
            measured[name] = average(images)
    return measured


def last_psnr(source: Path) -> tuple[dict[str, float], list[str]]:
    """Return the PSNR that a training run has measured last, in dB by dataset, and notes about datasets left out.

    A dataset is left out if some of its images failed. Anything but a training run has no PSNR.
    """
    psnr: dict[str, float] = {}
    notes: list[str] = []
    if not (source / FILE_NAME).is_file():
        return psnr, notes
    for tag, (iterations, values) in read_scalars(source).items():
        if fnmatchcase(tag, PSNR_TAGS):
            dataset = tag.split("/")[1]
            table = source / "metrics" / f"metrics_{dataset}_{iterations[-1]}.json"
            if table.is_file() and (failed := json.loads(table.read_text(encoding="utf-8")).get("failed")):
                missing = count(len(failed), "image")
                notes.append(f"{source}: {missing} of {dataset} failed: PSNR of the others left out")
            else:
                psnr[dataset] = float(values[-1])
    return psnr, notes
