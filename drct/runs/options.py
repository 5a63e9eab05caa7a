"""Reading the options of a run: changed by `--force_yml`, checked, and completed as BasicSR's classes expect them."""

import logging
import os
import random
import re
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from basicsr.utils import set_random_seed
from pydantic import BaseModel

from drct.errors import DRCTError, did_you_mean
from drct.files import expanded
from drct.inference.sources.registry_networks import network_options
from drct.inference.weights import LoadedNetwork
from drct.runs.checks import check_options, list_of_files
from drct.runs.network_of_weights import network_of_weights
from drct.runtime import distributed
from drct.runtime.device import resolve_num_gpu
from drct.runtime.yaml_file import load_yaml, parse_yaml
from drct.schema.options import Options, TrainingOptions, known_keys


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
        if target is opt and key in Options.model_fields and target.get(key) is None:
            target[key] = {}
        if not isinstance(target.get(key), dict):
            raise DRCTError(f"--force_yml {entry!r}: there is no section {key!r}{did_you_mean(key, target)}")
        target = target[key]
    if last not in target and last not in known_keys() and (hint := did_you_mean(last, target)):
        raise DRCTError(f"--force_yml {entry!r}: there is no key {last!r}{hint}")
    try:
        target[last] = parse_yaml(value)
    except (yaml.YAMLError, ValueError) as error:
        raise DRCTError(f"--force_yml {entry!r}: {value!r} is not a YAML value") from error


def read_options(
    root_path: str | os.PathLike,
    is_train: bool,
    file: str,
    changes: Sequence[str] = (),
    launcher: str = "none",
    auto_resume: bool = False,
    debug: bool = False,
    given: dict[str, Any] | None = None,
    network: str | None = None,
) -> tuple[dict[str, Any], LoadedNetwork | None]:
    """Read and check an option file, and start the processes that it asks for.

    Args:
        root_path: Folder in which `experiments/` and `results/` are.
        is_train: Whether to train or to test.
        file: Option file. A mistake in it or its changes raises a `DRCTError`.
        changes: Entries of `--force_yml`, for `override`.
        launcher: Starter of several processes, for `distributed.identify`.
        auto_resume: Whether to go on from the newest state of the experiment.
        debug: Whether to log every iteration, and to validate and save every 8.
        given: Options in place of those of the file, which only gives its name to errors.
        network: Option file with the network_g of a test that has none, where its weights do not tell it.

    Returns:
        The file's options, with whole numbers as ints, and the further entries that BasicSR's classes expect; those of
        a test have `given` too, the options as they were read, with the changes. And the network of a test whose file
        has no network_g, read from its weights.
    """
    distributed.identify(launcher)
    given = load_yaml(file) if given is None else given
    for entry in changes:
        override(given, entry)
    as_given = {} if is_train else {"given": deepcopy(given)}
    logger = logging.getLogger("drct")  # not BasicSR's, which writes to the run's log file once first asked for
    dist_params = given.get("dist_params")
    # Before the checks, so that of several processes one reports what they find
    distributed.meet(dist_params.get("port") if isinstance(dist_params, dict) else None)
    loaded = None if is_train else network_of_weights(given, file, network)
    if network is not None:
        as_given = {"given": deepcopy(given) | {"network_g": network_options(network).network_g}}
    options = check_options(given, is_train, file, logger, has_network=loaded is not None)

    opt = _with_whole_numbers(given, options) | as_given
    opt["rank"], opt["world_size"] = distributed.rank(), distributed.world_size()
    opt["dist"] = opt["world_size"] > 1
    opt["num_gpu"] = resolve_num_gpu(options.num_gpu, logger, opt["dist"])
    distributed.start(options.dist_params.backend, opt["num_gpu"], logger)
    if options.manual_seed is None:
        opt |= {"manual_seed": distributed.from_first(random.randint(1, 10000)), "seed_is_random": True}
    set_random_seed(opt["manual_seed"])
    opt["is_train"], opt["auto_resume"] = is_train, auto_resume or distributed.any_process(distributed.restarted())
    opt["name"] = f"debug_{options.name}" if debug and not options.name.startswith("debug") else options.name
    _complete_datasets(opt, options)
    _complete_paths(opt, Path(root_path))
    if isinstance(options, TrainingOptions):
        opt["logger"].setdefault("use_tb_logger", options.logger.use_tb_logger)
        if "debug" in opt["name"]:
            opt["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 8}
            if options.val:
                opt["val"]["val_freq"] = 8
    if options.val:
        opt["val"] = options.val.model_dump(include={"save_img", "suffix", "report"}) | (opt.get("val") or {})
    return opt, loaded


def _with_whole_numbers(given: Any, read: Any) -> Any:
    """Copy options, with ints where the schema wants whole numbers and the file has floats such as 1e4."""
    if isinstance(given, dict):
        values = dict(read) if isinstance(read, dict | BaseModel) else {}
        return {key: _with_whole_numbers(value, values.get(key)) for key, value in given.items()}
    if isinstance(given, list):
        entries = read if isinstance(read, list) else [None] * len(given)
        return [_with_whole_numbers(value, entry) for value, entry in zip(given, entries, strict=True)]
    return read if isinstance(given, float) and isinstance(read, int) else given


def _complete_datasets(opt: dict[str, Any], options: Options) -> None:
    """Add the entries that BasicSR's datasets read besides their own keys."""
    for phase, dataset in options.datasets.all():
        entries = opt["datasets"][phase]
        if list_of_files(dataset) is None:
            entries.pop("meta_info_file", None)
        entries |= {"phase": phase.split("_")[0], "name": dataset.name, "scale": options.scale}
        for key in ("dataroot_gt", "dataroot_lq", "meta_info_file", "meta_info", "exclude"):
            if entries.get(key) is not None:
                entries[key] = str(expanded(entries[key]))


def _complete_paths(opt: dict[str, Any], root: Path) -> None:
    """Expand paths of weights, and add the folders of the run in experiments/<name> or results/<name>."""
    paths, is_train = opt["path"], opt["is_train"]
    for key in ("pretrain_network_g", "pretrain_network_d", "resume_state"):
        if paths.get(key) is not None:
            paths[key] = str(expanded(paths[key]))
    folder = root / ("experiments" if is_train else "results") / opt["name"]
    paths |= {"experiments_root" if is_train else "results_root": str(folder), "log": str(folder)}
    for name in ("visualization", "models", "training_states") if is_train else ("visualization",):
        paths[name] = str(folder / name)


def options_text(opt: dict[str, Any]) -> str:
    """Return options as YAML, for the log."""
    return yaml.safe_dump(opt, sort_keys=False, allow_unicode=True)
