"""The memory of a training step, computed from the shapes of its tensors before any of them exists."""

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from drct.models.drct_model import DRCTModel
from drct.models.optimizers import state_of_a_weight

# Of a CPU, whose convolutions work on copies of weights and images in an order of their own; the allocator keeps blocks
# below a size for later use. Fitted to measurements, with glibc
CPU_COPIES, CPU_KEPT, CPU_BYTES = 4, 32e6, 40e6
# Of a GPU, memory of the driver and of libraries, and the share that the allocator cannot use: assumed, not measured
GPU_SHARE, GPU_BYTES = 0.1, 600e6


@dataclass(frozen=True)
class StepMemory:
    """Bytes of the tensors of a training step.

    Attributes:
        weights: Of all networks, with their averages and buffers.
        optimizer: What the optimizers keep of the weights.
        step: Most bytes of all other tensors that exist at a time: gradients, the batch, what the forward pass keeps
            for the backward pass, and what an operation makes.
        largest: Largest tensor.
    """

    weights: int
    optimizer: int
    step: int
    largest: int

    @property
    def tensors(self) -> int:
        """Bytes of all tensors."""
        return self.weights + self.optimizer + self.step

    def on_cpu(self) -> float:
        """Return the memory that a process needs besides Python and libraries."""
        return self.tensors + self.weights + CPU_COPIES * min(self.largest, CPU_KEPT) + CPU_BYTES

    def on_gpu(self) -> float:
        """Return the memory that a process takes of a GPU."""
        return self.tensors * (1 + GPU_SHARE) + GPU_BYTES


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make within its `with` block, as long as they live.

    Args:
        known: Tensors that are not counted.
    """

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self._living = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._living:
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._living.add(key)
        self.now += size
        self.peak, self.largest = max(self.peak, self.now), max(self.largest, size)
        weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._living.discard(key)
        self.now -= size


def step_memory(model: DRCTModel, batch: int, channels: int, patch: int) -> StepMemory:
    """Compute the memory of a training step, of which no tensor is made.

    Args:
        model: The model, on the CPU, which is as before afterwards.
        batch: Images of a step.
        channels: Channels of the images.
        patch: Side of the low-resolution patches.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    modules = [module for module in vars(model).values() if isinstance(module, nn.Module)]
    own = {id(t): t for module in modules for t in (*module.parameters(), *module.buffers())}
    known = [*own.values(), *(fake.from_tensor(tensor) for tensor in own.values())]
    live = _LiveBytes(known)
    side, options = patch * model.opt["scale"], model.train_options
    try:
        with fake, live:
            lq, gt = (torch.empty(batch, channels, s, s) for s in (patch, side))
            model.feed_data({"lq": lq, "gt": gt})
            # An iteration in which a discriminator and its generator are trained
            model._compute_gradients(options.net_d_iters * (options.net_d_init_iters + 1))
            del lq, gt
    finally:
        for parameter in own.values():
            parameter.grad = None
    weights = sum(tensor.nbytes for tensor in own.values())
    return StepMemory(weights, optimizer_bytes(model), live.peak, live.largest)


def trainable_bytes(model: DRCTModel) -> int:
    """Return the bytes of the weights that the optimizers train, which are also those of their gradients."""
    return sum(_bytes_of(group) for optimizer in model.optimizers for group in optimizer.param_groups)


def _bytes_of(group: Mapping[str, Any]) -> int:
    return sum(parameter.nbytes for parameter in group["params"])


def optimizer_bytes(model: DRCTModel) -> int:
    """Return the bytes that the optimizers keep of the weights from the first step on."""
    total = 0
    for optimizer in model.optimizers:
        for group in optimizer.param_groups:
            state = state_of_a_weight(optimizer, group, torch.device("cpu"))
            copies = sum(isinstance(value, Tensor) and value.dim() > 0 for value in state.values())
            total += copies * _bytes_of(group)
    return total


def checkpoint_bytes(model: DRCTModel) -> tuple[int, int]:
    """Return the bytes of the weight files of a checkpoint, and of its training state."""
    weights = sum(_file_bytes(list(networks.values())) for networks in model.saved_networks().values())
    return weights, optimizer_bytes(model)


def _file_bytes(networks: list[nn.Module]) -> int:
    """Return the bytes of a file of a network and its averages, in which a tensor of several entries is once."""
    first, *averages = networks
    storages = {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in first.state_dict().values()}
    return sum(storages.values()) + sum(p.nbytes for network in averages for p in network.parameters())
