"""Where validation saves the upscaled images."""

from pathlib import Path
from typing import Any


def saved_image(opt: dict[str, Any], dataset: str, name: str, iteration: int | str | None = None) -> Path:
    """Return the path of the result of an image, as BasicSR names it. `opt` is that of the run."""
    folder = Path(opt["path"]["visualization"])
    if opt["is_train"]:
        return folder / name / f"{name}_{iteration}.png"
    return folder / dataset / f"{name}_{(opt.get('val') or {}).get('suffix') or opt['name']}.png"
