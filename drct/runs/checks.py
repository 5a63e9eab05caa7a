"""Mistakes in option files: against the schema, BasicSR's registries, the disk, and of options that contradict."""

import logging
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401 - fills the registries
import psutil
from basicsr.utils import registry
from pydantic import ValidationError

from drct.errors import DRCTError, did_you_mean
from drct.evaluation.metrics import NEED_BORDER, check_type
from drct.files import expanded, is_file, is_folder
from drct.models.optimizers import OPTIMIZERS, SCHEDULES
from drct.runs.first_check import NEED_FOLDERS, PREPARE_HINT, WEIGHTS_HINTS
from drct.runtime.registry import names_in
from drct.schema.options import (
    Arguments,
    Dataset,
    FrameNetwork,
    Metric,
    Options,
    Section,
    Tile,
    TrainingOptions,
    known_keys,
)
from drct.text import brief

# The original projects carry their lists of files there
ORIGINAL_LISTS = ("drct/data/meta_info/", "hat/data/meta_info/", "hct/data/meta_info/")
PAIRED_MODELS = ("DRCTModel", "HATModel")
REAL_MODELS = ("RealDRCTMSEModel", "RealDRCTGANModel", "RealHATMSEModel", "RealHATGANModel")


def check_options(
    opt: dict[str, Any], is_train: bool, file: str, logger: logging.Logger, has_network: bool = False
) -> Options:
    """Check the options of a run, warn about keys that look misspelt, and return them with the schema's defaults.

    Args:
        opt: Options.
        is_train: Whether they are of a training run.
        file: Name of the option file, for errors.
        logger: Gets the warnings.
        has_network: Whether the network is already read from its weights, of a kind that need not be in a registry.

    Raises:
        DRCTError: for the first mistake, in one line that names `file` and the key.
    """
    options = validated(opt, is_train, file)
    for key, hint in _misspelt_keys(options):
        logger.warning(f"{file}: {key} is not an option{hint}; it is ignored")
    _check_types(options, file, has_network)
    checks = (_missing_images, _contradictions, *(() if has_network else (_missing_files, _too_large)))
    for problem in chain.from_iterable(check(options) for check in checks):
        raise DRCTError(f"{file}: {problem}")
    for phase, dataset in options.datasets.all():
        for key in ("meta_info_file", "filename_tmpl") if dataset.io_backend.type == "lmdb" else ():
            if getattr(dataset, key) not in (None, "{}"):
                logger.warning(
                    f"{file}: datasets.{phase}.{key} is not used with an LMDB, whose images pair by their keys"
                )
        if dataset.meta_info_file and dataset.io_backend.type != "lmdb" and list_of_files(dataset) is None:
            where = f"{file}: datasets.{phase}.meta_info_file"
            logger.warning(f"{where}: {dataset.meta_info_file} is not here; all files of the folder are used")
    return options


def validated(opt: dict[str, Any], is_train: bool, file: str) -> Options:
    """Return the options of a run with the schema's defaults. Raises `DRCTError` if they do not follow the schema."""
    try:
        return (TrainingOptions if is_train else Options).model_validate(opt)
    except ValidationError as error:
        raise DRCTError(f"{file}{_explain(error, opt)}") from None


def list_of_files(dataset: Dataset) -> str | None:
    """Return the list of files that a dataset takes, or None for all of them.

    An LMDB has its own list, and lists of the original projects that are not here are ignored.
    """
    path = dataset.meta_info_file or dataset.meta_info
    if path is None or dataset.io_backend.type == "lmdb":
        return None
    return None if path.startswith(ORIGINAL_LISTS) and not is_file(expanded(path)) else path


def _explain(error: ValidationError, opt: dict[str, Any]) -> str:
    """Describe the first error in a few words that follow the file's name."""
    first = error.errors(include_url=False, include_context=False)[0]
    missing = first["type"] == "missing"
    keys, section = [], opt
    for key in first["loc"][:-1] if missing else first["loc"]:
        if isinstance(section, dict) and key in section:  # not pydantic's name of an alternative
            keys.append(str(key))
            section = section[key]
    where = f": {'.'.join(keys)}" if keys else ""
    if missing:
        key = first["loc"][-1]
        others = section.keys() - known_keys() if isinstance(section, dict) else ()
        return f"{where} has no '{key}'{did_you_mean(key, others)}"
    if first["type"] == "problem":
        return f"{where} {first['msg']}"
    words = first["msg"] if first["type"] == "must_be" else first["msg"].removeprefix("Input should be ")
    words = words.replace("a valid dictionary", "a section")
    return f"{where} must be {words}, not {brief(first['input'])}"


