"""Checkpoint files: reading weights without running code, loading them into networks, writing files whole."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from drct.archs.families import family_of
from drct.archs.soundness import unsound
from drct.errors import DRCTError
from drct.files import write_atomically
from drct.runtime.state_dict import find_state_dict
from drct.text import brief, first_line

# First bytes of files that people take for checkpoints by mistake, and what to say about them
OTHER_KINDS = {
    b"version https://git-lfs": "it is a Git LFS pointer; `git lfs pull` gets the file",
    b"<": "it is a web page; download the file that the page links to",
    b"{": "it is JSON text",
    # PNG, JPEG, GIF, WebP, BMP, TIFF of either byte order
    **dict.fromkeys((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*"), "it is an image"),
}


def save(path: str | os.PathLike, content: object) -> None:
    """Write a file with `torch.save`, whole or not at all. Raises `DRCTError` if it cannot be written."""
    write_atomically(path, lambda file: torch.save(content, file))


def load(path: str | os.PathLike) -> Any:
    """Read a PyTorch or safetensors file to the CPU without running code.

    The checksums of PyTorch's files are verified, which takes about a quarter of the time of reading. Safetensors and
    PyTorch's format from before version 1.6 have none.

    Raises:
        DRCTError: if the file is damaged, which its checksums may show alone, holds more than tensors and plain values,
            or is of another kind.
    """
    if not Path(path).is_file():
        raise DRCTError(f"no such file: {path}")
    if other := _other_kind(path):
        raise DRCTError(f"{path} is not a weight file: {other}")
    try:
        if Path(path).suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if zipfile.is_zipfile(path):  # not so before PyTorch 1.6
            verify(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of tensors that are refused later
            return torch.load(path, map_location="cpu", weights_only=True)
    except DRCTError:
        raise
    except pickle.UnpicklingError as error:
        raise DRCTError(
            f"{path} is not a PyTorch checkpoint of tensors only, or holds objects that could run code; not loaded"
        ) from error
    except Exception as error:  # a damaged file raises anything
        raise DRCTError(
            f"{path} is damaged or not a PyTorch checkpoint ({first_line(error)}). Download or copy it again."
        ) from error


def _other_kind(path: str | os.PathLike) -> str:
    """Describe a file that cannot be a checkpoint; '' if it may be one."""
    if Path(path).suffix == ".onnx":
        return "it is an ONNX model, which ONNX Runtime runs"
    if Path(path).suffix == ".pt2":
        return "it is a program of torch.export, which torch.export.load reads"
    with open(path, "rb") as file:
        start = file.read(200)
    if not start:
        return "it is empty. Download or copy it again"
    return next((kind for sign, kind in OTHER_KINDS.items() if start.startswith(sign)), "")


def verify(path: str | os.PathLike) -> None:
    """Compare a file's checksums, which PyTorch writes but never checks. Raises `DRCTError` if they are wrong."""
    if not Path(path).is_file():
        raise DRCTError(f"no such file: {path}")
    try:
        with zipfile.ZipFile(path) as file:
            has_checksums = any(part.CRC for part in file.infolist())  # `torch.save` can be told to write none
            damaged = file.testzip() if has_checksums else None
    except Exception as error:  # a damaged file raises anything
        raise DRCTError(f"{path} is damaged: {first_line(error)}. Download or copy it again") from error
    if damaged:
        raise DRCTError(
            f"{path} is damaged: the checksum of its part {brief(damaged, 80)} is wrong. Download or copy it again"
        )


def read_weights(path: str | os.PathLike, param_key: str | None = "params_ema") -> tuple[dict[str, Tensor], str]:
    """Read a network's weights from a file, as `load` and `weights_in` describe."""
    return weights_in(load(path), path, param_key)


def weights_in(content: Any, path: object, param_key: str | None = "params_ema") -> tuple[dict[str, Tensor], str]:
    """Pick a network's weights out of the content of a checkpoint.

    Args:
        content: Result of `load`.
        path: Path of the file, for error messages.
        param_key: Entry to take, 'params' or 'params_ema'; if it is missing, the other one is taken, or one of
            `state_dict.ENTRIES`, and a content without any is taken as a bare state dict.

    Returns:
        The state dict, and the entry that it was taken from ('' for a bare state dict).

    Raises:
        DRCTError: if the content holds no network's weights, or other than plain tensors.
    """
    if not isinstance(content, dict):
        raise DRCTError(f"{path} holds a {type(content).__name__}, not a network's weights")
    if {"iter", "optimizers"} <= content.keys():
        iteration = content["iter"] if isinstance(content["iter"], int) else "<iteration>"
        raise DRCTError(f"{path} is a training state; its weights are in models/net_g_{iteration}.pth")
    return find_state_dict(content, path, param_key)


