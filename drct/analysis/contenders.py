"""Contenders of the speed benchmark: networks in PyTorch and in other runtimes, ready to run.

All have the shape of the released x4 networks, with random weights.
"""

import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from drct.analysis import networks

Runner = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contender:
    """A network in a runtime."""

    key: str  # name on the command line
    title: str  # name in the table
    network: str  # name in `networks`
    precision: str = "fp32"  # or 'bf16'
    runtime: str = "pytorch"  # or 'onnxruntime' or 'openvino'
    training: bool = False  # measure a training step, forward and backward, instead of inference
    checkpoint: bool = False  # recompute activations in the backward pass

    @property
    def packages(self) -> list[str]:
        """Packages that must be installed, besides those that this project needs."""
        return ["spandrel"] * (self.network in networks.PEERS) + [self.runtime] * (self.runtime != "pytorch")


_CONTENDERS = (
    Contender("original", "original", "original DRCT"),
    Contender("original-bf16", "original", "original DRCT", "bf16"),
    Contender("hat", "HAT", "original HAT"),
    Contender("swinir", "SwinIR-M", "SwinIR-M"),
    Contender("onnxruntime", "original, ONNX Runtime", "original DRCT", runtime="onnxruntime"),
    Contender("openvino", "original, OpenVINO", "original DRCT", runtime="openvino"),
    Contender("openvino-bf16", "original, OpenVINO", "original DRCT", "bf16", runtime="openvino"),
    Contender("ours", "this project", "DRCT"),
    Contender("ours-bf16", "this project", "DRCT", "bf16"),
    Contender("hat-ours", "HAT, this project", "HAT"),
    Contender("hat-ours-bf16", "HAT, this project", "HAT", "bf16"),
    Contender("original-step", "original, training step", "original DRCT", training=True),
    Contender("ours-step", "this project, training step", "DRCT", training=True),
    Contender("hat-step", "HAT, training step", "original HAT", training=True),
    Contender("hat-ours-step", "HAT, this project, training step", "HAT", training=True),
    Contender("ours-step-checkpoint", "the same, use_checkpoint", "DRCT", training=True, checkpoint=True),
)
CONTENDERS = {contender.key: contender for contender in _CONTENDERS}


def choose_contenders(keys: Iterable[str], device: str) -> tuple[list[Contender], list[str]]:
    """Return the contenders that can run on a device, and for each of the others a note why it cannot."""
    chosen, notes = [], []
    for contender in (CONTENDERS[key] for key in keys):
        if missing := [package for package in contender.packages if find_spec(package) is None]:
            notes.append(f"{contender.key} is left out: {', '.join(missing)} is not installed")
        elif device == "cuda" and contender.runtime != "pytorch":
            notes.append(f"{contender.key} is left out: it is measured on the CPU only")
        else:
            chosen.append(contender)
    return chosen, notes


def make_network(name: str, **options: bool) -> nn.Module:
    """Build a network of the released x4 shape, with random weights, in evaluation mode."""
    torch.manual_seed(0)
    return networks.make(name, **options).network


def pytorch_runner(contender: Contender, device: str) -> Runner:
    """Build a contender in PyTorch, ready to run on images."""
    options = {"use_checkpoint": True} if contender.checkpoint else {}
    network = make_network(contender.network, **options).to(device)
    if contender.training:
        network.train()

        def step(x: Tensor) -> Tensor:
            network.zero_grad()
            out = network(x)
            out.abs().mean().backward()
            return out

        return step
    low = torch.autocast(device, torch.bfloat16) if contender.precision == "bf16" else nullcontext()

    def run(x: Tensor) -> Tensor:
        with torch.no_grad(), low:
            return network(x)

    return run


def exported_runner(contender: Contender, threads: int, folder: Path) -> Runner:
    """Load a contender of another runtime from the file that `export_network` wrote to a folder."""
    file = exported_file(contender, folder)
    if contender.runtime == "openvino":
        import openvino

        hints = {"INFERENCE_PRECISION_HINT": "f32" if contender.precision == "fp32" else "bf16"}
        compiled = openvino.Core().compile_model(file, "CPU", hints | {"INFERENCE_NUM_THREADS": threads})
        return lambda x: torch.from_numpy(compiled(x.numpy())[0])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def exported_file(contender: Contender, folder: Path) -> str:
    """Return the path of the file that `export_network` writes to a folder."""
    return str(folder / f"{contender.network}.{'xml' if contender.runtime == 'openvino' else 'onnx'}")


def export_network(contender: Contender, height: int, width: int, folder: Path) -> None:
    """Write a network for another runtime. Run it in a process of its own, as it takes gigabytes."""
    network, example = make_network(contender.network), torch.rand(1, 3, height, width)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns that masks become constants, which is intended here
        traced = torch.jit.trace(network, example, check_trace=False)
        if contender.runtime == "openvino":
            import openvino

            model = openvino.convert_model(traced, example_input=example, input=[1, 3, height, width])
            openvino.save_model(model, exported_file(contender, folder), compress_to_fp16=False)
        else:
            torch.onnx.export(traced, (example,), exported_file(contender, folder), input_names=["x"], dynamo=False)
