"""Validation: upscale the images of a dataset, save and measure them, and keep the best mean of each metric."""

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.utils import tensor2img
from basicsr.utils.matlab_functions import imresize
from torch import Tensor
from torch.utils.data import default_collate

from drct.data.reading import read_item
from drct.errors import DRCTError
from drct.evaluation import metrics  # not its names: importing BasicSR imports DRCT's models, perhaps amid this line
from drct.evaluation.hashes import hash_of_pixels
from drct.evaluation.metric_table import MetricTable, is_lower_better
from drct.evaluation.protocols import ProtocolMeter, protocol_text, write_protocols
from drct.evaluation.saved_images import saved_image
from drct.images.bgr import write_png
from drct.inference import notes
from drct.inference.waiting import BatchProgress
from drct.runtime import distributed
from drct.text import count, first_line

logger = logging.getLogger("basicsr")


class Validator:
    """Upscales datasets, saves and measures their images, and keeps the best mean of each metric.

    Args:
        opt: Options of the run.
        device: Where metrics that are networks run.
    """

    def __init__(self, opt: dict[str, Any], device: torch.device) -> None:
        self.opt = opt
        self.options: dict[str, Any] = opt.get("val") or {}
        self.metrics = metrics.ImageMetrics(self.options.get("metrics") or {}, device)
        self.best: dict[str, dict[str, dict[str, Any]]] = {}  # dataset -> metric -> better, val, iter, as BasicSR's

    def run(
        self,
        upscale: Callable[[Tensor], Tensor],
        dataset: Any,
        iteration: int | str,
        scalars: Any = None,
        save_images: bool = False,
        viewers: Sequence[Callable[[str, dict[str, np.ndarray], MetricTable], None]] = (),
        should_stop: Callable[[], bool] = lambda: False,
    ) -> MetricTable | None:
        """Upscale and measure every image of a dataset, and write the metrics to the folder of the run.

        An image that cannot be read or processed is reported in the log and in the table, and left out. Several
        processes share the images and end with the same table. Raises `DRCTError` if the GPU's memory does not suffice.

        Args:
            upscale: Maps an image (1, C, H, W), RGB in [0, 1], to (1, C, H * scale, W * scale), not clamped.
            dataset: Dataset of BasicSR.
            iteration: Training iteration, or the name of a test run.
            scalars: Writer with TensorBoard's `add_scalar`, or None.
            save_images: Whether to save the upscaled images.
            viewers: Functions of an image's name, its pictures and the table so far. The pictures are `lq`, `img`
                (the result) and, with ground truth, `img2` (the ground truth) and `bicubic`; (H, W, 3), BGR, uint8.
            should_stop: Called before each image; a true result ends the validation in all processes.

        Returns:
            The table, which is also written as `metrics_<dataset>.csv` and `.json`; None after a stop.
        """
        show_bicubic = any(self.options.get(key) for key in ("bicubic", "comparison"))
        table = MetricTable(dataset.opt["name"], int(iteration) if self.opt["is_train"] else None, show_bicubic)
        paths = _image_paths(dataset)
        names = _unique_names(paths)
        order = sorted(range(len(dataset)), key=lambda index: names[index])  # not the file system's
        mine = order[distributed.rank() :: distributed.world_size()]
        if self.options.get("protocols") and not self.opt["is_train"]:
            upscale = ProtocolMeter(upscale, self.opt["scale"])
        shown = BatchProgress(len(mine), table.dataset, distributed.rank() > 0, logger.info)
        for number, index in enumerate(mine):
            if should_stop():
                break
            with_bicubic = show_bicubic or bool(viewers)
            with shown.image(number, names[index]):
                pictures = self._pictures(upscale, dataset, index, names[index], paths[index], with_bicubic, table)
            if pictures is None:
                continue
            if save_images:
                write_png(saved_image(self.opt, table.dataset, names[index], iteration), pictures["img"])
            self._measure(pictures, names[index], paths[index], table)
            if isinstance(upscale, ProtocolMeter) and "img2" in pictures and paths[index] not in table.failed:
                self._measure_protocols(upscale, pictures["img2"], names[index], paths[index], table)
            for show in viewers:
                show(names[index], pictures, table)
        shown.close()
        if distributed.any_process(should_stop()):
            return None
        table = MetricTable.joined(distributed.gather(table))
        self._report(table, scalars)
        return table

    def _pictures(
        self,
        upscale: Callable[[Tensor], Tensor],
        dataset: Any,
        index: int,
        name: str,
        path: str,
        with_bicubic: bool,
        table: MetricTable,
    ) -> dict[str, np.ndarray] | None:
        """Read and upscale an image. Return its pictures, or None if that failed."""
        try:
            item = default_collate([read_item(dataset, index)])
            lq = item["lq"]
            with notes.collected() as found:
                pictures = {"lq": tensor2img(lq), "img": tensor2img(upscale(lq))}
            for note in found:
                logger.warning(f"{path}: {note}")
            if "gt" in item:
                pictures["img2"] = tensor2img(item["gt"])
                if with_bicubic:
                    pictures["bicubic"] = tensor2img(imresize(lq[0].float(), self.opt["scale"]))
            if not self.opt["is_train"]:
                table.hashes[name] = _hashes(lq, pictures)
            return pictures
        except torch.cuda.OutOfMemoryError as error:
            raise DRCTError(
                f"out of memory on {path}, {tuple(lq.shape[-2:])} pixels: set tile: auto, or tile: "
                "{tile_size: 256, tile_pad: 32} or a smaller tile_size, in the option file"
            ) from error
        except Exception as error:  # a broken file raises whatever its decoder raises
            table.failed[path] = str(error) or type(error).__name__
            return None

    def _measure(self, pictures: dict[str, np.ndarray], name: str, path: str, table: MetricTable) -> None:
        truth = pictures.get("img2")
        try:
            if values := self.metrics.measure(pictures["img"], truth):
                table.images[name] = values
                if "bicubic" in pictures:
                    table.bicubic[name] = self.metrics.measure(pictures["bicubic"], truth)
        except Exception as error:  # a metric raises anything, such as for a ground truth of another size
            table.failed[path] = str(error)

    def _measure_protocols(
        self, meter: ProtocolMeter, truth: np.ndarray, name: str, path: str, table: MetricTable
    ) -> None:
        try:
            table.protocols[name] = meter.errors(truth)
        except Exception as error:  # the network may raise anything for other LR images
            logger.warning(f"{path} is left out of the protocols: {first_line(error)}")

    def _report(self, table: MetricTable, scalars: Any) -> None:
        """Write the table to files, log and scalars, and update the best values."""
        for path, reason in table.failed.items():
            logger.error(f"{path} was left out: {reason.replace(f'cannot read image {path}: ', 'cannot be read: ')}")
        mean = table.mean()
        if distributed.rank() == 0 and (mean or table.failed):
            if self.opt["is_train"]:
                table.write(Path(self.opt["path"]["experiments_root"], "metrics"), suffix=f"_{table.iteration}")
            else:
                table.write(Path(self.opt["path"]["results_root"]))
        if mean:
            logger.info(f"{table.dataset}\n{table.text()}")
        if table.protocols:
            self._report_protocols(table)
        elif self.options.get("protocols") and not self.opt["is_train"]:
            logger.warning(f"{table.dataset}: no image has a ground truth that other protocols can measure it by")
        for metric, value in mean.items():
            best = self._update_best(table.dataset, metric, value, table.iteration)
            if self.opt["is_train"]:
                logger.info(f"{table.dataset} {metric}: {value:.4f}, best {best['val']:.4f} at {best['iter']}")
            if scalars:
                scalars.add_scalar(f"metrics/{table.dataset}/{metric}", value, table.iteration)

    def _report_protocols(self, table: MetricTable) -> None:
        scale = self.opt["scale"]
        if distributed.rank() == 0:
            file = Path(self.opt["path"]["results_root"], f"protocols_{table.dataset}.csv")
            write_protocols(file, table.protocols, scale)
        images = count(len(table.protocols), "image")
        logger.info(f"{table.dataset}: PSNR of {images} by other protocols\n{protocol_text(table.protocols, scale)}")

    def _update_best(self, dataset: str, metric: str, value: float, iteration: int | None) -> dict[str, Any]:
        """Replace the best value of a metric if this one is at least as good. Return the best."""
        better = "lower" if is_lower_better(metric, self.options["metrics"][metric]) else "higher"
        worst = {"better": better, "val": math.inf if better == "lower" else -math.inf, "iter": -1}
        best = self.best.setdefault(dataset, {}).setdefault(metric, worst)
        improved = value <= best["val"] if best["better"] == "lower" else value >= best["val"]
        if improved:
            best |= {"val": value, "iter": iteration}
        return best


def _hashes(lq: Tensor, pictures: dict[str, np.ndarray]) -> dict[str, str]:
    """Hash what the network took, what metrics compared with, and the result."""
    truth = {"gt": hash_of_pixels(pictures["img2"])} if "img2" in pictures else {}
    return {"lq": hash_of_pixels(lq.numpy()), **truth, "result": hash_of_pixels(pictures["img"])}


def _image_paths(dataset: Any) -> list[str]:
    """List the files of a dataset of BasicSR without reading them."""
    return [path.get("lq_path") or path["gt_path"] if isinstance(path, dict) else path for path in dataset.paths]


def _unique_names(paths: list[str]) -> list[str]:
    """Return file names without suffix; where two would be equal, with the suffix, or with the folders too."""
    stems = Counter(Path(path).stem for path in paths)
    names = [Path(path).stem if stems[Path(path).stem] == 1 else _flat(Path(path).name) for path in paths]
    return names if len(set(names)) == len(names) else [_flat(Path(path).as_posix()) for path in paths]


def _flat(path: str) -> str:
    return re.sub(r"[/.:]+", "_", path).strip("_")
