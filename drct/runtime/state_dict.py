"""The state dict of a network in the content of a weight file: where it is, and whether it holds plain tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from drct.errors import DRCTError

# Entries that training programs keep a network's weights in, the preferred first; of GANs, that of the generator
ENTRIES = ["params_ema", "params", "model_ema", "ema", "net_g_ema", "state_dict", "model_state_dict", "model"]
ENTRIES += ["generator", "net_g", "netG", "G", "network", "weights"]
LONGEST_NAME = 200  # characters
WRAPPERS = ("module.", "_orig_mod.")  # before all names, by DataParallel and torch.compile


def find_state_dict(content: Mapping[Any, Any], path: object, preferred: str | None) -> tuple[dict[str, Tensor], str]:
    """Find a network's weights in the content of a file: in its entry `preferred`, one of `ENTRIES` or its only one.

    Returns:
        The state dict, and the entry that it was taken from; '' if the content is itself one.

    Raises:
        DRCTError: if there is none, or several and no telling which, or one that holds more than plain tensors.
    """
    found = {key: entry for key, entry in content.items() if isinstance(entry, Mapping) and _has_tensors(entry)}
    key = next((key for key in (preferred, *ENTRIES) if key in found), "")
    if not key and len(found) > 1:
        raise DRCTError(f"{path} holds several networks, {_names(found)}: keep one, under params")
    key = key or next(iter(found), "")
    weights: Mapping[Any, Any] = found.get(key, content)
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise DRCTError(
            f"{path} holds no network's weights: expected an entry params or params_ema, or tensors by name, "
            f"but found {_names(content) or 'nothing'}"
        )
    for name, value in weights.items():
        if not isinstance(name, str) or not name.isprintable() or len(name) > LONGEST_NAME:
            raise DRCTError(f"{path} holds no network's weights: {_shown(name)} is not a name of a tensor")
        if problem := _not_plain(value):
            raise DRCTError(f"{path}: {name} {problem}; a weight file holds plain tensors. Save it again")
    return _unwrapped(weights), str(key)


def _has_tensors(entry: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in entry.values())


def _names(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(map(_shown, list(mapping)[:5]))


def _shown(name: object) -> str:
    """Format a name from a file, of any type and length, for a message."""
    text = name if isinstance(name, str) and name.isprintable() else repr(name)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _not_plain(tensor: Tensor) -> str:
    """Say why a tensor cannot be taken as it is; '' if it can."""
    if tensor.device.type == "meta":
        return "has a shape but no values"
    if tensor.is_quantized:
        return "is quantized"
    if tensor.layout is not torch.strided or tensor.is_nested:
        return "is sparse"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"repeats few stored values as {list(tensor.shape)}"  # and could take any amount of memory
    return ""


def _unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove what wrappers of networks put before all names."""
    while wrapper := next((w for w in WRAPPERS if all(name.startswith(w) for name in weights)), ""):
        weights = {name.removeprefix(wrapper): value for name, value in weights.items()}
    return dict(weights)
