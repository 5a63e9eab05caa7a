"""Forward and backward pass of training steps, recorded as CUDA graphs and replayed.

A GPU computes small batches faster than Python can start their operations; a graph is started at once.
"""

from contextlib import nullcontext
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from drct.archs.windows import results_collected
from drct.errors import DRCTError, reason_of
from drct.runtime.device import PRECISIONS
from drct.seeding import generators_kept


def in_precision(network: nn.Module, images: Tensor, precision: str, cached: bool = True) -> Tensor:
    """Run a network in a precision of training. Return its output as float32.

    Args:
        network: The network.
        images: Its input.
        precision: One of `PRECISIONS`.
        cached: Whether autocast keeps the weights that it converts, until it ends. A graph must convert them itself.
    """
    dtype = PRECISIONS[precision]
    with torch.autocast(images.device.type, dtype, cache_enabled=cached) if dtype else nullcontext():
        output = network(images)
    return output.float()


class RecordedTraining:
    """A network whose forward and backward pass are recorded with the first batch, and replayed with all others.

    Output and gradients are in memory that the next call overwrites, so gradients must not be added up over calls.
    Batches of another shape are computed as without recording, and so is all else than training: evaluation mode, and
    calls without gradients.

    Args:
        network: The network, in the memory where its weights will stay. It is not changed.
        precision: One of `PRECISIONS`.
    """

    def __init__(self, network: nn.Module, precision: str) -> None:
        self.network, self.precision = network, precision
        self._replayed: _InPrecision | None = None
        self._recorded_for: Any = None
        self._held: list[Tensor] = []  # what the graphs read besides weights

    def __call__(self, images: Tensor) -> Tensor:
        """Run the network on a batch. Raises `DRCTError` if it cannot be recorded."""
        if not (self.network.training and torch.is_grad_enabled()):
            return in_precision(self.network, images, self.precision)
        kind = (images.shape, images.dtype, images.device)
        if self._replayed is None:
            self._replayed, self._recorded_for = self._record(images), kind
        if kind != self._recorded_for:
            return in_precision(self.network, images, self.precision)
        return self._replayed(images)

    def _record(self, images: Tensor) -> "_InPrecision":
        module = _InPrecision(self.network, self.precision)
        _silence_stream_mismatch()
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]  # such as those of BatchNorm
        try:
            # PyTorch runs the network a few times first; of a step, nothing may depend on whether it has recorded
            with generators_kept(images.device), results_collected() as self._held:
                _graphed(module, images.clone())
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # anybody's network
            raise DRCTError(
                f"train.cuda_graphs: a training step of {type(self.network).__name__} cannot be recorded "
                f"({reason_of(error)}): set train.cuda_graphs: false"
            ) from error
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
        return module


def _graphed(module: nn.Module, images: Tensor) -> None:
    """Record a module, while other threads may do what this one may not: that of the loader allocates memory."""
    cuda: Any = torch.cuda
    record, graph = partial(cuda.make_graphed_callables, allow_unused_input=True), cuda.graph
    mode = {"capture_error_mode": "thread_local"}
    if "capture_error_mode" in signature(record).parameters:
        record(module, (images,), **mode)
        return
    cuda.graph = partial(graph, **mode)  # older versions have no argument for it
    try:
        record(module, (images,))
    finally:
        cuda.graph = graph


def _silence_stream_mismatch() -> None:
    """Turn off PyTorch's warning (since 2.9) that gradients come from another stream than the one they are added up on.

    That is so for every recorded network: the nodes that add up were made on the stream of the recording. The backward
    pass has one stream wait for the other, as it should, which takes no time worth a warning.
    """
    silence = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)
    if silence is not None:
        silence(False)


class _InPrecision(nn.Module):
    """A network `in_precision`. PyTorch replaces the `forward` of what it records, and the network keeps its own."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network, self.precision = network, precision

    def forward(self, images: Tensor) -> Tensor:
        return in_precision(self.network, images, self.precision, cached=False)


def check_recordable(network: nn.Module, accumulation: int, compiled: bool) -> None:
    """Raise `DRCTError` if training of a network with `train.cuda_graphs` would be wrong.

    Args:
        network: The network, perhaps wrapped for several GPUs or processes.
        accumulation: Parts of a batch whose gradients are added up.
        compiled: Whether torch.compile compiles it.
    """
    if accumulation > 1:
        raise DRCTError(
            "train.cuda_graphs does not work with train.accumulation, since each part overwrites the gradients of the "
            "one before: set accumulation: 1 or cuda_graphs: false"
        )
    if compiled:
        raise DRCTError("train.cuda_graphs does not work with train.compile: set one of them to false")
    if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise DRCTError(
            "train.cuda_graphs works in a single process on a single GPU: set train.cuda_graphs: false, or set "
            "num_gpu: 1 and start without a launcher"
        )
