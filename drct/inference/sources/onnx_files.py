"""ONNX models, run by ONNX Runtime: those of `drct export`, and any other that enlarges images."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drct.archs.traits import NetworkTraits
from drct.errors import DRCTError
from drct.files import sha256_of_file
from drct.inference.loaded import LoadedNetwork, enlargement
from drct.inference.notes import note
from drct.runtime.device import accelerator
from drct.text import brief, first_line

INSTALL = "pip install onnxruntime"
CPU = "CPUExecutionProvider"
PROVIDERS = {  # names of devices, and the providers that compute there, in order of preference
    "cuda": ("CUDAExecutionProvider", "ROCMExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    "directml": ("DmlExecutionProvider",),
    "mps": ("CoreMLExecutionProvider",),
    "coreml": ("CoreMLExecutionProvider",),
    "openvino": ("OpenVINOExecutionProvider",),
    "cpu": (CPU,),
}
UNASKED = ("cuda", "directml", "openvino")  # devices to take where the user names none; their packages serve only them
ON_GPU = ("cuda", "tensorrt")  # where PyTorch can tell how much memory is free
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
MULTIPLES = (1, 2, 3, 4, 6, 7, 8, 12, 16, 24, 32, 48, 64, 128)  # what sides may have to be multiples of
TRIED = 64  # pixels; about the smallest side of the images that multiples are found with
MINIMA = (1, 8, 16, 32)  # what sides may have to be at least, and else `TRIED`


class OnnxModel(nn.Module):
    """An ONNX model as a network: (B, C, H, W) in [0, 1] -> (B, C, H * scale, W * scale), float32.

    Args:
        path: The model's file.

    Raises:
        DRCTError: if ONNX Runtime is not installed, or cannot read the model, or it takes other than an image.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            self._runtime: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise DRCTError(f"{path} is an ONNX model, which needs onnxruntime: {INSTALL}") from error
        self.path = path
        self.sha256 = sha256_of_file(path)  # in place of that of tensors, which it does not hold
        self.provider = CPU
        self._session = self._make_session([CPU])
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            names = " and ".join(", ".join(value.name for value in values) for values in (inputs, outputs))
            raise DRCTError(f"{path} does not map an image to an image: its inputs and outputs are {names}")
        self._input: str = inputs[0].name
        if inputs[0].type not in TYPES:
            raise DRCTError(f"{path} takes {inputs[0].type}: expected are floating point numbers in [0, 1]")
        self._type = TYPES[inputs[0].type]
        self._batch, self.channels, self.only_size = _shape(inputs[0].shape, path)

    def _make_session(self, providers: list[Any]) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = 4  # its errors are reported here
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # slow beside other programs
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # images differ in size
        try:
            return self._runtime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # of types of its own
            raise DRCTError(f"{self.path} cannot be run by ONNX Runtime: {_reason(error)}") from error

    @property
    def is_half(self) -> bool:
        """Whether the model computes in half precision."""
        return self._type is np.float16 or self.metadata.get("precision") == "fp16"

    def place(self, device: str | torch.device | None) -> torch.device:
        """Choose the provider for a device, and say which if it is not the CPU.

        Args:
            device: A key of `PROVIDERS`, perhaps with a number as in 'cuda:1'; None takes an accelerator if there is
                one.

        Returns:
            Where images and results are to be.

        Raises:
            DRCTError: if ONNX Runtime has no provider for a device that is named.
        """
        kind, _, number = str(device or "").partition(":")
        if kind and (kind not in PROVIDERS or not (number.isdecimal() or not number)):
            raise DRCTError(f"device {device} is not there: for ONNX models, it is one of {', '.join(PROVIDERS)}")
        available = self._runtime.get_available_providers()
        wanted = [kind] if kind else [name for name in (accelerator(), *UNASKED) if name]
        found = [(name, p) for name in wanted for p in PROVIDERS[name] if p in available]
        if kind and not found:
            has = ", ".join(available)
            raise DRCTError(f"device {device} is not there: this ONNX Runtime has no {PROVIDERS[kind][0]}, but {has}")
        name, provider = found[0] if found else ("cpu", CPU)
        if provider != self.provider:
            index = {"device_id": number or "0"} if name in (*ON_GPU, "directml") else {}
            others = [p for n, p in found if n == name and p != provider]
            self._session = self._make_session([(provider, index), *((p, index) for p in others), CPU])
            self.provider = self._session.get_providers()[0]
            if self.provider != provider:
                note(f"{self.path.name}: {provider} does not work here: computing with {self.provider}")
            elif provider != CPU:
                note(f"{self.path.name}: computing with {provider}")
        on_gpu = name in ON_GPU and self.provider != CPU and torch.cuda.is_available()
        return torch.device("cuda", int(number or 0)) if on_gpu else torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        """Run the model, on one image at a time if it takes no more."""
        images = x.split(self._batch) if self._batch else [x]
        return torch.cat([self._run(image) for image in images]).to(x.device)

    def _run(self, x: Tensor) -> Tensor:
        array = np.ascontiguousarray(x.detach().cpu().numpy().astype(self._type))
        try:
            return torch.from_numpy(np.asarray(self._session.run(None, {self._input: array})[0], np.float32))
        except Exception as error:  # of types of its own
            raise RuntimeError(_reason(error)) from error


