"""Build the datasets, loaders and model of an option file."""

import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models import build_model
from basicsr.utils import get_root_logger, registry
from torch.utils.data import DataLoader

from drct.data.build import build_dataset
from drct.data.cache import cache_images
from drct.data.degradation import Degradation, DegradedImages
from drct.data.first_look import check_images
from drct.data.image_files import ImageFiles
from drct.data.realesrgan_dataset import RealESRGANDataset
from drct.data.training_set import SampleOrder, TrainingSet
from drct.errors import DRCTError
from drct.inference.memory import is_out_of_memory
from drct.inference.weights import LoadedNetwork
from drct.models.drct_model import DRCTModel
from drct.models.optimizers import refusal
from drct.runs.signals import stop_signals
from drct.runtime import distributed
from drct.schema.options import TrainingOptions
from drct.text import count, first_line


def make_dataset(phase: str, options: dict[str, Any]) -> Any:
    """Build `datasets.<phase>` of an option file. Raises `DRCTError` if files are missing or do not pair."""
    try:
        dataset = build_dataset(options)
        if isinstance(dataset, ImageFiles):
            check_images(dataset)
    except DRCTError as error:
        raise DRCTError(f"datasets.{phase} ({options['name']}): {error}") from error
    except Exception as error:  # anybody's class
        problem = refusal(registry.DATASET_REGISTRY.get(options["type"]), error).rstrip(".")
        if isinstance(error, KeyError):
            problem = problem.replace("there is no", "has no")
        raise DRCTError(
            f"datasets.{phase} ({options['name']}): {problem}. Ground truth and low-resolution files must "
            "have the same names; `python drct/prepare.py benchmark` makes such folders from high-resolution images."
        ) from error
    if not len(dataset):
        raise DRCTError(f"datasets.{phase} ({options['name']}) has no images")
    return dataset


def make_model(opt: dict[str, Any], loaded: LoadedNetwork | None = None) -> Any:
    """Build the model with its network, losses and optimizer. Raises `DRCTError` for options that do not work.

    Args:
        opt: Options of the run.
        loaded: Network to take in place of one that is built by `network_g`.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            if loaded is None:
                model = build_model(opt)
            else:
                model = registry.MODEL_REGISTRY.get(opt["model_type"])(deepcopy(opt), loaded)
        for message in dict.fromkeys(str(warning.message) for warning in caught):  # those of the EMA are the same
            get_root_logger().warning(message)
        if not isinstance(model, DRCTModel):
            raise DRCTError(
                f"model_type {opt['model_type']} is not derived from DRCTModel: run it with BasicSR's own train.py and "
                "test.py, which work after `import drct` too"
            )
        return model
    except DRCTError:
        raise
    except Exception as error:  # anybody's class
        if is_out_of_memory(error):
            raise DRCTError(f"out of memory while building {opt['model_type']}: {first_line(error)}") from error
        section, kind = _section_of(error, opt)
        reason = f"{section}{refusal(kind, error)}"
        raise DRCTError(f"cannot build {opt['model_type']} from these options: {reason}") from error


def _section_of(error: BaseException, opt: dict[str, Any]) -> tuple[str, Any]:
    """Return the section of the network or loss that was being built when an error came, and its class."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        sections: dict[str, Any] = {}
        if frame.f_code is build_network.__code__:
            name, registered, sections = frame.f_locals.get("network_type"), registry.ARCH_REGISTRY, opt
        elif frame.f_code is build_loss.__code__:
            name, registered, sections = frame.f_locals.get("loss_type"), registry.LOSS_REGISTRY, opt["train"]
        for key, section in sections.items():
            if isinstance(section, dict) and section.get("type") == name:
                where = key if sections is opt else f"train.{key}"
                return f"{where} ({name}): ", registered.get(name)
    return "", type(None)


def batch_size(opt: dict[str, Any]) -> int:
    """Return the number of images per step in this process, on all its GPUs and in all parts of the step."""
    options = TrainingOptions.model_validate(opt)
    return options.datasets.train.batch_size_per_gpu * _gpus(opt) * options.train.accumulation


