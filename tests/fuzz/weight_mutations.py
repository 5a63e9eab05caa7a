"""Mutations of what weight and state files hold: names, tensors, containers, metadata and numbers."""

import json
import math
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fuzz.option_mutations import VALUES

HUGE = 10**9
CONTAINERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bare": lambda w: w,
    **{name: lambda w, name=name: {name: w} for name in ("state_dict", "model", "generator", "net", "params_ema", "x")},
    "params in params": lambda w: {"params": {"params": w}},
    "state_dict in model": lambda w: {"model": {"state_dict": w}},
    "beside others": lambda w: {"params": w, "epoch": 3, "optimizer": {"lr": 1.0}, 5: "x"},
    "ordered": lambda w: OrderedDict(params=OrderedDict(w)),
    "module.": lambda w: {"params": {f"module.{name}": value for name, value in w.items()}},
    "net_g.": lambda w: {f"net_g.{name}": value for name, value in w.items()},
    "list": lambda w: [w],
    "tuple": lambda w: (w, 1),
    "pairs": lambda w: list(w.items()),
    "values": lambda w: {"params": list(w.values())},
    "empty": lambda w: {},
    "empty params": lambda w: {"params": {}},
    "params is None": lambda w: {"params": None, "params_ema": w},
    "params is a tensor": lambda w: {"params": next(iter(w.values()))},
    "params_ema is empty": lambda w: {"params": w, "params_ema": {}},
    "params_ema is text": lambda w: {"params": w, "params_ema": "text"},
    "a tensor": lambda w: next(iter(w.values())),
    "a number": lambda w: 5,
    "text": lambda w: "text",
    "nothing": lambda w: None,
    "numbers as names": lambda w: {"params": dict(enumerate(w.values()))},
    "mixed names": lambda w: {"params": {**w, 5: torch.zeros(1), None: torch.zeros(1), (1, 2): torch.zeros(1)}},
    "mixed entries": lambda w: {"params": w, 1: w, (1,): 2, None: None},
    "like a state": lambda w: {"iter": None, "optimizers": [], "params": w},
}
TENSORS: dict[str, Callable[[Tensor], Any]] = {
    **{str(dtype): lambda t, dtype=dtype: t.to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64)},
    **{
        str(dtype): lambda t, dtype=dtype: t.to(dtype)
        for dtype in (torch.int64, torch.uint8, torch.bool, torch.complex64)
    },
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "turned": lambda t: t.transpose(0, -1) if t.ndim > 1 else t.flip(0) if t.ndim else t,
    "flat": lambda t: t.reshape(-1),
    "nested deeper": lambda t: t[None],
    "a number": lambda t: torch.zeros(()),
    "empty": lambda t: t.new_zeros(0),
    "shape with 0": lambda t: t.new_zeros((0, *t.shape)),
    "cut": lambda t: t[: len(t) // 2] if t.ndim else t,
    "twice": lambda t: torch.cat([t, t]) if t.ndim else t,
    "expanded": lambda t: t.new_zeros(1).expand(t.shape),
    "huge": lambda t: t.new_zeros(1).expand(HUGE, HUGE),
    "huge in one dimension": lambda t: t.new_zeros(1).expand(HUGE, *t.shape[1:]),
    "overlapping": lambda t: t.as_strided(t.shape, [0] * t.ndim),
    "not contiguous": lambda t: torch.stack([t, t], -1)[..., 0],
    "sparse": lambda t: t.float().to_sparse(),
    "quantized": lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    "meta": lambda t: t.to("meta"),
    "parameter": lambda t: torch.nn.Parameter(t.float()),
    "zeros": torch.zeros_like,
    "NaN": lambda t: _with(t, math.nan),
    "inf": lambda t: _with(t, math.inf),
    "-inf": lambda t: _with(t, -math.inf),
    "all NaN": lambda t: torch.full_like(t, math.nan) if t.is_floating_point() else t,
    "3e38": lambda t: torch.full_like(t, 3e38) if t.is_floating_point() else t,
    "a list": lambda t: t.flatten()[:5].tolist(),
    "text": lambda t: "text",
    "None": lambda t: None,
    "a dict": lambda t: {"weight": t},
}
CONFIG_VALUES = [*VALUES, -1, 0, 1, HUGE, [HUGE], [-1] * 2, [6] * 100_000, "DRCT", {"embed_dim": 12}]
WHOLE_METADATA: list[Any] = [
    *("", "text", "[]", "{", "null", "5", "[" * 100_000, '{"embed_dim": NaN}', '{"__class__": "os"}', '{"self": 1}'),
    '{"upscale": 4}',
]


