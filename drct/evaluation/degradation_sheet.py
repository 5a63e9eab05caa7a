"""A picture of one image at twelve degradations."""

import numpy as np

from drct.data.recipes import Recipe
from drct.evaluation.comparison_sheet import PANEL, draw_panel
from drct.images.crops import most_detailed_area

COLUMNS, PANELS = 4, 12


def draw_degradations(image: np.ndarray, recipes: list[Recipe], scale: int, seed: int) -> np.ndarray:
    """Draw the most detailed area of an image at twelve degradations, with the first steps of each.

    Args:
        image: (H, W, 3), BGR, uint8.
        recipes: Degradations to show in turn. One that comes again is drawn with the next seed.
        scale: Factor of the reduction.
        seed: Seed of the first round.

    Returns:
        (height, width, 3), BGR, uint8.
    """
    height, width = (side // scale for side in image.shape[:2])
    side = min(PANEL // 2, height, width)
    top, left = most_detailed_area(image, side * scale, side * scale)
    image = image[: top + side * scale, : left + side * scale]
    panels = []
    for i in range(PANELS):
        recipe = recipes[i % len(recipes)]
        lq, drawn = recipe.degrade(image, scale, seed + i // len(recipes), "")
        area = lq[-side:, -side:]
        factor = PANEL // side
        magnified = np.full((PANEL, PANEL, 3), 255, np.uint8)
        magnified[: side * factor, : side * factor] = area.repeat(factor, 0).repeat(factor, 1)
        words = [f"{name} {amount}" for name, amount in drawn.items()] or ["clean"]
        panels.append(draw_panel(", ".join(words[:2]), ", ".join(words[2:4]), magnified))
    rows = [np.concatenate(panels[i : i + COLUMNS], axis=1) for i in range(0, PANELS, COLUMNS)]
    return np.concatenate(rows)
