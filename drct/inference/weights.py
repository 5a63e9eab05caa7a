"""From the name of weights to a network, which is read from the file itself: no option file is needed."""

import io
import json
import os
import re
import sysconfig
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from drct.archs.drct_arch import DRCT
from drct.archs.variants import drct_options
from drct.errors import DRCTError, did_you_mean
from drct.files import expanded
from drct.runtime import checkpoint

DEFAULT_WEIGHTS = "DRCT-XS_SRx4"  # come with the project
SUFFIXES = (".pth", ".safetensors", ".pt")
_PRETRAINED = Path("experiments", "pretrained_models")


def folders() -> list[Path]:
    """Where weights are looked for by name: here, in the repository, and where an installation puts those shipped."""
    repository = Path(__file__).resolve().parents[2]
    return [Path.cwd() / _PRETRAINED, repository / _PRETRAINED, Path(sysconfig.get_path("data"), "share", "drct")]


def available() -> list[str]:
    """Names of the weights that are there."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*") if path.suffix in SUFFIXES})


def find_weights(name: str | os.PathLike) -> Path:
    """The file or folder of weights: a path, or the name of a file, with or without suffix, in one of `folders`.

    Raises:
        DRCTError: if there is none; it names those that there are.
    """
    if (path := expanded(name)).exists():
        return path
    for folder in folders():
        for suffix in ("", *SUFFIXES):
            if (path := folder / f"{name}{suffix}").is_file():
                return path
    known = available()
    raise DRCTError(
        f"no weights {name}{did_you_mean(name, known)}. A path is taken, or one of the names {', '.join(known) or '-'} "
        "of experiments/pretrained_models, or the name of a model on the Hugging Face Hub, as owner/model"
    )


class Loaded(NamedTuple):
    """A network, and what it was read from."""

    network: DRCT
    source: Path | str  # file or folder, or name on the Hugging Face Hub
    entry: str  # of the file: 'params', 'params_ema', or '' where there are no entries


def load_network(name: str | os.PathLike = DEFAULT_WEIGHTS) -> DRCT:
    """The network of a weight file, with its weights, for inference. See `read_network`."""
    return read_network(name).network


def read_network(name: str | os.PathLike) -> Loaded:
    """The network of a weight file, with its weights, for inference, and where it comes from.

    Args:
        name: As `find_weights` takes it: a BasicSR checkpoint (its EMA where there is one), a bare state dict or
            safetensors file, with the network's arguments (`drct export` writes them) or without; a folder of
            `DRCT.save_pretrained`; or, where no such file exists, `owner/model` on the Hugging Face Hub.

    Raises:
        DRCTError: if there is no such file, or what it holds is not a DRCT; the message says what it looks like.
    """
    if _is_on_hub(str(name)):
        return Loaded(_from_pretrained(str(name)), str(name), "")
    path = find_weights(name)
    if path.is_dir():
        return Loaded(_from_pretrained(str(path)), path, "")
    return network_of(checkpoint.load(path), path)


def network_of(content: Any, path: Path) -> Loaded:
    """The same of what was read from a weight file.

    Raises:
        DRCTError: if it is not a DRCT.
    """
    weights, entry = checkpoint.weights_in(content, path)
    metadata = checkpoint.metadata_of(content, path)
    try:
        network = DRCT(**(json.loads(metadata["drct_config"]) if metadata else drct_options(weights)))
    except (ValueError, TypeError) as error:
        raise DRCTError(f"{path}: {error}") from error
    if differences := checkpoint.load_weights(network, weights, False, path):
        raise DRCTError(f"{path} holds weights that do not fit a DRCT: {'; '.join(differences[:3])}. Copy it again")
    return Loaded(network.eval(), path, entry or metadata.get("entry", ""))


def _is_on_hub(name: str) -> bool:
    """Whether a name is that of a model on the Hugging Face Hub, and not a path, even one that is misspelt."""
    owner, slash, model = name.partition("/")
    is_name = all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", part) for part in (owner, model))
    is_file = Path(model).suffix.lower() in {*SUFFIXES, ".ckpt", ".bin", ".onnx", ".pkl", ".zip"}
    return bool(slash) and is_name and not is_file and not Path(owner).exists()


def _from_pretrained(name: str) -> DRCT:
    try:
        with redirect_stdout(io.StringIO()):  # it tells where it looks
            return DRCT.from_pretrained(name).eval()
    except Exception as error:  # of the network, of files that are missing or damaged
        reason = " ".join(str(error).split())
        reason = reason if len(reason) < 300 else f"{reason[:300]}..."
        raise DRCTError(
            f"cannot load {name}: {reason.rstrip('.') or type(error).__name__}. Expected are config.json and "
            "model.safetensors, as DRCT.save_pretrained writes them"
        ) from error
