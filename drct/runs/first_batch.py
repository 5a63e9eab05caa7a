"""A picture of the first batch of a training run, for a look at what the network is given to learn."""

import logging
from pathlib import Path

from drct.archs.prepared_weights import forget_prepared_weights
from drct.evaluation.first_batch import ROWS, draw_batch
from drct.files import make_folder
from drct.images.bgr import write_png
from drct.models.drct_model import DRCTModel
from drct.runtime import distributed
from drct.text import first_line

logger = logging.getLogger("basicsr")


def save_first_batch(model: DRCTModel, path: Path) -> None:
    """Draw images of the batch that a model has just trained on, in the first process only.

    The model is not changed, and if the picture cannot be made, the run goes on with a warning.
    """
    if distributed.rank() != 0:
        return
    try:
        lq, gt = model.lq[:ROWS], model.gt[:ROWS]
        result = model.upscale(lq)
        make_folder(path.parent)
        write_png(path, draw_batch(lq, result, gt))
        logger.info(f"Images of the first batch: {path}")
    except Exception as error:  # anybody's network and dataset, or a full disk
        logger.warning(f"cannot draw images of the first batch: {first_line(error)}")
    finally:
        forget_prepared_weights(model.runner.network)
