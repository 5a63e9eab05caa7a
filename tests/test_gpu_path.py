"""How networks run on a GPU, on the CPU: the results, and what a GPU would be asked for. Speed is nobody's test."""

import copy
import os
import subprocess
import sys
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import HAT_TINY, ROOT, TINY, check_gradients_of_definition, definition, rescale_
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from drct.archs import (
    execution,
    gpu_attention,
    gpu_blocks,
    gpu_graphs,
    gpu_switches,
    gpu_windows,
    prepared_weights,
    progress,
    reconstruction,
    windows,
)
from drct.archs.drct_arch import DRCT
from drct.archs.hat_arch import HAT
from drct.archs.prepared_weights import attention_weights, product_of
from drct.archs.training_weights import training_weights

PLAIN = {"upscale": 2, "upsampler": "pixelshuffle"}


@pytest.fixture(autouse=True)
def as_gpu(monkeypatch):
    """The CPU is run as a GPU is."""
    monkeypatch.setattr(gpu_switches, "is_gpu", lambda device: True)


def made(kind=DRCT, **options) -> Any:
    network = kind(**({DRCT: TINY, HAT: HAT_TINY}[kind] | PLAIN | options)).eval()
    rescale_(network)
    return network


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt() * self.weight


# ------------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("size", [(4, 4), (4, 12), (16, 4), (12, 20)])
@pytest.mark.parametrize("tokens", [16, 100, 65536])
@pytest.mark.parametrize("kind", [DRCT, HAT])
def test_inference_computes_the_definition(monkeypatch, kind, size, tokens):
    monkeypatch.setattr(execution, "CPU_TOKENS", tokens)
    network = made(kind)
    with torch.no_grad():
        for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
            x = torch.rand(2, 3, *size, dtype=dtype)
            network.to(dtype)
            assert (network(x) - definition(network, x)).abs().max() <= bound


@pytest.mark.parametrize(
    "options",
    [
        {"qkv_bias": False, "qk_scale": 0.3},
        {"norm_layer": RMSNorm},
        {"norm_layer": lambda dim: nn.LayerNorm(dim, elementwise_affine=False)},
        {"patch_norm": False, "resi_connection": "identity", "upscale": 3},
        {"window_size": 5, "img_size": 20},
        {"img_size": 4},  # a window: no shift
    ],
)
def test_inference_computes_the_definition_with_any_options(options):
    network = made(**options)
    x = torch.rand(1, 3, 20, 20)
    with torch.no_grad():
        assert (network(x) - definition(network, x)).abs().max() <= 1e-5
        for low in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", low):
                assert (network(x).float() - definition(network, x).float()).abs().max() <= 5e-2


def test_layers_without_a_bias_are_computed():
    network = made()
    for block in (network.layers[0].swin1, network.layers[1].swin2):
        block.mlp.fc2.bias = block.mlp.fc1.bias = block.attn.proj.bias = None
    network.layers[0].adjust1.bias = network.layers[0].adjust2.bias = None
    x = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        assert (network(x) - definition(network, x)).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", [DRCT, HAT])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("gradients", [1, 2**26])
def test_training_has_the_gradients_of_the_definition(monkeypatch, kind, recompute, gradients):
    """Samples that stochastic depth drops included; the gradients of biases a window at a time, or all."""
    monkeypatch.setattr(gpu_attention, "BIAS_GRADIENTS", gradients)
    network = made(kind, use_checkpoint=recompute, drop_path_rate=0.5, **({"qk_scale": 0.3} if kind is DRCT else {}))
    check_gradients_of_definition(network.double().train())


