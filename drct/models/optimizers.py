"""Optimizers and learning rate schedules of PyTorch by name, and the warm-up of the learning rate."""

from types import ModuleType
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler

from drct.errors import DRCTError, did_you_mean

UNSUITABLE = {"LBFGS", "Optimizer", "LRScheduler", "ReduceLROnPlateau"}  # their steps need arguments


def make_optimizer(name: str, parameters: Any, key: str = "train.optim_g", **options: Any) -> Optimizer:
    """Build an optimizer of `torch.optim`. Raises `DRCTError` if there is none of this name or it fails."""
    return _build(torch.optim, Optimizer, key, name, parameters, **options)


def make_schedule(name: str, optimizer: Optimizer, **options: Any) -> lr_scheduler.LRScheduler:
    """Build a schedule of `torch.optim.lr_scheduler`. Raises `DRCTError` if there is none of this name or it fails."""
    return _build(lr_scheduler, lr_scheduler.LRScheduler, "train.scheduler", name, optimizer, **options)


def _build(module: ModuleType, base: type, key: str, name: str, *args: Any, **options: Any) -> Any:
    """Build an object of a class of a module; `key` is the key of the option file for error messages."""
    known = {
        n: c
        for n, c in vars(module).items()
        if isinstance(c, type) and issubclass(c, base) and n[0] != "_" and n not in UNSUITABLE
    }
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are {', '.join(sorted(known))}"
        raise DRCTError(f"{key}.type {name!r} is unknown{hint}")
    try:
        return known[name](*args, **options)
    except (TypeError, ValueError) as error:
        raise DRCTError(f"{key}: {error}") from error


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
