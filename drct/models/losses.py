"""Errors of losses, which anybody can register with BasicSR, in words that lead to the option file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from drct.errors import DRCTError, reason_of

REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)


@contextmanager
def explained_loss(train_options: Mapping[str, Any], output: Tensor, truth: Tensor) -> Iterator[None]:
    """Turn an error of the losses of `train_options` for these images, (B, C, H, W), into a `DRCTError`."""
    if output.shape != truth.shape:
        sizes = f"{tuple(output.shape)}, not the {tuple(truth.shape)} of the ground truth"
        raise DRCTError(f"the network makes images of {sizes}: check network_g, scale and datasets.train")
    try:
        yield
    except REFUSALS as error:
        sections = [f"train.{key}" for key in ("pixel_opt", "perceptual_opt") if train_options.get(key)]
        raise DRCTError(f"{' or '.join(sections)}: the loss fails: {reason_of(error)}") from error
