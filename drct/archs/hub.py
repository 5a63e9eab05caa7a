"""Networks on the Hugging Face Hub."""

from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file


class HubMixin(PyTorchModelHubMixin):
    """Hugging Face's mixin, but loading is always strict and never runs code.

    Its own loading would leave the weights that a file lacks at their random initial values, without a word.
    """

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        model.load_state_dict(load_file(model_file), strict=True)
        return model.to(map_location).eval()

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        model.load_state_dict(torch.load(model_file, "cpu", weights_only=True), strict=True)
        return model.to(map_location).eval()
