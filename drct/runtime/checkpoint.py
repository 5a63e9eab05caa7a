"""Weight files and training states: reading them without running code, writing them whole."""

import logging
import os
import pickle
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from drct.archs.variants import drct_options
from drct.errors import DRCTError
from drct.files import make_folder, write_atomically
from drct.runtime import distributed

# How PNG, JPEG, GIF, WebP, BMP and TIFF files begin
IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


def save(path: str | os.PathLike, content: object) -> None:
    """`torch.save` to a temporary file that is then renamed. Raises `DRCTError` if it cannot be written."""
    write_atomically(path, lambda file: torch.save(content, file))


def load(path: str | os.PathLike) -> Any:
    """Read a PyTorch or safetensors file to the CPU without running code.

    Raises:
        DRCTError: naming the file and what is wrong with it, or what it is instead.
    """
    if not Path(path).is_file():
        raise DRCTError(f"no such file: {path}")
    if other := _other_kind(path):
        raise DRCTError(f"{path} is not a weight file: {other}")
    try:
        if Path(path).suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DRCTError(
            f"{path} is not a PyTorch checkpoint of tensors only, or holds objects that could run code; not loaded"
        ) from error
    except Exception as error:  # a damaged file raises anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DRCTError(
            f"{path} is damaged or not a PyTorch checkpoint ({reason}). Download or copy it again."
        ) from error


def _other_kind(path: str | os.PathLike) -> str:
    """What a file is that people take for a checkpoint by mistake; '' if it may be one."""
    with open(path, "rb") as file:
        start = file.read(200)
    kinds = {
        b"version https://git-lfs": "it is a Git LFS pointer; `git lfs pull` gets the file",
        b"<": "it is a web page; download the file that the page links to",
        b"{": "it is JSON text",
    }
    kinds |= dict.fromkeys(IMAGES, "it is an image")
    if Path(path).suffix == ".onnx":
        return "it is an ONNX model, which ONNX Runtime runs"
    if Path(path).suffix == ".pt2":
        return "it is a program of torch.export, which torch.export.load reads"
    if not start:
        return "it is empty. Download or copy it again"
    return next((kind for sign, kind in kinds.items() if start.startswith(sign)), "")


def read_weights(path: str | os.PathLike, param_key: str | None = "params_ema") -> tuple[dict[str, Tensor], str]:
    """Read a network's weights from a BasicSR checkpoint, a bare state dict or a safetensors file.

    Args:
        path: The file.
        param_key: The entry to read, 'params' or 'params_ema'. If the file lacks it, the other one is taken; None
            takes a bare state dict.

    Returns:
        The state dict, and the entry it was taken from ('' for a bare state dict).
    """
    return weights_in(load(path), path, param_key)


def weights_in(content: Any, path: object, param_key: str | None = "params_ema") -> tuple[dict[str, Tensor], str]:
    """The same of a file's content."""
    if not isinstance(content, dict):
        raise DRCTError(f"{path} holds a {type(content).__name__}, not a network's weights")
    if {"iter", "optimizers"} <= content.keys():
        raise DRCTError(f"{path} is a training state; its weights are in models/net_g_{content['iter']}.pth")
    key = next((key for key in (param_key, "params_ema", "params") if key and isinstance(content.get(key), dict)), "")
    weights = content[key] if key else content
    if not weights or not all(isinstance(value, Tensor) for value in weights.values()):
        raise DRCTError(
            f"{path} holds no network's weights: expected an entry params or params_ema, or tensors by name, "
            f"but found {', '.join(map(str, list(content)[:5])) or 'nothing'}"
        )
    return {name.removeprefix("module."): value for name, value in weights.items()}, key


def metadata_of(content: Any, path: str | os.PathLike) -> dict[str, str]:
    """What `drct export` wrote of the network into a weight file; nothing for others."""
    if Path(path).suffix == ".safetensors":
        with safetensors.safe_open(path, "pt") as file:
            found = file.metadata()
    else:
        found = content.get("metadata") if isinstance(content, dict) else None
    return found if isinstance(found, dict) and isinstance(found.get("drct_config"), str) else {}


def load_weights(network: nn.Module, weights: dict[str, Tensor], strict: bool, path: object) -> list[str]:
    """Load a state dict into a network.

    Args:
        network: The network.
        weights: The state dict.
        strict: Whether every name and shape must agree. If not, what does not fit keeps its initial value.
        path: Named in the error.

    Returns:
        What was not loaded or not needed, one line each; empty when all fits.

    Raises:
        DRCTError: if `strict` and something does not fit; it names the first differences.
    """
    own = network.state_dict()
    computed = own.keys() - {name for name, _ in network.named_parameters()} - {n for n, _ in network.named_buffers()}
    differences = [f"missing {name}" for name in own if name not in weights and name not in computed]
    differences += [f"unexpected {name}" for name in weights if name not in own]
    misshapen = [
        name for name in weights if name in own and name not in computed and weights[name].shape != own[name].shape
    ]
    differences += [f"{name} is {list(weights[name].shape)}, not {list(own[name].shape)}" for name in misshapen]
    if strict and differences:
        raise DRCTError(
            f"{path} does not fit the network of the option file{_other_options(network, weights)}, "
            f"{len(differences)} differences: {'; '.join(differences[:3])}{'; ...' if len(differences) > 3 else ''}. "
            "Check network_g, scale and the file; strict_load_g: false loads what fits."
        )
    network.load_state_dict({name: w for name, w in weights.items() if name not in misshapen}, strict=False)
    return differences


