"""How PSNR changes with the way of measuring: published figures differ in channel, border, rounding and LR images."""

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from basicsr.metrics.metric_util import to_y_channel
from basicsr.utils import tensor2img
from torch import Tensor

from drct.data.prepare import reduce_image
from drct.errors import DRCTError
from drct.evaluation.metric_table import format_number
from drct.files import write_text


@dataclass(frozen=True)
class Protocol:
    """One way of measuring the error of an image."""

    channel: str = "Y"  # or 'RGB'
    border: int = 0  # pixels left out at each side
    rounded: bool = True  # whether the result is rounded to 8 bits first
    lr: str = "given"  # the dataset's LR images, or those made of the ground truth by 'MATLAB' or 'OpenCV'


Errors = dict[str, dict[Protocol, float]]  # image -> protocol -> mean squared error, in gray levels of 255


@dataclass
class ProtocolRow:
    """PSNR of a dataset by one protocol."""

    text: str  # what differs from the first row's protocol
    psnr: float  # in dB
    difference: float | None  # to the first row, in dB; None in the first


class ProtocolMeter:
    """Upscales as the function that it is made of, and measures the last result by all protocols.

    Args:
        upscale: Maps an image (1, C, H, W), RGB in [0, 1], to (1, C, H * scale, W * scale), not clamped.
        scale: Factor of enlargement, which is also the border that is left out.
    """

    def __init__(self, upscale: Callable[[Tensor], Tensor], scale: int) -> None:
        self.upscale = upscale
        self.scale = scale

    def __call__(self, lq: Tensor) -> Tensor:
        """Upscale an image."""
        self.lq, self.output = lq, self.upscale(lq)
        return self.output

    def errors(self, truth: np.ndarray) -> dict[Protocol, float]:
        """Measure the last result, and those of LR images made of the ground truth, (H, W, 3), BGR, uint8.

        Raises `DRCTError` if the image is too small for a border or for MATLAB's bicubic, or not coloured.
        """
        lq, output = self.lq, self.output
        if truth.ndim != 3 or min(truth.shape[:2]) <= 2 * self.scale:
            raise DRCTError("the protocols need a colour image that is larger than its borders")
        matlab, opencv = self._lr(reduce_image(truth, self.scale)), self._lr(_reduce_by_opencv(truth, self.scale))
        outputs = {"given": output}
        outputs["MATLAB"] = output if torch.equal(matlab.cpu(), lq.cpu()) else self.upscale(matlab)
        outputs["OpenCV"] = self.upscale(opencv)
        found = {}
        for lr, result in outputs.items():
            exact = tensor2img(result, out_type=np.float32) * np.float32(255)
            for rounded, image in ((True, tensor2img(result)), (False, exact)):
                for channel, border, error in _squared_errors(image, truth, self.scale):
                    found[Protocol(channel, border, rounded, lr)] = error
        return found

    def _lr(self, image: np.ndarray) -> Tensor:
        """Convert (H, W, 3), BGR, uint8, to an image like the dataset's."""
        rgb = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1), dtype=np.float32)
        return torch.from_numpy(rgb / 255)[None].to(self.lq)


def _reduce_by_opencv(image: np.ndarray, scale: int) -> np.ndarray:
    """Reduce an image by OpenCV's bicubic, which does not smooth first, so that fine patterns alias."""
    size = (image.shape[1] // scale, image.shape[0] // scale)
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)


def _squared_errors(image: np.ndarray, truth: np.ndarray, border: int) -> Iterator[tuple[str, int, float]]:
    """Yield channel, border and mean squared error of an image (H, W, 3), BGR in [0, 255]."""
    converted = {"Y": [to_y_channel(picture) for picture in (image, truth)], "RGB": [image, truth]}
    for channel, (one, two) in converted.items():
        squares = (one.astype(np.float64) - two.astype(np.float64)) ** 2
        yield channel, 0, float(squares.mean())
        yield channel, border, float(squares[border:-border, border:-border].mean())


def psnr_of_error(error: float) -> float:
    """Return the PSNR, in dB, of a mean squared error in gray levels of 255."""
    return 10 * math.log10(255**2 / error) if error else math.inf


def mean_psnr(errors: Errors, protocol: Protocol) -> float:
    """Return the mean over images of PSNR, as tables publish it."""
    return sum(psnr_of_error(of_image[protocol]) for of_image in errors.values()) / len(errors)


def psnr_of_mean(errors: Errors, protocol: Protocol) -> float:
    """Return the PSNR of the mean squared error over images, to which bad images contribute more."""
    return psnr_of_error(sum(of_image[protocol] for of_image in errors.values()) / len(errors))


def protocol_rows(errors: Errors, scale: int) -> list[ProtocolRow]:
    """Measure by the usual protocol, and by protocols that each differ from it in one point."""
    usual = Protocol(border=scale)
    first = mean_psnr(errors, usual)
    others = [
        ("RGB in place of the Y channel", mean_psnr(errors, replace(usual, channel="RGB"))),
        ("no border left out", mean_psnr(errors, replace(usual, border=0))),
        ("result not rounded to 8 bits", mean_psnr(errors, replace(usual, rounded=False))),
        ("LR made of the ground truth by MATLAB's bicubic", mean_psnr(errors, replace(usual, lr="MATLAB"))),
        ("LR made of the ground truth by OpenCV's bicubic", mean_psnr(errors, replace(usual, lr="OpenCV"))),
        ("PSNR of the mean error in place of the mean of PSNR", psnr_of_mean(errors, usual)),
    ]
    text = f"usual: Y channel, {scale} pixels left out at each side, 8 bits, LR as given, mean of PSNR"
    return [ProtocolRow(text, first, None), *(ProtocolRow(name, psnr, psnr - first) for name, psnr in others)]


def protocol_cells(row: ProtocolRow) -> tuple[str, str, str]:
    """Write a row for readers: what differs, PSNR, difference."""
    return row.text, format_number(row.psnr, 2), "" if row.difference is None else format_number(row.difference, 2, "+")


def protocol_text(errors: Errors, scale: int) -> str:
    """Format `protocol_rows` for the log."""
    cells = [protocol_cells(row) for row in protocol_rows(errors, scale)]
    width = max(len(text) for text, *_ in cells)
    return "\n".join(f"  {text:{width}}  {psnr:>6}  {difference:>6}".rstrip() for text, psnr, difference in cells)


def write_protocols(file: Path, errors: Errors, scale: int) -> None:
    """Write the PSNR of all combinations as CSV, and their difference to the usual protocol."""
    usual = mean_psnr(errors, Protocol(border=scale))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*asdict(Protocol()), "average", "psnr", "difference"])
    for protocol, (name, average) in product(
        sorted(next(iter(errors.values())), key=lambda protocol: tuple(asdict(protocol).values())),
        (("mean of PSNR", mean_psnr), ("PSNR of mean", psnr_of_mean)),
    ):
        psnr = average(errors, protocol)
        writer.writerow([*asdict(protocol).values(), name, f"{psnr:.4f}", f"{psnr - usual:.4f}"])
    write_text(file, text.getvalue())
