"""The network, against the original implementation (spandrel carries it) and against itself."""

import copy
import io
import itertools

import pytest
import torch
from conftest import TINY, VARIANTS, check_gradients_of_definition, definition, pair, rescale_
from spandrel.architectures.DRCT import DRCT as OriginalDRCT  # noqa: N811
from torch.nn import functional as F

from drct.archs import execution, kernels, prepared_weights, progress, variants
from drct.archs import windows as geometry
from drct.archs.drct_arch import DRCT
from drct.archs.drct_plain_arch import DRCTPlain
from drct.archs.regions import Region, read

SIZES = [(64, 64), (48, 80), (16, 16), (128, 32)]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
ALL = list(itertools.product(VARIANTS, (2, 3, 4), SIZES, (1, 3), TOLERANCE))
# Every value of every axis, and each pair of variant and scale in both precisions
SOME = [
    (variant, scale, SIZES[(i + j) % 4], (1, 3)[(i + j // 2) % 2 and SIZES[(i + j) % 4] == (16, 16)], dtype)
    for i, (variant, scale) in enumerate(itertools.product(VARIANTS, (2, 3, 4)))
    for j, dtype in enumerate(TOLERANCE)
]


def check_outputs(variant, scale, size, batch, dtype):
    original, network = pair(scale, dtype, **VARIANTS[variant])
    x = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        expected, result = original(x), network(x)
    assert expected.std() > 0.3, "the weights are too small for errors to show"
    assert result.shape == (batch, 3, size[0] * scale, size[1] * scale)
    assert (result - expected).abs().max() <= TOLERANCE[dtype]


@pytest.mark.parametrize(("variant", "scale", "size", "batch", "dtype"), SOME)
def test_outputs_equal_the_originals(variant, scale, size, batch, dtype):
    check_outputs(variant, scale, size, batch, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "scale", "size", "batch", "dtype"), ALL)
def test_outputs_equal_the_originals_everywhere(variant, scale, size, batch, dtype):
    check_outputs(variant, scale, size, batch, dtype)


def test_batch_of_three_equals_the_original():
    check_outputs("DRCT-XS", 4, (48, 80), 3, torch.float32)
    check_outputs("DRCT-XS", 2, (64, 64), 3, torch.float64)


@pytest.mark.parametrize("variant", [pytest.param("DRCT", marks=pytest.mark.slow), "DRCT-C144", "DRCT-XS"])
@pytest.mark.parametrize("size", [(32, 32), (48, 16)])
def test_gradients_equal_the_originals(variant, size):
    original, network = pair(4, **VARIANTS[variant], drop_path_rate=0.0)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, *size, generator=generator)
    gt = torch.rand(2, 3, size[0] * 4, size[1] * 4, generator=generator)
    # Not L1: its gradient is a sign, which rounding turns around where a result hardly differs from the truth
    F.mse_loss(original.train()(x), gt).backward()
    F.mse_loss(network.train()(x), gt).backward()
    expected = {name: p.grad for name, p in original.named_parameters()}
    assert expected.keys() == {name for name, _ in network.named_parameters()}
    for name, p in network.named_parameters():
        error = (p.grad - expected[name]).norm() / expected[name].norm().clamp_min(1e-12)
        assert error <= 1e-4, name


def test_stochastic_depth_drops_the_same_samples_as_the_original():
    options = dict(TINY, drop_path_rate=0.5)
    original, network = pair(2, **options)
    x = torch.rand(4, 3, 16, 16)
    torch.manual_seed(3)
    expected = original.train()(x)
    torch.manual_seed(3)
    result = network.train()(x)
    assert (result - expected).abs().max() <= 1e-5
    assert (result - network.eval()(x)).abs().max() > 1e-2  # something was dropped


@pytest.mark.parametrize(
    "options",
    [
        {"ape": True, "img_size": 16},
        {"patch_norm": False},
        {"qkv_bias": False},
        {"qk_scale": 0.3},
        {"resi_connection": "identity"},
        {"img_range": 255.0},
        {"in_chans": 1},
        {"patch_size": 2},
        {"img_size": (16, 24)},
        {"img_size": (4, 16)},
        {"img_size": 4},  # a single window: nothing is shifted
        {"mlp_ratio": 3.5},
        {"num_heads": (4, 2)},
        {"window_size": 5, "img_size": 15},
    ],
    ids=str,
)
def test_every_argument_means_what_it_means_in_the_original(options):
    original, network = pair(2, **TINY | options)
    side = 15 if "window_size" in options else 16
    x = torch.rand(2, options.get("in_chans", 3), side, side)
    with torch.no_grad():
        difference = (network(x) - original(x)).abs().max()
    assert difference <= 1e-5 * options.get("img_range", 1)
    original.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("variant", "scale", "parameters"),
    [
        ("DRCT-C144", 4, 10_443_927),
        ("DRCT", 2, 13_991_867),
        ("DRCT", 3, 14_176_507),
        ("DRCT", 4, 14_139_579),
        ("DRCT-L", 2, 27_433_007),
        ("DRCT-L", 3, 27_617_647),
        ("DRCT-L", 4, 27_580_719),
        ("DRCT-XL", 2, 31_913_387),
        ("DRCT-XL", 3, 32_098_027),
        ("DRCT-XL", 4, 32_061_099),
    ],
)
def test_parameter_counts_are_the_published_ones(variant, scale, parameters):
    with torch.device("meta"):
        network = DRCT(upscale=scale, **variants.VARIANTS[variant])
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_defaults_are_the_released_x4_network():
    original = OriginalDRCT(upscale=4, upsampler="pixelshuffle", embed_dim=180)
    network = DRCT()
    assert {n: v.shape for n, v in network.state_dict().items()} == {
        n: v.shape for n, v in original.state_dict().items()
    }


