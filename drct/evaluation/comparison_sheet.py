"""A picture of results beside their input, bicubic upscaling and the ground truth."""

import os

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from drct.evaluation.metric_table import MetricTable
from drct.images.crops import most_detailed_area
from drct.images.image_files import write_png
from drct.runtime import distributed

AREA = 72  # side of the magnified area in pixels of the ground truth
PANEL = 288  # side of a panel in pixels
LABEL_HEIGHT = 32  # pixels above the panels
LABEL_FONT = 20  # pixels; they become 11 where a README shows the picture 830 pixels wide
PANEL_GAP = 6


class ComparisonSheet:
    """One row per image: the whole ground truth, then its most detailed area as LR, bicubic, result and ground truth.

    The area is chosen by the ground truth alone, not by how well it was restored.

    Args:
        network: Label of the results.
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
            table: Metrics of the image. The first one is written above bicubic and result.
        """
        if "img2" in pictures:
            self.rows[name] = self._row(name, pictures, table)

    def collect(self) -> bool:
        """Gather the rows of all processes. Every process must call this.

        Returns:
            Whether this process should call `write`: it is the first one, and there are rows.
        """
        self.rows = {name: row for rows in distributed.gather(self.rows) for name, row in rows.items()}
        return distributed.rank() == 0 and bool(self.rows)

    def write(self, path: str | os.PathLike) -> None:
        """Save the picture as PNG."""
        write_png(path, np.concatenate([row for _, row in sorted(self.rows.items())]))

    def _row(self, name: str, pictures: dict[str, np.ndarray], table: MetricTable) -> np.ndarray:
        truth = pictures["img2"]
        height, width = truth.shape[:2]
        size = min(AREA, height, width)
        y, x = most_detailed_area(truth, size, size)
        panels = [
            (name, _overview(truth, y, x, size)),
            ("LR (nearest)", cv2.resize(pictures["lq"], (width, height), interpolation=cv2.INTER_NEAREST)),
            ("bicubic" + _score(table.bicubic.get(name)), pictures["bicubic"]),
            (self.network + _score(table.images.get(name)), pictures["img"]),
            ("ground truth", truth),
        ]
        size_of_row = (len(panels) * (PANEL + PANEL_GAP) - PANEL_GAP, LABEL_HEIGHT + PANEL + PANEL_GAP)
        canvas = Image.new("RGB", size_of_row, "white")
        draw = ImageDraw.Draw(canvas)
        font = ImageFont.load_default(LABEL_FONT)
        for i, (label, picture) in enumerate(panels):
            left = i * (PANEL + PANEL_GAP)
            panel = picture if i == 0 else _zoom(picture[y : y + size, x : x + size])
            draw.text((left + 2, 4), label, fill="black", font=font)
            canvas.paste(Image.fromarray(cv2.cvtColor(panel, cv2.COLOR_BGR2RGB)), (left, LABEL_HEIGHT))
        return cv2.cvtColor(np.asarray(canvas), cv2.COLOR_RGB2BGR)


def _score(values: dict[str, float] | None) -> str:
    """Return the first metric of the whole image, such as ' (PSNR 28.40)', or '' if there is none."""
    return "".join(f" ({metric.upper()} {value:.2f})" for metric, value in list((values or {}).items())[:1])


def _zoom(crop: np.ndarray) -> np.ndarray:
    return cv2.resize(crop, (PANEL, PANEL), interpolation=cv2.INTER_NEAREST)


def _overview(image: np.ndarray, y: int, x: int, size: int) -> np.ndarray:
    """Fit the whole image into a panel, with a frame around the magnified area."""
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
