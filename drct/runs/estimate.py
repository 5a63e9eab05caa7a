"""What a training run will cost, before it starts: memory, time, disk, and what some options would change."""

import gc
import logging
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
from basicsr.utils import tensor2img
from torch import Tensor
from torch.utils.data import default_collate

from drct.archs.traits import traits_of
from drct.data.reading import read_item
from drct.inference.memory import free_memory
from drct.models.drct_model import DRCTModel
from drct.models.training_memory import StepMemory, checkpoint_bytes, step_memory, trainable_bytes
from drct.runs import training_states
from drct.runs.build import batch_size, batches_of, evaluation_loaders, make_model, training_loader
from drct.runs.log import LOGGERS
from drct.runs.options import override, read_options
from drct.runs.stand_ins import with_stand_ins
from drct.runtime import distributed
from drct.runtime.device import device_for
from drct.runtime.yaml_file import load_yaml
from drct.schema.options import TrainingOptions
from drct.seeding import STEP, seed_all

WARM_UP, STEPS = 5, 15  # steps of the probe: before the clock starts, and timed
VARIANT_WARM_UP, VARIANT_STEPS = 2, 5
VALIDATION_IMAGES = 3  # of a set, whose time is measured


@dataclass
class Cost:
    """Cost of training with some options.

    Attributes:
        change: What differs from the option file; '' for nothing.
        batch: Images of an iteration, in all processes.
        memory: Memory of the tensors of a step.
        seconds: Of each timed step, with the time to wait for its images; none if its memory does not suffice.
        waiting: Seconds of each of these steps that it waited for images.
    """

    change: str
    batch: int
    memory: StepMemory
    seconds: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)

    @property
    def iteration(self) -> float:
        """Seconds of an iteration, with the time to wait for its images. There must be timed steps."""
        return statistics.mean(self.seconds)

    @property
    def computing(self) -> float:
        """Seconds of an iteration whose images are at hand."""
        return self.iteration - statistics.mean(self.waiting)


@dataclass
class Estimate:
    """Cost of a training run.

    Attributes:
        name: Name of the run.
        device: Where it would train.
        processes: Number of processes.
        iterations: Iterations to go.
        notes: Lines about what the estimate was made without.
        costs: Cost of the run as it is, then of variants.
        base: Bytes of a process on the CPU without any tensor.
        peak: Bytes of a process, or of its GPU, at the peak of the probe; None if there was none or it is not known.
        free: Bytes that a process can have.
        validations: Number of validations.
        validation_seconds: Time of one.
        checkpoint: Bytes of a checkpoint's weights, and of its training state.
        checkpoints: Number of checkpoints at the end.
        extra_weights: Number of further files of weights: net_g_latest, net_g_best.
    """

    name: str
    device: torch.device
    processes: int
    iterations: int
    notes: list[str]
    costs: list[Cost]
    base: int
    peak: int | None
    free: float
    validations: int
    validation_seconds: float
    checkpoint: tuple[int, int]
    checkpoints: int
    extra_weights: int

    def memory(self, cost: Cost) -> float:
        """Return the bytes that a process takes of its device, as computed."""
        return cost.memory.on_gpu() if self.device.type == "cuda" else self.base + cost.memory.on_cpu()

    def fits(self, cost: Cost) -> bool:
        """Return whether the free memory suffices."""
        return self.memory(cost) - (0 if self.device.type == "cuda" else self.base) <= self.free

    def total_seconds(self, iteration: float) -> float:
        """Return the time to the end, with the validations, for the seconds of an iteration."""
        return self.iterations * iteration + self.validations * self.validation_seconds

    def disk(self) -> int:
        """Return the bytes of all checkpoints at the end."""
        weights, state = self.checkpoint
        return self.checkpoints * (weights + state) + self.extra_weights * weights