@pytest.mark.parametrize("variant", ["DRCT-XS", "DRCT-C144"])
def test_state_dicts_load_strictly_in_both_directions_with_equal_tensors(variant):
    original = OriginalDRCT(upscale=4, upsampler="pixelshuffle", **VARIANTS[variant])
    network = DRCT(**VARIANTS[variant])
    rescale_(network)
    original.load_state_dict(network.state_dict(), strict=True)
    for name, value in original.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    rescale_(original, seed=1)
    network.load_state_dict(original.state_dict(), strict=True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, original.state_dict()[name]), name


def test_strict_loading_still_refuses_missing_and_unexpected_names():
    network = DRCT(**TINY)
    state = network.state_dict()
    del state["layers.0.swin2.attn.qkv.weight"]
    with pytest.raises(RuntimeError, match=r"layers\.0\.swin2\.attn\.qkv\.weight"):
        network.load_state_dict(state)
    with pytest.raises(RuntimeError, match="surplus"):
        network.load_state_dict(network.state_dict() | {"layers.0.swin1.surplus": torch.zeros(1)})


def test_computed_tensors_are_written_once():
    """The original writes a mask per shifted block; with one for all, a file is little larger than its weights."""
    network = DRCT(**VARIANTS["DRCT-XS"])
    file = io.BytesIO()
    torch.save({"params": network.state_dict()}, file)
    weights = sum(p.numel() * 4 for p in network.parameters())
    mask = 16 * 64 * 64 * 4
    assert file.tell() < weights + 1.2 * mask + 200_000


