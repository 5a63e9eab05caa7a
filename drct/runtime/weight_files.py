"""Finding weight files by name, without importing PyTorch."""

import os
import re
import sysconfig
from contextlib import suppress
from pathlib import Path

from drct.errors import DRCTError, did_you_mean
from drct.files import expanded

DEFAULT_WEIGHTS = "DRCT-XS_SRx4"  # comes with the project, for clean images
CLEAN_WEIGHTS = {"DRCT-XS_SRx2": 2, "DRCT-XS_SRx3": 3, DEFAULT_WEIGHTS: 4}  # for clean images, with their scale
PHOTO_WEIGHTS = "Real-DRCT-XS_SRx4"  # comes with the project, for photographs that were compressed
CLEAN_QUALITY = 92  # of a JPEG, from which the weights for clean images are the better ones, see docs/real-photos.md
AUTO = "auto"  # in place of a name: chosen by the image and the size of its result
WEIGHT_SUFFIXES = (".pth", ".safetensors", ".pt", ".onnx")
_PRETRAINED = Path("experiments", "pretrained_models")


def folders() -> list[Path]:
    """Return the folders searched for weights: in the working directory, the repository and the installation."""
    repository = Path(__file__).resolve().parents[2]
    return [Path.cwd() / _PRETRAINED, repository / _PRETRAINED, Path(sysconfig.get_path("data"), "share", "drct")]


def available() -> list[str]:
    """Return the names of the weights in `folders`."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*") if path.suffix in WEIGHT_SUFFIXES})


def find_weights(name: str | os.PathLike) -> Path:
    """Find weights by a path, or by the name of a file in one of `folders`, with or without suffix.

    Raises:
        DRCTError: if there are no such weights; the message lists those that exist.
    """
    if not isinstance(name, str | os.PathLike) or not os.fspath(name):
        raise DRCTError(f"weights are the path or the name of a file, not {name!r}")
    if os.fspath(name) == AUTO:
        raise DRCTError(
            f"'{AUTO}' chooses weights by the image, which upscale and serve do: name some, such as {DEFAULT_WEIGHTS}"
        )
    given = expanded(name)
    named = [folder / f"{name}{end}" for folder in folders() for end in ("", *WEIGHT_SUFFIXES)]
    for path in (given, *named):
        with suppress(OSError, ValueError):  # a name that is too long for a file, or of characters that none has
            if path.is_file() or (path == given and path.exists()):
                return path
    known = available()
    raise DRCTError(
        f"no weights {name}{did_you_mean(name, known)}. Give a path, the name of a file in "
        f"experiments/pretrained_models ({', '.join(known) or 'there is none'}), or owner/model of the Hugging Face Hub"
    )


def clean_weights(factor: float) -> str:
    """Name the weights for clean images that are enlarged by a factor: those of the smallest scale that reaches it."""
    return next((name for name, scale in CLEAN_WEIGHTS.items() if factor <= scale), DEFAULT_WEIGHTS)


def check_weights(name: str | os.PathLike, network: str | os.PathLike | None = None, may_be_auto: bool = False) -> None:
    """Raise `DRCTError` if there are no weights of this name, here or on the Hugging Face Hub, or no option file.

    The name `AUTO` stands for the weights that it needs if `may_be_auto`; otherwise, there are none of it.
    """
    automatic = may_be_auto and name == AUTO
    if automatic and network is not None:
        raise DRCTError("--network is that of weights: name these by --weights")
    for each in (DEFAULT_WEIGHTS, PHOTO_WEIGHTS) if automatic else (name,):
        if not is_on_hub(str(each)):
            find_weights(each)
    if network is not None and not Path(network).is_file():
        raise DRCTError(f"no such option file: {network}")


def is_on_hub(name: str) -> bool:
    """Return whether a name is that of a model on the Hugging Face Hub, and not a path, not even a misspelt one."""
    owner, slash, model = name.partition("/")
    is_name = all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", part) for part in (owner, model))
    is_file = Path(model).suffix.lower() in {*WEIGHT_SUFFIXES, ".ckpt", ".bin", ".pkl", ".zip"}
    return bool(slash) and is_name and not is_file and not Path(owner).exists()
