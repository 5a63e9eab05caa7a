"""Options that differ from those of a training state: telling them, and applying them to the state."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from drct.models.checkpoint_content import PROGRESS, check_held, schedule_state
from drct.models.optimizers import update_learning_rates
from drct.schema.options import Options
from drct.text import brief

logger = logging.getLogger("basicsr")

# What says where, not what, to compute
NO_OPTIONS = {"name", "path", "is_train", "auto_resume", "root_path", "seed_is_random"}
NO_OPTIONS |= {"rank", "world_size", "dist", "dist_params"}
OF_SCHEDULE = {"max_lr", "min_lr", "max_momentum", "base_momentum"}  # which cyclic schedules keep in an optimizer
CYCLED = {"betas", "momentum"}  # which these change


def record(options: Options, kept: Mapping[str, Any]) -> str:
    """Return the options of a training state as text, with the sections of `train` that an earlier state has kept."""
    content = _content(options)
    for section, values in kept.items():
        if values is not None:
            content["train"][section] = values
        elif content["train"].get(section) is not None:  # an early state that did not hold options
            del content["train"][section]
    return json.dumps(content)


def kept_by(state: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Return the sections of `train` with which a state was trained, as far as its optimizers and schedules keep them.

    A section that the state does not hold is None.
    """
    saved = _saved(state).get("train") or {}
    return {section: saved.get(section) for section in _content(options)["train"] if _is_kept(section)}


def tell_changes(state: Mapping[str, Any], options: Options, optimizers: list[Any], schedules: list[Any]) -> None:
    """Log the options that differ from those of a training state, and whether they take effect.

    Args:
        state: The training state, which may be one of BasicSR, or an early one that does not hold options.
        options: Options of the run that resumes; `train.on_resume` decides about its optimizer and schedule.
        optimizers, schedules: Those of the run, before they load the state.
    """
    saved, current = _flat(_saved(state)), _flat(_content(options))
    changes = [(key, saved.get(key), current.get(key)) for key in {**saved, **current}] if saved else []
    # Sections of which the state holds what came of them only
    known = {section for section, values in kept_by(state, options).items() if values is not None}
    changes = [change for change in changes if not _is_kept(_section(change[0])) or _section(change[0]) in known]
    if not known:
        changes += [*_changes_of_groups(state, optimizers), *_changes_of_schedules(state, schedules)]
    applied = options.train is not None and options.train.on_resume == "apply"
    for key, before, now in changes:
        if before == now or key == "train.on_resume":
            continue
        if _is_kept(_section(key)) and not applied:
            logger.warning(
                f"{key} is {brief(now)} in the option file but {brief(before)} in the training state, which stays: "
                "train.on_resume: apply takes the option file's"
            )
        else:
            logger.info(f"{key} is {brief(now)} from now on; the training state has {brief(before)}")


def apply_options(
    state: Mapping[str, Any], optimizers: list[Any], schedules: list[Any], warmup: int, iteration: int
) -> None:
    """Give new optimizers the averages of a training state, and take new schedules to its iteration.

    The learning rates are then those of a run that had the new options from its beginning.

    Raises:
        ValueError: if the state does not hold what the optimizers need with their new options.
    """
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        groups = optimizer.state_dict()["param_groups"]
        check_held(optimizer, groups, saved["state"])
        optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no step of the optimizers has come before
        for step in range(1, iteration + 1):
            update_learning_rates(optimizers, schedules, step, warmup)


def _content(options: Options) -> dict[str, Any]:
    """Return options that computing depends on, with defaults, as JSON would hold them."""
    return json.loads(json.dumps(options.model_dump(exclude=NO_OPTIONS, warnings=False), default=str))


def _saved(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a training state, if possible with the defaults of keys that are new since; {} if none."""
    if not isinstance(state.get("options"), str):
        return {}
    content = json.loads(state["options"])
    try:
        return _content(Options.model_validate(content | {"name": "any", "path": {}}))
    except ValidationError:  # such as without the sections that an early state did not hold
        return content


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of sections by their keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _section(key: str) -> str:
    """Return the section of `train` to which a key belongs; '' if it is another's."""
    first, _, rest = key.partition(".")
    return rest.partition(".")[0] if first == "train" else ""


def _is_kept(section: str) -> bool:
    """Tell whether a section of `train` makes an optimizer or a schedule, whose states are loaded."""
    return section == "scheduler" or section.startswith("optim_")


def _changes_of_groups(state: Mapping[str, Any], optimizers: list[Any]) -> Iterator[tuple[str, Any, Any]]:
    for number, (optimizer, saved) in enumerate(zip(optimizers, state["optimizers"], strict=True)):
        for now, before in zip(optimizer.param_groups, saved["param_groups"], strict=False):
            cycled = CYCLED if OF_SCHEDULE & before.keys() else set()
            for key in (now.keys() & before.keys()) - {"params", "lr", "scheduled_lr"} - cycled:
                section = "scheduler" if key in OF_SCHEDULE else "optim_d" if number else "optim_g"
                name = "lr" if key == "initial_lr" else key
                yield f"train.{section}.{name}", _plain(before[key]), _plain(now[key])


def _changes_of_schedules(state: Mapping[str, Any], schedules: list[Any]) -> Iterator[tuple[str, Any, Any]]:
    for schedule, saved in zip(schedules, state["schedulers"], strict=True):
        now = schedule_state(schedule)
        for key in saved.keys() & now.keys() - PROGRESS:
            yield f"train.scheduler.{key}", _plain(saved[key]), _plain(now[key])


def _plain(value: Any) -> Any:
    """Write a value of a state as option files do: milestones, which are counted, and pairs as lists."""
    return sorted(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
