"""Weight files that somebody or something has tampered with: seeded changes of the state dict and its metadata."""

import json
import math
import random
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from drct.archs.drct_arch import DRCT
from drct.archs.hat_arch import HAT

BASE: dict[str, Any] = {
    "img_size": 16,
    "embed_dim": 12,
    "gc": 4,
    "depths": (6,),
    "num_heads": (2,),
    "window_size": 4,
    "upscale": 2,
}
HAT_BASE: dict[str, Any] = {key: value for key, value in BASE.items() if key != "gc"} | {
    "depths": (2,),
    "compress_ratio": 3,
    "squeeze_factor": 4,
}
NUMBERS = (0, -1, -4, 1, 2, 3, 7, 64, 10**4, 10**8, 10**30, 0.5, 1e300, float("inf"), float("nan"), True)
VALUES = (*NUMBERS, None, "", "6", "pixelshuffle", [], [6], [6] * 3000, [0], [-1, 2], ["a"], {"a": 1}, [[6]])
KEYS = (
    5,
    -1,
    1.5,
    True,
    None,
    (1, 2),
    "",
    "x" * 300,
    "layers.",
    "layers.7.x",
    "layers.7.swin1.attn.qkv.weight",
    "a\nb",
)
ENTRIES = ("params", "params_ema", "state_dict", "model", "generator", "net_g", "anything", "")


def write_mutant(seed: int, folder: Path, kind: str) -> tuple[Path, list[str]]:
    """Write the weight file of a seed, of a DRCT or HAT. Return its path, and what was changed."""
    rng = random.Random(seed)
    network = _base(kind)
    whole = rng.random() < 0.7  # with what the original computes, or parameters only
    weights: dict[Any, Any] = dict(network.state_dict() if whole else network.named_parameters())
    weights = {name: value.detach() for name, value in weights.items()}
    metadata: Any = {"drct_config": json.dumps(network._hub_mixin_config)} if rng.random() < 0.5 else None
    changes = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        if metadata is not None and rng.random() < 0.5:
            metadata = _other_metadata(metadata, rng, changes)
        else:
            _change_weights(weights, rng, changes)
    path = folder / f"{seed}.pth"
    if rng.random() < 0.2 and _fits_safetensors(weights, metadata):
        path = path.with_suffix(".safetensors")
        save_file({name: value.clone().contiguous() for name, value in weights.items()}, path, metadata)
        return path, changes
    entry = rng.choice(ENTRIES)
    content: dict[Any, Any] = {entry: weights} if entry else weights
    if metadata is not None:
        content["metadata"] = metadata
    if rng.random() < 0.1:
        content["discriminator"] = {"conv0.weight": torch.zeros(3)}
    torch.save(content, path)
    return path, [f"entry {entry!r}", *changes]


@cache
def _base(kind: str) -> DRCT | HAT:
    return DRCT(**BASE) if kind == "DRCT" else HAT(**HAT_BASE)


def _change_weights(weights: dict[Any, Any], rng: random.Random, changes: list[str]) -> None:
    names = [name for name in weights if isinstance(name, str)]
    shaping = [name for name in names if "attn" in name or "conv" in name or "upsample" in name or "fc1" in name]
    name = rng.choice(shaping if shaping and rng.random() < 0.5 else names)
    kind = rng.choice(("value", "value", "value", "remove", "rename", "add", "prefix", "all of a dtype"))
    if kind == "remove":
        del weights[name]
    elif kind == "rename":
        weights[rng.choice(KEYS)] = weights.pop(name)
    elif kind == "add":
        weights[rng.choice(KEYS)] = rng.choice((torch.zeros(1), torch.zeros(0), 5, "text", None, [1]))
    elif kind == "prefix":
        prefix, some = rng.choice(("module.", "_orig_mod.", "generator.", "module.module.")), rng.random() < 0.3
        for old in names:
            if not (some and rng.random() < 0.5):
                weights[prefix + old] = weights.pop(old)
    elif kind == "all of a dtype":
        dtype = rng.choice((torch.float16, torch.bfloat16, torch.float64, torch.int32))
        for old in names:
            if isinstance(weights[old], Tensor) and weights[old].is_floating_point() and weights[old].numel() < 10**6:
                weights[old] = weights[old].to(dtype)
    elif isinstance(weights[name], Tensor):
        weights[name], kind = _other_tensor(weights[name], rng)
    changes.append(f"{kind} {name[:60]}")


def _other_tensor(x: Tensor, rng: random.Random) -> tuple[Any, str]:
    """Return something in place of a tensor, and its kind."""
    plain = x.float()
    spot = torch.zeros_like(plain)
    if spot.numel() and spot.ndim:
        spot.flatten()[rng.randrange(spot.numel())] = rng.choice((float("nan"), float("inf"), 1e30, -1e38))
    large = [rng.choice((1, 10**3, 10**5, 10**8)) for _ in x.shape]
    small = [rng.choice((0, 1, 2, 3, 12, 64, 144)) for _ in range(rng.randrange(4))]
    makers = {
        "expanded": lambda: torch.zeros(()).expand(large) if math.prod(large) < 2**60 else torch.zeros(1),
        "one repeated": lambda: torch.zeros(1).expand(10**9),
        "sparse": lambda: plain.to_sparse(),
        "meta": lambda: plain.to("meta"),
        "scalar": lambda: torch.tensor(0.5),
        "shape": lambda: torch.zeros(small),
        "more rows": lambda: torch.zeros([50 * side if i == 0 else side for i, side in enumerate(x.shape)]),
        "transposed": lambda: plain.transpose(0, -1) if x.ndim else plain,
        "spot": lambda: plain + spot,
        "double": lambda: plain.double() * rng.choice((1, 1e300)),
        "dtype": lambda: plain.to(rng.choice((torch.int8, torch.bool, torch.complex64, torch.int64, torch.float16))),
        "no tensor": lambda: rng.choice((5, "text", None, [1.0])),
    }
    kind = rng.choice(list(makers))
    return makers[kind](), kind


def _other_metadata(metadata: dict[str, str], rng: random.Random, changes: list[str]) -> Any:
    try:
        config = json.loads(metadata["drct_config"])
        key = rng.choice([*config, "unknown", "type", "norm_layer"])
    except (TypeError, KeyError, ValueError, RecursionError):
        return metadata
    if not isinstance(config, dict):
        return metadata
    value = rng.choice(VALUES)
    kind = rng.choice(("value", "value", "value", "value", "no JSON", "no dict", "deep", "no text", "none", "keys"))
    changes.append(f"metadata {kind}, {key}: {str(value)[:40]}")
    other = {
        "value": {**metadata, "drct_config": json.dumps(config | {key: value})},
        "no JSON": {**metadata, "drct_config": rng.choice(("", "{", "nonsense", '{"embed_dim": 1' + "0" * 5000 + "}"))},
        "no dict": {**metadata, "drct_config": rng.choice(("[]", "5", "null", '"a"'))},
        "deep": {**metadata, "drct_config": "[" * 100_000},
        "no text": {**metadata, "drct_config": rng.choice((5, None, torch.zeros(1)))},
        "none": rng.choice((None, 5, [], {})),
        "keys": {**metadata, 5: 1, "made_from": 3, "entry": "metadata"},
    }
    return other[kind]


def _fits_safetensors(weights: dict[Any, Any], metadata: Any) -> bool:
    plain = all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.numel() < 10**6
        for name, value in weights.items()
    )
    texts = metadata is None or (
        isinstance(metadata, dict) and all(isinstance(part, str) for item in metadata.items() for part in item)
    )
    return plain and texts
