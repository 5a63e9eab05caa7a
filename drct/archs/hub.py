"""Networks on the Hugging Face Hub."""

from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file

from drct.archs.soundness import unsound


class HubMixin(PyTorchModelHubMixin):
    """Hugging Face's mixin, but loading is always strict, never runs code, and refuses weights that are not finite.

    Its own loading would leave the weights that a file lacks at their random initial values, without a word.
    """

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        return _filled(model, load_file(model_file), model_file).to(map_location).eval()

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        weights = torch.load(model_file, "cpu", weights_only=True)
        return _filled(model, weights, model_file).to(map_location).eval()


def _filled(model: Any, weights: dict[str, Any], model_file: str) -> Any:
    model.load_state_dict(weights, strict=True)
    if problem := unsound(model.named_parameters()):
        raise ValueError(f"{model_file}: {problem}, which ruins every result")
    return model