def _other_options(network: nn.Module, weights: dict[str, Tensor]) -> str:
    """How the network of a DRCT's weights differs from another DRCT, for an error message."""
    try:
        own = drct_options(network.state_dict())
    except ValueError:  # not a DRCT
        return ""
    try:
        theirs = drct_options(weights)
    except ValueError as error:
        return f" ({error})"
    differing = [
        f"{key} is {value} in the file, {own[key]} in network_g" for key, value in theirs.items() if value != own[key]
    ]
    return f" ({', '.join(differing)})" if differing else ""


def states(folder: str | os.PathLike) -> list[Path]:
    """The training states (`<iter>.state`) in a folder, newest first."""
    found = [path for path in Path(folder).glob("*.state") if path.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


def network_of(state: str | os.PathLike, iteration: int | str) -> Path:
    """The weight file that was saved with a training state."""
    return Path(state).resolve().parents[1] / "models" / f"net_g_{iteration}.pth"


def verify(path: str | os.PathLike) -> None:
    """Read a whole checkpoint and compare its checksums. Raises `DRCTError` if it is not as it was written.

    PyTorch writes a zip file with checksums, but does not look at them when it reads.
    """
    if not Path(path).is_file():
        raise DRCTError(f"no such file: {path}")
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, zlib.error) as error:
        raise DRCTError(f"{path} is damaged: {error}") from error
    if damaged:
        raise DRCTError(f"{path} is damaged: the checksum of its part {damaged} is wrong")


def _verify_state(path: Path) -> None:
    verify(path)
    verify(network_of(path, path.stem))
    _read_state(path)


def _read_state(path: str | os.PathLike) -> dict[str, Any]:
    state = load(path)
    if not isinstance(state, dict) or not {"epoch", "iter", "optimizers", "schedulers"} <= state.keys():
        raise DRCTError(f"{path} is not a training state")
    return state


def newest_usable_state(folder: str | os.PathLike) -> Path | None:
    """The newest training state that, with its weight file, is whole; None if there is none at all.

    Those passed over are reported in the log.

    Raises:
        DRCTError: if there are states and none is whole, so that a run would begin anew over them.
    """
    candidates = states(folder)
    for path in candidates:
        try:
            _verify_state(path)
            return path
        except DRCTError as error:
            logging.getLogger("drct").warning(f"not resuming from iteration {path.stem}: {error}")
    if candidates:
        raise DRCTError(
            f"none of the {len(candidates)} training states in {folder} is whole. Move the experiment away to begin "
            "anew, or begin from weights with path.pretrain_network_g"
        )
    return None


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Find and read the training state to resume from, and make `opt` load that iteration's network.

    Takes the place of BasicSR's function of this name and does what it does: `--auto_resume` takes the newest state
    of the experiment, here the newest that is whole; otherwise `path.resume_state` names one. The first process
    chooses for all.
    """
    path = distributed.from_first(_state_to_resume(opt) if distributed.rank() == 0 else None)
    if path is None:
        return None
    state = _read_state(path)
    opt["path"]["resume_state"] = str(path)
    # A state belongs to the network saved at the same iteration; its EMA is loaded beside it.
    opt["path"]["pretrain_network_g"] = str(network_of(path, state["iter"]))
    opt["path"]["param_key_g"] = "params"
    opt["path"]["strict_load_g"] = True
    return state


def _state_to_resume(opt: dict[str, Any]) -> str | os.PathLike | None:
    newest = newest_usable_state(opt["path"]["training_states"]) if opt["auto_resume"] else None
    given = opt["path"].get("resume_state")
    if newest is None and given is not None:
        verify(given)
    return newest or given


def set_aside(folder: str | os.PathLike, iteration: int) -> Path | None:
    """Move checkpoints of later iterations, damaged or of a course that is given up, to a folder beside theirs.

    The run would otherwise take them for its own. Returns the folder, or None if there were none.
    """
    later = [path for path in states(folder) if int(path.stem) > iteration]
    if not later:
        return None
    target = Path(folder).parent / f"set_aside_{time.strftime('%Y%m%d_%H%M%S')}"
    make_folder(target)
    for path in later:
        for file in (path, network_of(path, path.stem)):
            if file.exists():
                file.rename(target / file.name)
    return target


def prune(folder: str | os.PathLike, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints: the states in a folder and their weight files, nothing else."""
    for path in states(folder)[keep:]:
        try:
            path.unlink(missing_ok=True)  # first, since weights without a state resume nothing
            network_of(path, path.stem).unlink(missing_ok=True)
        except OSError as error:
            logging.getLogger("drct").warning(f"cannot delete {path} or its weights: {error.strerror or error}")
