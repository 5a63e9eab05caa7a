"""Optimizers and learning rate schedules of PyTorch by name, MuonAdam, and the warm-up of the learning rate."""

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from types import ModuleType
from typing import Any

import torch
from basicsr.models import lr_scheduler as basicsr_schedules
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from drct.errors import DRCTError, did_you_mean, reason_of
from drct.models.muon import MuonAdam, muon_groups
from drct.text import brief

# Of those whose steps need arguments, functions or other schedules than options can give
UNSUITABLE = {"LBFGS", "SparseAdam", "Optimizer", "LRScheduler", "ReduceLROnPlateau"}
UNSUITABLE |= {"LambdaLR", "MultiplicativeLR", "SequentialLR", "ChainedScheduler"}
UNSUITABLE |= {"Muon"}  # which refuses biases


def _classes(module: ModuleType, base: type) -> dict[str, type]:
    return {
        name: kind
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, base) and name[0] != "_" and name not in UNSUITABLE
    }


OPTIMIZERS = _classes(torch.optim, Optimizer) | {"MuonAdam": MuonAdam}
SCHEDULES = _classes(lr_scheduler, lr_scheduler.LRScheduler) | {
    "MultiStepLR": basicsr_schedules.MultiStepRestartLR,
    "MultiStepRestartLR": basicsr_schedules.MultiStepRestartLR,
    "CosineAnnealingRestartLR": basicsr_schedules.CosineAnnealingRestartLR,
}


def make_optimizer(
    name: str,
    parameters: Iterable[Any],
    key: str = "train.optim_g",
    network: nn.Module | None = None,
    **options: Any,
) -> Optimizer:
    """Build an optimizer for parameters of a network. Raises `DRCTError` if there is none of this name or it fails.

    It is tried on a single weight, since some options are only refused by a step.
    """
    kind, parameters = _named(key, OPTIMIZERS, name), list(parameters)
    if kind is MuonAdam and network is not None:
        parameters = muon_groups(network, parameters)
    with _explained(key, kind):
        _check_arguments(kind, options)
        optimizer = kind(parameters, **options)
        for group in optimizer.param_groups:
            state_of_a_weight(optimizer, group, group["params"][0].device)
        return optimizer


def _check_arguments(kind: type, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for an argument of another type than its default, of which PyTorch's errors tell little."""
    for name, parameter in signature(kind).parameters.items():
        default, value = parameter.default, options.get(name, parameter.default)
        if isinstance(default, bool) and not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, not {brief(value)}")
        if type(default) in (int, float) and (value is None or isinstance(value, bool | str | dict)):
            raise ValueError(f"{name} must be a number, not {brief(value)}")
        if isinstance(default, tuple) and len(default) > 1:  # a tuple of one stands for a list of any length
            several = value if isinstance(value, list | tuple) else ()
            if len(several) != len(default) or any(isinstance(entry, bool | str | list | dict) for entry in several):
                raise ValueError(f"{name} must be {len(default)} numbers, not {brief(value)}")


def state_of_a_weight(optimizer: Optimizer, group: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Take a step with a new optimizer of a single weight. Return the state that it keeps of a weight.

    The optimizer is one of the same class, with the options of a group of parameters.
    """
    kind = type(optimizer)
    options = {key: group[key] for key in signature(kind).parameters if key in group and key != "params"}
    weight = torch.nn.Parameter(torch.zeros(1, 1, device=device))
    weight.grad = torch.zeros_like(weight)
    trial = kind([{**group, "params": [weight]}], **options)
    trial.step()
    return dict(trial.state[weight])


def make_schedule(name: str, optimizer: Optimizer, total_iter: int, **options: Any) -> lr_scheduler.LRScheduler:
    """Build a schedule of `torch.optim.lr_scheduler` or BasicSR.

    Raises:
        DRCTError: if there is none of this name, it fails, or it gives no learning rate for iteration `total_iter`.
    """
    kind = _named("train.scheduler", SCHEDULES, name)
    with _explained("train.scheduler", kind):
        _check_arguments(kind, options)
        schedule = kind(optimizer, **options)
    check_schedule(schedule, total_iter)
    return schedule


def check_schedule(schedule: Any, total_iter: int) -> None:
    """Raise `DRCTError` if a schedule gives no learning rate for iteration `total_iter`. Leave it as it was."""
    if total_iter < 2:
        return
    groups = schedule.optimizer.param_groups
    before, state = [dict(group) for group in groups], dict(vars(schedule))
    try:
        with _explained("train.scheduler", type(schedule)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no step of the optimizer has come before
            schedule.last_epoch = total_iter - 2
            schedule.step()
            rate = groups[0]["lr"]
            if isinstance(rate, complex) or not 0 <= rate < math.inf:
                raise ValueError(f"the learning rate becomes {rate}")
    except DRCTError as error:
        raise DRCTError(f"{error} (in iteration {total_iter}, the last of train.total_iter)") from error
    finally:
        vars(schedule).clear()
        vars(schedule).update(state)
        for group, values in zip(groups, before, strict=True):
            group.clear()
            group.update(values)


def _named(key: str, known: Mapping[str, type], name: str) -> type:
    """Return a class by its name. Raises `DRCTError` with a hint if there is none."""
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are {', '.join(sorted(known))}"
        raise DRCTError(f"{key}.type {name!r} is unknown{hint}")
    return known[name]


@contextmanager
def _explained(key: str, kind: type) -> Iterator[None]:
    """Turn errors of a class, built from the section `key` of the option file, into a `DRCTError`."""
    try:
        yield
    except Exception as error:  # arithmetic with options of any value fails in any way
        raise DRCTError(f"{key} ({kind.__name__}): {refusal(kind, error)}") from error


def refusal(kind: Callable[..., Any], error: BaseException) -> str:
    """Describe how a class refuses its arguments, with a hint for a misspelt one."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown:
        return f"there is no argument {unknown[1]!r}{did_you_mean(unknown[1], signature(kind).parameters)}"
    return reason_of(error)


def update_learning_rates(optimizers: list[Any], schedules: list[Any], iteration: int, warmup: int) -> None:
    """Set the learning rates of a step: those of the schedules, scaled linearly in the first `warmup` iterations.

    While an optimizer warms up, each of its parameter groups holds the rate of its schedule as `scheduled_lr`.
    Steps count from 1; a `warmup` of -1 is none.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:  # schedules go on from the rate that they find
        group["lr"] = group.pop("scheduled_lr", group["lr"])
    for schedule in schedules:
        if schedule.last_epoch < iteration - 1:  # not a second time after resuming from a step that failed
            schedule.step()
    if iteration < warmup:
        for group in groups:
            group["scheduled_lr"] = group["lr"]
            group["lr"] *= iteration / warmup
