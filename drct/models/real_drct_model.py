"""RealDRCTMSEModel: training on images that are degraded on the fly, as photographs are."""

from typing import Any

import torch
from basicsr.utils.registry import MODEL_REGISTRY

from drct.data.degradation import Degradation
from drct.models.drct_model import DRCTModel
from drct.schema.options import TrainingOptions
from drct.seeding import generators_kept


@MODEL_REGISTRY.register()
class RealDRCTMSEModel(DRCTModel):
    """DRCTModel for the samples of RealESRGANDataset, which it degrades unless the loader has done so; or for pairs."""

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch of samples to degrade, or of pairs. If there is a sharpened ground truth, it becomes `gt`."""
        if "kernel1" in data:
            data = self._degraded(data)
        super().feed_data(data | {"gt": data["gt_usm"]} if "gt_usm" in data else data)

    def _degraded(self, data: dict[str, Any]) -> dict[str, Any]:
        """Degrade each sample of a batch on the device of the network."""
        degradation = Degradation(TrainingOptions.model_validate(self.opt))
        tensors = {name: value.to(self.device) for name, value in data.items() if isinstance(value, torch.Tensor)}
        with generators_kept(self.device):
            pairs = [
                degradation.pair({name: value[i] for name, value in tensors.items()}) for i in range(len(data["gt"]))
            ]
        return {name: torch.stack([pair[name] for pair in pairs]) for name in pairs[0]}
