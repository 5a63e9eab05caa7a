"""HAT, against the original implementation (spandrel carries it) and against itself."""

import itertools

import pytest
import torch
from conftest import HAT_TINY as TINY
from conftest import OriginalHAT, check_gradients_of_definition, definition, rescale_
from conftest import hat_pair as pair
from torch.nn import functional as F

from drct.archs import execution, hybrid_execution, kernels, prepared_weights, progress
from drct.archs import windows as geometry
from drct.archs.hat_arch import HAT, HybridGroup
from drct.archs.regions import Region

pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")

# With fewer blocks than the released networks, and convolutions that matter more than at their conv_scale of 0.01
SHORT = {"depths": (2,), "num_heads": (6,), "conv_scale": 0.5}
VARIANTS = {
    "HAT-S": {"embed_dim": 144, "compress_ratio": 24, "squeeze_factor": 24, **SHORT},
    "HAT": {"embed_dim": 180, "compress_ratio": 3, "squeeze_factor": 30, **SHORT},
    "HAT-L": {
        "embed_dim": 180,
        "compress_ratio": 3,
        "squeeze_factor": 30,
        **SHORT,
        "depths": (1, 2),
        "num_heads": (6, 6),
    },
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
WHOLE = [(6, "HAT-S"), (6, "HAT"), (12, "HAT-L")]  # groups of each
SIZES = [(16, 16), (48, 32), (32, 80)]


def check_outputs(options, scale, size, batch, dtype):
    original, network = pair(scale, dtype, **options)
    x = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert execution.takes_over(network)
    with torch.no_grad():
        expected = original(x)
        assert expected.std() > 0.2, "the weights are too small for errors to show"
        for result in (network(x), execution._run_at_once(network, x), definition(network, x)):
            assert result.shape == (batch, 3, size[0] * scale, size[1] * scale)
            assert (result - expected).abs().max() <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("variant", "scale", "size", "batch", "dtype"),
    [
        (variant, scale, SIZES[(i + j) % 3], (1, 2)[(i + j) % 3 == 0], dtype)
        for i, (variant, scale) in enumerate(itertools.product(VARIANTS, (2, 3, 4)))
        for j, dtype in enumerate(TOLERANCE)
        if (i + j) % 2 == 0 or variant == "HAT"
    ],
)
def test_outputs_equal_the_originals(variant, scale, size, batch, dtype):
    check_outputs(VARIANTS[variant], scale, size, batch, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "variant"), WHOLE)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_outputs_of_whole_networks_equal_the_originals(groups, variant, scale):
    whole = VARIANTS[variant] | {"depths": (6,) * groups, "num_heads": (6,) * groups}
    check_outputs(whole, scale, (48, 32), 2, torch.float64)
    check_outputs(whole | {"conv_scale": 0.01}, scale, (64, 64), 1, torch.float32)


@pytest.mark.parametrize("size", [(4, 4), (20, 12), (4, 36)])
@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_equal_the_originals_at_odd_sizes(size, batch):
    check_outputs(TINY, 2, size, batch, torch.float64)


def check_gradients(options, scale, size, batch, dtype, tolerance):
    original, network = pair(scale, dtype, **options, drop_path_rate=0.0)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(batch, 3, *size, generator=generator).to(dtype)
    gt = torch.rand(batch, 3, size[0] * scale, size[1] * scale, generator=generator).to(dtype)
    F.l1_loss(original.train()(x), gt).backward()
    F.l1_loss(network.train()(x), gt).backward()
    expected = {name: p.grad for name, p in original.named_parameters()}
    assert list(expected) == [name for name, _ in network.named_parameters()]  # optimizer states follow this order
    for name, p in network.named_parameters():
        error = (p.grad - expected[name]).norm() / expected[name].norm().clamp_min(1e-12)
        assert error <= tolerance, name


@pytest.mark.parametrize("size", [(8, 8), (16, 12)])
@pytest.mark.parametrize("options", [TINY, TINY | {"qkv_bias": False, "qk_scale": 0.3}])
def test_gradients_equal_the_originals(size, options):
    check_gradients(options, 2, size, 2, torch.float32, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "variant"), WHOLE)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_gradients_of_whole_networks_equal_the_originals(groups, variant, scale):
    whole = VARIANTS[variant] | {"depths": (6,) * groups, "num_heads": (6,) * groups}
    check_gradients(whole, scale, (32, 16), 1, torch.float64, 1e-9)
    check_gradients(whole | {"conv_scale": 0.01}, scale, (16, 48), 1, torch.float32, 1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"ape": True},
        {"patch_norm": False},
        {"qkv_bias": False},
        {"qk_scale": 0.3},
        {"resi_connection": "identity"},
        {"img_range": 255.0},
        {"in_chans": 1},
        {"img_size": (16, 24)},
        {"img_size": 4},  # a single window: nothing is shifted
        {"mlp_ratio": 3.5},
        {"num_heads": (4, 2)},
        {"window_size": 5, "img_size": 15, "overlap_ratio": 0.4},
        {"overlap_ratio": 1.0},
        {"overlap_ratio": 0.0},
        {"compress_ratio": 5, "squeeze_factor": 7},
        {"conv_scale": 2.0},
    ],
    ids=str,
)
def test_every_argument_means_what_it_means_in_the_original(options):
    original, network = pair(2, torch.float64, **TINY | options)
    side = 15 if "window_size" in options else 16
    x = torch.rand(2, options.get("in_chans", 3), side, side, dtype=torch.float64)
    with torch.no_grad():
        expected = original(x)
        for result in (network(x), definition(network, x)):
            assert (result - expected).abs().max() <= 1e-10 * options.get("img_range", 1)
    original.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("groups", "variant", "parameters", "giga"),
    [(6, "HAT-S", 9_621_183, 109.24), (6, "HAT", 20_772_507, 207.76), (12, "HAT-L", 40_846_575, 405.98)],
)
def test_parameters_and_operations_are_the_published_ones(groups, variant, parameters, giga):
    with torch.device("meta"):
        network = HAT(**VARIANTS[variant] | {"depths": (6,) * groups, "num_heads": (6,) * groups})
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert execution.operations(network, 64, 64) / 1e9 == pytest.approx(giga, abs=0.005)


