"""The names of models in the option files of the HAT project, which run as they are."""

from basicsr.utils.registry import MODEL_REGISTRY

from drct.models.drct_model import DRCTModel
from drct.models.real_drct_model import RealDRCTGANModel, RealDRCTMSEModel


@MODEL_REGISTRY.register()
class HATModel(DRCTModel):
    """DRCTModel, which trains and tests any network."""


@MODEL_REGISTRY.register()
class RealHATMSEModel(RealDRCTMSEModel):
    """RealDRCTMSEModel, which trains and tests any network."""


@MODEL_REGISTRY.register()
class RealHATGANModel(RealDRCTGANModel):
    """RealDRCTGANModel, which trains and tests any network."""
