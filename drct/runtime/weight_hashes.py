"""SHA-256 of the weights in a network, wherever they were read from."""

import hashlib
import json
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def hashes_of_weights(network: nn.Module) -> dict[str, str]:
    """Hash the parameters and buffers of each part of a network, such as `conv_first` or `layers.0`."""
    digests: dict[str, Any] = {}
    for name, tensor in sorted(chain(network.named_parameters(), network.named_buffers()), key=lambda item: item[0]):
        digest = digests.setdefault(_part(name), hashlib.sha256())
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes_of(tensor))
    return {part: digest.hexdigest() for part, digest in digests.items()}


def hash_of_network(network: nn.Module, *more: object) -> str:
    """Hash the weights of a network, the settings of its modules, such as a factor or a window, and further values."""
    settings = {
        name: [
            type(module).__qualname__,
            {key: value for key, value in vars(module).items() if _is_setting(key, value)},
        ]
        for name, module in network.named_modules()
    }
    text = json.dumps([hashes_of_weights(network), settings, list(map(str, more))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _part(name: str) -> str:
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _is_setting(key: str, value: object) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return not key.startswith("_") and key != "training" and all(isinstance(v, int | float | str) for v in values)
