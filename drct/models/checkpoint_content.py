"""Content of the checkpoints of a model: weights of its networks, state of its optimizers and schedules."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn

# Entries of the state of a schedule that change during training; all others are options
PROGRESS = {"last_epoch", "_step_count", "_last_lr", "T_cur", "T_i", "_is_initial"}
PROGRESS |= {"_get_lr_called_within_step", "base_lrs", "verbose"}


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


def check_kinds(state: dict[str, Any], optimizers: list[Any], schedules: list[Any]) -> None:
    """Raise `ValueError` if a training state is one of optimizers or schedules of other classes than these.

    Without schedules, the optimizers alone are compared.
    """
    own, theirs = _kinds(optimizers, schedules), state.get("kinds")
    if theirs and theirs[: len(own)] != own:
        raise ValueError(f"{', '.join(theirs)} is not {', '.join(own)}")


def _kinds(optimizers: list[Any], schedules: list[Any]) -> list[str]:
    return [type(thing).__name__ for thing in (*optimizers, *schedules)]


def schedule_state(schedule: Any) -> dict[str, Any]:
    """Return the state of a schedule without Counters, which some versions of PyTorch refuse to load."""
    state = schedule.state_dict()
    return {key: dict(value) if isinstance(value, dict) else deepcopy(value) for key, value in state.items()}