def _with(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    if changed.is_floating_point() and changed.numel():
        changed.view(-1)[changed.numel() // 2] = value
    return changed


def mutate_weights(weights: dict[str, Any], rng: random.Random) -> tuple[Any, str]:
    """Return the content of a weight file made from a state dict, and the mutations in words."""
    weights, words = dict(weights), []
    container = "params in a file"
    if rng.random() < 0.35:
        container = rng.choice(list(CONTAINERS))
    if container == "params in a file" or rng.random() < 0.2:
        for _ in range(rng.choice((1, 1, 2))):
            words.append(_change_entry(weights, rng))
    content = CONTAINERS[container](weights) if container in CONTAINERS else {"params": weights}
    return content, "; ".join([container, *words])


def _change_entry(weights: dict[Any, Any], rng: random.Random) -> str:
    name = rng.choice(list(weights))
    what = rng.choice(("removed", "renamed", "added", "tensor", "tensor", "tensor", "tensor"))
    if what == "removed":
        del weights[name]
    elif what == "renamed":
        weights[rng.choice((f"{name}_", f"x.{name}", name.replace(".0", ".7", 1), name.upper(), "x" * 5000, 5))] = (
            weights.pop(name)
        )
    elif what == "added":
        new = rng.choice(
            ("x", f"{name}.x", "layers.7.swin1.attn.qkv.weight", "layers.999999999.swin1.x", "layers.x.swin1.y")
        )
        weights[new] = rng.choice((torch.zeros(3), torch.zeros(()), 5, "text"))
        name = new
    else:
        change = rng.choice(list(TENSORS))
        if isinstance(weights[name], Tensor):
            weights[name] = TENSORS[change](weights[name])
        what = change
    return f"{name!r:.60}: {what}"


def mutate_metadata(config: dict[str, Any], rng: random.Random) -> tuple[str, str]:
    """Return the text of a mutated `drct_config`, and the mutation in words."""
    if rng.random() < 0.2:
        text = rng.choice(WHOLE_METADATA)
        return text, f"drct_config {text:.40}"
    config = dict(config)
    key = rng.choice([*config, "x"])
    config[key] = value = rng.choice(CONFIG_VALUES)
    if rng.random() < 0.2:
        del config[rng.choice(list(config))]
    return json.dumps(config, default=str), f"drct_config {key} = {value!r:.40}"


def mutate_state(state: Any, rng: random.Random) -> tuple[Any, str]:
    """Return the content of a mutated training state, and the mutations in words."""
    words = []
    for _ in range(rng.choice((1, 1, 2))):
        where, container = [], state
        while isinstance(container, dict | list) and container and (not where or rng.random() < 0.75):
            keys = list(container) if isinstance(container, dict) else range(len(container))
            where.append(rng.choice(keys))
            parent, container = container, container[where[-1]]
        words.append(f"{'.'.join(map(str, where))} {_change_value(parent, where[-1], rng)}")
    return state, "; ".join(words)


def _change_value(parent: Any, key: Any, rng: random.Random) -> str:
    value = parent[key]
    if isinstance(value, Tensor) and rng.random() < 0.8:
        change = rng.choice(list(TENSORS))
        parent[key] = TENSORS[change](value)
        return change
    if rng.random() < 0.2:
        del parent[key]
        return "removed"
    plain = [entry for entry in VALUES if not isinstance(entry, set) and type(entry).__module__ == "builtins"]
    parent[key] = new = rng.choice(plain)
    return f"= {new!r:.40}"