@pytest.mark.parametrize("rows_and_columns", [(1, 1), (1, 3), (4, 1), (3, 5)])
@pytest.mark.parametrize("w", [4, 5])
def test_masks_are_those_of_swin_transformer(rows_and_columns, w):
    """Against the definition: number the regions of a rolled image and compare every pair of tokens."""
    height, width = (n * w for n in rows_and_columns)
    shift = w // 2
    rows, columns = ((torch.arange(n) >= n - w).long() + (torch.arange(n) >= n - shift) for n in (height, width))
    regions = rows[:, None] * 3 + columns[None, :]
    windows = regions.view(height // w, w, width // w, w).transpose(1, 2).reshape(-1, w * w)
    expected = (windows[:, :, None] != windows[:, None, :]) * -100.0
    assert torch.equal(geometry.window_masks(height, width, w, shift, torch.device("cpu"), torch.float32), expected)


def test_windows_are_cut_and_merged_in_row_major_order():
    x = torch.arange(2 * 8 * 12 * 3.0).view(2, 8, 12, 3)
    windows = geometry.window_partition(x, 4)
    assert windows.shape == (2 * 6, 16, 3)
    assert torch.equal(windows[6 + 4].view(4, 4, 3), x[1, 4:8, 4:8])  # of the second image: second row, second column
    assert torch.equal(geometry.window_merge(windows, 4, 8, 12), x)


@pytest.mark.parametrize("masks", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_recomputed_attention_has_the_gradients_of_attention(masks, dtype):
    torch.manual_seed(0)
    n, heads, tokens, d = 6, 2, 9, 5  # more windows than are recomputed at a time
    q, k, v = (torch.randn(n, heads, tokens, d, dtype=dtype, requires_grad=True) for _ in range(3))
    bias = torch.randn(heads, tokens, tokens, dtype=dtype, requires_grad=True)
    mask = (torch.rand(masks, tokens, tokens) < 0.3).to(dtype) * geometry.MASKED if masks else None
    weight = torch.randn(n, heads, tokens, d, dtype=dtype)
    logits = q.double() @ k.double().transpose(-2, -1) + bias.double()
    if mask is not None:
        logits = logits + mask.repeat(n // masks, 1, 1)[:, None]
    expected = logits.softmax(-1) @ v.double()
    result = kernels.attention(q, k, v, bias, mask)
    bound = 1e-12 if dtype == torch.float64 else 1e-5
    assert (result - expected).abs().max() <= bound
    for a, b in zip(
        *(torch.autograd.grad((x * weight).sum(), (q, k, v, bias)) for x in (result, expected)), strict=True
    ):
        assert (a - b).abs().max() <= bound * b.abs().max()


@pytest.mark.parametrize("masks", [0, 1, 3])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2), (torch.float64, 1e-14)])
def test_attention_is_that_of_the_definition_whatever_the_size_of_the_logits(monkeypatch, masks, dtype, bound):
    """Rows of logits that are too large or too small for plain powers included, and each window by itself."""
    torch.manual_seed(0)
    n, heads, tokens, d = 6, 2, 16, 8
    q, k, v = (torch.randn(n, heads, tokens, d, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(heads, tokens, tokens, dtype=torch.float64)
    bias[0, 3] += 200  # exp(200) is not a float32, nor is exp(-200)
    bias[1, 5] -= 200
    mask = torch.where(torch.rand(masks, tokens, tokens) < 0.5, -100.0, 0.0) if masks else None
    q, k, v, bias = (t.to(dtype) for t in (q, k, v, bias))
    logits = q.double() @ k.double().mT + bias.double()
    if mask is not None:
        logits = logits + mask.double()[torch.arange(n) % masks, None]
    expected = logits.softmax(-1) @ v.double()
    low_mask = None if mask is None else mask.to(dtype)
    with torch.no_grad():
        found = kernels.attention(q, k, v, bias, low_mask)
        error = (found.double() - expected).abs().amax((0, 1, 3))
        assert error[[i for i in range(tokens) if i not in (3, 5)]].max() <= bound
        if dtype != torch.bfloat16:  # which cannot tell logits near 200 from each other
            assert error[[3, 5]].max() <= 100 * bound
        monkeypatch.setattr(kernels, "LOGITS_AT_A_TIME", tokens**2)
        assert torch.equal(kernels.attention(q, k, v, bias, low_mask), found)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 4, 6])