def estimate(
    root: Path, file: str, changes: Sequence[str], launcher: str, auto_resume: bool, debug: bool, steps: int = STEPS
) -> Estimate:
    """Estimate what a training run costs, by computing its memory and then training a few steps. Nothing is written.

    Args:
        root: Folder in which `experiments/` is.
        file: Option file.
        changes: Entries of `--force_yml`.
        launcher: Starter of several processes, all of which must call this.
        auto_resume: Whether the run would go on from the newest state of its experiment.
        debug: Whether it would log every iteration, and validate and save every 8.
        steps: Steps to time.

    Raises:
        DRCTError: for a mistake in the options, or data that cannot be trained on.
    """
    given = load_yaml(file)
    for entry in changes:
        override(given, entry)
    with TemporaryDirectory(prefix="drct_estimate_") as folder:
        notes = with_stand_ins(given, Path(folder))
        opt, _ = read_options(root, True, file, (), launcher, auto_resume, debug, given)
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)  # each model would tell the same
        return _estimate(opt, notes, steps)


def _estimate(opt: dict[str, Any], notes: list[str], steps: int) -> Estimate:
    state, paths = training_states.state_to_resume(opt) or ({}, {})
    start = state.get("iter", 0)
    del state
    opt = opt | {"path": opt["path"] | paths}
    options = TrainingOptions.model_validate(opt)
    variants = {"": opt} | dict(_variants(opt, options))
    costs: list[Cost] = []
    checkpoint = (0, 0)
    for change, changed in variants.items():
        memory, sizes = _computed(changed)
        checkpoint = checkpoint if costs else sizes
        costs.append(Cost(change, batch_size(changed) * opt["world_size"], memory))
    gc.collect()
    base = psutil.Process().memory_info().rss  # with all modules that training imports, some of them only when it steps
    total, left = options.train.total_iter, max(0, options.train.total_iter - start)
    saves = _times(start, total, options.logger.save_checkpoint_freq)
    found = Estimate(
        name=opt["name"],
        device=device_for(opt["num_gpu"]),
        processes=opt["world_size"],
        iterations=left,
        notes=notes,
        costs=costs,
        base=base,
        peak=None,
        free=free_memory(device_for(opt["num_gpu"])),
        validations=0,
        validation_seconds=0.0,
        checkpoint=checkpoint,
        checkpoints=min(saves, options.logger.keep_last or saves),
        extra_weights=1 + (options.logger.save_best is not None),
    )
    if not distributed.any_process(not found.fits(costs[0])):
        batch = _probe(found, opt, options, start, steps)
        for cost in costs[1:]:
            _probe_variant(found, cost, variants[cost.change], batch)
    return found


def _times(start: int, total: int, every: int) -> int:
    """Return how often something happens that is done every so many iterations and at the end."""
    return total // every - start // every + (total % every != 0 and start < total)