def test_half_precision_weights_run():
    """Weights are prepared in float32, whatever they are stored in."""
    network = made().to(torch.bfloat16)
    x = torch.rand(1, 3, 8, 12, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = copy.deepcopy(network).float()(x.float())
        assert (network(x).float() - expected).abs().max() <= 5e-2


@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (4, 1), (3, 5)])
@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("at_most", [1, 4, 100])
def test_windows_of_a_kind_lie_beside_each_other(grid, shift, at_most):
    w, (rows, columns) = 4, grid
    x = torch.arange(2 * rows * columns * w * w).view(2, rows * w, columns * w, 1)
    order = gpu_windows.window_order(x, w, shift)
    assert torch.equal(order.tokens[order.places], torch.arange(x.numel()))
    every = windows.window_partition(torch.roll(x, (-shift, -shift), (1, 2)), w).unflatten(0, (2, -1))
    kinds = windows.window_kinds(rows, columns, x.device) if shift else torch.zeros(rows * columns)
    seen = []
    for piece in order.pieces(at_most):
        assert piece.windows <= at_most
        got = x.flatten()[piece.tokens].view(piece.windows, 2, w * w, 1)
        covered = 0
        for kind, start, end in piece.kinds.runs:
            assert start == covered < end
            covered = end
            for window in got[start:end]:
                number = int((every[0] == window[0]).flatten(1).all(1).nonzero())
                assert torch.equal(window, every[:, number])
                assert kinds[number] == kind
                seen.append(number)
        assert covered == piece.windows
    assert sorted(seen) == list(range(rows * columns))


@pytest.mark.parametrize("factor", [2, 3])
def test_pixels_are_shuffled_in_either_order_of_memory(factor):
    x = torch.rand(2, 5 * factor**2, 4, 6)
    expected = F.pixel_shuffle(x, factor)
    last = reconstruction.pixel_shuffle(x.contiguous(memory_format=torch.channels_last), factor)
    assert torch.equal(last, expected)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(reconstruction.pixel_shuffle(x, factor), expected)


# ---------------------------------------------------------------------------------------------- what a GPU is asked for


class Operations(TorchDispatchMode):
    """The operations within a block that a GPU would start, by name; those that wait for it are errors."""

    WAIT = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique", "allclose")
    NO_WORK = ("empty", "new_empty", "empty_like", "empty_strided", "_unsafe_view", "detach", "new_empty_strided")

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.WAIT, f"{name} waits for the GPU"
        assert name != "lift_fresh" or not args[0].dim(), "a list of numbers, as of an index, waits for the GPU"
        views = [r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns]
        if not any(views) and name not in self.NO_WORK:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class FusedAttention(torch.autograd.Function):
    """In place of PyTorch's, which is one operation on a GPU but many here; computes nothing."""

    @staticmethod
    def forward(ctx, q, k, v, bias):
        ctx.save_for_backward(q, k, v, bias)
        return v.new_ones(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)

    @staticmethod
    def backward(ctx, grad):
        return tuple(torch.empty_like(t) for t in ctx.saved_tensors)


@pytest.fixture
def masks(monkeypatch) -> list[tuple[int, torch.Tensor]]:
    """Attention is replaced; its numbers of windows and its masks are noted."""
    seen: list[tuple[int, torch.Tensor]] = []

    def attention(q, k, v, mask, dropout, scale):
        seen.append((len(q), mask))
        return FusedAttention.apply(q, k, v, mask)

    monkeypatch.setattr(gpu_attention.F, "scaled_dot_product_attention", attention)
    return seen


def of_group(network, size: tuple[int, int], run) -> Counter[str]:
    """The operations of a group of a network in bfloat16, when it has run on this size before."""
    group = network.layers[0]
    channels = type(group).execution.channels(group)
    x = torch.rand(2, *size, channels, dtype=torch.bfloat16)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16), Operations() as operations:
            run(group, x)
    return operations.counts