def test_linear_has_the_gradients_of_linear(bias, width):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 7, 5, requires_grad=True), torch.randn(width, 5, requires_grad=True)
    inputs = (x, weight, torch.randn(width, requires_grad=True)) if bias else (x, weight)
    seed = torch.randn(2, 3, 7, width)
    result = kernels.linear(*inputs) if bias else kernels.linear(*inputs, None)
    expected = F.linear(*inputs)
    assert (result - expected).abs().max() <= 1e-5
    for a, b in zip(*(torch.autograd.grad((y * seed).sum(), inputs) for y in (result, expected)), strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize("parameters", [0, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("by_onednn", [True, False])
def test_a_linear_layer_of_a_recomputed_function_has_its_gradients(parameters, bias, by_onednn):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 8), (5, 8), (5,), *[(8,)] * parameters]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def of(inputs):
        norm, more = kernels.layer_norm((8,), 1e-5), inputs[3:] or (None, None)
        return kernels.linear_of(norm, *inputs[:2], inputs[2] if bias else None, *more)

    assert torch.autograd.gradcheck(lambda *inputs: of(inputs), inputs)
    low = [t.detach().float().requires_grad_() for t in inputs]
    needed = [i for i in range(len(low)) if bias or i != 2]
    with torch.backends.mkldnn.flags(enabled=by_onednn):
        for f, tensors in ((lambda y: (y**3).sum(), low), (lambda y: (y.double() ** 3).sum(), inputs)):
            f(of(tensors)).backward()
    for i in needed:
        assert torch.allclose(low[i].grad.double(), inputs[i].grad, rtol=1e-4, atol=1e-4), i


def test_a_recomputed_function_is_computed_in_the_type_of_the_forward_pass():
    """Autocast ends before the backward pass begins."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator, requires_grad=True) for shape in ((6, 16), (4, 16)))
    with torch.autocast("cpu", torch.bfloat16):
        kernels.linear_of(kernels.GELU, x, weight, None).float().pow(2).sum().backward()
    found = [t.grad for t in (x, weight)]
    x.grad = weight.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        F.linear(F.gelu(x), weight).float().pow(2).sum().backward()
    for one, other in zip(found, (x.grad, weight.grad), strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() <= 1e-2 * other.abs().max()


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2), (torch.float64, 1e-14)])
def test_products_of_packed_weights(gelu, bias, dtype, bound):
    torch.manual_seed(0)
    weight, addend = torch.randn(33, 20, dtype=dtype), torch.randn(33, dtype=dtype) if bias else None
    fast = kernels.packed(weight, rows=64)
    for rows in (64, 1, 200):  # others than it was packed for, too
        x = torch.randn(2, rows, 20, dtype=dtype)
        expected = F.linear(x.double(), weight.double(), None if addend is None else addend.double())
        expected = F.gelu(expected) if gelu else expected
        with torch.no_grad():
            result = kernels.linear(x, fast, addend, gelu)
        assert result.dtype == dtype
        assert (result - expected).abs().max() <= bound * expected.abs().max()


def test_training_keeps_no_attention_matrix(monkeypatch):
    monkeypatch.setattr(kernels, "KEPT_BYTES", 0)  # what windows of 16 are too large for
    stored = []
    network = DRCT(**VARIANTS["DRCT-XS"] | {"window_size": 6, "img_size": 36})
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (stored.append(x.shape), x)[1], lambda x: x):
        network.train()(torch.rand(2, 3, 42, 48))
    matrices = [shape.numel() // 36**2 for shape in stored if shape[-2:] == (36, 36)]
    assert max(matrices) == 56  # a mask for each window of an image, but nothing for each window of each image


@pytest.mark.parametrize("tokens", [1, 300, 1000, 10**9])
def test_results_do_not_depend_on_how_many_windows_are_computed_at_a_time(tokens, monkeypatch):
    _, network = pair(2, torch.float64, **VARIANTS["DRCT-XS"])
    x = torch.rand(2, 3, 40, 24, dtype=torch.float64)
    with torch.enable_grad():
        expected = network(x).detach()  # all windows at once
    monkeypatch.setattr(execution, "CPU_TOKENS", tokens)
    with torch.no_grad():
        assert (network(x) - expected).abs().max() <= 1e-12


def test_activation_checkpointing_changes_memory_not_gradients():
    def count(tensor):
        stored[-1] += tensor.nbytes
        return tensor

    _, network = pair(2, torch.float64, **TINY, drop_path_rate=0.3)
    gradients, stored = [], []
    for network.use_checkpoint in (False, True):
        network.zero_grad()
        stored.append(0)
        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            output = network.train()(torch.full((2, 3, 16, 16), 0.5, dtype=torch.float64))
        output.square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert stored[1] < 0.6 * stored[0]
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_a_hook_sees_what_the_blocks_of_the_original_return():
    original, ours = pair(2, **VARIANTS["DRCT-XS"])
    seen: dict[str, torch.Tensor] = {}
    for name, network in (("original", original), ("ours", ours)):
        for k in (1, 2):  # the second is shifted
            block = getattr(network.layers[1], f"swin{k}")
            key = f"{name} {k}"
            block.register_forward_hook(lambda module, inputs, output, key=key: seen.update({key: output}))
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        ours(x), original(x)
    for k in (1, 2):
        expected = seen[f"original {k}"].view(1, 16, 24, -1)
        torch.testing.assert_close(seen[f"ours {k}"], expected, rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------ definition and execution


def loose_norm(channels):
    return torch.nn.LayerNorm(channels, eps=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"upscale": 3},
        {"upscale": 8, "img_range": 255.0},
        {"upscale": 1},
        {"ape": True},
        {"patch_norm": False, "resi_connection": "identity"},
        {"qkv_bias": False, "qk_scale": 0.3},
        {"norm_layer": loose_norm},
        {"num_heads": (4, 2), "mlp_ratio": 3.5},
        {"img_size": 4},
    ],
    ids=lambda options: " ".join(options) or "defaults",
)
@pytest.mark.parametrize("size", [(16, 16), (20, 28), (72, 4)])
def test_the_execution_computes_what_the_definition_does(options, size):
    size = (16, 16) if "ape" in options else size
    network = DRCT(**TINY | {"upscale": 2} | options).double()
    rescale_(network)
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    assert execution.takes_over(network)
    with torch.no_grad():
        expected = definition(network.eval(), x)
        assert (network(x) - expected).abs().max() <= 1e-11 * options.get("img_range", 1)
        assert (execution._run_at_once(network, x) - expected).abs().max() <= 1e-11 * options.get("img_range", 1)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("rates", [{}, {"drop_path_rate": 0.4}])
def test_the_execution_has_the_gradients_of_the_definition(recompute, rates):
    network = DRCT(**TINY | {"upscale": 2, "use_checkpoint": recompute} | rates).double().train()
    rescale_(network)
    check_gradients_of_definition(network)


def test_dropout_drops_in_the_execution():
    network = DRCT(**TINY | {"drop_rate": 0.3, "attn_drop_rate": 0.3, "drop_path_rate": 0.0}).train()
    rescale_(network)
    x = torch.rand(1, 3, 8, 12)
    assert execution.takes_over(network)
    with torch.no_grad():
        results = torch.stack([network(x) for _ in range(60)])
        expected = torch.stack([definition(network, x) for _ in range(60)])
    assert results.std(0).mean() == pytest.approx(expected.std(0).mean().item(), rel=0.1)
    assert (results.mean(0) - expected.mean(0)).abs().mean() < 3 * expected.std(0).mean() / 60**0.5


@pytest.mark.parametrize("training", [False, True])
def test_hooks_on_every_submodule_fire_and_change_nothing(training):
    network = DRCT(**VARIANTS["DRCT-XS"] | {"drop_path_rate": 0.2}).train(training)
    rescale_(network)
    x = torch.rand(1, 3, 24, 16)

    def run():
        torch.manual_seed(0)
        with torch.set_grad_enabled(training):
            return network(x)

    expected = run()
    fired = set()
    submodules = {name: m for name, m in network.named_modules() if not isinstance(m, torch.nn.ModuleList)}
    for name, module in submodules.items():
        module.register_forward_hook(lambda module, inputs, output, name=name: fired.add(name))
    found = run()
    assert fired == submodules.keys()
    assert (found - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["register_forward_pre_hook", "register_full_backward_hook"])
def test_other_hooks_on_every_submodule_fire(kind):
    network = DRCT(**TINY | {"drop_path_rate": 0.0}).train()
    fired = set()
    submodules = {name: m for name, m in network.named_modules() if not isinstance(m, torch.nn.ModuleList)}
    for name, module in submodules.items():
        getattr(module, kind)(lambda module, *_, name=name: fired.add(name))
    network(torch.rand(1, 3, 8, 12)).sum().backward()
    assert fired == submodules.keys()


class LowRank(torch.nn.Module):
    """A linear layer with an adapter, as LoRA has it."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.more = layer, torch.nn.Linear(layer.in_features, layer.out_features)

    def forward(self, x):
        return self.layer(x) + self.more(x)


def adapted(network):
    network.layers[0].swin1.attn.qkv = LowRank(network.layers[0].swin1.attn.qkv)


def overridden(network):
    layer = network.layers[1].swin3.mlp.fc2
    layer.forward = lambda x: 2 * torch.nn.functional.linear(x, layer.weight, layer.bias)


def parametrized(network):
    class Doubled(torch.nn.Module):
        def forward(self, weight):
            return 2 * weight

    torch.nn.utils.parametrize.register_parametrization(network.layers[0].adjust2, "weight", Doubled())


def normalized(network):
    torch.nn.utils.weight_norm(network.conv_first)
    with torch.no_grad():
        network.conv_first.weight_g.mul_(2)


def mirrored(network):
    conv = network.conv_last
    network.conv_last = torch.nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, padding_mode="reflect")