def test_defaults_are_the_released_x4_network():
    with torch.device("meta"):
        network = HAT()
    options = VARIANTS["HAT"] | {"depths": (6,) * 6, "num_heads": (6,) * 6, "window_size": 16, "mlp_ratio": 2}
    original = OriginalHAT(upscale=4, upsampler="pixelshuffle", **options)
    assert {n: v.shape for n, v in network.state_dict().items()} == {
        n: v.shape for n, v in original.state_dict().items()
    }


@pytest.mark.parametrize("options", [{}, {"ape": True}, {"window_size": 8, "overlap_ratio": 0.25}])
def test_state_dicts_load_strictly_in_both_directions_with_equal_tensors(options):
    original, network = pair(4, **TINY | options)
    rescale_(network, seed=1)
    original.load_state_dict(network.state_dict(), strict=True)
    for name, value in original.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    with pytest.raises(RuntimeError, match="surplus"):
        network.load_state_dict(network.state_dict() | {"layers.0.surplus": torch.zeros(1)})


@pytest.mark.parametrize(("w", "overlap"), [(4, 2), (5, 2), (4, 0), (16, 8)])
def test_positions_of_overlapping_windows_are_the_originals(w, overlap):
    original = OriginalHAT(**TINY | {"window_size": w, "img_size": 2 * w, "overlap_ratio": overlap / w}, upscale=2)
    index = geometry.overlapping_position_index(w, overlap, torch.device("cpu"))
    assert torch.equal(index, original.relative_position_index_OCA)


def test_overlapping_windows_are_those_of_unfold():
    x = torch.rand(2, 3, 8 + 4, 12 + 4)
    expected = F.unfold(x, kernel_size=8, stride=4).unflatten(1, (3, 64)).permute(0, 3, 2, 1).flatten(0, 1)
    assert torch.equal(geometry.overlapping_windows(x.permute(0, 2, 3, 1), 4, 8), expected)