def _variants(opt: dict[str, Any], options: TrainingOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield changes of options whose effect users want to know, and the options with each."""
    batch = 2 * options.datasets.train.batch_size_per_gpu
    precision = "fp32" if options.train.precision == "bf16" else "bf16"
    changes: list[tuple[tuple[str, ...], Any]] = [
        (("datasets", "train", "batch_size_per_gpu"), batch),
        (("train", "precision"), precision),
    ]
    recomputes = getattr(options.network_g, "use_checkpoint", None)
    if isinstance(recomputes, bool) and not options.train.cuda_graphs:  # not every network has it, and no graph
        changes.append((("network_g", "use_checkpoint"), not recomputes))
    for keys, value in changes:
        changed = deepcopy(opt)
        section = changed
        for key in keys[:-1]:
            section = section[key]
        section[keys[-1]] = value
        yield f"{'.'.join(keys)}: {str(value).lower()}", changed


def _computed(opt: dict[str, Any]) -> tuple[StepMemory, tuple[int, int]]:
    """Compute the memory of a step, and the sizes of a checkpoint, by a model that gets no images."""
    plain = deepcopy(opt) | {"num_gpu": 0, "dist": False}
    plain["train"]["compile"] = plain["train"]["cuda_graphs"] = False
    plain["path"]["pretrain_network_g"] = plain["path"]["pretrain_network_d"] = None
    model = make_model(plain)
    options = TrainingOptions.model_validate(plain)
    train = options.datasets.train
    channels = traits_of(model.get_bare_model(model.net_g), options.scale, plain["network_g"]).channels
    batch = train.batch_size_per_gpu * options.train.accumulation
    memory = step_memory(model, batch, channels, train.gt_size // options.scale)
    if opt["dist"]:  # DistributedDataParallel has a copy of the gradients
        memory = replace(memory, step=memory.step + trainable_bytes(model))
    sizes = checkpoint_bytes(model)
    del model
    gc.collect()
    return memory, sizes


def _probe(found: Estimate, opt: dict[str, Any], options: TrainingOptions, start: int, steps: int) -> dict[str, Tensor]:
    """Train a few steps, validate on a few images, and add the times to the estimate. Return the last batch."""
    loader, _ = training_loader(opt, opt["manual_seed"], 0)
    with batches_of(loader) as batches:
        model = make_model(opt)
        batch = _time_steps(model, batches, found.costs[0], opt, WARM_UP, steps)
    found.peak = peak_memory(found.device.type)
    if options.val:
        loaders = evaluation_loaders(opt, "val")
        found.validations = _times(start, options.train.total_iter, options.val.val_freq) if loaders else 0
        found.validation_seconds = sum(_validation_time(model, each.dataset) for each in loaders) / found.processes
    return {key: value for key, value in batch.items() if isinstance(value, Tensor)}


def _probe_variant(found: Estimate, cost: Cost, opt: dict[str, Any], batch: dict[str, Tensor]) -> None:
    """Train a few steps on copies of a batch, and add their times to a cost."""
    gc.collect()  # of the model before
    if distributed.any_process(not found.fits(cost)):
        return
    copies = cost.batch // found.costs[0].batch
    enlarged = {key: torch.cat([value] * copies) for key, value in batch.items()}
    _time_steps(make_model(opt), repeat(enlarged), cost, opt, VARIANT_WARM_UP, VARIANT_STEPS)


def _time_steps(
    model: DRCTModel, batches: Iterator[Any], cost: Cost, opt: dict[str, Any], warm_up: int, steps: int
) -> dict[str, Any]:
    """Train a few steps, and add their times to a cost. Return the last batch."""
    for step in range(1, warm_up + steps + 1):
        start = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        seed_all(STEP, opt["manual_seed"], step, distributed.rank())
        model.update_learning_rate(step, warmup_iter=model.train_options.warmup_iter)
        model.feed_data(batch)
        model.optimize_parameters(step)  # which waits for the gradient's norm
        if step > warm_up:
            cost.seconds.append(time.perf_counter() - start)
            cost.waiting.append(ready - start)
    return batch


def _validation_time(model: DRCTModel, dataset: Any) -> float:
    """Estimate the seconds to validate on a dataset in one process, from a few of its images."""
    count = len(dataset)
    shown = sorted({count * i // VALIDATION_IMAGES for i in range(VALIDATION_IMAGES)})
    start = time.perf_counter()
    for index in shown:
        try:
            item = default_collate([read_item(dataset, index)])
            image = tensor2img(model.upscale(item["lq"]))
            model.validator.metrics.measure(image, tensor2img(item["gt"]) if "gt" in item else None)
        except Exception as error:  # training reports the image, whatever is wrong with it, and leaves it out
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
    return (time.perf_counter() - start) / len(shown) * count


def peak_memory(device: str) -> int | None:
    """Return the largest memory of this process so far, or of its GPU if the device is 'cuda'; None if not known."""
    if device == "cuda":
        return torch.cuda.max_memory_reserved()
    if sys.platform == "win32":
        return getattr(psutil.Process().memory_info(), "peak_wset", None)
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