def wider(network):
    conv = network.conv_first
    network.conv_first = torch.nn.Conv2d(conv.in_channels, conv.out_channels, 5, padding=2)


def wrapped_ends(network):
    network.conv_first = torch.nn.Sequential(network.conv_first, torch.nn.Tanh())
    network.conv_last = torch.nn.Sequential(network.conv_last, torch.nn.Tanh())


class OwnNorm(torch.nn.LayerNorm):
    def forward(self, x):
        return 2 * super().forward(x)


def normed(network):
    network.layers[1].swin2.norm1 = OwnNorm(network.layers[1].swin2.norm1.normalized_shape)


def reconstructed(network):
    network.reconstruct = lambda shallow, features: type(network).reconstruct(network, 2 * shallow, features)


def patched_class(network):
    original = torch.nn.Linear.forward
    torch.nn.Linear.forward = lambda self, x: 1.1 * original(self, x)
    return lambda: setattr(torch.nn.Linear, "forward", original)


def with_global_hook(network):
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: 2 * output if module is network.layers[0].swin1.mlp else None
    )
    return handle.remove


CHANGES = [adapted, overridden, parametrized, normalized, mirrored, wider, wrapped_ends, normed, reconstructed]
CHANGES += [patched_class, with_global_hook]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("training", [False, True])
def test_replaced_and_parametrized_layers_have_their_effect(change, training):
    """In inference and in training, as in the definition."""
    network = DRCT(**TINY | {"drop_path_rate": 0.0}).train(training)
    rescale_(network)
    x = torch.rand(1, 3, 40, 44)  # several tiles
    with torch.set_grad_enabled(training):
        before = network(x)
        undo = change(network)
        after, expected = network(x), definition(network, x)
        if undo:
            undo()
    assert torch.equal(after, expected)
    assert (after - before).abs().max() > 1e-3


