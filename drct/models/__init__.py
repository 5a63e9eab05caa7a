"""What a training or validation step does: each `*_model.py` is registered in MODEL_REGISTRY."""
