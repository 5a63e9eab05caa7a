"""What a training or validation step does: each `*_model.py` is registered in MODEL_REGISTRY."""

import basicsr  # noqa: F401 - first, so that all models are imported in an order in which some can build on others