def test_quantized_layers_have_their_effect():
    network = DRCT(**TINY).eval()
    rescale_(network)
    x = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        expected = network(x)
        quantized = torch.ao.quantization.quantize_dynamic(network, {torch.nn.Linear})
        assert not execution.takes_over(quantized)
        assert 0 < (quantized(x) - expected).abs().mean() < 0.1 * expected.std()


def test_subclasses_compute_what_they_define():
    class Doubled(DRCT):
        def embed(self, shallow):
            return 2 * super().embed(shallow)

    class Renamed(DRCT):
        pass

    networks = [kind(**TINY | {"drop_path_rate": 0.0}).eval() for kind in (DRCT, Doubled, Renamed, DRCTPlain)]
    x = torch.rand(1, 3, 8, 12)
    for network in networks:
        rescale_(network)
    assert [execution.takes_over(network) for network in networks] == [True, False, True, False]
    with torch.no_grad():
        original, doubled, renamed, _ = (network(x) for network in networks)
    assert torch.equal(original, renamed)
    assert (original - doubled).abs().max() > 1e-3


def test_a_norm_layer_of_ones_own_is_called():
    network = DRCT(**TINY | {"norm_layer": OwnNorm}).eval()
    rescale_(network)
    x = torch.rand(1, 3, 8, 12)
    assert execution.takes_over(network)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert (network(x) - definition(network, x)).abs().max() <= 1e-5


def test_modes_of_single_modules_count():
    network = DRCT(**TINY | {"drop_rate": 0.3, "attn_drop_rate": 0.3, "drop_path_rate": 0.3}).eval()
    rescale_(network)
    x = torch.rand(1, 3, 8, 12)
    dropouts = [m for m in network.modules() if isinstance(m, torch.nn.Dropout)]
    with torch.no_grad():
        for module in dropouts:  # Monte Carlo dropout
            module.train()
        assert torch.stack([network(x) for _ in range(5)]).std(0).mean() > 1e-2
        network.train()
        for module in network.modules():
            if module in dropouts or type(module).__name__ == "DropPath":
                module.eval()
        assert torch.equal(network(x), network(x))


