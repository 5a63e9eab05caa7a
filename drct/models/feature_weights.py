"""Weights of the network whose features a perceptual loss compares, which torchvision downloads."""

from collections.abc import Iterator
from contextlib import contextmanager

from basicsr.archs.vgg_arch import VGG_PRETRAIN_PATH

from drct.errors import DRCTError
from drct.schema.options import Train
from drct.text import first_line


@contextmanager
def explained_download(options: Train) -> Iterator[None]:
    """Turn a failed download into a `DRCTError` that says where to put the file."""
    try:
        yield
    except OSError as error:
        if options.perceptual_opt is None:
            raise
        raise DRCTError(
            f"train.perceptual_opt: the weights of its network cannot be downloaded ({first_line(error)}). Download "
            f"https://download.pytorch.org/models/vgg19-dcbb9e9d.pth elsewhere and put it at {VGG_PRETRAIN_PATH}"
        ) from error
