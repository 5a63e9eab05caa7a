"""The names of models in the option files of the HAT project, which run as they are."""

from basicsr.utils.registry import MODEL_REGISTRY

from drct.models.drct_model import DRCTModel


@MODEL_REGISTRY.register()
class HATModel(DRCTModel):
    """DRCTModel, which trains and tests any network."""


# RealHATMSEModel and RealHATGANModel belong here, in the same way: they are RealDRCTMSEModel and RealDRCTGANModel