def test_a_replica_of_data_parallel_computes_the_same():
    network = DRCT(**TINY).eval()
    rescale_(network)
    x = torch.rand(1, 3, 8, 12)

    def replicate(module):
        replica = module._replicate_for_data_parallel()
        for name, p in module._parameters.items():
            setattr(replica, name, None if p is None else p.view_as(p))
        for name, child in module._modules.items():
            replica._modules[name] = None if child is None else replicate(child)
        return replica

    with torch.no_grad():
        assert (replicate(network)(x) - network(x)).abs().max() <= 1e-6
    assert (replicate(network)(x) - network(x)).abs().max() <= 1e-6


def test_derivatives_that_the_execution_has_not_go_through_the_definition():
    network = DRCT(**TINY | {"upscale": 2}).eval().double()
    rescale_(network)
    x, tangent = torch.rand(2, 1, 3, 8, 12, dtype=torch.float64)
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        dual = network(torch.autograd.forward_ad.make_dual(x, tangent))
        found = torch.autograd.forward_ad.unpack_dual(dual).tangent
    with torch.no_grad():
        expected = (network(x + 1e-5 * tangent) - network(x - 1e-5 * tangent)) / 2e-5
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_functional_transforms_go_through_the_definition():
    network = DRCT(**TINY | {"upscale": 2}).eval()
    rescale_(network)
    x = torch.rand(2, 1, 3, 8, 12)
    with torch.no_grad():
        expected = torch.stack([network(image) for image in x])
        found = torch.func.vmap(network)(x)
    assert (found - expected).abs().max() <= 1e-5


def test_prepared_weights_are_kept_between_images_and_dropped_when_weights_change():
    network = DRCT(**TINY).eval()
    rescale_(network)
    x = torch.rand(1, 3, 8, 12)
    group = network.layers[0]
    with torch.no_grad():
        first = network(x)
        kept = dict(prepared_weights._prepared[group])
        assert torch.equal(network(x), first)
        assert prepared_weights._prepared[group] == kept  # the same objects
        network.layers[0].swin2.mlp.fc1.weight.mul_(1.5)
        changed = network(x)
        assert (changed - definition(network, x)).abs().max() <= 1e-5
        assert (changed - first).abs().max() > 1e-3
        network.layers[0].adjust3.weight.data = torch.zeros_like(network.layers[0].adjust3.weight)
        assert (network(x) - definition(network, x)).abs().max() <= 1e-5
        for p in network.parameters():
            p.data.mul_(0.9)  # as BasicSR averages weights; PyTorch does not count such changes
        assert (network(x) - definition(network, x)).abs().max() <= 1e-5
        network.layers[0].adjust5.bias = network.layers[0].swin1.mlp.fc2.bias = None
        network.layers[0].swin3.attn.scale *= 1.5
        assert (network(x) - definition(network, x)).abs().max() <= 1e-5
        weight = network.layers[1].swin4.attn.qkv.weight
        weight.data = weight.data.flip(0)
        assert (network(x) - definition(network, x)).abs().max() <= 1e-5
        network.load_state_dict(DRCT(**TINY).state_dict(), strict=False)
        assert (network(x) - definition(network, x)).abs().max() <= 1e-5
        double = copy.deepcopy(network)
        assert torch.equal(double(x), network(x))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert (network(x).float() - definition(network, x)).abs().max() <= 1e-1
    prepared_weights.forget_prepared_weights(network)
    assert group not in prepared_weights._prepared
    with torch.inference_mode():
        fresh = DRCT(**TINY).eval()
        assert torch.equal(fresh(x), fresh(x))
        fresh.layers[0].adjust3.weight.mul_(2)
        assert (fresh(x) - definition(fresh, x)).abs().max() <= 1e-5


def test_progress_is_reported_and_can_end_the_computation():
    network = DRCT(**TINY).eval()
    shares: list[float] = []
    x = torch.rand(1, 3, 8, 12)
    with torch.no_grad(), progress.watched(shares.append):
        network(x)
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert shares[-1] == pytest.approx(1)

    def stop(share):
        raise KeyboardInterrupt

    with torch.no_grad(), pytest.raises(KeyboardInterrupt), progress.watched(stop):
        network(x)
    with torch.no_grad():
        network(x)  # nobody watches any more
    assert shares[-1] == pytest.approx(1)


