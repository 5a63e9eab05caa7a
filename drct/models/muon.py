"""Muon for the weights of layers, with Adam for all other parameters."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adam import adam

from drct.runtime.device import fastest_precision

SMALLEST = 16  # channels: smaller matrices have few directions to even out
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of x, x^3 and x^5, by Jordan et al.
ITERATIONS = 5
TINY = 1e-7  # norm of a gradient below which steps get smaller


class MuonAdam(Optimizer):
    """Muon for weights that multiply vectors, Adam for all else; one learning rate suits both.

    Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) replaces the averaged gradient
    of a matrix by the nearest matrix with orthonormal rows or columns, so that a step goes equally far in all
    directions that it has. The factor 0.2 * sqrt(larger side) gives its entries the size of those of Adam (Liu et al.,
    "Muon is scalable for LLM training", arXiv 2502.16982). A kernel of a convolution is a matrix (out, in * k * k).

    Args:
        params: Parameters, or groups of them. A group with `use_muon: False` is trained by Adam, any other by Muon; see
            `muon_groups`.
        lr: Learning rate of both.
        betas: Decay of Adam's averages of the gradient and of its square.
        eps: Added to Adam's denominator.
        weight_decay: Decoupled weight decay of all parameters, as AdamW has it.
        muon_momentum: Decay of Muon's average of the gradient, with Nesterov's look ahead.

    Raises:
        ValueError: if an argument is out of its range, or a group for Muon has a parameter that is no matrix.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        muon_momentum: float = 0.95,
    ) -> None:
        for name, value in {"lr": lr, "eps": eps, "weight_decay": weight_decay}.items():
            if not value >= 0:
                raise ValueError(f"{name} must not be negative: {value}")
        for name, value in {"betas": betas[0], "the second of betas": betas[1], "muon_momentum": muon_momentum}.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be from 0 to below 1, not {value}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "muon_momentum": muon_momentum}
        super().__init__(params, defaults | {"use_muon": True})
        for parameter in (p for group in self.param_groups if group["use_muon"] for p in group["params"]):
            if parameter.dim() < 2:
                raise ValueError(f"Muon trains matrices, not parameters of shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change the parameters that have a gradient. Return the loss that `closure` computes, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            step = self._step_of_muon if group["use_muon"] else self._step_of_adam
            step(parameters, [parameter.grad for parameter in parameters], group)
        return loss

    def _step_of_adam(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.tensor(0.0), **moments}
        states = [self.state[parameter] for parameter in parameters]
        averages, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        adam(
            parameters,
            gradients,
            averages,
            squares,
            [],
            steps,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )

    def _step_of_muon(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        averages = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(averages, gradients, 1 - group["muon_momentum"])
        updates = torch._foreach_lerp(gradients, averages, group["muon_momentum"])
        batches: dict[torch.Size, list[int]] = defaultdict(list)
        for i, update in enumerate(updates):
            batches[update.flatten(1).shape].append(i)
        for shape, members in batches.items():
            steps = orthogonalized(torch.stack([updates[i].flatten(1) for i in members]))
            rate = group["lr"] * 0.2 * max(shape) ** 0.5
            changed = [weights[i] for i in members]
            torch._foreach_add_(changed, [s.view_as(w) for s, w in zip(steps, changed, strict=True)], alpha=-rate)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return matrices of the same singular vectors whose singular values are about 1.

    Those of at least 1/500 of the norm of their matrix (root of the sum of squares) become 0.68 to 1.2.

    Args:
        matrices: (B, rows, columns). They are multiplied in bf16 where that is fast.
    """
    dtype = torch.bfloat16 if fastest_precision(matrices.device) == "bf16" else torch.float32
    norms = torch.linalg.matrix_norm(matrices, keepdim=True)
    x = (matrices / norms.clamp(min=TINY)).to(dtype)
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype).contiguous()


def muon_groups(network: nn.Module, parameters: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Divide parameters of a network into groups for `MuonAdam`.

    Muon gets weights of linear layers and kernels of convolutions with at least `SMALLEST` channels on both sides. That
    they belong to such layers sets them apart from tables, such as those of relative position biases, whose entries are
    looked up.
    """
    layers = (module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    weights = (p for layer in layers for p in layer.parameters(recurse=False) if p.dim() > 1)
    matrices = {id(weight) for weight in weights if min(weight.shape[:2]) >= SMALLEST}
    groups: list[dict[str, Any]] = [{"params": []}, {"params": [], "use_muon": False}]
    for parameter in parameters:
        groups[id(parameter) not in matrices]["params"].append(parameter)
    return [group for group in groups if group["params"]]
