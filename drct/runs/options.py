"""Command line and option files of training and testing.

The format is BasicSR's: an option file of the original project, or of BasicSR, is read as it is. YAML is read with a
safe loader, and every mistake that can be found before work begins is reported as one line that names the key.
"""

import argparse
import io
import logging
import os
import random
import re
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import yaml

from drct.errors import DRCTError, did_you_mean
from drct.files import expanded
from drct.runtime import distributed
from drct.runtime.device import PRECISIONS

PREPARE_HINT = "Put the images there or prepare them with `python drct/prepare.py` (see datasets/README.md)."
WEIGHTS_HINT = "Put the weight file there (see experiments/pretrained_models/README.md)."

ORIGINAL_LISTS = "drct/data/meta_info/"  # the original project carries its lists of files there

REQUIRED = ["name", "model_type", "scale", "num_gpu", "datasets", "network_g", "path"]
REQUIRED_TRAIN = ["train", "logger"]
SECTIONS = ["path", "train", "val", "logger", "tile", "dist_params"]
# Keys of the format, to find misspelt ones. A key that resembles none of them may belong to somebody's own class.
KNOWN: dict[str, set[str]] = {
    "": {*REQUIRED, *REQUIRED_TRAIN, "manual_seed", "val", "tile", "precision", "dist_params"}
    | {"self_ensemble"}
    | {"find_unused_parameters"},
    "path": {"pretrain_network_g", "param_key_g", "strict_load_g", "resume_state", "ignore_resume_networks"},
    "train": {"ema_decay", "optim_g", "scheduler", "total_iter", "warmup_iter", "pixel_opt", "perceptual_opt"}
    | {"precision", "accumulation", "grad_clip", "compile", "ema_warmup"},
    "val": {"val_freq", "save_img", "suffix", "pbar", "metrics", "bicubic", "comparison", "report"},
    "logger": {"print_freq", "save_checkpoint_freq", "keep_last", "save_best", "use_tb_logger", "wandb"},
    "tile": {"tile_size", "tile_pad"},
    "metric": {"type", "crop_border", "test_y_channel", "input_order", "better"},
    "datasets": {"name", "type", "dataroot_gt", "dataroot_lq", "meta_info_file", "io_backend", "filename_tmpl"}
    | {"gt_size", "use_hflip", "use_rot", "use_shuffle", "num_worker_per_gpu", "batch_size_per_gpu", "color"}
    | {"dataset_enlarge_ratio", "prefetch_mode", "pin_memory", "persistent_workers", "num_prefetch_queue", "mean"}
    | {"std", "cache"},
    "dist_params": {"backend", "port"},
}
SWITCHES = {"save_img", "pbar", "bicubic", "comparison", "report", "strict_load_g", "use_tb_logger", "ema_warmup"}
SWITCHES |= {"use_hflip", "cache", "compile", "use_rot", "use_shuffle", "test_y_channel", "pin_memory"}
SWITCHES |= {"persistent_workers", "self_ensemble"}


# ------------------------------------------------------------------------------------------------------------- YAML


