"""Building a dataset by the name of its type."""

from copy import deepcopy
from typing import Any

from basicsr.data import build_dataset as build_dataset_of_basicsr
from basicsr.utils.registry import DATASET_REGISTRY

from drct.data.excluded import leave_out
from drct.data.paired_images import PairedImageDataset, SingleImageDataset
from drct.data.realesrgan_dataset import RealESRGANDataset
from drct.runtime.registry import registered_name

# They take the place of BasicSR's classes of these names
OWN = {kind.__name__: kind for kind in (PairedImageDataset, SingleImageDataset, RealESRGANDataset)}


def build_dataset(options: dict[str, Any]) -> Any:
    """Build a dataset by its type: one of DRCT's, or any that is registered with BasicSR. Apply its `exclude` list."""
    if own := OWN.get(options["type"]):
        dataset = own(deepcopy(options))
    else:
        dataset = build_dataset_of_basicsr(options | {"type": registered_name(DATASET_REGISTRY, options["type"])})
    leave_out(dataset, options)
    return dataset
