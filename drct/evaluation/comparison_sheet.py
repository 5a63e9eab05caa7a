"""A picture that shows results beside their input, bicubic and the ground truth."""

import os

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from drct.evaluation.metric_table import MetricTable
from drct.images.bgr import write_png
from drct.runtime import distributed

CROP = 72  # side of the zoomed area, in ground truth pixels
PANEL = 288  # side of a panel of the picture
BAR = 32  # height of the line of text over the panels
FONT = 20  # height of its letters: 11 pixels where a README shows the picture 830 wide
GAP = 6


class ComparisonSheet:
    """One row per image: the whole ground truth, and of its most detailed area LR, bicubic, the result, the truth.

    Args:
        network: Name over the results.
    """

    def __init__(self, network: str) -> None:
        self.network = network
        self.rows: dict[str, np.ndarray] = {}

    def add(self, name: str, pictures: dict[str, np.ndarray], table: MetricTable) -> None:
        """Draw the row of an image.

        Args:
            name: Name of the image.
            pictures: `lq`, `img` (the result), `img2` (the ground truth) and `bicubic`, (H, W, 3), BGR, uint8. An
                image without ground truth gets no row.
            table: Its first metric is written over bicubic and result.
        """
        if "img2" in pictures:
            self.rows[name] = self._row(name, pictures, table)

    def collect(self) -> bool:
        """Bring the rows of all processes, all of which must ask, together. Whether this is the one to write them."""
        self.rows = {name: row for rows in distributed.gather(self.rows) for name, row in rows.items()}
        return distributed.rank() == 0 and bool(self.rows)

    def write(self, path: str | os.PathLike) -> None:
        """Save the picture as PNG."""
        write_png(path, np.concatenate([row for _, row in sorted(self.rows.items())]))

    def _row(self, name: str, pictures: dict[str, np.ndarray], table: MetricTable) -> np.ndarray:
        truth = pictures["img2"]
        height, width = truth.shape[:2]
        size = min(CROP, height, width)
        y, x = most_detailed_area(truth, size, size)
        panels = [
            (name, _overview(truth, y, x, size)),
            ("LR (nearest)", cv2.resize(pictures["lq"], (width, height), interpolation=cv2.INTER_NEAREST)),
            ("bicubic" + _score(table.bicubic.get(name)), pictures["bicubic"]),
            (self.network + _score(table.images.get(name)), pictures["img"]),
            ("ground truth", truth),
        ]
        canvas = Image.new("RGB", (len(panels) * (PANEL + GAP) - GAP, BAR + PANEL + GAP), "white")
        draw = ImageDraw.Draw(canvas)
        font = ImageFont.load_default(FONT)
        for i, (label, picture) in enumerate(panels):
            left = i * (PANEL + GAP)
            panel = picture if i == 0 else _zoom(picture[y : y + size, x : x + size])
            draw.text((left + 2, 4), label, fill="black", font=font)
            canvas.paste(Image.fromarray(cv2.cvtColor(panel, cv2.COLOR_BGR2RGB)), (left, BAR))
        return cv2.cvtColor(np.asarray(canvas), cv2.COLOR_RGB2BGR)


def _score(values: dict[str, float] | None) -> str:
    """The first metric, of the whole image, such as ' (PSNR 28.40)'."""
    return "".join(f" ({metric.upper()} {value:.2f})" for metric, value in list((values or {}).items())[:1])


def most_detailed_area(image: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """Row and column of the area with the most fine detail, by the image alone, not by how well it was restored."""
    detail = np.abs(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.CV_32F))
    mean = cv2.boxFilter(detail, -1, (width, height), anchor=(0, 0), borderType=cv2.BORDER_REFLECT)
    inside = mean[: image.shape[0] - height + 1, : image.shape[1] - width + 1]
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    return int(y), int(x)


def _zoom(crop: np.ndarray) -> np.ndarray:
    return cv2.resize(crop, (PANEL, PANEL), interpolation=cv2.INTER_NEAREST)


def _overview(image: np.ndarray, y: int, x: int, size: int) -> np.ndarray:
    """The whole image within a panel, with a frame around the zoomed area."""
    factor = PANEL / max(image.shape[:2])
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    first, last = ([round(u * factor) for u in corner] for corner in ((x, y), (x + size, y + size)))
    cv2.rectangle(small, first, last, (0, 0, 0), 4)
    cv2.rectangle(small, first, last, (0, 215, 255), 2)
    panel = np.full((PANEL, PANEL, 3), 255, np.uint8)
    top, left = (PANEL - small.shape[0]) // 2, (PANEL - small.shape[1]) // 2
    panel[top : top + small.shape[0], left : left + small.shape[1]] = small
    return panel