@pytest.mark.parametrize("tokens", [8 * 16 * 2, 10**6])
def test_a_block_starts_few_operations_and_waits_for_none(masks, tokens):
    network = made()

    def run(group, x):
        with torch.no_grad():
            type(group).execution.in_place(group, x, tokens)

    counts = of_group(network, (16, 16), run)
    pieces = -(-16 * 16 * 2 // tokens)
    assert counts.total() <= (3 * 13 + 2 * 17) * pieces  # without and with a shift
    assert counts["index_select"] == counts["index_put_"] == 5 * pieces  # windows are read and written once
    for moved in ("_to_copy", "clone", "copy_", "roll", "constant_pad_nd"):
        assert counts[moved] == 0, moved
    assert counts["cat"] <= 2 * pieces  # the kinds of windows of a shifted image
    assert of_group(network, (32, 32), run).total() <= (3 * 13 + 2 * 17) * pieces * 4


def test_the_blocks_of_hat_wait_for_nothing(masks):
    def run(group, x):
        with torch.no_grad():
            type(group).execution.in_place(group, x, 10**6)

    counts = of_group(made(HAT), (16, 16), run)
    assert counts["index_select"] == counts["index_put_"] == 2
    assert counts["roll"] == 0


@pytest.mark.parametrize(("kind", "bound"), [(DRCT, 89), (HAT, 122)])
def test_training_waits_for_nothing(masks, kind, bound):
    """Operations of a block, forward and backward, are bounded. Casts of autocast are a fifth of them.

    A product has three gradients, each of which is an operation.
    """
    network = made(kind).train()
    blocks = 5 if kind is DRCT else 3

    def run(group, x):
        network.zero_grad()
        y = type(group).execution.at_once(group, x[..., : network.embed_dim].float().requires_grad_(), False)
        y.sum().backward()

    counts = of_group(network, (16, 16), run)
    assert counts.total() <= blocks * bound
    assert counts["index_select"] == 4 * (5 if kind is DRCT else 2)  # there and back, forward and backward
    assert counts["roll"] == counts["index"] == 0


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_for_training_are_prepared_in_one_step(dtype, qkv_bias):
    """The same numbers as for inference, but with the factor of the queries apart, and the same gradients."""
    attn = made(qkv_bias=qkv_bias).layers[0].swin2.attn
    attn.scale = 1.0
    layer = nn.Linear(5, 3)

    def prepared(in_one_step):
        if in_one_step:
            attention, (product,) = training_weights(attn, [product_of(layer)], dtype)
        else:
            attention, product = attention_weights(attn, dtype), product_of(layer)
        pairs = (attention.qkv, attention.proj, product)
        return [attention.bias, *(t.to(dtype) for pair in pairs for t in pair if t is not None)]

    expected, parameters = prepared(False), [*attn.parameters(), *layer.parameters()]
    with Operations() as operations:
        found = prepared(True)
    assert operations.counts["_to_copy"] == 0
    assert operations.counts["_foreach_copy_"] == (dtype != torch.float32)
    seeds = [torch.randn_like(t) for t in expected]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(*(torch.autograd.grad(t, parameters, seeds) for t in (found, expected)), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [DRCT, HAT])
def test_masks_stay_as_many_as_there_are_kinds(masks, kind, training):
    network = made(kind).train(training)
    x = torch.rand(2, 3, 16, 20)
    with torch.set_grad_enabled(training):
        network(x)
    shifted = 4 if kind is DRCT else 1  # two groups of two blocks; a group of two blocks has one
    assert all(len(mask) == 1 for _, mask in masks)
    biases = {}
    group = network.layers[0]
    attn = group.swin2.attn if kind is DRCT else group.residual_group.blocks[1].attn
    bias = attn.relative_position_bias()
    for number, mask in masks:
        if mask.shape[1:] == bias.shape and torch.equal(mask[0], bias):
            biases[number] = mask
    assert biases.keys() == {2 * 3 * 4}  # the inner windows of both images
    assert sum(number == 2 for number, _ in masks) == shifted  # the corners


def test_no_operation_of_a_whole_image_waits_but_that_which_compares_weights():
    network = made()
    x = torch.rand(1, 3, 16, 20)
    with torch.no_grad():
        network(x)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execution, "forget_stale_weights", lambda network, x: None)
            with Operations():
                network(x)