def metadata_of(content: Any, path: str | os.PathLike) -> dict[str, str]:
    """Return what `drct export` or `drct train` wrote about the network into a weight file; empty for other files."""
    if Path(path).suffix == ".safetensors":
        with safetensors.safe_open(path, "pt") as file:
            found = file.metadata()
    else:
        entry = content.get("metadata") if isinstance(content, dict) else None
        found = entry if isinstance(entry, dict) else None
    texts = {k: v for k, v in found.items() if isinstance(k, str) and isinstance(v, str)} if found else {}
    return texts if texts.keys() & {"drct_config", "network_g"} else {}


def load_weights(network: nn.Module, weights: dict[str, Tensor], strict: bool, path: object) -> list[str]:
    """Load a state dict into a network. Return one line for each entry that was not loaded or not needed.

    Parameters that do not fit keep their values, or raise a `DRCTError` about the file `path` if `strict`. Weights that
    are not finite, or no floating point numbers, always raise one.
    """
    own = network.state_dict()
    computed = own.keys() - {name for name, _ in network.named_parameters()} - {n for n, _ in network.named_buffers()}
    differences = [f"missing {name}" for name in own if name not in weights and name not in computed]
    differences += [f"unexpected {name}" for name in weights if name not in own]
    shared = (own.keys() & weights.keys()) - computed
    misshapen = [name for name in weights if name in shared and weights[name].shape != own[name].shape]
    differences += [f"{name} is {list(weights[name].shape)}, not {list(own[name].shape)}" for name in misshapen]
    if strict and differences:
        raise DRCTError(
            f"{path} does not fit the network of the option file{_differences_in_words(network, weights)}, "
            f"{len(differences)} differences: {'; '.join(differences[:3])}{'; ...' if len(differences) > 3 else ''}. "
            "Check network_g, scale and the file; strict_load_g: false loads what fits."
        )
    fitting = {name: value for name, value in weights.items() if name not in misshapen}
    for name in fitting.keys() & shared:
        if own[name].is_floating_point() and not weights[name].is_floating_point():
            dtype = str(weights[name].dtype).removeprefix("torch.")
            raise DRCTError(f"{path}: {name} holds {dtype}, not floating point numbers. Save it again, as float32")
    network.load_state_dict(fitting, strict=False)
    loaded = (*network.named_parameters(), *network.named_buffers())
    check_sound(((name, value) for name, value in loaded if name in shared), path)
    return differences


def check_sound(tensors: Iterable[tuple[str, Tensor]], path: object) -> None:
    """Raise a `DRCTError` about the file `path` if a tensor that was read from it is not finite, or absurdly large."""
    if problem := unsound(tensors):
        raise DRCTError(f"{path}: {problem}, which ruins every result. Copy it again or take an earlier checkpoint")


def only_scale_differs(network: nn.Module, weights: dict[str, Tensor]) -> bool:
    """Return whether weights are of a DRCT or HAT that differs from the network in its scale alone."""
    try:
        return _differing_options(network, weights).keys() == {"upscale"}
    except ValueError:
        return False


def _differing_options(network: nn.Module, weights: dict[str, Tensor]) -> dict[str, str]:
    """Describe by name the options in which a DRCT or HAT and the network of some weights differ.

    Empty for other networks. Raises `ValueError` if the weights are of another kind.
    """
    family = family_of(network)
    if family is None:
        return {}
    own, theirs = family.options(network.state_dict()), family.options(weights)
    return {
        key: f"{key} is {theirs[key]} in the file, {own[key]} in network_g" for key in own if theirs[key] != own[key]
    }


def _differences_in_words(network: nn.Module, weights: dict[str, Tensor]) -> str:
    try:
        words = ", ".join(_differing_options(network, weights).values())
    except ValueError as error:
        words = str(error)
    return f" ({words})" if words else ""