@pytest.mark.parametrize("tokens", [1, 70, 300, 10**9])
def test_results_do_not_depend_on_how_much_is_computed_at_a_time(tokens, monkeypatch):
    _, network = pair(2, torch.float64, **TINY)
    x = torch.rand(2, 3, 40, 28, dtype=torch.float64)
    with torch.no_grad():
        expected = definition(network, x)
        monkeypatch.setattr(execution, "CPU_TOKENS", tokens)
        assert (network(x) - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("tokens", [16, 100, 1000])
def test_regions_cover_a_feature_map_once(tokens):
    seen = torch.zeros(1, 20, 36, 1)
    for region in hybrid_execution._regions(seen, 4, tokens):
        assert region.height * region.width <= tokens
        region.of_tokens(seen).add_(1)
    assert (seen == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_means_of_a_convolution_follow_from_sums_of_its_input(size, bias):
    conv = torch.nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    x = torch.rand(2, *size, 3, dtype=torch.float64)
    expected = conv(x.permute(0, 3, 1, 2)).mean((2, 3))
    assert (hybrid_execution._mean_convolved(conv, x, x.sum((1, 2))) - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("rates", [{}, {"drop_path_rate": 0.4}])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_execution_has_the_gradients_of_the_definition(recompute, rates):
    network = HAT(**TINY | {"upscale": 2, "use_checkpoint": recompute} | rates).double().train()
    rescale_(network)
    check_gradients_of_definition(network)


def test_training_keeps_no_attention_matrix_and_checkpointing_little_at_all(monkeypatch):
    monkeypatch.setattr(kernels, "KEPT_BYTES", 0)  # what windows of 16 are too large for
    options = TINY | {"window_size": 6, "img_size": 36, "overlap_ratio": 1 / 3, "upscale": 1}
    stored = []
    for recompute in (False, True):
        shapes = []
        network = HAT(**options, use_checkpoint=recompute).train()
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=shapes: (s.append(t.shape), t)[1], lambda t: t):
            network(torch.rand(2, 3, 42, 48))
        matrices = [shape.numel() // shape[-2:].numel() for shape in shapes if shape[-2:] in ((36, 36), (36, 64))]
        assert max([0, *matrices]) == (
            0 if recompute else 56
        )  # a mask for each window of an image, but nothing for each window of each image
        stored.append(sum(shape.numel() for shape in shapes))
    assert stored[1] < 0.6 * stored[0]


def test_dropout_drops_in_the_execution():
    network = HAT(**TINY | {"drop_rate": 0.3, "attn_drop_rate": 0.3, "drop_path_rate": 0.0, "upscale": 1}).train()
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
    network = HAT(**TINY | {"drop_path_rate": 0.2}).train(training)
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


def test_replaced_layers_and_groups_of_another_class_run_as_they_are_defined():
    class Doubled(HybridGroup):
        def forward(self, x):
            return 2 * super().forward(x)

    network = HAT(**TINY).eval()
    rescale_(network)
    x = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        before = network(x)
        conv = network.layers[0].residual_group.blocks[0].conv_block.cab[2]
        network.layers[0].residual_group.blocks[0].conv_block.cab[2] = torch.nn.Sequential(conv, torch.nn.Tanh())
        assert not execution.takes_over(network)
        assert (network(x) - before).abs().max() > 1e-3
        network.layers[0].residual_group.blocks[0].conv_block.cab[2] = conv
        assert execution.takes_over(network)
        network.layers[0].__class__ = Doubled
        network.built_structure = execution.structure(network)
        assert not execution.takes_over(network)
        assert (network(x) - before).abs().max() > 1e-3


def test_prepared_weights_are_dropped_when_weights_change():
    network = HAT(**TINY).eval()
    rescale_(network)
    x = torch.rand(1, 3, 8, 12)
    last = network.layers[0].residual_group.overlap_attn
    with torch.no_grad():
        first = network(x)
        kept = dict(prepared_weights._prepared[last])
        assert torch.equal(network(x), first)
        assert prepared_weights._prepared[last] == kept  # the same objects
        for p in network.parameters():
            p.data.mul_(0.9)  # PyTorch does not count such changes
            assert (network(x) - definition(network, x)).abs().max() <= 1e-5
    prepared_weights.forget_prepared_weights(network)
    assert last not in prepared_weights._prepared


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_close(dtype):
    _, network = pair(2, **TINY)
    x = torch.rand(2, 3, 32, 20)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        result = network(x).float()
    with torch.no_grad():
        expected = network(x)
        whole = network.to(dtype)(x.to(dtype)).float()
    for low in (result, whole):
        assert 0 < (low - expected).abs().mean() < 0.05 * expected.std()


def test_progress_is_reported():
    network = HAT(**TINY).eval()
    shares: list[float] = []
    with torch.no_grad(), progress.watched(shares.append):
        network(torch.rand(1, 3, 8, 12))
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert shares[-1] == pytest.approx(1)


def test_means_of_channel_attention_are_of_the_whole_image_not_of_a_tile(monkeypatch):
    """A change far away, beyond every convolution and window, changes a result through channel attention only."""
    network = HAT(**TINY | {"upscale": 1, "conv_scale": 10.0}).eval()
    rescale_(network)
    monkeypatch.setattr(execution, "CPU_TOKENS", 64)
    x = torch.rand(1, 3, 8, 240)
    changed = x.clone()
    changed[..., 200:] = 0
    with torch.no_grad():
        assert (network(x) - network(changed))[..., :8].abs().max() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsampler": "nearest+conv"}, "nearest"),
        ({"num_heads": (2,)}, "num_heads has 1"),
        ({"embed_dim": 13}, r"embed_dim \(13\) must be a multiple of num_heads"),
        ({"overlap_ratio": 0.25}, "overlap_ratio"),
        ({"squeeze_factor": 13}, "squeeze_factor must be above 0 and at most embed_dim"),
        ({"compress_ratio": 0}, "compress_ratio must be above 0"),
        ({"img_size": 2}, "img_size"),
    ],
)
def test_arguments_that_make_no_network_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        HAT(**TINY | options)


def test_unknown_options_are_named():
    with pytest.warns(UserWarning, match="HAT ignores options it does not know: gc, overlap_rate.*overlap_ratio"):
        HAT(**TINY, gc=32, overlap_rate=0.5)


def test_regions_that_attention_reads_reach_beyond_a_region_by_half_the_overlap():
    """Changing a pixel further away than that changes nothing."""
    block = HAT(**TINY).layers[0].residual_group.overlap_attn.eval()
    rescale_(block)
    weights = hybrid_execution._block_weights(block, block, torch.float32).attention
    x = torch.rand(1, 16, 16, 12)
    region = Region(4, 4, 4, 8)
    with torch.no_grad():
        expected = hybrid_execution._attend_overlapping(block, x, region, weights)
        for row, seen in ((2, False), (3, True), (8, True), (9, False)):
            changed = x.clone()
            changed[:, row] = 0
            found = hybrid_execution._attend_overlapping(block, changed, region, weights)
            assert torch.equal(found, expected) is not seen
