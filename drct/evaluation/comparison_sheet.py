"""A picture of results beside bicubic upscaling and the ground truth."""

import os

import cv2
import numpy as np
from basicsr.metrics.metric_util import to_y_channel
from PIL import Image, ImageDraw, ImageFont

from drct.evaluation.metric_table import MetricTable
from drct.evaluation.protocols import psnr_of_error
from drct.images.bgr import write_png
from drct.runtime import distributed

AREA = 112  # side of a magnified area in pixels of the ground truth
PANEL = 2 * AREA  # side of a panel; an area has its own size where a README shows the picture 830 pixels wide
LABEL_HEIGHT = 54  # pixels above the panels, for two lines of text
LABEL_FONT = 22  # pixels; they become 11 in such a README
PANEL_GAP = 6
AREA_COLOURS = {"most": (0, 158, 115), "least": (213, 94, 0)}  # RGB, distinct in all kinds of colour vision


class ComparisonSheet:
    """One row per image: the whole ground truth, then two of its areas as bicubic, result and ground truth.

    One area is where the result gains most over bicubic upscaling, by the squared error on Y, the other where it gains
    least or loses. Their PSNR on Y stands above them. `network` labels the results.
    """

    def __init__(self, network: str) -> None:
        self.network = network
        self.rows: dict[str, np.ndarray] = {}

    def add(self, name: str, pictures: dict[str, np.ndarray], table: MetricTable) -> None:
        """Draw the row of an image from the pictures that `Validator.run` describes, unless it has no ground truth."""
        if "img2" in pictures:
            self.rows[name] = self._row(name, pictures, table)

    def collect(self) -> bool:
        """Gather the rows of all processes, which must all call this. Return whether this one should call `write`."""
        self.rows = {name: row for rows in distributed.gather(self.rows) for name, row in rows.items()}
        return distributed.rank() == 0 and bool(self.rows)

    def write(self, path: str | os.PathLike) -> None:
        """Save the picture as PNG."""
        write_png(path, np.concatenate([row for _, row in sorted(self.rows.items())]))

    def _row(self, name: str, pictures: dict[str, np.ndarray], table: MetricTable) -> np.ndarray:
        bicubic, result, truth = (pictures[kind] for kind in ("bicubic", "img", "img2"))
        size = min(AREA, *truth.shape[:2])
        areas = areas_of_gain(bicubic, result, truth, size)
        panels = [draw_panel(name, _score(table, name), _overview(truth, areas, size))]
        for which, (y, x) in areas.items():
            crops = [image[y : y + size, x : x + size] for image in (bicubic, result, truth)]
            before, after = (_psnr(crop, crops[2]) for crop in crops[:2])
            labels = (f"bicubic {before:.2f} dB", f"{self.network} {after:.2f} dB", "ground truth")
            headings = (_heading(which, before, after), "", "")
            for heading, label, crop in zip(headings, labels, crops, strict=True):
                magnified = cv2.resize(crop, (PANEL, PANEL), interpolation=cv2.INTER_NEAREST)
                panels.append(draw_panel(heading, label, magnified, AREA_COLOURS[which]))
        return np.concatenate(panels, axis=1)


def draw_panel(heading: str, label: str, picture: np.ndarray, colour: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Draw two lines of text, cut off at the panel's width, above a picture, and a gap at its right and below it."""
    canvas = Image.new("RGB", (PANEL + PANEL_GAP, LABEL_HEIGHT + PANEL + PANEL_GAP), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(LABEL_FONT)
    draw.text((2, 0), heading, fill=colour, font=font)
    draw.text((2, LABEL_HEIGHT // 2 - 2), label, fill="black", font=font)
    canvas.paste(Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)), (0, LABEL_HEIGHT))
    return cv2.cvtColor(np.asarray(canvas), cv2.COLOR_RGB2BGR)


def _heading(which: str, before: float, after: float) -> str:
    """Return why an area is shown, such as 'gains most: +3.44 dB' or 'loses: -0.91 dB'."""
    gain = after - before if after != before else 0.0  # both may be infinite
    return f"{f'gains {which}' if gain >= 0 else 'loses'}: {gain:+.2f} dB"


def _score(table: MetricTable, name: str) -> str:
    """Return the first metric of the whole image and its gain over bicubic upscaling, such as 'PSNR 29.27 (+2.43)'."""
    for metric, value in table.images.get(name, {}).items():
        bicubic = table.bicubic.get(name, {}).get(metric)
        return f"{metric.upper()} {value:.2f}" + ("" if bicubic is None else f" ({value - bicubic:+.2f})")
    return ""


def areas_of_gain(bicubic: np.ndarray, result: np.ndarray, truth: np.ndarray, size: int) -> dict[str, tuple[int, int]]:
    """Find the squares in which the result gains most and least over bicubic upscaling, in squared error on Y.

    All pictures are (H, W, 3), BGR, uint8; `size` is the side of the squares in pixels, at most H and W. Return row and
    column of their upper left corners, by `most` and `least`.
    """
    gain = _squared_error(bicubic, truth) - _squared_error(result, truth)
    mean = cv2.boxFilter(gain, cv2.CV_64F, (size, size), anchor=(0, 0), borderType=cv2.BORDER_REFLECT)
    inside = mean[: gain.shape[0] - size + 1, : gain.shape[1] - size + 1]
    corners = {"most": inside.argmax(), "least": inside.argmin()}
    return {which: divmod(int(corner), inside.shape[1]) for which, corner in corners.items()}


def _squared_error(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the squared difference of the Y channels, in squared gray levels of 255: (H, W)."""
    y, true_y = (to_y_channel(picture)[..., 0].astype(np.float64) for picture in (image, truth))
    return (y - true_y) ** 2


def _psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return psnr_of_error(float(_squared_error(image, truth).mean()))


def _overview(image: np.ndarray, areas: dict[str, tuple[int, int]], size: int) -> np.ndarray:
    """Fit the whole image into a panel, with a frame around each area."""
    factor = PANEL / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    for which, (y, x) in areas.items():
        first, last = ([round(u * factor) for u in corner] for corner in ((x, y), (x + size, y + size)))
        cv2.rectangle(small, first, last, (255, 255, 255), 5)
        cv2.rectangle(small, first, last, AREA_COLOURS[which][::-1], 3)
    panel = np.full((PANEL, PANEL, 3), 255, np.uint8)
    top, left = (PANEL - height) // 2, (PANEL - width) // 2
    panel[top : top + height, left : left + width] = small
    return panel
