"""Contenders of the speed benchmark: networks in PyTorch and in other runtimes, ready to run.

All have the shape of the released x4 networks, with random weights.
"""

import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drct.analysis import networks
from drct.archs import gpu_switches
from drct.archs.families import NAMED
from drct.runtime.allocator import keep_freed_memory
from drct.runtime.device import PRECISIONS
from drct.runtime.recorded import RecordedTraining

Runner = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Contender:
    """A network in a runtime."""

    key: str  # name on the command line
    title: str  # name in the table
    network: str  # name in `networks`
    precision: str = "fp32"  # or 'bf16' or 'fp16'
    runtime: str = "pytorch"  # or 'onnxruntime' or 'openvino'
    training: bool = False  # measure a training step, forward and backward, instead of inference
    checkpoint: bool = False  # recompute activations in the backward pass
    switch: str = ""  # one of `gpu_switches.Switches` that is on
    recorded: bool = False  # replay forward and backward pass of a training step as CUDA graphs
    batch: int = 1  # images at a time
    definition: bool = False  # run the network's definition instead of its execution

    @property
    def packages(self) -> list[str]:
        """Packages that must be installed, besides those that this project needs."""
        needed = ["spandrel"] * (self.network in networks.PEERS) + [self.runtime] * (self.runtime != "pytorch")
        return needed + ["triton"] * (self.switch in ("triton", "compiled"))

    @property
    def needs_cpu(self) -> bool:
        """Return whether it is measured on the CPU only."""
        return self.runtime != "pytorch" or self.batch > 1

    @property
    def needs_gpu(self) -> bool:
        """Return whether it can run on a GPU only."""
        return self.recorded or self.switch in ("graphs", "triton")


def _in_precisions(key: str, title: str, network: str, *precisions: str, **options: Any) -> list[Contender]:
    """Return a contender in fp32 and in more precisions."""
    more = [Contender(f"{key}-{precision}", title, network, precision, **options) for precision in precisions]
    return [Contender(key, title, network, **options), *more]


def _patches(key: str, title: str, **options: Any) -> list[Contender]:
    """Return training steps of a small network on four and on eight patches, of which a size is that of one."""
    return [
        Contender(
            f"{key}-{batch}", f"{title}, {batch} patches", "DRCT-XS", "bf16", training=True, batch=batch, **options
        )
        for batch in (4, 8)
    ]


_CONTENDERS = (
    *_in_precisions("original", "original", "original DRCT", "bf16", "fp16"),
    *_in_precisions("hat", "HAT", "original HAT", "bf16", "fp16"),
    *_in_precisions("swinir", "SwinIR-M", "SwinIR-M", "bf16", "fp16"),
    Contender("onnxruntime", "original, ONNX Runtime", "original DRCT", runtime="onnxruntime"),
    *_in_precisions("openvino", "original, OpenVINO", "original DRCT", "bf16", runtime="openvino"),
    *_in_precisions("ours", "this project", "DRCT", "bf16", "fp16"),
    *_in_precisions("hat-ours", "HAT, this project", "HAT", "bf16", "fp16"),
    *_in_precisions("ours-graphs", "this project, CUDA graphs", "DRCT", "bf16", switch="graphs"),
    *_in_precisions("ours-triton", "this project, Triton attention", "DRCT", "bf16", switch="triton"),
    *_in_precisions("ours-compiled", "this project, torch.compile", "DRCT", "bf16", switch="compiled"),
    *_in_precisions("original-step", "original, training step", "original DRCT", "bf16", training=True),
    *_in_precisions("ours-step", "this project, training step", "DRCT", "bf16", training=True),
    *_in_precisions("hat-step", "HAT, training step", "original HAT", "bf16", training=True),
    *_in_precisions("hat-ours-step", "HAT, this project, training step", "HAT", "bf16", training=True),
    *_in_precisions(
        "ours-step-checkpoint",
        "this project, training step, use_checkpoint",
        "DRCT",
        "bf16",
        training=True,
        checkpoint=True,
    ),
    *_in_precisions(
        "ours-step-graphs", "this project, training step, CUDA graphs", "DRCT", "bf16", training=True, recorded=True
    ),
    *_patches("xs-step", "DRCT-XS, training step"),
    *_patches("xs-definition-step", "the same, definition", definition=True),
)
CONTENDERS = {contender.key: contender for contender in _CONTENDERS}
CPU_DEFAULT = (
    *("original", "original-bf16", "hat", "swinir", "onnxruntime", "openvino", "openvino-bf16"),
    *("ours", "ours-bf16", "hat-ours", "hat-ours-bf16"),
)


def choose_contenders(keys: Iterable[str], device: str) -> tuple[list[Contender], list[str]]:
    """Return the contenders that can run on a device, and for each of the others a note why it cannot."""
    chosen, notes = [], []
    for contender in (CONTENDERS[key] for key in keys):
        if missing := [package for package in contender.packages if find_spec(package) is None]:
            notes.append(f"{contender.key} is left out: {', '.join(missing)} is not installed")
        elif device == "cpu" and contender.needs_gpu:
            notes.append(f"{contender.key} is left out: it is measured on a GPU only")
        elif device == "cuda" and contender.needs_cpu:
            notes.append(f"{contender.key} is left out: it is measured on the CPU only")
        else:
            chosen.append(contender)
    return chosen, notes


def make_network(name: str, **options: bool) -> nn.Module:
    """Build a network of the released x4 shape, with random weights, in evaluation mode."""
    torch.manual_seed(0)
    return networks.make(name, **options).network


def pytorch_runner(contender: Contender, device: str, network: nn.Module | None = None) -> Runner:
    """Make a contender in PyTorch ready to run on images.

    Args:
        contender: The contender.
        device: 'cpu' or 'cuda'.
        network: Its network, if it is built and on the device already.
    """
    if network is None:
        network = make_network(contender.network, **network_options(contender)).to(device)
    network.train(contender.training)
    if contender.definition:
        network.conv_first.register_forward_hook(lambda *_: None)  # type: ignore[union-attr]
    elif contender.network in NAMED:
        keep_freed_memory()  # as this project's commands do
    return _step(contender, device, network) if contender.training else _inference(contender, device, network)


def network_options(contender: Contender) -> dict[str, bool]:
    """Return what a contender's network is built with besides its name."""
    return {"use_checkpoint": True} if contender.checkpoint else {}


def _low_precision(contender: Contender, device: str) -> AbstractContextManager:
    dtype = PRECISIONS[contender.precision]
    return nullcontext() if dtype is None else torch.autocast(device, dtype)


def _inference(contender: Contender, device: str, network: nn.Module) -> Runner:
    switches: dict[str, Any] = {}
    if contender.switch:
        switches = {contender.switch: "inductor" if contender.switch == "compiled" else True}

    def run(x: Tensor) -> Tensor:
        with torch.no_grad(), _low_precision(contender, device), gpu_switches.switched(**switches):
            return network(x)

    return run


def _step(contender: Contender, device: str, network: nn.Module) -> Runner:
    """Return a training step: forward and backward pass."""
    recorded = RecordedTraining(network, contender.precision)

    def step(x: Tensor) -> Tensor:
        network.zero_grad()
        if contender.recorded:
            out = recorded(x)
        else:
            with _low_precision(contender, device):
                out = network(x)
        out.abs().mean().backward()
        return out

    return step


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