# -------------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("kind", [DRCT, HAT])
def test_weights_are_prepared_once_and_again_when_they_change(kind):
    network = made(kind)
    x = torch.rand(1, 3, 8, 12)
    last = network.layers[0] if kind is DRCT else network.layers[0].residual_group.overlap_attn

    def changed(change):
        with torch.no_grad():
            before = network(x)
            change()
            assert (network(x) - definition(network, x)).abs().max() <= 1e-5
            assert (network(x) - before).abs().max() > 1e-5

    with torch.no_grad():
        first = network(x)
        kept = dict(prepared_weights._prepared[last])
        assert torch.equal(network(x), first)
        assert prepared_weights._prepared[last] == kept  # the same objects
    layers = [module for module in network.layers[0].modules() if isinstance(module, nn.Linear)]
    changed(lambda: layers[2].weight.mul_(1.5))
    changed(lambda: layers[0].weight.data.mul_(0.9))  # as BasicSR averages weights; PyTorch does not count it
    changed(lambda: setattr(layers[1].weight, "data", layers[1].weight.data.flip(0)))
    changed(lambda: setattr(layers[2], "bias", None))
    norm = next(module for module in network.layers[0].modules() if isinstance(module, nn.LayerNorm))
    changed(lambda: norm.weight.data.neg_())
    attn = execution.attentions(network)[1]
    changed(lambda: attn.relative_position_bias_table.data.mul_(-2))
    changed(lambda: setattr(attn, "scale", attn.scale * 1.5))
    changed(lambda: network.load_state_dict(made(kind, **{}).state_dict(), strict=False))
    double = copy.deepcopy(network)
    with torch.no_grad():
        assert torch.equal(double(x), network(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert (network(x).float() - definition(network, x).float()).abs().max() <= 1e-1
    prepared_weights.forget_prepared_weights(network)
    assert last not in prepared_weights._prepared


def test_sums_of_bits_mind_values_and_places():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5000, generator=generator)
    sums = prepared_weights._sums_of_bits
    others = [x.flip(0), x.flip(1), -x, x.roll(1, 1), x.double(), x + 1e-6]
    others += [x.index_copy(1, torch.tensor([3, 4]), x[:, [4, 3]])]
    for other in others:
        assert sums([other]) != sums([x])
    assert sums([x.clone(), x.half()]) == sums([x, x.half()])
    assert sums([]) == []


def test_stand_ins_for_tensors_leave_no_weights_behind():
    with torch.device("meta"):
        network = DRCT(**TINY, **PLAIN).eval()
        with torch.no_grad():
            assert network(torch.rand(1, 3, 8, 8)).shape == (1, 3, 16, 16)
    assert network.layers[0] not in prepared_weights._prepared


# -------------------------------------------------------------------------------------------------- memory and switches


def test_groups_of_windows_get_smaller_where_memory_is_short(monkeypatch):
    network, device = made(embed_dim=180, gc=32, num_heads=(6, 6)), torch.device("cuda")
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(
            torch.cuda, name, lambda device, name=name: {"memory_reserved": 10, "memory_allocated": 3}[name]
        )
    found = {}
    for free in (10**6, 10**8, 10**10, 10**11):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**12))
        found[free] = execution.tokens_in_free_memory(network, torch.bfloat16, device)
    assert found[10**6] == execution.FEWEST_GPU_TOKENS
    assert found[10**11] == found[10**10] == execution.GPU_TOKENS
    assert found[10**6] < found[10**8] < execution.GPU_TOKENS
    assert execution.block_bytes(network, found[10**8], torch.bfloat16) <= 10**8 / 2


def test_graphs_replay_repeated_sizes_until_weights_change(monkeypatch):
    recorded = []

    def record(network, x, compute):
        source, result = x.clone(), compute(x)
        recorded.append(tuple(x.shape))
        return gpu_graphs.Recording(lambda: result.copy_(compute(source)), source, result, None)

    monkeypatch.setattr(gpu_graphs, "_record", record)
    monkeypatch.setattr(gpu_switches, "has_graphs", lambda device: True)
    network = made()
    small, large, wide = (torch.rand(1, 3, *size) for size in ((8, 8), (12, 12), (8, 16)))
    with torch.no_grad(), gpu_switches.switched(graphs=True):

        def check(x):
            result = network(x)
            assert (result - definition(network, x)).abs().max() <= 1e-5
            return result

        kept = check(small)
        assert not recorded  # sizes that come once are not worth it
        again = [check(torch.rand_like(small)) for _ in range(3)]
        assert recorded == [(1, 3, 8, 8)]
        assert not torch.equal(again[0], again[1])  # a result is not overwritten by the next
        assert torch.equal(check(small), kept)
        with torch.autocast("cpu", torch.bfloat16):
            network(small)
        assert len(recorded) == 1
        network.layers[0].adjust3.weight.data.mul_(1.5)
        check(small)
        assert len(recorded) == 1
        check(small)
        assert len(recorded) == 2
        bias = network.conv_last.bias
        bias.data = bias.data.clone()  # equal, but elsewhere
        for _ in range(2):
            check(small)
        assert len(recorded) == 3
        for x in (large, wide, small, small):  # no more than two sizes are kept
            check(x)
        assert recorded[3:] == [(1, 3, 8, 8)]
        shares: list[float] = []
        with progress.watched(shares.append):
            check(small)
        assert shares[-1] == 1
        check(large)
    network(large)
    assert gpu_switches.present() == gpu_switches.Switches()


