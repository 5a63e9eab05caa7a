"""The execution on a real GPU: numbers, waits, starts and memory. Needs nothing but PyTorch, pytest and this project.

pytest --noconftest -m cuda tests/test_cuda.py
"""

from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from drct.analysis.gpu_speed import enliven_
from drct.analysis.kernel_kinds import profile_run
from drct.archs import execution, gpu_switches
from drct.archs.drct_arch import DRCT
from drct.archs.hat_arch import HAT
from drct.archs.variants import VARIANTS
from drct.errors import DRCTError
from drct.runtime.recorded import RecordedTraining, in_precision

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]

NETWORKS: dict[str, tuple[type, dict[str, Any]]] = {
    "DRCT": (DRCT, {"depths": (6,), "num_heads": (6,)}),
    "DRCT-XS": (DRCT, dict(VARIANTS["DRCT-XS"])),
    "HAT": (HAT, {"depths": (2,), "num_heads": (6,)}),
}


@pytest.fixture(autouse=True)
def exact():
    """Convolutions in fp32 have the precision of fp32, as matrix products have by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def made(name: str, **more: Any) -> Any:
    kind, options = NETWORKS[name]
    network = kind(**options | more, upscale=4, upsampler="pixelshuffle").eval()
    enliven_(network)
    return network


def by_definition(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "takes_over", lambda network: False)
        return network(x)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(16, 16), (48, 80)])
def test_results_are_those_of_the_definition_on_the_cpu(name, size):
    network, x = made(name), torch.rand(2, 3, *size)
    with torch.no_grad():
        expected = by_definition(network.double(), x.double()).float()
        network = network.float().cuda()
        assert (network(x.cuda()).cpu() - expected).abs().max() <= 1e-4
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cuda", dtype):
                assert (network(x.cuda()).float().cpu() - expected).abs().max() <= 0.2
                assert (network(x.cuda()).float().cpu() - expected).square().mean().sqrt() <= 0.02


@pytest.mark.parametrize("tokens", [256, 4096])
def test_results_do_not_depend_on_how_many_windows_are_computed_at_a_time(monkeypatch, tokens):
    network, x = made("DRCT-XS").cuda(), torch.rand(1, 3, 64, 96, device="cuda")
    with torch.no_grad():
        expected = network(x)
        monkeypatch.setattr(execution, "GPU_TOKENS", tokens)
        monkeypatch.setattr(execution, "FEWEST_GPU_TOKENS", tokens)
        assert (network(x) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_the_definition_on_the_cpu(name):
    network, x = made(name).eval(), torch.rand(2, 3, 32, 48)  # in evaluation mode, as stochastic depth is random
    by_definition(network.double(), x.double()).square().mean().backward()
    expected = {key: p.grad.clone() for key, p in network.named_parameters()}
    network.zero_grad()
    network.float().cuda()
    network(x.cuda()).square().mean().backward()
    for key, p in network.named_parameters():
        scale = expected[key].abs().max().clamp_min(1e-6)
        assert (p.grad.cpu().double() - expected[key]).abs().max() <= 2e-3 * scale, key
    network.zero_grad()
    with torch.autocast("cuda", torch.bfloat16):
        loss = network(x.cuda()).square().mean()
    loss.backward()
    for key, p in network.named_parameters():
        assert torch.isfinite(p.grad).all(), key
        if "bias_table" in key:  # which not every kernel of attention can do
            difference = (p.grad.cpu().double() - expected[key]).norm()
            assert difference <= 0.3 * expected[key].norm(), key


def of_groups(network: Any, dtype: torch.dtype, size: tuple[int, int]) -> Any:
    """What runs the groups of a network, prepared, on a feature map."""
    channels = execution.feature_channels(network)
    features = torch.rand(1, *size, channels, device="cuda", dtype=dtype)

    def run() -> None:
        with torch.no_grad(), torch.autocast("cuda", dtype):
            for group in network.layers:
                type(group).execution.in_place(group, features, 65536)

    with torch.no_grad(), torch.autocast("cuda", dtype):
        network(torch.rand(1, 3, *size, device="cuda"))
    return run


@contextmanager
def without_waits():
    """Within the block, let whatever waits for the GPU raise an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", NETWORKS)
def test_no_block_waits_for_the_gpu(name):
    run = of_groups(made(name).cuda(), torch.bfloat16, (64, 96))
    run()
    with without_waits():
        run()


def test_training_does_not_wait_for_the_gpu():
    network, x = made("DRCT-XS").cuda().train(), torch.rand(2, 3, 32, 32, device="cuda")

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = network(x).mean()
        loss.backward()

    step()
    with without_waits():
        step()