def _shape(shape: list[Any], path: Path) -> tuple[int | None, int, tuple[int, int] | None]:
    """Return the number of images, the channels and the one size of a model's input; None for what is free."""
    fixed = [side if isinstance(side, int) and side > 0 else None for side in shape]
    shown = " x ".join(str(side or "any") for side in fixed)
    if len(fixed) == 4 and fixed[3] in (1, 3, 4) and fixed[1] not in (1, 3):
        raise DRCTError(f"{path} takes {shown}, with channels last: expected is batch x channels x height x width")
    if len(fixed) != 4 or fixed[0] not in (1, None):
        raise DRCTError(f"{path} takes {shown}: expected is one image, batch x channels x height x width")
    height, width = fixed[2] or fixed[3], fixed[3] or fixed[2]
    return fixed[0], fixed[1] or 3, (height, width) if height and width else None


def _reason(error: Exception) -> str:
    """Return ONNX Runtime's message without the codes before it."""
    return first_line(error).rpartition(" : ")[2]


def read(path: Path) -> LoadedNetwork:
    """Read an ONNX model and find out its scale and the sizes that it takes.

    Raises:
        DRCTError: if it cannot be run, or does not enlarge images.
    """
    model = OnnxModel(path)
    precision = "fp16" if model.is_half else "fp32"
    traits = NetworkTraits(1, 1, model.channels, model.only_size, precision=precision, place=model.place)
    if model.only_size is None and "drct_version" not in model.metadata:  # ours take images of any size
        traits = _with_sizes(model, traits)
    elif model.metadata.get("minimum", "").isdecimal():
        traits = replace(traits, minimum=min(int(model.metadata["minimum"]), TRIED))
    traits = replace(traits, scale=enlargement(model, traits, path))
    name = model.metadata.get("name", "")
    kind = f"ONNX model of {brief(name, 60)}" if name.isprintable() and name else "ONNX model"
    return LoadedNetwork(model, traits, path.stem, path, model.metadata.get("entry", ""), kind)


def _with_sizes(model: OnnxModel, traits: NetworkTraits) -> NetworkTraits:
    """Find what the sides of images must be multiples of, and how large they must be, by trying."""
    errors = []
    for multiple in MULTIPLES:
        height = (TRIED // multiple + 1 - TRIED // multiple % 2) * multiple  # odd, so that no larger one divides it
        try:
            enlargement(model, traits, model.path, (height, height + 2 * multiple))
        except DRCTError as error:
            errors.append(error)
            continue
        for minimum in MINIMA:
            found = replace(traits, window=multiple, minimum=minimum)
            try:
                enlargement(model, found, model.path, found.fitting(1, 1))
                enlargement(model, found, model.path, found.fitting(1, 1 + multiple))
            except DRCTError:
                continue
            return found
        return replace(traits, window=multiple, minimum=TRIED)
    raise errors[0]