def _gpus(opt: dict[str, Any]) -> int:
    """Return the number of GPUs that this process feeds: all with DataParallel, else one."""
    return 1 if opt["dist"] else max(1, opt["num_gpu"])


def training_loader(opt: dict[str, Any], seed: int, start: int) -> tuple[DataLoader, int]:
    """Build the endless loader of this process's training batches. Return it and the number of samples in an epoch.

    Args:
        opt: Options of the run.
        seed: Seed of the order and of the augmentation of samples.
        start: Number of samples that the run has seen in all processes.
    """
    run = TrainingOptions.model_validate(opt)
    options, pool_size = run.datasets.train, 0
    on_gpu = opt["num_gpu"] > 0 and torch.cuda.is_available()
    images = make_dataset("train", dict(opt["datasets"]["train"]))
    if options.cache:
        cache_images(images)
    if isinstance(images, RealESRGANDataset):
        pool_size = run.queue_size or 0
        if not on_gpu or run.jpeg_codec == "libjpeg":  # else the model degrades them, on the GPU
            images = DegradedImages(images, Degradation(run))
    dataset = TrainingSet(images, seed, ratio=options.dataset_enlarge_ratio)
    processes = distributed.rank(), distributed.world_size()
    order = SampleOrder(len(dataset), batch_size(opt), seed, start, *processes, pool_size)
    with _without_advice_on_workers():
        loader = DataLoader(
            dataset,
            batch_sampler=order,
            num_workers=_workers(options.num_worker_per_gpu * _gpus(opt)),
            pin_memory=on_gpu,
            worker_init_fn=_begin_worker,
        )
    return loader, len(dataset)


def _workers(wanted: int) -> int:
    """Return the number of processes that read images, as many as this machine can use at most."""
    most = max(32, 4 * (os.cpu_count() or 1))
    if wanted > most:
        get_root_logger().warning(
            f"datasets.train.num_worker_per_gpu asks for {wanted:,} processes: using {most}, as this machine has "
            f"{count(os.cpu_count() or 1, 'core')}"
        )
    return min(wanted, most)


@contextmanager
def _without_advice_on_workers() -> Iterator[None]:
    """Silence PyTorch where published option files ask for more workers than a small machine has cores."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


def _begin_worker(worker: int) -> None:
    """Let a loader worker ignore Ctrl-C and the job scheduler's signals, as it must serve until the run has saved."""
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _silent_if_the_parent_is_gone


def _silent_if_the_parent_is_gone(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Take the place of `sys.excepthook`, where a thread that hands tensors over reports that its parent was killed."""
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


@contextmanager
def batches_of(loader: DataLoader) -> Iterator[Iterator[Any]]:
    """Iterate over a loader, and end its workers with the `with` block.

    Otherwise the traceback of an error could keep the iterator alive, and its workers ignore signals.
    """
    try:
        with _without_advice_on_workers():
            batches = iter(loader)
    except OSError as error:  # those already started ignore signals
        for worker in multiprocessing.active_children():
            worker.kill()
        raise DRCTError(
            f"cannot start {loader.num_workers} processes that read images: {error.strerror or error}. Set a smaller "
            "datasets.train.num_worker_per_gpu"
        ) from error
    try:
        yield batches
    finally:
        if loader.num_workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]  # PyTorch has no public way
            for worker in batches._workers:  # type: ignore[attr-defined]
                worker.kill()  # terminate() does not end a worker that waits for a disk
                worker.join()


def evaluation_loaders(opt: dict[str, Any], phase: str) -> list[DataLoader]:
    """Build loaders of the datasets `val`, `val_1`, ... or `test`, `test_1`, ..., one image at a time."""
    return [
        DataLoader(make_dataset(name, options), batch_size=1)
        for name, options in sorted(opt["datasets"].items())
        if options["phase"] == phase
    ]
