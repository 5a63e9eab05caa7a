"""Training of small networks: what is kept instead of computed again, and the end of the upsampler."""

import pytest
import torch
from conftest import TINY, check_gradients_of_definition, definition, rescale_
from torch import nn

from drct.analysis.contenders import CONTENDERS, choose_contenders, pytorch_runner
from drct.archs import execution, kernels, merged_upsampler, small_attention
from drct.archs import windows as geometry
from drct.archs.drct_arch import DRCT


@pytest.mark.parametrize("masks", [0, 1, 3])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_small_attention_has_the_gradients_of_attention(masks, dtype, bound):
    torch.manual_seed(0)
    images, windows, tokens, heads, d = 2, 3, 9, 2, 8
    exact = [torch.randn(images, windows, tokens, 3 * heads * d), torch.randn(heads, tokens, tokens)]
    low = [t.to(dtype).requires_grad_() for t in exact]
    qkv, bias = (t.detach().double().requires_grad_() for t in low)
    mask = (torch.rand(masks, tokens, tokens) < 0.3).double() * geometry.MASKED if masks else None
    seed = torch.randn(images, windows, tokens, heads * d).to(dtype)
    q, k, v = qkv.view(-1, tokens, 3, heads, d).permute(2, 0, 3, 1, 4)
    logits = q @ k.mT + bias
    if mask is not None:
        logits = logits + mask.repeat(images * windows // masks, 1, 1)[:, None]
    expected = (logits.softmax(-1) @ v).transpose(1, 2).reshape(seed.shape)
    result = small_attention.attend(low[0], heads, low[1], None if mask is None else mask.to(dtype))
    assert (result - expected).abs().max() <= bound * expected.abs().max()
    found = torch.autograd.grad((result * seed).sum(), low)
    for a, b in zip(found, torch.autograd.grad((expected * seed).sum(), (qkv, bias)), strict=True):
        assert (a - b).abs().max() <= bound * b.abs().max()


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(4, 5), (1, 1), (1, 3), (2, 2)])
def test_the_merged_end_of_the_upsampler_is_that_of_the_definition(factor, bias, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 5 * factor**2, 3, padding=1, bias=bias).double()
    last = nn.Conv2d(5, 3, 3, padding=1, bias=bias).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    inputs = [x, *conv.parameters(), *last.parameters()]
    expected = last(nn.functional.pixel_shuffle(conv(x), factor))
    result = merged_upsampler.enlarge(x, conv, factor, last)
    assert (result - expected).abs().max() <= 1e-13
    seed = torch.randn_like(expected)
    gradients = (torch.autograd.grad((y * seed).sum(), inputs) for y in (result, expected))
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() <= 1e-12 * b.abs().max()


@pytest.mark.parametrize("kept", [0, 2**16])
@pytest.mark.parametrize("upscale", [1, 2, 3])
def test_what_is_kept_does_not_change_the_gradients(monkeypatch, kept, upscale):
    monkeypatch.setattr(kernels, "KEPT_BYTES", kept)
    network = DRCT(**TINY | {"upscale": upscale, "depths": (6,), "num_heads": (2,)}).double().train()
    rescale_(network)
    check_gradients_of_definition(network)


def test_gradients_in_bfloat16_are_as_close_to_those_in_float32_as_the_definitions():
    network = DRCT(**TINY | {"upscale": 4, "drop_path_rate": 0.0}).train()
    rescale_(network)
    x, found = torch.rand(2, 3, 16, 16), []
    for run, low in ((network, False), (network, True), (lambda x: definition(network, x), True)):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = run(x)
        out.float().square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    exact, ours, definitions = found
    assert (ours - exact).norm() <= 1.5 * (definitions - exact).norm()


@pytest.mark.parametrize(("window", "kept"), [(4, True), (16, False)])
def test_attention_weights_are_kept_of_small_windows_only(window, kept):
    stored = []
    network = DRCT(**TINY | {"window_size": window, "img_size": 32, "upscale": 1})
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (stored.append(x.shape), x)[1], lambda x: x):
        network.train()(torch.rand(1, 3, 32, 32))
    n = (32 // window) ** 2
    matrices = [shape.numel() // window**4 for shape in stored if shape[-2:] == (window**2,) * 2]
    assert (max(matrices) > n) == kept  # a mask for each window is kept in any case


def test_steps_of_small_networks_are_contenders(monkeypatch):
    keys = ["xs-step-4", "xs-definition-step-4", "xs-step-8"]
    assert [c.batch for c in choose_contenders(keys, "cpu")[0]] == [4, 4, 8]
    _, notes = choose_contenders(keys, "cuda")
    assert len(notes) == 3
    taken = []
    decide = execution.takes_over
    monkeypatch.setattr(execution, "takes_over", lambda network: taken.append(decide(network)) or taken[-1])
    for key in keys[:2]:
        network = DRCT(**TINY | {"upscale": 2})
        assert pytorch_runner(CONTENDERS[key], "cpu", network)(torch.rand(2, 3, 16, 16)).shape == (2, 3, 32, 32)
    assert taken == [True, False]