def test_small_images_are_recorded_and_computed_as_before_where_that_fails(monkeypatch):
    recorded, failed = [], []

    def record(network, x, compute):
        recorded.append(tuple(x.shape))
        failed.append(weakref.ref(held := x.clone()))  # of a recording that has run out of memory
        raise RuntimeError(f"operation not permitted when stream is capturing\n{held.shape}")

    monkeypatch.setattr(gpu_graphs, "_record", record)
    monkeypatch.setattr(gpu_graphs, "SMALL", 128)
    network, small, large = made(), torch.rand(2, 3, 8, 8), torch.rand(1, 3, 12, 12)
    compute = execution._compute_in_place
    monkeypatch.setattr(execution, "_compute_in_place", lambda *args: (freed(), compute(*args))[1])

    def freed():
        assert not any(reference() is not None for reference in failed)

    with torch.no_grad():
        for _ in range(2):  # on a device without graphs
            network(small)
        monkeypatch.setattr(gpu_switches, "has_graphs", lambda device: True)
        for x in (large, large, small):
            network(x)
        assert not recorded
        with pytest.warns(UserWarning, match="not recorded as a CUDA graph: operation not permitted.*capturing$"):
            result = network(small)
        assert (result - definition(network, small)).abs().max() <= 1e-5
        for _ in range(3):  # not tried again
            assert torch.equal(network(small), result)
        assert recorded == [(2, 3, 8, 8)]
        with gpu_switches.switched(graphs=False):
            network(small)
        assert len(recorded) == 1
        with gpu_switches.switched(graphs=True), pytest.raises(RuntimeError, match="not permitted"):
            for _ in range(2):
                network(large)


def test_recordings_hold_for_what_they_were_made_for_and_make_room(monkeypatch):
    recorded = []

    def record(network, x, compute):
        recorded.append(tuple(x.shape))
        source, result = x.clone(), compute(x)
        return gpu_graphs.Recording(lambda: result.copy_(compute(source)), source, result, None)

    monkeypatch.setattr(gpu_graphs, "_record", record)
    monkeypatch.setattr(gpu_graphs, "SMALL", 128)
    monkeypatch.setattr(gpu_switches, "has_graphs", lambda device: True)
    network, small, large = made(), torch.rand(1, 3, 8, 8), torch.rand(1, 3, 12, 12)
    for mode in (torch.inference_mode, torch.no_grad):  # tensors of the first may not be changed in the second
        with mode():
            for _ in range(3):
                network(small)
    assert len(recorded) == 2
    with torch.no_grad():
        network.img_range = 2.0
        for _ in range(2):
            assert (network(small) - definition(network, small)).abs().max() <= 1e-5
        assert len(recorded) == 3
        assert prepared_weights.kept_for(network)["recordings"]
        network(large)
        assert not prepared_weights.kept_for(network).get("recordings")


def test_threads_do_not_get_the_results_of_each_other(monkeypatch):
    def record(network, x, compute):
        source, result = x.clone(), x.clone()

        def replay():
            time.sleep(0.01)
            result.copy_(source * 2)

        return gpu_graphs.Recording(replay, source, result, None)

    monkeypatch.setattr(gpu_graphs, "_record", record)
    network = made()
    images = [torch.full((1, 3, 8, 8), float(i)) for i in range(8)]
    gpu_graphs.run(network, images[0], lambda x: x)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda x: gpu_graphs.run(network, x, lambda x: x * 2), images))
    assert all(torch.equal(result, x * 2) for result, x in zip(results, images, strict=True))