@pytest.mark.parametrize("factor", [2, 3])
def test_regions(factor):
    region = Region(3, 5, 7, 11)
    assert region.grow(2) == Region(1, 3, 11, 15)
    assert region.grow(4).clip(10, 15) == Region(0, 1, 10, 14)
    assert region.relative_to(Region(1, 2, 9, 9)) == Region(2, 3, 7, 11)
    assert region.enlarge(factor).reduce(factor) == region
    covering = region.reduce(factor).enlarge(factor)
    inside = region.relative_to(covering)
    assert min(inside) >= 0
    assert inside.top + inside.height <= covering.height
    assert inside.left + inside.width <= covering.width
    image = torch.arange(30.0).view(1, 1, 5, 6)
    assert torch.equal(read(image, Region(1, 2, 3, 3)), image[..., 1:4, 2:5])
    surrounded = read(image, Region(-2, -1, 8, 9))
    assert torch.equal(surrounded, torch.nn.functional.pad(image, (1, 2, 2, 1)))


def test_masks_made_in_inference_mode_serve_training():
    options = TINY | {"window_size": 6, "img_size": 18}  # a size that no other test has cached
    _, network = pair(2, **options)
    with torch.inference_mode():
        network(torch.rand(1, 3, 18, 18))
    network(torch.rand(1, 3, 18, 18)).sum().backward()
    assert network.conv_first.weight.grad.abs().sum() > 0


def test_masks_are_built_once_per_size(monkeypatch):
    _, network = pair(2, **TINY)
    x = torch.rand(1, 3, 16, 20)
    with torch.no_grad():
        network(x)
        monkeypatch.setattr(torch, "arange", None)  # what every part of the geometry starts with
        network(x)


def test_bfloat16_autocast_is_close():
    _, network = pair(4, **VARIANTS["DRCT-XS"])
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        result = network(x).float()
    with torch.no_grad():
        expected = network(x)
    assert 0 < (result - expected).abs().mean() < 0.05 * expected.std()


def test_network_without_a_head_loads_but_says_what_is_missing():
    original = OriginalDRCT(upscale=1, upsampler="", **TINY)
    network = DRCT(upsampler="", **TINY)
    network.load_state_dict(original.state_dict(), strict=True)
    with pytest.raises(RuntimeError, match="reconstruction head"):
        network(torch.rand(1, 3, 16, 16))


def test_options_of_hat_are_accepted_silently_and_others_with_a_warning(recwarn):
    DRCT(**TINY, compress_ratio=3, squeeze_factor=30, conv_scale=0.01, overlap_ratio=0.5)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="embed_dims"):
        DRCT(**TINY, embed_dims=7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsampler": "nearest+conv"}, "nearest"),
        ({"resi_connection": "3conv"}, "3conv"),
        ({"num_heads": (2,)}, "num_heads has 1"),
        ({"embed_dim": 13}, "embed_dim"),
        ({"embed_dim": 18, "num_heads": (9, 9)}, "block 2 of a dense group"),
        ({"upscale": 5}, "power of 2"),
    ],
)
def test_arguments_that_make_no_network_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        DRCT(**TINY | options)


def test_sizes_that_are_no_multiples_of_the_window_are_explained():
    with pytest.raises(ValueError, match=r"multiples of its window of 4 pixels, not 15x16"):
        DRCT(**TINY)(torch.rand(1, 3, 15, 16))
    with pytest.raises(ValueError, match="with ape, DRCT takes 16x16"):
        DRCT(**TINY, ape=True)(torch.rand(1, 3, 16, 20))


def test_initial_weights_follow_the_recipe():
    torch.manual_seed(0)
    network = DRCT(**VARIANTS["DRCT-XS"])
    state = network.state_dict()
    assert state["layers.1.swin1.attn.qkv.weight"].std() == pytest.approx(0.02, rel=0.1)
    assert state["layers.1.swin2.attn.relative_position_bias_table"].std() == pytest.approx(0.02, rel=0.15)
    assert not state["layers.1.swin1.attn.qkv.bias"].any()
    assert torch.equal(state["norm.weight"], torch.ones(48))
    assert network.layers[3].swin1.drop_path.drop_prob == pytest.approx(0.1 * 18 / 23)  # linspace(0, 0.1, 24)[18]