class _Loader(yaml.SafeLoader):
    """Safe YAML, with floats such as 2e-4 (a string in YAML 1.1) and an error for a key that is given twice."""

    def construct_mapping(self, node, deep=False):
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is not a key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """Read an option file. Raises `DRCTError` with the file, line and problem."""
    try:
        with open(path, encoding="utf-8") as file:
            opt = yaml.load(file, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except OSError as error:
        raise DRCTError(f"cannot read option file {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DRCTError(f"option file {path}{where}: {problem}") from error
    except ValueError as error:  # an explicit tag with a value that does not parse, such as !!float abc
        raise DRCTError(f"option file {path}: {error}") from error
    if not isinstance(opt, dict):
        raise DRCTError(f"option file {path} does not hold options (key: value)")
    return opt


def override(opt: dict[str, Any], entry: str) -> None:
    """Apply one `--force_yml` entry, such as `train:optim_g:lr=1e-4` (or with dots). The value is read as YAML.

    A key that does not exist is made, unless it looks like a misspelling of one that does.
    """
    keys, separator, value = entry.partition("=")
    if not separator or not keys:
        raise DRCTError(f"--force_yml {entry!r}: expected key=value or section:key=value")
    *sections, last = (key.strip() for key in re.split("[:.]", keys))
    target: Any = opt
    for key in sections:
        if target is opt and key in KNOWN and target.get(key) is None:
            target[key] = {}
        if not isinstance(target.get(key), dict):
            raise DRCTError(f"--force_yml {entry!r}: there is no section {key!r}{did_you_mean(key, target)}")
        target = target[key]
    known = last in target or any(last in keys for keys in KNOWN.values())
    if not known and (hint := did_you_mean(last, target)):
        raise DRCTError(f"--force_yml {entry!r}: there is no key {last!r}{hint}")
    try:
        target[last] = yaml.load(value, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise DRCTError(f"--force_yml {entry!r}: {value!r} is not a YAML value") from error


# ---------------------------------------------------------------------------------------------------------- checking


def check_options(opt: dict[str, Any], is_train: bool, file: str, logger: logging.Logger) -> None:
    """Find mistakes in an option file. Raises `DRCTError` for the first; warns about keys that look misspelt."""
    for key in REQUIRED + REQUIRED_TRAIN * is_train:
        if opt.get(key) is None:
            raise DRCTError(f"{file} has no '{key}'{_misspelt(key, opt)}")
    for key in ("datasets", "network_g", "path", "train", "val", "logger", "tile", "dist_params"):
        if opt.get(key) is not None and not isinstance(opt[key], dict) and (key, opt[key]) != ("tile", "auto"):
            or_auto = " or auto" if key == "tile" else ""
            raise DRCTError(f"{file}: {key} must be a section of keys{or_auto}, not {opt[key]!r}")
    if not isinstance(opt["scale"], int) or opt["scale"] < 1:
        raise DRCTError(f"{file}: scale must be a whole number, not {opt['scale']!r}")
    if not re.fullmatch(r"[^/\\]+", str(opt["name"])) or str(opt["name"]) in (".", ".."):
        raise DRCTError(f"{file}: name becomes a folder's name, which {opt['name']!r} cannot be")

    sections = {"": opt} | {key: opt[key] for key in SECTIONS if isinstance(opt.get(key), dict)}
    sections |= {f"datasets.{phase}": dataset for phase, dataset in _datasets(opt, file)}
    sections |= {f"val.metrics.{name}": metric for name, metric in _metrics(opt, file)}
    for section, content in sections.items():
        known = KNOWN["metric" if section.startswith("val.metrics") else section.split(".")[0]]
        prefix = f"{section}." if section else ""
        for key in content:
            if key not in known and (hint := did_you_mean(key, known)):
                logger.warning(f"{file}: {prefix}{key} is not an option{hint}; it is ignored")

        for key in SWITCHES & content.keys():
            if content[key] is not None and not isinstance(content[key], bool):
                raise DRCTError(f"{file}: {prefix}{key} must be true or false, not {content[key]!r}")
    if opt["path"].get("param_key_g", "params") not in ("params", "params_ema", None):
        raise DRCTError(f"{file}: path.param_key_g must be params or params_ema, not {opt['path']['param_key_g']!r}")
    for key in ("depths", "num_heads"):
        entries = opt["network_g"].get(key, [])
        if not isinstance(entries, list) or not all(isinstance(entry, int) for entry in entries):
            raise DRCTError(f"{file}: network_g.{key} must be a list of whole numbers, not {entries!r}")

    _check_types(opt, is_train, file)
    for phase, dataset in _datasets(opt, file):
        _check_dataset(f"{file}: datasets.{phase}", phase, dataset, opt["scale"], is_train, logger)
    names = [str(dataset["name"]) for phase, dataset in _datasets(opt, file) if not phase.startswith("train")]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DRCTError(f"{file}: two datasets are called {twice[0]!r}, and their results would become one")
    upscale = opt["network_g"].get("upscale", opt["scale"])
    if upscale != opt["scale"]:
        raise DRCTError(f"{file}: scale is {opt['scale']}, but network_g.upscale is {upscale!r}")
    _check_numbers(opt, is_train, file)
    for key in ("pretrain_network_g", "resume_state"):
        path = opt["path"].get(key)
        if path is not None and not expanded(path).is_file():
            hint = WEIGHTS_HINT if key == "pretrain_network_g" else "Check the path, or use --auto_resume."
            raise DRCTError(f"{file}: path.{key}: no such file: {path}. {hint}")


def _datasets(opt: dict[str, Any], file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for phase, dataset in opt["datasets"].items():
        if phase.split("_")[0] not in ("train", "val", "test"):
            raise DRCTError(f"{file}: datasets.{phase}: a dataset is called train, val, val_1, test_1 and so on")
        if not isinstance(dataset, dict):
            raise DRCTError(f"{file}: datasets.{phase} must be a section of keys, not {dataset!r}")
        yield phase, dataset


def _metrics(opt: dict[str, Any], file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    metrics = (opt.get("val") or {}).get("metrics") or {}
    if not isinstance(metrics, dict):
        raise DRCTError(f"{file}: val.metrics must be a section of metrics by name, not {metrics!r}")
    for name, metric in metrics.items():
        if not isinstance(metric, dict) or not isinstance(metric.get("type"), str):
            raise DRCTError(f"{file}: val.metrics.{name} must be a section with a type, not {metric!r}")
        need_border = ("calculate_psnr", "calculate_ssim", "calculate_niqe")
        if metric["type"] in need_border and not isinstance(metric.get("crop_border"), int):
            raise DRCTError(
                f"{file}: val.metrics.{name} needs a crop_border in pixels{did_you_mean('crop_border', metric)}"
            )
        yield name, metric


def _check_types(opt: dict[str, Any], is_train: bool, file: str) -> None:
    """Names of classes and functions, against BasicSR's registries."""
    import basicsr  # noqa: F401 - fills the registries
    from basicsr.utils import registry

    from drct.evaluation.metrics import check_type

    def check(key: str, section: Any, known: registry.Registry) -> None:
        name = section.get("type") if isinstance(section, dict) else section
        # Registry.get also finds a name with this suffix, and prints; `in` does neither
        if name not in known and f"{name}_basicsr" not in known:
            available = sorted(name for name, _ in known)
            hint = did_you_mean(name, available) or f"; there are {', '.join(available)}"
            raise DRCTError(f"{file}: {key} {name!r} is unknown{hint}")

    check("model_type", opt["model_type"], registry.MODEL_REGISTRY)
    check("network_g.type", opt["network_g"], registry.ARCH_REGISTRY)
    for phase, dataset in opt["datasets"].items():
        check(f"datasets.{phase}.type", dataset, registry.DATASET_REGISTRY)
    for name, metric in _metrics(opt, file):
        check_type(f"{file}: val.metrics.{name}.type", metric["type"])
    for key in ("pixel_opt", "perceptual_opt"):
        if is_train and opt["train"].get(key):
            check(f"train.{key}.type", opt["train"][key], registry.LOSS_REGISTRY)


def _check_dataset(
    where: str, phase: str, dataset: dict[str, Any], scale: int, is_train: bool, logger: logging.Logger
) -> None:
    for key in ("name", "io_backend"):
        if dataset.get(key) is None:
            raise DRCTError(f"{where} has no '{key}'{_misspelt(key, dataset, 'datasets')}")
    if not isinstance(dataset["io_backend"], dict) or dataset["io_backend"].get("type") not in ("disk", "lmdb"):
        raise DRCTError(f"{where}.io_backend must be a section with type: disk or type: lmdb")
    roots = {"PairedImageDataset": ["dataroot_gt", "dataroot_lq"], "SingleImageDataset": ["dataroot_lq"]}
    for key in roots.get(dataset["type"], ["dataroot_gt"] if dataset["type"] == "ImageNetPairedDataset" else []):
        if dataset.get(key) is None:
            raise DRCTError(f"{where} has no '{key}'{_misspelt(key, dataset, 'datasets')}")
        if not isinstance(dataset[key], str):
            raise DRCTError(f"{where}.{key} must be the path of one folder, not {dataset[key]!r}")
        folder = expanded(dataset[key])
        if not folder.is_dir():
            raise DRCTError(f"{where}.{key}: no such folder: {folder}. {PREPARE_HINT}")
        if not any(folder.iterdir()):
            raise DRCTError(f"{where}.{key}: the folder {folder} is empty. {PREPARE_HINT}")
    meta_info = dataset.get("meta_info_file")
    if meta_info is None or dataset["io_backend"]["type"] == "lmdb":  # which has its own list
        dataset.pop("meta_info_file", None)
    elif not isinstance(meta_info, str):
        raise DRCTError(f"{where}.meta_info_file must be the path of a text file, not {meta_info!r}")
    elif not expanded(meta_info).is_file():
        if meta_info.startswith(ORIGINAL_LISTS):
            logger.warning(f"{where}.meta_info_file: {meta_info} is not here; all files of the folder are used")
            del dataset["meta_info_file"]
            return
        raise DRCTError(
            f"{where}.meta_info_file: no such file: {meta_info}. Write it with `python drct/prepare.py meta-info`, "
            "or remove the key to use all files of the folder."
        )
    if phase.split("_")[0] == "train" and is_train:
        for key in ("gt_size", "use_hflip", "use_rot", "num_worker_per_gpu", "batch_size_per_gpu"):
            if dataset.get(key) is None:
                raise DRCTError(f"{where} has no '{key}'{_misspelt(key, dataset, 'datasets')}")
        for key in ("gt_size", "batch_size_per_gpu"):
            _check_positive(dataset, key, where)
        if dataset["gt_size"] % scale:
            raise DRCTError(f"{where}.gt_size {dataset['gt_size']} is not a multiple of scale {scale}")


def _check_numbers(opt: dict[str, Any], is_train: bool, file: str) -> None:
    for where, section in (("", opt), ("train.", opt.get("train") or {})):
        if str(section.get("precision", "fp32")) not in PRECISIONS:
            raise DRCTError(f"{file}: {where}precision must be fp32, bf16 or fp16, not {section['precision']!r}")
    seed = opt.get("manual_seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise DRCTError(f"{file}: manual_seed must be 0 or a whole number above, not {seed!r}")
    if opt.get("tile") not in (None, "auto"):
        size, pad = opt["tile"].get("tile_size"), opt["tile"].get("tile_pad", 0)
        if not isinstance(size, int) or size < 1 or not isinstance(pad, int) or pad < 0:
            raise DRCTError(f"{file}: tile needs whole numbers tile_size > 0 and tile_pad >= 0, not {size!r}, {pad!r}")
    if not is_train:
        return
    needed = {"train": ["total_iter", "optim_g", "scheduler"], "logger": ["print_freq", "save_checkpoint_freq"]}
    if opt.get("val") is not None:
        needed["val"] = ["val_freq"]
    for section, keys in needed.items():
        for key in keys:
            if opt[section].get(key) is None:
                raise DRCTError(f"{file}: {section} has no '{key}'{_misspelt(key, opt[section], section)}")
    for key in ("optim_g", "scheduler"):
        if not isinstance(opt["train"][key], dict) or "type" not in opt["train"][key]:
            raise DRCTError(f"{file}: train.{key} must be a section with a type")
    if "train" not in opt["datasets"]:
        raise DRCTError(f"{file}: datasets has no 'train'{did_you_mean('train', opt['datasets'])}")
    for section, key in (("train", "total_iter"), ("logger", "print_freq"), ("logger", "save_checkpoint_freq")):
        _check_positive(opt[section], key, f"{file}: {section}")
    if opt.get("val") is not None:
        _check_positive(opt["val"], "val_freq", f"{file}: val")
    if not isinstance(opt["train"]["optim_g"].get("lr"), int | float):
        raise DRCTError(f"{file}: train.optim_g needs a learning rate lr, a number")
    decay = opt["train"].get("ema_decay", 0)
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:
        raise DRCTError(f"{file}: train.ema_decay must be a number from 0 (no average) to below 1, not {decay!r}")
    warmup = opt["train"].get("warmup_iter")
    if warmup is not None and (isinstance(warmup, bool) or not isinstance(warmup, int)):
        raise DRCTError(f"{file}: train.warmup_iter must be a whole number, not {warmup!r}")
    schedule = opt["train"]["scheduler"]
    milestones = schedule.get("milestones", [])
    if not isinstance(milestones, list) or not all(isinstance(number, int) for number in milestones):
        raise DRCTError(f"{file}: train.scheduler.milestones must be a list of iterations, not {milestones!r}")
    if not isinstance(schedule.get("gamma", 1), int | float):
        raise DRCTError(f"{file}: train.scheduler.gamma must be a number, not {schedule['gamma']!r}")
    steps = schedule.get("total_steps")
    if isinstance(steps, int) and steps < opt["train"]["total_iter"]:
        raise DRCTError(f"{file}: train.scheduler.total_steps ({steps}) ends before train.total_iter")
    if not opt["train"].get("pixel_opt") and not opt["train"].get("perceptual_opt"):
        raise DRCTError(f"{file}: train has no loss: set pixel_opt or perceptual_opt")
    network, patch = opt["network_g"], opt["datasets"]["train"]["gt_size"] // opt["scale"]
    window = network.get("window_size")
    if network["type"] == "DRCT" and isinstance(window, int) and 0 < window <= patch and patch % window:
        raise DRCTError(
            f"{file}: datasets.train.gt_size makes patches of {patch} low-resolution pixels, which is not a multiple "
            f"of network_g.window_size {window}"
        )
    wandb = opt["logger"].get("wandb")
    if wandb and not isinstance(wandb, dict):
        raise DRCTError(f"{file}: logger.wandb must be a section with a project, not {wandb!r}")
    if wandb and wandb.get("project") and not opt["logger"].get("use_tb_logger"):
        raise DRCTError(f"{file}: logger.wandb follows TensorBoard: set use_tb_logger: true too")
    for section, key in (("train", "accumulation"), ("logger", "keep_last")):
        if opt[section].get(key) is not None:
            _check_positive(opt[section], key, f"{file}: {section}")
    clip = opt["train"].get("grad_clip")
    if clip is not None and (isinstance(clip, bool) or not isinstance(clip, int | float) or clip <= 0):
        raise DRCTError(f"{file}: train.grad_clip must be the largest norm of the gradient, above 0, not {clip!r}")
    best, metrics = opt["logger"].get("save_best"), (opt.get("val") or {}).get("metrics") or {}
    if best is not None and best not in metrics:
        known = f"one of {', '.join(metrics)}" if metrics else "and there are no val.metrics"
        raise DRCTError(f"{file}: logger.save_best must name a metric, {known}, not {best!r}")
    if best is not None and not any(phase.startswith("val") for phase in opt["datasets"]):
        raise DRCTError(f"{file}: logger.save_best needs a dataset called val or val_1")
    pixel = opt["train"].get("pixel_opt") or {}
    if opt["train"].get("accumulation", 1) != 1 and pixel.get("reduction", "mean") != "mean":
        raise DRCTError(f"{file}: train.accumulation goes with losses whose reduction is mean only")
    ratio = opt["datasets"]["train"].get("dataset_enlarge_ratio")
    if ratio is not None and (isinstance(ratio, bool) or not isinstance(ratio, int | float) or ratio <= 0):
        raise DRCTError(f"{file}: datasets.train.dataset_enlarge_ratio must be a number above 0, not {ratio!r}")
    workers = opt["datasets"]["train"]["num_worker_per_gpu"]
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise DRCTError(f"{file}: datasets.train.num_worker_per_gpu must be 0 or a whole number, not {workers!r}")


def _misspelt(key: str, content: dict[str, Any], section: str = "") -> str:
    """A hint for a key that is missing: one that is there, resembles it and is not a key of the format itself."""
    return did_you_mean(key, content.keys() - KNOWN[section])


def _check_positive(section: dict[str, Any], key: str, where: str) -> None:
    """A whole number above 0; 1e4, which YAML reads as a float, is one."""
    value = section[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or value != int(value):
        raise DRCTError(f"{where}.{key} must be a whole number above 0, not {value!r}")


# ----------------------------------------------------------------------------------------------------------- parsing


def argument_parser() -> argparse.ArgumentParser:
    """The arguments that `drct/train.py` and `drct/test.py` share with BasicSR's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-opt", "--opt", required=True, metavar="FILE", help="option file, see options/")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="job launcher")
    parser.add_argument("--auto_resume", action="store_true", help="go on from the newest state of the experiment")
    parser.add_argument("--debug", action="store_true", help="log every iteration, validate and save every 8")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by torch.distributed.launch")
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="replace options, e.g. train:ema_decay=0.999 datasets:train:batch_size_per_gpu=2",
    )
    return parser


def parse_options(
    root_path: str | os.PathLike, is_train: bool = True, argv: list[str] | None = None
) -> tuple[dict[str, Any], argparse.Namespace]:
    """Read the command line and its option file, check them and fill in what BasicSR's classes expect.

    Takes the place of `basicsr.utils.options.parse_options`.

    Args:
        root_path: Where `experiments/` and `results/` are.
        is_train: Training or testing.
        argv: Arguments; those of the process if None.

    Returns:
        Options, and the arguments.

    Raises:
        DRCTError: for a mistake in the arguments or the option file.
    """
    from basicsr.utils import set_random_seed

    from drct.runtime.device import resolve_num_gpu

    with redirect_stderr(io.StringIO()) if distributed.local_rank() else nullcontext():  # a mistake is told once
        args = argument_parser().parse_args(argv)
    distributed.identify(args.launcher)
    opt = load_yaml(args.opt)
    for entry in args.force_yml:
        override(opt, entry)
    logger = logging.getLogger("drct")  # not BasicSR's, which writes to the run's log file once first asked for
    dist_params = opt.get("dist_params") or {}
    if not isinstance(dist_params, dict):
        raise DRCTError(f"{args.opt}: dist_params must be a section of keys, not {dist_params!r}")
    distributed.meet(dist_params.get("port"))
    check_options(opt, is_train, args.opt, logger)

    opt["rank"], opt["world_size"] = distributed.rank(), distributed.world_size()
    opt["dist"] = opt["world_size"] > 1
    opt["num_gpu"] = resolve_num_gpu(opt["num_gpu"], logger, opt["dist"])
    distributed.start(dist_params.get("backend", "nccl"), opt["num_gpu"], logger)
    if opt.get("manual_seed") is None:
        opt["manual_seed"] = distributed.from_first(random.randint(1, 10000))
    set_random_seed(opt["manual_seed"])
    opt["is_train"], opt["auto_resume"] = is_train, args.auto_resume or distributed.any_process(distributed.restarted())
    opt["name"] = str(opt["name"])
    if args.debug and not opt["name"].startswith("debug"):
        opt["name"] = f"debug_{opt['name']}"

    for phase, dataset in opt["datasets"].items():
        dataset["phase"] = phase.split("_")[0]
        dataset["name"] = str(dataset["name"])
        dataset["scale"] = opt["scale"]
        for key in ("dataroot_gt", "dataroot_lq", "meta_info_file"):
            if dataset.get(key) is not None:
                dataset[key] = str(expanded(dataset[key]))
    for key in ("pretrain_network_g", "resume_state"):
        if opt["path"].get(key) is not None:
            opt["path"][key] = str(expanded(opt["path"][key]))
    _set_paths(opt, Path(root_path))
    if is_train:
        opt["logger"].setdefault("use_tb_logger", False)
        if "debug" in opt["name"]:
            opt["logger"].update(print_freq=1, save_checkpoint_freq=8)
            if opt.get("val"):
                opt["val"]["val_freq"] = 8
    if not is_train or opt.get("val"):
        opt["val"] = {"save_img": not is_train, "suffix": None, "report": not is_train} | (opt.get("val") or {})
    return opt, args


def _set_paths(opt: dict[str, Any], root: Path) -> None:
    """Where a run writes: experiments/<name> or results/<name>."""
    folder = root / ("experiments" if opt["is_train"] else "results") / opt["name"]
    opt["path"]["experiments_root" if opt["is_train"] else "results_root"] = str(folder)
    opt["path"]["log"] = str(folder)
    opt["path"]["visualization"] = str(folder / "visualization")
    if opt["is_train"]:
        opt["path"]["models"] = str(folder / "models")
        opt["path"]["training_states"] = str(folder / "training_states")


def options_text(opt: dict[str, Any]) -> str:
    """Options as YAML, for the log."""
    return yaml.safe_dump(opt, sort_keys=False, allow_unicode=True)
