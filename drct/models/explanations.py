"""Errors of networks and losses, which anybody can register with BasicSR, in words that lead to the option file."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import Tensor

from drct.errors import DRCTError, reason_of
from drct.inference.memory import is_out_of_memory
from drct.runtime import distributed

REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def explained_network(name: str, images: Tensor) -> AbstractContextManager[None]:
    """Turn an error of the network of class `name` for a batch of images, (B, C, H, W), into a `DRCTError`."""
    size = f"{images.shape[-2]}x{images.shape[-1]} pixels and {images.shape[1]} channels"
    return _explained(f"network_g ({name}) cannot be trained on patches of {size}")


def explained_loss(train_options: Mapping[str, Any], output: Tensor, truth: Tensor) -> AbstractContextManager[None]:
    """Turn an error of the losses of `train_options` for these images, (B, C, H, W), into a `DRCTError`."""
    if output.shape != truth.shape:
        sizes = f"{tuple(output.shape)}, not the {tuple(truth.shape)} of the ground truth"
        raise DRCTError(f"the network makes images of {sizes}: check network_g, scale and datasets.train")
    sections = [f"train.{key}" for key in ("pixel_opt", "perceptual_opt") if train_options.get(key)]
    return _explained(f"{' or '.join(sections)}: the loss fails")


def explained_step(name: str) -> AbstractContextManager[None]:
    """Turn an error of a step of the optimizer of class `name` into a `DRCTError`."""
    return _explained(f"train.optim_g ({name}), or its part of the training state")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn an error, unless it is the machine's, into a `DRCTError` that says what failed and why."""
    try:
        yield
    except REFUSALS as error:
        if _is_of_the_machine(error):
            raise
        raise DRCTError(f"{what}: {reason_of(error)}") from error


def _is_of_the_machine(error: BaseException) -> bool:
    """Tell whether an error has nothing to do with options."""
    return is_out_of_memory(error) or distributed.lost_peer(error) or "cuda" in str(error).lower()
