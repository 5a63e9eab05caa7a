"""Datasets (`*_dataset.py`, registered in BasicSR's DATASET_REGISTRY) and the preparation of image folders."""

import basicsr  # noqa: F401 - first, so that what is registered with it finds the modules of this package complete
