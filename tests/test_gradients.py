"""Backward passes that are written out: linear layers and attention in float32 on the CPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from drct.archs import kernels


@pytest.mark.parametrize("masks", [0, 3])
def test_self_attention_has_the_gradients_of_attention_whatever_the_size_of_the_logits(masks):
    torch.manual_seed(0)
    n, heads, tokens, d = 6, 2, 16, 8
    qkv = torch.randn(n, tokens, 3, heads, d, requires_grad=True)
    mask = torch.where(torch.rand(masks, tokens, tokens) < 0.5, -100.0, 0.0) if masks else None
    seed = torch.randn(n, heads, tokens, d)
    for addend in (0, 200, -200):  # exp(200) is not a float32, nor is exp(-200)
        bias = torch.randn(heads, tokens, tokens)
        bias[1, 3] += addend
        bias.requires_grad_()
        parts = qkv.permute(2, 0, 3, 1, 4)
        result = kernels.self_attention(parts, bias, mask)
        q, k, v = parts.double()
        logits = q @ k.mT + bias.double()
        if mask is not None:
            logits = logits + mask.double().repeat(n // masks, 1, 1)[:, None]
        expected = logits.softmax(-1) @ v
        (for_qkv, for_bias), wanted = (torch.autograd.grad((y * seed).sum(), (qkv, bias)) for y in (result, expected))
        assert for_qkv.is_contiguous(), "a gradient in another layout would be copied"
        for a, b in zip((for_qkv, for_bias), wanted, strict=True):
            assert (a - b).abs().max() <= (2e-6 if addend == 0 else 2e-4) * b.abs().max()


def test_gradients_of_linear_layers_take_the_same_way_with_any_number_of_threads():
    """As of a convolution, PyTorch computes some with a slow kernel where there is one thread."""
    taken = []

    class Recorded(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            taken.append(function.__name__)
            return function(*args, **kwargs or {})

    x, weight = torch.randn(1, 2, 8, 5, requires_grad=True), torch.randn(6, 5, requires_grad=True)
    result = kernels.linear(x, weight, None).sum()
    with Recorded():
        result.backward()
    assert not any("convolution" in name for name in taken)
    if kernels.HAS_ONEDNN:
        assert sum("_linear_pointwise" in name for name in taken) == 2