def test_triton_is_used_where_it_works(monkeypatch):
    works = gpu_switches.has_triton.__wrapped__
    cuda = torch.device("cuda")
    assert not works(torch.device("cpu"), torch.float32)
    monkeypatch.setattr(gpu_switches, "find_spec", lambda name: None)
    assert not works(cuda, torch.bfloat16)
    monkeypatch.setattr(gpu_switches, "find_spec", lambda name: object())
    monkeypatch.setattr(torch, "zeros", lambda *args, **options: None)
    monkeypatch.setattr(torch, "ones", lambda *args, **options: None)
    found = {"gathered": lambda *args: None}
    monkeypatch.setitem(sys.modules, "drct.archs.gpu_rows", SimpleNamespace(**found))
    monkeypatch.setattr("drct.archs.gpu_rows", sys.modules["drct.archs.gpu_rows"], raising=False)
    assert works(cuda, torch.bfloat16)

    def fails(*args):
        raise RuntimeError("Failed to find C compiler.\nSee the manual")

    sys.modules["drct.archs.gpu_rows"].gathered = fails
    with pytest.warns(UserWarning, match="Triton does not work here: Failed to find C compiler.$"):
        assert not works(cuda, torch.bfloat16)
    monkeypatch.setitem(sys.modules, "drct.archs.gpu_rows", None)  # a broken installation
    monkeypatch.delattr("drct.archs.gpu_rows")
    with pytest.warns(UserWarning, match="Triton does not work here: .*gpu_rows"):
        assert not works(cuda, torch.bfloat16)


def test_recordings_hold_what_they_read(monkeypatch):
    """Tensors that a graph reads must not be freed before it, whatever is prepared or forgotten meanwhile."""
    cached = []
    used: dict[str, Any] = {}
    restored: list[str] = []
    graph = SimpleNamespace(replay=lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: nullcontext(used.update(options)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"current stream of {device}")
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(restored.append(stream)))
    monkeypatch.setattr(gpu_graphs, "_stream", lambda device: f"stream of {device}")

    def compute(x):
        cached.append(torch.is_autocast_cache_enabled())
        return x * 2

    network = made()
    x = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        network(x)
        recording = gpu_graphs._record(network, x, compute)
        with torch.autocast("cpu", torch.bfloat16):
            gpu_graphs._record(network, x, compute)
    assert used == {"stream": "stream of cpu", "capture_error_mode": "thread_local"}
    assert set(restored) == {"current stream of cpu"}
    assert cached == [True, False]  # weights that autocast keeps are freed with its block
    orders, prepared = recording.held
    features = x.permute(0, 2, 3, 1)
    for order, shift in zip(orders, (0, 2), strict=True):
        assert order.tokens.data_ptr() == gpu_windows.window_order(features, 4, shift).tokens.data_ptr()
    assert sum(isinstance(entry, gpu_blocks.DenseWeights) for entry in prepared) == 10
    assert recording.source.data_ptr() != x.data_ptr()
    assert torch.equal(recording.result, x * 2)


def test_compiled_blocks_compute_the_same():
    """For any size, with one compilation for each width before attention and one after it."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    group = made().layers[0]

    def run(features, on):
        with torch.no_grad(), gpu_switches.switched(compiled=on):
            gpu_blocks.dense_block_in_place(group, 2, features[..., :16], features[..., 16:20], 100)
            gpu_blocks.dense_block_in_place(group, 5, features, features[..., :12], 100)
        return features

    for rows in (2, 4):
        features = torch.rand(1, 4 * rows, 12, 28)
        assert (run(features.clone(), backend) - run(features, "")).abs().max() <= 1e-6
    assert len(compiled) == 4


def test_the_triton_kernel_computes_attention():
    """In Triton's interpreter, which decides when Triton is imported."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests" / "triton_check.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
