"""Training by recorded CUDA graphs, on the CPU: the same numbers, what is recorded, and what is refused.

A stand-in for PyTorch's graphs evaluates anew, in memory that the next call overwrites, as a replay does.
"""

import copy
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import train_options
from test_real_drct import LDL
from test_real_drct import model_of as gan_of
from test_real_drct import options as gan_options
from torch import nn

from drct.analysis.contenders import Contender, make_network, pytorch_runner
from drct.archs import gpu_switches, gpu_windows
from drct.errors import DRCTError
from drct.models.drct_model import DRCTModel
from drct.runs.estimate import _variants
from drct.runtime.recorded import RecordedTraining
from drct.schema.options import TrainingOptions
from drct.seeding import STEP, seed_all

RANDOM = {"drop_path_rate": 0.3, "drop_rate": 0.1}


@pytest.fixture
def graphs(monkeypatch) -> Any:
    """Records on the CPU. Counts recordings and replays."""
    counts = SimpleNamespace(recorded=0, replayed=0)

    def make_graphed_callables(module, sample, allow_unused_input):
        counts.recorded += 1
        assert not torch.is_autocast_enabled("cpu") and module.training
        forward, (source,) = module.forward, sample
        parameters = [p for p in module.parameters() if p.requires_grad]
        for _ in range(4):
            result = forward(source)
        grads = torch.autograd.grad(result.sum(), parameters, allow_unused=allow_unused_input)
        output = result.detach()

        class Replay(torch.autograd.Function):
            @staticmethod
            def forward(ctx, images, *_):
                counts.replayed += 1
                source.copy_(images)
                with torch.enable_grad():
                    ctx.result = forward(source)
                return output.copy_(ctx.result.detach()).detach()

            @staticmethod
            def backward(ctx, grad):
                found = torch.autograd.grad(ctx.result, parameters, grad, allow_unused=allow_unused_input)
                for static, new in zip(grads, found, strict=True):
                    if static is not None:
                        static.copy_(new)
                return None, *(None if static is None else static.detach() for static in grads)

        module.forward = lambda images: Replay.apply(images, *parameters)
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    monkeypatch.setattr(gpu_switches, "has_graphs", lambda device: True)
    return counts


def model_of(network=None, **train) -> DRCTModel:
    opt = train_options(**train) | {"dist": False, "is_train": True, "rank": 0, "world_size": 1}
    opt["network_g"] |= network or {}
    torch.manual_seed(0)
    return DRCTModel(copy.deepcopy(opt))


def trained(model, batches=(2, 2, 1, 2)) -> tuple[list[dict[str, float]], dict[str, dict[str, torch.Tensor]]]:
    """Train on batches of so many patches. Return the numbers of the log, and the weights."""
    generator = torch.Generator().manual_seed(1)
    numbers = []
    for step, size in enumerate(batches, 1):
        gt, lq = (torch.rand(size, 3, side, side, generator=generator) for side in (16, 8))
        model.feed_data({"lq": lq, "gt": gt})
        seed_all(STEP, 0, step)
        model.optimize_parameters(step)
        numbers.append(model.get_current_log())
    saved = {f"{name} {key}": net for name, nets in model.saved_networks().items() for key, net in nets.items()}
    return numbers, {name: copy.deepcopy(net.state_dict()) for name, net in saved.items()}


def assert_same(results, others, rel=0.0):
    (numbers, weights), (other_numbers, other_weights) = results, others
    assert numbers == [pytest.approx(other, rel=rel, abs=0) for other in other_numbers]
    assert weights.keys() == other_weights.keys()
    for name, state in weights.items():
        assert state.keys() == other_weights[name].keys()
        for key, value in state.items():
            assert torch.allclose(value, other_weights[name][key], rtol=rel, atol=rel / 10), (name, key)


@pytest.mark.parametrize(("precision", "rel"), [("fp32", 0.0), ("bf16", 1e-3), ("fp16", 1e-3)])
def test_losses_and_weights_are_those_without(graphs, precision, rel):
    """Random layers and the average of the weights included; the third batch has another shape.

    In low precision, gradients of a weight that is used twice are added up in another order.
    """
    options = {"network": RANDOM, "precision": precision}
    plain = trained(model_of(**options))
    assert_same(trained(model_of(**options, cuda_graphs=True)), plain, rel)
    assert (graphs.recorded, graphs.replayed) == (1, 3)
    assert plain[0][0] != plain[0][1]


def test_recording_turns_off_the_warning_of_streams(graphs, monkeypatch):
    seen = []
    name = "set_warn_on_accumulate_grad_stream_mismatch"
    monkeypatch.setattr(torch.autograd.graph, name, seen.append, raising=False)
    trained(model_of(cuda_graphs=True), [2])
    assert seen == [False]
    monkeypatch.delattr(torch.autograd.graph, name)  # as before PyTorch 2.9
    trained(model_of(cuda_graphs=True), [2])
    assert graphs.recorded == 2


def test_layers_that_do_not_learn_stay_as_they_are(graphs):
    results = []
    for recorded in (False, True):
        model = model_of(cuda_graphs=recorded)
        model.net_g.conv_first.requires_grad_(False)
        model.net_g.register_parameter("unused", nn.Parameter(torch.ones(3)))
        results.append(trained(model))
    assert_same(*results)
    assert graphs.recorded == 1


def test_validation_runs_the_network_itself(graphs):
    model = model_of(cuda_graphs=True, ema_decay=0)
    trained(model, [2, 2])
    assert model.runner.network is model.net_g
    assert "forward" not in vars(model.net_g)
    upscaled = model.upscale(torch.rand(2, 3, 8, 8))
    assert upscaled.shape == (2, 3, 16, 16)
    model.net_g.eval()
    model.recorded(torch.rand(2, 3, 8, 8))
    model.net_g.train()
    with torch.no_grad():
        model.recorded(torch.rand(2, 3, 8, 8))
    assert (graphs.recorded, graphs.replayed) == (1, 2)


