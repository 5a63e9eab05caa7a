"""Content of the checkpoints of a model: weights of its networks, state of its optimizers and schedules."""

import math
from copy import deepcopy
from typing import Any

import torch
from torch import nn, optim

from drct.archs.soundness import unsound
from drct.text import brief

# Entries of the state of a schedule that change during training; all others are options
PROGRESS = {"last_epoch", "_step_count", "_last_lr", "T_cur", "T_i", "_is_initial"}
PROGRESS |= {"_get_lr_called_within_step", "base_lrs", "verbose"}
# What optimizers keep of each parameter only with some options
NEEDED_STATE = {"amsgrad": "max_exp_avg_sq", "centered": "grad_avg", "momentum": "momentum_buffer"}
NEEDED_STATE |= {"use_muon": "momentum_buffer"}


def weights_content(networks: dict[str, nn.Module]) -> dict[str, dict[str, torch.Tensor]]:
    """Return the state dicts of networks on the CPU by key: `params` and perhaps `params_ema`.

    Tensors that are equal in both, such as buffers, become one, which `torch.save` writes once.
    """
    content = {key: {name: t.cpu() for name, t in network.state_dict().items()} for key, network in networks.items()}
    ema = content.get("params_ema", {})
    for name in ema:
        if torch.equal(content["params"][name], ema[name]):
            ema[name] = content["params"][name]
    return content


def optimization_state(optimizers: list[Any], schedules: list[Any]) -> dict[str, Any]:
    """Return the entries of a training state for optimizers and schedules, and their classes as `kinds`."""
    return {
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "schedulers": [schedule_state(schedule) for schedule in schedules],
        "kinds": _kinds(optimizers, schedules),
    }


def check_optimization(state: dict[str, Any], optimizers: list[Any], schedules: list[Any]) -> None:
    """Raise `ValueError` if optimizers and schedules cannot go on from a training state.

    It may be one of other classes or parameters, or hold entries of other types, or moments that are not finite.
    Without schedules, the optimizers alone are compared.
    """
    own, theirs = _kinds(optimizers, schedules), state.get("kinds")
    if theirs and theirs[: len(own)] != own:
        raise ValueError(f"it is one of {', '.join(theirs)}, not of {', '.join(own)}")
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        if len(saved["param_groups"]) != len(optimizer.param_groups):
            raise ValueError("it is one of an optimizer with other groups of parameters")
        for now, before in zip(optimizer.state_dict()["param_groups"], saved["param_groups"], strict=True):
            if before.get("params") != now["params"]:
                raise ValueError(f"its parameters are not the {len(now['params'])} of the network")
            _check_types(before, now)
    for schedule, before in zip(schedules, state["schedulers"], strict=False):
        _check_types(before, schedule_state(schedule))
    for number, optimizer in enumerate(state["optimizers"]):
        for parameter, moments in optimizer["state"].items():
            tensors = ((name, value) for name, value in moments.items() if isinstance(value, torch.Tensor))
            if problem := unsound(tensors, math.inf):
                raise ValueError(f"{problem} for parameter {parameter} of optimizer {number}")


def check_held(optimizer: Any, groups: list[dict[str, Any]], state: dict[int, dict[str, Any]]) -> None:
    """Raise `ValueError` if a state lacks what an optimizer needs to go on with the options of `groups`."""
    for group in groups:
        held = [state[number] for number in group["params"] if number in state]
        for option, entry in NEEDED_STATE.items():
            wanted = group.get(option) and not isinstance(optimizer, optim.SGD)
            if wanted and not all(entry in entries for entries in held):
                raise ValueError(f"{option} needs {entry}, which the state does not hold")


def _check_types(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Raise `ValueError` if an entry that both have is not of the same type in both, or a number is not finite."""
    for key in saved.keys() & current.keys():
        before, now = _type_of(saved[key]), _type_of(current[key])
        fits = before == now or {before, now} == {"nothing", "a switch"} or (now == "nothing" and before != "text")
        if not fits or before == "not finite":
            raise ValueError(f"its {key} is {brief(saved[key], 60)}")


def _type_of(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a switch"
    if isinstance(value, int | float):
        return "a number" if abs(value) < math.inf else "not finite"
    if isinstance(value, str):
        return "text"
    return "several" if isinstance(value, dict | list | tuple) else type(value).__name__


def _kinds(optimizers: list[Any], schedules: list[Any]) -> list[str]:
    return [type(thing).__name__ for thing in (*optimizers, *schedules)]


def schedule_state(schedule: Any) -> dict[str, Any]:
    """Return the state of a schedule without Counters, which some versions of PyTorch refuse to load."""
    state = schedule.state_dict()
    return {key: dict(value) if isinstance(value, dict) else deepcopy(value) for key, value in state.items()}
