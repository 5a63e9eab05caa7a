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

NETWORKS = {"ours": "DRCT", "original": "original DRCT", "hat": "HAT", "swinir": "SwinIR-M"}  # in analysis.networks

Runner = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contender:
    """A network in a runtime.

    Args:
        key: Name on the command line.
        title: Name in the table.
        precision: 'fp32' or 'bf16'.
        network: 'ours', 'original', 'hat' or 'swinir'.
        runtime: 'pytorch', 'onnxruntime' or 'openvino'.
        packages: Packages that must be installed.
        training: Measure a training step, forward and backward, instead of inference.
        checkpoint: Recompute activations in the backward pass.
    """

    key: str
    title: str
    precision: str = "fp32"
    network: str = "ours"
    runtime: str = "pytorch"
    packages: tuple[str, ...] = ()
    training: bool = False
    checkpoint: bool = False


SPANDREL = ("spandrel",)
CONTENDERS = {
    contender.key: contender
    for contender in (
        Contender("original", "original", "fp32", "original", packages=SPANDREL),
        Contender("original-bf16", "original", "bf16", "original", packages=SPANDREL),
        Contender("hat", "HAT", "fp32", "hat", packages=SPANDREL),
        Contender("swinir", "SwinIR-M", "fp32", "swinir", packages=SPANDREL),
        Contender(
            "onnxruntime", "original, ONNX Runtime", "fp32", "original", "onnxruntime", (*SPANDREL, "onnxruntime")
        ),
        Contender("openvino", "original, OpenVINO", "fp32", "original", "openvino", (*SPANDREL, "openvino")),
        Contender("openvino-bf16", "original, OpenVINO", "bf16", "original", "openvino", (*SPANDREL, "openvino")),
        Contender("ours", "this project", "fp32"),
        Contender("ours-bf16", "this project", "bf16"),
        Contender("original-step", "original, training step", "fp32", "original", packages=SPANDREL, training=True),
        Contender("ours-step", "this project, training step", training=True),
        Contender("ours-step-checkpoint", "the same, use_checkpoint", training=True, checkpoint=True),
    )
}


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
    return networks.make(NETWORKS[name], **options).network


def pytorch_runner(contender: Contender, device: str) -> Runner:
    """Build a contender in PyTorch, ready to run on images."""
    network = make_network(contender.network, **({"use_checkpoint": True} if contender.checkpoint else {})).to(device)
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
