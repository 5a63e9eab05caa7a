"""Training states of a run: choosing the one to resume from, setting aside and deleting the others."""

import logging
import os
import time
from pathlib import Path
from typing import Any

from drct.errors import DRCTError
from drct.files import make_folder
from drct.runtime import checkpoint, distributed
from drct.schema.training_state import problem_of_state

logger = logging.getLogger("drct")


def state_to_resume(opt: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Read the training state to resume from, if any.

    `--auto_resume` takes the newest state of the experiment that is whole; otherwise `path.resume_state` names a state.
    The first process chooses for all.

    Returns:
        The state, and the entries of `path` with which a model loads the network that was saved with it.

    Raises:
        DRCTError: if the state or its weight file is damaged, or if there are states and none is whole.
    """
    path = distributed.from_first(_chosen_state(opt) if distributed.rank() == 0 else None)
    if path is None:
        return None
    state = _read_state(path)
    # A state belongs to the networks saved at the same iteration; an EMA is loaded beside its network
    paths: dict[str, Any] = {"resume_state": str(path)}
    for name in _networks(state, path):
        kind = name.removeprefix("net_")
        paths[f"pretrain_network_{kind}"] = str(weights_beside(path, state["iter"], name))
        paths |= {f"param_key_{kind}": "params", f"strict_load_{kind}": True}
    return state, paths


def load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    """Take the place of `basicsr.train.load_resume_state`, which changes the paths of `opt` besides."""
    state, paths = state_to_resume(opt) or (None, {})
    opt["path"] |= paths
    return state


def set_aside(folder: str | os.PathLike, iteration: int) -> Path | None:
    """Move checkpoints after `iteration`, which are damaged or given up, to a new folder. Return it, or None."""
    later = [path for path in _states(folder) if int(path.stem) > iteration]
    if not later:
        return None
    target = make_folder(Path(folder).parent / f"set_aside_{time.strftime('%Y%m%d_%H%M%S')}")
    for path in later:
        for file in (path, *_all_weights(path)):
            if file.exists():
                file.rename(target / file.name)
    return target


def prune(folder: str | os.PathLike, keep: int) -> None:
    """Delete all but the newest `keep` training states of a folder, and the weight files saved with them."""
    for path in _states(folder)[keep:]:
        try:
            path.unlink(missing_ok=True)  # first, since weights without a state resume nothing
            for file in _all_weights(path):
                file.unlink(missing_ok=True)
        except OSError as error:
            logger.warning(f"cannot delete {path} or its weights: {error.strerror or error}")


def weights_beside(state: str | os.PathLike, iteration: int | str, network: str = "net_g") -> Path:
    """Return the path of the weight file of a network that was saved together with a training state."""
    return Path(state).resolve().parents[1] / "models" / f"{network}_{iteration}.pth"


def _all_weights(state: Path) -> list[Path]:
    """List the weight files that were saved together with a training state."""
    return list(weights_beside(state, state.stem).parent.glob(f"net_*_{state.stem}.pth"))


def _networks(state: dict[str, Any], path: str | os.PathLike) -> list[str]:
    """Return the names of the networks that belong to a training state; those of BasicSR do not hold them."""
    found = [name for name in ("net_g", "net_d") if weights_beside(path, state["iter"], name).exists()]
    return state.get("networks") or found or ["net_g"]


def _states(folder: str | os.PathLike) -> list[Path]:
    """List the training states (`<iter>.state`) of a folder, newest first."""
    found = [path for path in Path(folder).glob("*.state") if path.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem), reverse=True)


def _chosen_state(opt: dict[str, Any]) -> str | os.PathLike | None:
    newest = _newest_whole_state(opt["path"]["training_states"]) if opt["auto_resume"] else None
    return newest or opt["path"].get("resume_state")


def _newest_whole_state(folder: str | os.PathLike) -> Path | None:
    """Return the newest training state that, with its weight file, is whole; None if the folder has no states.

    If all are damaged, a `DRCTError` keeps the run from starting anew over them.
    """
    candidates = _states(folder)
    for path in candidates:
        try:
            for name in _networks(_read_state(path), path):
                checkpoint.verify(weights_beside(path, path.stem, name))
            return path
        except DRCTError as error:
            logger.warning(f"not resuming from iteration {path.stem}: {error}")
    if candidates:
        raise DRCTError(
            f"none of the {len(candidates)} training states in {folder} is whole. Move the experiment away to start "
            "anew, or start from weights with path.pretrain_network_g"
        )
    return None


def _read_state(path: str | os.PathLike) -> dict[str, Any]:
    state = checkpoint.load(path)
    if problem := problem_of_state(state):
        raise DRCTError(f"{path} is not a training state, or damaged: {problem}")
    return state