def test_of_a_gan_the_generator_alone_is_recorded(graphs):
    results = []
    for recorded in (False, True):
        torch.manual_seed(0)
        options = gan_options("RealDRCTGANModel", ldl_opt=LDL, net_d_init_iters=1, cuda_graphs=recorded)
        results.append(trained(gan_of(options), [2, 2, 2]))
    assert_same(*results)
    assert (graphs.recorded, graphs.replayed) == (1, 2)  # the first step trains the discriminator only


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accumulation": 2}, "train.accumulation.*set accumulation: 1 or cuda_graphs: false"),
        ({"compile": True}, "train.compile"),
    ],
)
def test_what_would_be_wrong_is_refused(graphs, options, words):
    with pytest.raises(DRCTError, match=f"train.cuda_graphs does not work with {words}"):
        model_of(cuda_graphs=True, **options)


def test_several_gpus_are_refused(graphs, monkeypatch):
    put = DRCTModel.model_to_device
    monkeypatch.setattr(DRCTModel, "model_to_device", lambda self, net: nn.DataParallel(put(self, net)))
    with pytest.raises(DRCTError, match="a single GPU: set train.cuda_graphs: false, or set num_gpu: 1"):
        model_of(cuda_graphs=True)


def test_without_cuda_a_line_says_that_it_has_no_effect(caplog):
    with caplog.at_level("WARNING", "basicsr"):
        model = model_of(cuda_graphs=True)
    assert [r.message for r in caplog.records] == ["train.cuda_graphs has no effect on cpu: training without it"]
    assert_same(trained(model), trained(model_of()))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("CUDA error: operation not permitted"),
            "train.cuda_graphs: .* DRCT cannot be recorded .*permitted",
        ),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of memory: set a smaller batch_size_per_gpu"),
    ],
)
def test_a_network_that_cannot_be_recorded_is_told(graphs, monkeypatch, error, words):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    with pytest.raises(DRCTError, match=words):
        trained(model_of(cuda_graphs=True))


@pytest.mark.parametrize("has_argument", [True, False])
def test_the_loaders_thread_may_use_the_gpu_while_a_step_is_recorded(graphs, monkeypatch, has_argument):
    record, graph, modes = torch.cuda.make_graphed_callables, torch.cuda.graph, []

    def newer(module, sample, allow_unused_input, capture_error_mode):
        modes.append(capture_error_mode)
        return record(module, sample, allow_unused_input)

    def older(module, sample, allow_unused_input):
        modes.append(torch.cuda.graph.keywords["capture_error_mode"])
        return record(module, sample, allow_unused_input)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", newer if has_argument else older)
    RecordedTraining(nn.Conv2d(3, 3, 1).train(), "fp32")(torch.rand(1, 3, 4, 4))
    assert modes == ["thread_local"]
    assert torch.cuda.graph is graph


def test_buffers_are_as_they_were_when_a_recording_is_interrupted(graphs, monkeypatch):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train()

    def interrupted(module, sample, allow_unused_input):
        module(sample[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", interrupted)
    with pytest.raises(KeyboardInterrupt):
        RecordedTraining(network, "fp32")(torch.rand(2, 3, 4, 4))
    assert not network[1].running_mean.any() and network[1].num_batches_tracked == 0


def test_recording_leaves_buffers_and_images_as_they_were(graphs):
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train()
    plain, images = copy.deepcopy(network), torch.rand(2, 2, 3, 4, 4)
    before = images.clone()
    recorded = RecordedTraining(network, "fp32")
    for batch in images:
        assert torch.equal(recorded(batch), plain(batch))
    assert graphs.replayed == 2
    assert torch.equal(images, before)
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), plain.buffers(), strict=True))


@pytest.mark.parametrize("recompute", [False, True])
def test_what_graphs_read_is_held_when_caches_forget_it(graphs, monkeypatch, recompute):
    monkeypatch.setattr(gpu_switches, "is_gpu", lambda device: True)
    model = model_of(network={"use_checkpoint": recompute}, precision="bf16", cuda_graphs=True)
    trained(model, [2])
    orders = gpu_windows._tokens_and_places
    read = [weakref.ref(orders(2, 8, 8, model.net_g.window_size, s, model.device)) for s in (0, model.net_g.shift)]
    for images in range(10, 20):
        orders(images, 8, 8, 4, 0, model.device)
    assert all(order() is not None for order in read)
    del model.recorded
    assert all(order() is None for order in read)


@pytest.mark.parametrize("recorded", [False, True])
def test_estimates_do_not_recompute_in_graphs(recorded):
    opt = train_options(cuda_graphs=recorded)
    changes = [change for change, _ in _variants(opt, TrainingOptions.model_validate(opt))]
    assert len(changes) == 3 - recorded
    assert ("network_g.use_checkpoint: true" in changes) is not recorded


def test_the_benchmark_measures_the_same_step(graphs):
    images, gradients = torch.rand(2, 3, 16, 16), []
    for recorded in (False, True):
        contender = Contender("step", "step", "DRCT-XS", "bf16", training=True, recorded=recorded)
        network = make_network("DRCT-XS")
        run = pytorch_runner(contender, "cpu", network)
        seed_all(STEP, 0, 1)
        for _ in range(2):
            run(images)
        gradients.append([p.grad for p in network.parameters()])
    assert graphs.replayed == 2
    for plain, replayed in zip(*gradients, strict=True):
        assert torch.allclose(plain, replayed, rtol=1e-2, atol=1e-4)