def _misspelt_keys(section: Section, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield unknown keys that resemble a known one of their section or are those of another, and the hint."""
    known = type(section).model_fields
    elsewhere = set() if isinstance(section, Dataset | Metric) else known_keys()  # those have arguments of classes too
    for key, value in section:
        sections = value if isinstance(value, dict) else {None: value}
        if key not in known and not isinstance(value, Section) and not isinstance(section, Arguments):
            if hint := did_you_mean(key, known) or " of this section" * (key in elsewhere):
                yield prefix + key, hint
            continue
        for name, entry in sections.items():
            if isinstance(entry, Section):
                yield from _misspelt_keys(entry, f"{prefix}{key}." + (f"{name}." if name else ""))


def _check_types(options: Options, file: str, has_network: bool) -> None:
    """Check names of classes and functions. Raises `DRCTError`."""
    named = [("model_type", options.model_type, registry.MODEL_REGISTRY)]
    if not has_network:
        named += [("network_g.type", options.network_g.type, registry.ARCH_REGISTRY)]
    named += [(f"datasets.{phase}.type", d.type, registry.DATASET_REGISTRY) for phase, d in options.datasets.all()]
    if options.network_d and options.model_type in REAL_MODELS:
        named += [("network_d.type", options.network_d.type, registry.ARCH_REGISTRY)]
    if isinstance(options, TrainingOptions):
        losses = {key: getattr(options.train, key) for key in ("pixel_opt", "perceptual_opt", "gan_opt", "ldl_opt")}
        named += [(f"train.{key}.type", loss.type, registry.LOSS_REGISTRY) for key, loss in losses.items() if loss]
    choices: list[tuple[str, str, Collection[str]]] = [
        (key, name, names_in(registered)) for key, name, registered in named
    ]
    if isinstance(options, TrainingOptions):
        choices.append(("train.optim_g.type", options.train.optim_g.type, OPTIMIZERS.keys()))
        choices.append(("train.scheduler.type", options.train.scheduler.type, SCHEDULES.keys()))
    for key, name, available in choices:
        if name not in available:
            hint = did_you_mean(name, sorted(available)) or f"; there are {', '.join(sorted(available))}"
            raise DRCTError(f"{file}: {key} {brief(name)} is unknown{hint}")
    for name, metric in options.metrics().items():
        check_type(f"{file}: val.metrics.{name}.type", metric.type)


def _missing_images(options: Options) -> Iterator[str]:
    for phase, dataset in options.datasets.all():
        where = f"datasets.{phase}"
        for key in NEED_FOLDERS.get(dataset.type, []):
            path = getattr(dataset, key)
            if path is None:
                yield f"{where} has no '{key}'{did_you_mean(key, dataset.model_extra or {})}"
            elif not is_folder(expanded(path)):
                yield f"{where}.{key}: no such folder: {_shown(expanded(path))}. {PREPARE_HINT}"
            elif reason := _without_entries(expanded(path)):
                yield f"{where}.{key}: the folder {expanded(path)} {reason}. {PREPARE_HINT}"
        files = list_of_files(dataset)
        if files is not None and not is_file(expanded(files)):
            yield (
                f"{where}.meta_info_file: no such file: {_shown(files)}. Write it with `python drct/prepare.py "
                "meta-info`, or remove the key to use all files of the folder."
            )
        if dataset.exclude is not None and not is_file(expanded(dataset.exclude)):
            yield f"{where}.exclude: no such file: {_shown(dataset.exclude)}. `drct prepare check` writes it."


def _missing_files(options: Options) -> Iterator[str]:
    for key, hint in WEIGHTS_HINTS.items():
        path = getattr(options.path, key)
        if path is not None and not is_file(expanded(path)):
            yield f"path.{key}: no such file: {_shown(path)}. {hint}"


def _shown(path: object) -> str:
    """Return a path as it is, or in quotes and shortened if it would not fit in a line."""
    text = str(path)
    return text if text.isprintable() and 0 < len(text) < 500 else brief(text)


def _without_entries(folder: Path) -> str:
    """Return why there is nothing to read in a folder, '' if there is something."""
    try:
        return "" if any(folder.iterdir()) else "is empty"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def _contradictions(options: Options) -> Iterator[str]:
    if isinstance(options, TrainingOptions):
        yield from _contradictions_in_patches(options)
    names = [dataset.name for phase, dataset in options.datasets.all() if phase != "train"]
    if twice := [name for name in names if names.count(name) > 1]:
        yield f"two datasets are called {twice[0]!r}, and their results would become one"
    if "upscale" in options.network_g.model_fields_set and options.network_g.upscale != options.scale:
        yield f"scale is {options.scale}, but network_g.upscale is {options.network_g.upscale!r}"
    elif isinstance(options.network_g, FrameNetwork) and options.network_g.upscale != options.scale:
        yield f"scale is {options.scale}, but network_g.upscale is {options.network_g.upscale} if not given"
    if isinstance(options.network_g, FrameNetwork) and not options.network_g.upsampler:
        yield "network_g.upsampler '' is a network that makes no images: set pixelshuffle"
    yield from _contradictions_in_tiles(options)
    yield from _contradictions_in_channels(options)
    for name, metric in options.metrics().items():
        if metric.type in NEED_BORDER and metric.crop_border is None:
            hint = did_you_mean("crop_border", metric.model_extra or {})
            yield f"val.metrics.{name} needs a crop_border in pixels{hint}"
    if isinstance(options, TrainingOptions):
        yield from _contradictions_in_degradation(options)
        yield from _contradictions_in_training(options)


def _too_large(options: Options) -> Iterator[str]:
    """Yield what would take more than all memory of this machine, before it is tried."""
    memory = psutil.virtual_memory().total
    if isinstance(options.network_g, FrameNetwork) and (size := 4 * options.network_g.weights()) > memory:
        yield f"network_g has weights of about {size / 2**30:,.0f} GB, more than this machine's memory"
    if isinstance(options, TrainingOptions):
        data = options.datasets.train
        if (size := 4 * 3 * data.gt_size**2 * data.batch_size_per_gpu) > memory:
            yield (
                f"datasets.train: a batch of batch_size_per_gpu {data.batch_size_per_gpu} patches of gt_size "
                f"{data.gt_size} takes {size / 2**30:,.0f} GB, more than this machine's memory"
            )


def _contradictions_in_tiles(options: Options) -> Iterator[str]:
    if options.tile_error is None:
        return
    if options.tile is None:
        yield "tile_error is about tiles, but there are none: set tile: auto, or tile: {tile_size: 256}"
    if isinstance(options.tile, Tile) and "tile_pad" in options.tile.model_fields_set:
        yield "tile_error chooses the overlap of tiles, and tile.tile_pad is one: leave out one of them"


def _contradictions_in_channels(options: Options) -> Iterator[str]:
    for phase, dataset in options.datasets.all():
        channels = 1 if dataset.color == "y" else 3
        network = options.network_g
        if (dataset.mean is None) != (dataset.std is None):
            given, missing = ("std", "mean") if dataset.mean is None else ("mean", "std")
            yield f"datasets.{phase} has a {given} but no {missing}: set both"
        if dataset.type in NEED_FOLDERS and isinstance(network, FrameNetwork) and network.in_chans != channels:
            yield f"network_g.in_chans is {network.in_chans}, but datasets.{phase} has images of {channels} channels"


def _contradictions_in_patches(options: TrainingOptions) -> Iterator[str]:
    if options.datasets.train.type == "SingleImageDataset":
        yield "datasets.train.type SingleImageDataset has no ground truth to train on; PairedImageDataset has"
    size, scale, network = options.datasets.train.gt_size, options.scale, options.network_g
    if size % scale:
        yield f"datasets.train.gt_size {size} is not a multiple of scale {scale}"
    patch = size // scale
    if isinstance(network, FrameNetwork) and network.window_size <= patch and patch % network.window_size:
        yield (
            f"datasets.train.gt_size makes patches of {patch} low-resolution pixels, which is not a multiple "
            f"of network_g.window_size {network.window_size}"
        )


def _contradictions_in_degradation(options: TrainingOptions) -> Iterator[str]:
    data, paired = options.datasets.train, "set high_order_degradation: false to train on pairs as they are"
    if data.type == "RealESRGANDataset":
        if options.model_type in PAIRED_MODELS or not options.high_order_degradation:
            models = [name for name in REAL_MODELS if ("HAT" in name) == ("HAT" in options.model_type)]
            yield f"datasets.train.type RealESRGANDataset has no pairs: it is for {' and '.join(models)}"
        if options.gt_size not in (None, data.gt_size):
            yield f"gt_size is {options.gt_size}, but datasets.train.gt_size is {data.gt_size}"
        if data.gt_size > data.crop_pad_size or data.crop_pad_size % options.scale:
            yield (
                f"datasets.train.crop_pad_size {data.crop_pad_size} must be a multiple of scale {options.scale} and at "
                f"least gt_size {data.gt_size}"
            )
        yield from _kernels_that_do_not_fit(options)
    elif options.model_type in REAL_MODELS and options.high_order_degradation:
        yield f"{options.model_type} degrades samples of RealESRGANDataset, not {data.type}: {paired}"


def _kernels_that_do_not_fit(options: TrainingOptions) -> Iterator[str]:
    data = options.datasets.train
    for suffix in ("", "2"):
        kinds, weights = getattr(data, f"kernel_list{suffix}"), getattr(data, f"kernel_prob{suffix}")
        if weights and len(weights) != len(kinds):
            key = f"datasets.train.kernel_prob{suffix}"
            yield f"{key} must have as many entries as kernel_list{suffix}, {len(kinds)}, not {len(weights)}"
    reduced = options.resize_range[0] if options.resize_prob[1] else 1
    least = {  # side of the smallest image that is filtered, and of the kernel
        "blur_kernel_size": (data.crop_pad_size // options.scale, data.final_sinc_prob),
        "blur_kernel_size2": (int(data.crop_pad_size * reduced), options.second_blur_prob),
    }
    for key, (side, probability) in least.items():
        if probability and side <= getattr(data, key) // 2:
            yield (
                f"datasets.train.{key} {getattr(data, key)} is too large for images of {side} pixels, which "
                f"crop_pad_size {data.crop_pad_size} can lead to"
            )


def _contradictions_in_training(options: TrainingOptions) -> Iterator[str]:
    train, logger, metrics = options.train, options.logger, options.metrics()
    steps = train.scheduler.total_steps
    if steps is not None and steps < train.total_iter:
        yield f"train.scheduler.total_steps ({steps}) ends before train.total_iter"
    if train.scheduler.type == "OneCycleLR" and steps is not None:
        share = (train.scheduler.model_extra or {}).get("pct_start", 0.3)
        if isinstance(share, int | float) and share * steps == 1:
            yield f"train.scheduler: pct_start {share} of total_steps {steps} is a rise within 1 step: set a longer one"
    if not train.pixel_opt and not train.perceptual_opt:
        yield "train has no loss: set pixel_opt or perceptual_opt"
    if logger.wandb and logger.wandb.project and not logger.use_tb_logger:
        yield "logger.wandb follows TensorBoard: set use_tb_logger: true too"
    if logger.save_best is not None and logger.save_best not in metrics:
        known = f"one of {', '.join(metrics)}" if metrics else "and there are no val.metrics"
        yield f"logger.save_best must name a metric, {known}, not {logger.save_best!r}"
    if logger.save_best is not None and not any(phase.startswith("val") for phase, _ in options.datasets.all()):
        yield "logger.save_best needs a dataset called val or val_1"
    if train.accumulation != 1 and train.pixel_opt and train.pixel_opt.reduction != "mean":
        yield "train.accumulation goes with losses whose reduction is mean only"