def losses_of_training(name: str, precision: str, recorded: bool, drop_path: float = 0.0) -> list[float]:
    """Losses of five steps, the third on a smaller batch, with inference on images of many sizes after each step."""
    network = made(name, drop_path_rate=drop_path).cuda().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    run = RecordedTraining(network, precision) if recorded else partial(in_precision, network, precision=precision)
    generator, losses = torch.Generator().manual_seed(0), []
    for step, size in enumerate((4, 4, 2, 4, 4)):
        torch.manual_seed(step)
        lq = torch.rand(size, 3, 32, 32, generator=generator).cuda()
        truth = torch.nn.functional.interpolate(lq, scale_factor=4)
        optimizer.zero_grad()
        loss = (run(lq) - truth).abs().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        with torch.no_grad():
            for side in (16, 48, 64, 80, 96):  # whose orders of windows replace those of the graphs
                network.eval()(torch.rand(1, 3, side, side, device="cuda"))
        network.train()
        torch.cuda.empty_cache()
        noise = torch.rand(64, 2**20, device="cuda")  # over whatever was freed by mistake
        del noise
    return losses


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("precision", "rel"), [("fp32", 1e-4), ("bf16", 1e-2)])
def test_recorded_training_computes_the_same(name, precision, rel):
    plain = losses_of_training(name, precision, recorded=False)
    assert losses_of_training(name, precision, recorded=True) == pytest.approx(plain, rel=rel)
    assert min(plain[3:]) < (1 - 3 * rel) * plain[0]  # so that weights which do not change would show


def test_recorded_training_draws_the_same_random_numbers():
    plain = losses_of_training("DRCT-XS", "fp32", recorded=False, drop_path=0.5)
    assert losses_of_training("DRCT-XS", "fp32", recorded=True, drop_path=0.5) == pytest.approx(plain, rel=1e-4)


def test_recorded_training_does_not_wait_for_the_gpu_and_is_repeatable():
    network, x = made("DRCT-XS", drop_path_rate=0.0).cuda().train(), torch.rand(2, 2, 3, 32, 32, device="cuda")
    recorded = RecordedTraining(network, "bf16")

    def gradients(images: torch.Tensor) -> list[torch.Tensor]:
        network.zero_grad()
        recorded(images).square().mean().backward()
        return [p.grad for p in network.parameters()]

    first = [grad.clone() for grad in gradients(x[0])]
    with without_waits():
        gradients(x[1])
        again = gradients(x[0])
    for old, new in zip(first, again, strict=True):
        assert (old - new).abs().max() <= 1e-2 * old.abs().max() + 1e-7


def test_a_block_starts_few_kernels():
    network = made("DRCT").cuda()
    run = of_groups(network, torch.bfloat16, (64, 96))
    run()
    seconds, kernels, _ = profile_run(run, "cuda")
    # 13 to 17 operations of a block; matrix products may take a second kernel
    assert kernels <= 5 * 24, (kernels, seconds)


def test_graphs_replay_what_the_network_computes():
    network, x = made("DRCT").cuda(), torch.rand(4, 1, 3, 64, 96, device="cuda")
    with torch.no_grad():
        expected = [network(image) for image in x]
        with gpu_switches.switched(graphs=True):
            results = [network(image) for image in x]
            for result, image in zip(results, expected, strict=True):
                assert (result - image).abs().max() <= 1e-5
            network.layers[0].adjust3.weight.data.mul_(1.5)
            changed = [network(x[0]) for _ in range(3)]
        after = network(x[0])
        assert (after - expected[0]).abs().max() > 1e-3
        assert all((result - after).abs().max() <= 1e-5 for result in changed)
        torch.cuda.empty_cache()
        noise = torch.rand(64, 2**20, device="cuda")  # over whatever was freed by mistake
        with gpu_switches.switched(graphs=True):
            assert (network(x[0]) - after).abs().max() <= 1e-5
        del noise


@pytest.mark.parametrize("switches", [{"rows": False}, {"triton": True}, {"compiled": "inductor"}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_switches_change_no_results(switches, dtype):
    pytest.importorskip("triton")
    network, x = made("DRCT").cuda(), torch.rand(1, 3, 48, 80, device="cuda")
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        expected = network(x).float()
        with gpu_switches.switched(**switches):
            result = network(x).float()
    assert (result - expected).abs().max() <= (1e-4 if dtype == torch.float32 else 0.2)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_stays_within_the_estimate(name, dtype):
    network, size = made(name).cuda(), (320, 480)
    x = torch.rand(1, 3, *size, device="cuda")
    start = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        network(x)
    peak = torch.cuda.max_memory_allocated() - start
    assert peak <= execution.memory_needed(network, *size, dtype, x.device)


def test_attention_of_training_expands_no_bias():
    """The matrix of a bias for each window would be most of the memory of a step."""
    network, x = made("DRCT").cuda().train(), torch.rand(4, 3, 64, 64, device="cuda")
    start = torch.cuda.memory_allocated()
    with torch.autocast("cuda", torch.bfloat16):
        out = network(x)
    kept = torch.cuda.memory_allocated() - start
    expanded = sum(4 * 16 * block.attn.num_heads * 256**2 * 2 for block in map(network.layers[0].get_submodule, BLOCKS))
    activations = 5 * 4 * 64**2 * 308 * 4 * 8
    assert kept < activations + expanded / 4
    out.mean().backward()


BLOCKS = [f"swin{k}" for k in range(1, 6)]


def test_recomputed_activations_are_recorded_or_refused():
    """The last test, as an error while a graph is recorded may leave its traces in the process."""
    network, x = made("DRCT-XS", use_checkpoint=True).cuda().train(), torch.rand(2, 3, 32, 32, device="cuda")
    try:
        RecordedTraining(network, "bf16")(x).mean().backward()
    except DRCTError as error:
        assert "set train.cuda_graphs: false" in str(error)
    else:
        assert all(p.grad.isfinite().all() for p in network.parameters())
