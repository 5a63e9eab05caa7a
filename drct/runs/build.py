"""Build the datasets, loaders and model of an option file."""

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import DataLoader

from drct.data.cache import cache_images
from drct.data.degradation import Degradation, DegradedImages
from drct.data.realesrgan_dataset import RealESRGANDataset
from drct.data.training_set import SampleOrder, TrainingSet
from drct.errors import DRCTError
from drct.models.drct_model import DRCTModel
from drct.runs.signals import stop_signals
from drct.runtime import distributed
from drct.runtime.registry import registered_name
from drct.schema.options import TrainingOptions


def make_dataset(phase: str, options: dict[str, Any]) -> Any:
    """Build `datasets.<phase>` of an option file. Raises `DRCTError` if files are missing or do not pair."""
    try:
        dataset = build_dataset(options | {"type": registered_name(DATASET_REGISTRY, options["type"])})
    except (AssertionError, OSError, ValueError, KeyError, TypeError) as error:
        problem = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise DRCTError(
            f"datasets.{phase} ({options['name']}): {problem}. Ground truth and low-resolution files must "
            "have the same names; `python drct/prepare.py benchmark` makes such folders from high-resolution images."
        ) from error
    if not len(dataset):
        raise DRCTError(f"datasets.{phase} ({options['name']}) has no images")
    return dataset


def make_model(opt: dict[str, Any]) -> Any:
    """Build the model with its network, losses and optimizer. Raises `DRCTError` for options that do not work."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model = build_model(opt)
        for warning in caught:
            get_root_logger().warning(str(warning.message))
        if not isinstance(model, DRCTModel):
            raise DRCTError(
                f"model_type {opt['model_type']} is not derived from DRCTModel: run it with BasicSR's own train.py and "
                "test.py, which work after `import drct` too"
            )
        return model
    except (AssertionError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        problem = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise DRCTError(f"cannot build {opt['model_type']} from these options: {problem}") from error


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
    loader = DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=options.num_worker_per_gpu * _gpus(opt),
        pin_memory=on_gpu,
        worker_init_fn=_leave_signals_to_parent,
    )
    return loader, len(dataset)


def _leave_signals_to_parent(worker: int) -> None:
    """Let a loader worker ignore Ctrl-C and the job scheduler's signals, as it must serve until the run has saved."""
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def batches_of(loader: DataLoader) -> Iterator[Iterator[Any]]:
    """Iterate over a loader, and end its workers with the `with` block.

    Otherwise the traceback of an error could keep the iterator alive, and its workers ignore signals.
    """
    batches = iter(loader)
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
