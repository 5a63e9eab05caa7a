"""The report of a test run: one HTML page with its settings, metrics and pictures, which needs nothing else."""

import base64
import platform
import shutil
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.utils.matlab_functions import imresize

from drct.archs.variants import name_of
from drct.evaluation.comparison_sheet import most_detailed_area
from drct.evaluation.metric_table import MetricTable, is_lower_better
from drct.evaluation.pages import PAGES, encoded, formatted
from drct.files import write_atomically
from drct.images.bgr import as_float
from drct.runtime import distributed
from drct.version import __version__

PICTURES = 120  # of a dataset; the table has all its images
SIDE = 1200  # pixels of a larger picture that are shown: a page of 120 of them has about 250 MB
MAP_SIDE = 600  # of an error map, which is reduced, since no single pixel of it matters
ERROR = 64  # difference of luminance, of 255, that has the last colour
COLOURS = cv2.COLORMAP_INFERNO  # its lightness rises evenly: it can be read by the colour-blind and in gray
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
MARGIN = 4  # pixels around an area that its bicubic upscaling depends on


class RunReport:
    """Collects what a test run's `report.html` shows. Pictures wait in files until the page is written.

    To be used in a `with` statement, which removes those files. Several processes each collect their images.

    Args:
        results: Folder of the run.
        settings: What `run_settings` returns.
    """

    def __init__(self, results: Path, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.page = results / "report.html"
        self.parts = results / f".report_{distributed.rank()}"
        self.tables: list[MetricTable] = []
        self.pictures: dict[str, dict[str, Path]] = {}  # dataset -> image -> part of the page
        self.left_out: Counter[str] = Counter()  # images of a dataset that have none

    def __enter__(self) -> "RunReport":
        return self

    def __exit__(self, *_) -> None:
        shutil.rmtree(self.parts, ignore_errors=True)

    def add(self, name: str, pictures: dict[str, np.ndarray], table: MetricTable) -> None:
        """Make the part of the page that shows an image.

        Args:
            name: Name of the image.
            pictures: `lq`, `img` (the result) and perhaps `img2` (the ground truth) and `bicubic`, (H, W, 3), BGR,
                uint8.
            table: Its metrics of the image are shown.
        """
        shown = self.pictures.setdefault(table.dataset, {})
        if len(shown) * distributed.world_size() >= PICTURES:
            self.left_out[table.dataset] += 1
            return
        part = self.parts / f"{sum(map(len, self.pictures.values()))}.html"
        text = PAGES.get_template("picture.html").render(
            name=name,
            network=self.settings["network"],
            scores=_row(name, table.images.get(name, {}), table.bicubic.get(name))["cells"],
            ticks=[ERROR * i // 4 for i in range(5)],
            **_views(**pictures),
        )
        write_atomically(part, lambda file: file.write(encoded(text)))
        shown[name] = part

    def write(self) -> None:
        """Write the page of `self.tables`. All processes must ask; the first one writes."""
        everybodys = distributed.gather((self.pictures, self.left_out))
        if distributed.rank() == 0:
            datasets = [self._dataset(number, table, everybodys) for number, table in enumerate(self.tables)]
            chunks = PAGES.get_template("run.html").generate(
                title=self.settings["name"],
                lead=_lead(self.settings),
                settings=settings_rows(self.settings),
                network=self.settings["network"],
                datasets=datasets,
                colours=_legend(),
                limits={"pictures": PICTURES, "side": SIDE, "map": MAP_SIDE, "quality": JPEG[1]},
            )
            write_atomically(self.page, lambda file: file.writelines(map(encoded, chunks)))
        distributed.barrier()  # the others' parts are needed until now

    def _dataset(self, number: int, table: MetricTable, everybodys: list) -> dict[str, Any]:
        parts = {name: part for pictures, _ in everybodys for name, part in pictures.get(table.dataset, {}).items()}
        names = sorted(parts)
        anchors = {name: f"d{number}i{i}" for i, name in enumerate(names)}
        metrics = self.settings["options"]["val"].get("metrics") or {}
        return {
            "name": table.dataset,
            "metrics": [
                {"name": metric, "arrow": "↓" if is_lower_better(metric, metrics.get(metric, {})) else "↑"}
                for metric in table.mean()
            ],
            "bicubic": bool(table.bicubic),
            "rows": [_row(name, table.images[name], table.bicubic.get(name)) for name in table.images],
            "mean": _row("mean", table.mean(), table.mean_bicubic()),
            "failed": table.failed,
            "anchors": anchors,
            "pictures": ((anchors[name], _read(parts[name])) for name in names),
            "left_out": sum(left_out[table.dataset] for _, left_out in everybodys),
        }


# ----------------------------------------------------------------------------------------------------------- settings


def run_settings(opt: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """How a test run was made, as `settings.json` keeps it: its options, and what it ran on."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{device.type.upper()}, threads: {torch.get_num_threads()}"
    if distributed.world_size() > 1:
        hardware += f", in each of {distributed.world_size()} processes"
    return {
        "name": opt["name"],
        "network": name_of(opt["network_g"]),
        "date": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "device": hardware,
        "versions": {"drct": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "options": opt,
    }


def settings_rows(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Settings for people: what, and its value."""
    opt = settings["options"]
    network = {key: value for key, value in opt["network_g"].items() if key != "type"}
    weights = opt["path"].get("pretrain_network_g")
    rows = [
        ("network", f"{settings['network']}: {_listed(network)}"),
        ("weights", f"{weights} ({opt['path'].get('param_key_g')})" if weights else "none: they are random"),
        ("scale", f"×{opt['scale']}"),
        ("precision", opt.get("precision", "fp32")),
        ("tile", _listed(opt["tile"]) if isinstance(opt.get("tile"), dict) else opt.get("tile") or "whole images"),
    ]
    for dataset in opt["datasets"].values():
        if dataset["phase"] == "test":
            shown = {key: dataset[key] for key in ("type", "dataroot_gt", "dataroot_lq") if dataset.get(key)}
            rows.append((f"dataset {dataset['name']}", _listed(shown)))
    rows += [(f"metric {name}", _listed(metric)) for name, metric in (opt["val"].get("metrics") or {}).items()]
    rows += [("date", settings["date"]), ("device", settings["device"]), ("versions", _listed(settings["versions"]))]
    return [(name, str(value)) for name, value in rows]


def _lead(settings: dict[str, Any]) -> str:
    opt = settings["options"]
    weights = Path(opt["path"].get("pretrain_network_g") or "random weights").name
    return f"{settings['network']} ×{opt['scale']}, {weights}, {settings['date']}"


def _listed(values: dict[str, Any]) -> str:
    plain = {True: "true", False: "false"}
    return ", ".join(f"{key} {plain[value] if isinstance(value, bool) else value}" for key, value in values.items())


# ------------------------------------------------------------------------------------------------------------ numbers


def _row(name: str, values: dict[str, float], bicubic: dict[str, float] | None) -> dict[str, Any]:
    cells = [_cell(metric, value, (bicubic or {}).get(metric)) for metric, value in values.items()]
    return {"name": name, "cells": cells}


def _cell(metric: str, value: float, bicubic: float | None) -> dict[str, str]:
    return {
        "metric": metric,
        "value": formatted(metric, value),
        "bicubic": formatted(metric, bicubic),
        "gain": formatted(metric, None if bicubic is None else value - bicubic, "+"),
    }


# ----------------------------------------------------------------------------------------------------------- pictures


def _views(
    lq: np.ndarray, img: np.ndarray, img2: np.ndarray | None = None, bicubic: np.ndarray | None = None
) -> dict[str, Any]:
    """What the page shows of an image: the most detailed area of the input, as large as may be, of each picture."""
    scale = img.shape[0] // lq.shape[0]
    if img2 is not None and img2.shape != img.shape:
        img2 = bicubic = None  # which metrics complain of
    height, width = (min(side, max(1, SIDE // scale)) for side in lq.shape[:2])
    whole = (height, width) == lq.shape[:2]
    y, x = (0, 0) if whole else most_detailed_area(lq, height, width)

    def area(picture: np.ndarray) -> np.ndarray:
        return picture[y * scale : (y + height) * scale, x * scale : (x + width) * scale]

    upscaled = area(bicubic) if bicubic is not None else _bicubic(lq, y, x, height, width, scale)
    views = {
        "lr": _png(lq[y : y + height, x : x + width]),
        "bicubic": _jpeg(upscaled),
        "result": _jpeg(area(img)),
    }
    maps = []
    if img2 is not None:
        views["truth"] = _jpeg(area(img2))
        maps = [_error_map(label, picture, area(img2)) for label, picture in (("bicubic", upscaled), ("", area(img)))]
    return {
        "views": views,
        "maps": maps,
        "size": (img.shape[1], img.shape[0]),
        "shown": None if whole else (width * scale, height * scale, x * scale, y * scale),
        "width": width * scale,
        "height": height * scale,
    }


def _bicubic(lq: np.ndarray, y: int, x: int, height: int, width: int, scale: int) -> np.ndarray:
    """Bicubic upscaling of an area, as it is in that of the whole image, which may be large."""
    top, left = max(y - MARGIN, 0), max(x - MARGIN, 0)
    upscaled = imresize(as_float(lq[top : y + height + MARGIN, left : x + width + MARGIN]), scale)
    upscaled = upscaled[(y - top) * scale :, (x - left) * scale :][: height * scale, : width * scale]
    return (upscaled.clip(0, 1) * 255).round().astype(np.uint8)


def _error_map(label: str, picture: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """The error in luminance (BT.601, 0 to 255) in colours; `label` is '' for the network's."""
    gray = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (picture, truth)]
    error = cv2.absdiff(*gray).astype(np.float32)
    mean, factor = float(error.mean()), MAP_SIDE / max(error.shape)
    if factor < 1:
        size = [max(1, round(side * factor)) for side in error.shape[::-1]]
        error = cv2.resize(error, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return {"label": label, "mean": f"{mean:.1f}", "map": _jpeg(_coloured(error))}


def _coloured(error: np.ndarray) -> np.ndarray:
    return cv2.applyColorMap((np.minimum(error, ERROR) * (255 / ERROR)).round().astype(np.uint8), COLOURS)


def _legend() -> list[str]:
    """Colours of errors from 0 to `ERROR`, evenly spaced, as CSS takes them."""
    colours = _coloured(np.linspace(0, ERROR, 17, dtype=np.float32)[None])[0]
    return [f"#{r:02x}{g:02x}{b:02x}" for b, g, r in colours]


def _png(image: np.ndarray) -> str:
    return _data_uri("png", image, [])


def _jpeg(image: np.ndarray) -> str:
    return _data_uri("jpeg", image, JPEG)


def _data_uri(kind: str, image: np.ndarray, parameters: list[int]) -> str:
    _, data = cv2.imencode(f".{kind}", image, parameters)
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


def _read(part: Path) -> str:
    return part.read_text(encoding="utf-8")
