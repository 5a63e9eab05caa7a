"""Muon for the weights of layers, with Adam for all other parameters."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import train_options, write_options
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.SwinIR import SwinIR
from torch import nn

from drct.archs.drct_arch import DRCT
from drct.archs.hat_arch import HAT
from drct.commands import train
from drct.errors import DRCTError
from drct.models import muon
from drct.models.checkpoint_content import check_held
from drct.models.muon import MuonAdam, muon_groups, orthogonalized
from drct.models.optimizers import make_optimizer
from drct.models.training_memory import optimizer_bytes
from drct.runs.build import make_model
from drct.runs.options import read_options

# As many heads that a table of biases has no side below 16 either
HEADS = {"embed_dim": 32, "num_heads": [16], "depths": [2], "window_size": 8, "img_size": 16}
SHAPES = [(16, 16), (16, 40), (48, 16), (40, 16), (16, 40)]
NETWORKS = {
    "DRCT": lambda: DRCT(**HEADS, gc=16, ape=True),
    "HAT": lambda: HAT(**HEADS, compress_ratio=2, squeeze_factor=2),
    "SwinIR": lambda: SwinIR(**HEADS, upscale=2, upsampler="pixelshuffle", ape=True),
    "ESRGAN": lambda: ESRGAN(num_filters=16, num_blocks=1),
}


@pytest.fixture
def precision(monkeypatch):
    """Sets the precision of products, whatever this machine has."""

    def set_precision(name):
        monkeypatch.setattr(muon, "fastest_precision", lambda device: name)

    return set_precision


def parameters(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def add_gradients(*several, seed=0):
    """Give lists of parameters the same random gradients."""
    generator = torch.Generator().manual_seed(seed)
    for together in zip(*several, strict=True):
        gradient = torch.randn(together[0].shape, generator=generator)
        for parameter in together:
            parameter.grad = gradient.reshape(parameter.shape).clone()


def evened_out(matrices):
    """Muon's polynomial of the singular values, in float64."""
    u, s, v = torch.linalg.svd(matrices.double(), full_matrices=False)
    s = s / s.norm(dim=-1, keepdim=True)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag_embed(s) @ v, s, u @ v


# -------------------------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_layers_go_to_muon_and_tables_do_not(name):
    network = NETWORKS[name]()
    names = {id(parameter): key for key, parameter in network.named_parameters()}
    matrices, others = ({names[id(p)] for p in group["params"]} for group in muon_groups(network, network.parameters()))
    assert matrices | others == set(names.values())
    assert not matrices & others
    shapes = {key: p.shape for key, p in network.named_parameters()}
    tables = {key for key in shapes if "table" in key or "absolute" in key}
    wide = {key for key, shape in shapes.items() if len(shape) in (2, 4) and min(shape[:2]) >= 16}
    assert matrices == wide - tables
    assert tables <= others
    assert bool(tables & wide) == (name != "ESRGAN")  # so that shapes alone do not tell them


def test_a_network_without_one_kind_has_one_group():
    layer = nn.Linear(16, 16, bias=False)
    assert muon_groups(layer, layer.parameters()) == [{"params": [layer.weight]}]
    norm = nn.LayerNorm(16)
    assert muon_groups(norm, norm.parameters()) == [{"params": [norm.weight, norm.bias], "use_muon": False}]


# ---------------------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_other_parameters_are_trained_by_torchs_adam_to_the_last_bit(decay):
    shapes = [(7,), (16, 16), (3, 4, 3, 3), ()]
    mine, theirs = parameters(shapes), parameters(shapes)
    options = {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": decay}
    optimizer = MuonAdam([{"params": mine, "use_muon": False}], **options)
    oracle = torch.optim.AdamW(theirs, **options) if decay else torch.optim.Adam(theirs, **options)
    for step in range(5):
        add_gradients(mine, theirs, seed=step)
        optimizer.step()
        oracle.step()
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert all(optimizer.state[a]["step"] == 5 for a in mine)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="of torch 2.9")
@pytest.mark.parametrize(("name", "error", "decay"), [("bf16", 0.04, 0.0), ("fp32", 1e-4, 0.0), ("fp32", 1e-4, 0.1)])
def test_matrices_are_trained_as_by_torchs_muon(precision, monkeypatch, name, error, decay):
    precision(name)
    if name == "fp32":
        monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)  # torch's products in fp32 too
    mine, theirs = parameters(SHAPES), parameters(SHAPES)
    optimizer = MuonAdam(mine, lr=1e-2, weight_decay=decay, muon_momentum=0.9)
    oracle = torch.optim.Muon(theirs, lr=1e-2, weight_decay=decay, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    start = copy.deepcopy(theirs)
    for step in range(4):
        add_gradients(mine, theirs, seed=step)
        optimizer.step()
        oracle.step()
    for before, a, b in zip(start, mine, theirs, strict=True):
        assert bool((a - b).norm() < error * (b - before).norm())
        assert torch.allclose(optimizer.state[a]["momentum_buffer"], oracle.state[b]["momentum_buffer"])


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 48, 16), (1, 32, 32)])
def test_singular_values_are_evened_out_and_vectors_stay(precision, shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-4
    expected, values, nearest = evened_out(matrices)
    precision("fp32")
    found = orthogonalized(matrices)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), expected, atol=1e-4)
    assert values.min() > 0.6 and values.max() < 1.21
    assert torch.linalg.svdvals(found.double()).sub(1).abs().max() < 0.4
    assert (found.double() * nearest).sum() > 0.95 * found.norm() * nearest.norm()
    precision("bf16")
    assert (orthogonalized(matrices).double() - expected).norm() < 0.05 * expected.norm()


def test_a_kernel_is_the_matrix_of_its_outputs():
    kernels, matrices = parameters([(16, 16, 3, 3)] * 2), parameters([(16, 144)] * 2)
    kernels[1].data = kernels[1].data.to(memory_format=torch.channels_last)
    add_gradients(kernels, matrices)
    for weights in (kernels, matrices):
        MuonAdam(weights, lr=0.1).step()
    for kernel, matrix in zip(kernels, matrices, strict=True):
        assert torch.allclose(kernel.flatten(1), matrix, atol=1e-6)


def test_steps_have_the_size_of_adams():
    """A first step of Adam changes each entry by the learning rate; later ones are about 0.2 of it (Liu et al.)."""
    for weight in parameters(SHAPES):
        before = weight.detach().clone()
        add_gradients([weight])
        MuonAdam([weight], lr=0.5).step()
        assert (weight - before).square().mean().sqrt().item() == pytest.approx(0.5 * 0.2, rel=0.25)


def test_a_gradient_of_zero_changes_nothing(precision):
    for name in ("fp32", "bf16"):
        precision(name)
        weight = parameters([(16, 16)])[0]
        before, weight.grad = weight.detach().clone(), torch.zeros_like(weight)
        MuonAdam([weight]).step()
        assert torch.equal(weight, before)


# ----------------------------------------------------------------------------------------------- as torch's optimizers


def test_groups_have_their_own_options_and_parameters_without_gradient_stay():
    a, b, still, bias, frozen = parameters([(16, 16), (16, 16), (16, 16), (16,), (16,)])
    frozen.requires_grad_(False)
    before = [p.detach().clone() for p in (a, b, still, bias, frozen)]
    groups = [
        {"params": [a, still]},
        {"params": [b], "lr": 0.0},
        {"params": [bias, frozen], "use_muon": False, "weight_decay": 0.5},
    ]
    optimizer = MuonAdam(groups, lr=0.1)
    add_gradients([a, b, bias])
    optimizer.step()
    moved = [not torch.equal(p, old) for p, old in zip((a, b, still, bias, frozen), before, strict=True)]
    assert moved == [True, False, False, True, False]
    assert set(optimizer.state) == {a, b, bias}


def test_a_closure_is_computed_with_gradients():
    weight = parameters([(16, 16)])[0]
    optimizer, before = MuonAdam([weight], lr=0.01), weight.detach().square().sum()

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == before
    assert closure() < before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, "lr must not be negative: -1.0"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative"),
        ({"eps": "x"}, "eps must be a number, not 'x'"),
        ({"betas": [0.9]}, "betas must be 2 numbers"),
        ({"betas": [0.9, 1]}, "the second of betas must be from 0 to below 1, not 1"),
        ({"muon_momentum": 1.5}, "muon_momentum must be from 0 to below 1, not 1.5"),
        ({"momentum": 0.9}, r"there is no argument 'momentum' \(did you mean 'muon_momentum'"),
        ({"use_muon": False}, "there is no argument 'use_muon'"),
    ],
)
def test_options_that_it_refuses_are_explained(options, words):
    network = nn.Linear(16, 16)
    with pytest.raises(DRCTError, match=rf"train\.optim_g \(MuonAdam\): {words}"):
        make_optimizer("MuonAdam", network.parameters(), network=network, **options)


def test_it_is_named_in_place_of_torchs_muon_which_refuses_biases():
    with pytest.raises(DRCTError, match="'Muon' is unknown .did you mean 'MuonAdam'"):
        make_optimizer("Muon", parameters([(16, 16)]))
    with pytest.raises(ValueError, match=r"Muon trains matrices, not parameters of shape \(16,\)"):
        MuonAdam(nn.Linear(16, 16).parameters())


# ---------------------------------------------------------------------------------------------------------------- runs


def options_of_a_run(**changes):
    """Of a network whose matrices are not all too small."""
    options = train_options(optim_g={"type": "MuonAdam", "lr": 1e-3, "betas": [0.9, 0.99]}, **changes)
    options["network_g"] |= {"embed_dim": 16, "depths": [6]}
    options["network_g"]["num_heads"] = [2]
    options["val"] = None
    return options


def run(options, *arguments):
    return train.main(["-opt", write_options(Path("train.yml"), options), *arguments])


def last_state(name, iteration=4):
    return torch.load(f"experiments/{name}/training_states/{iteration}.state", weights_only=True)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_run_ends_as_one_without_interruption(pairs, precision):
    options = options_of_a_run(precision=precision)
    assert run(options | {"name": "whole"}) == 0
    options["train"]["total_iter"] = 2
    assert run(options | {"name": "parts"}) == 0
    options["train"]["total_iter"] = 4
    assert run(options | {"name": "parts"}, "--auto_resume") == 0
    whole, parts = (last_state(name)["optimizers"][0] for name in ("whole", "parts"))
    for number, state in whole["state"].items():
        assert all(torch.equal(state[name], parts["state"][number][name]) for name in state)
    assert {len(state) for state in whole["state"].values()} == {1, 3}
    files = (f"experiments/{name}/models/net_g_4.pth" for name in ("whole", "parts"))
    a, b = (torch.load(file, weights_only=True)["params"] for file in files)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_memory_of_its_state_is_one_average_of_matrices_and_two_of_others(pairs):
    assert run(options_of_a_run(total_iter=1)) == 0
    state = last_state("run", 1)["optimizers"][0]["state"]
    held = sum(t.nbytes for entries in state.values() for t in entries.values() if t.dim())
    options, _ = read_options(Path.cwd(), True, "train.yml")
    model = make_model(options)
    assert optimizer_bytes(model) == held
    first, second = ([p.nbytes for p in group["params"]] for group in model.optimizers[0].param_groups)
    assert held == sum(first) + 2 * sum(second)


def test_damaged_and_other_states_are_refused_in_one_line(pairs, capfd):
    assert run(options_of_a_run(total_iter=2)) == 0
    path = Path("experiments/run/training_states/2.state")
    state = torch.load(path, weights_only=True)
    muon_group, adam_group = (group["params"] for group in state["optimizers"][0]["param_groups"])
    damages = {
        "use_muon needs momentum_buffer": lambda s: s["state"][muon_group[0]].clear(),
        "exp_avg_sq": lambda s: s["state"][adam_group[0]].pop("exp_avg_sq"),
        "MuonAdam": lambda s: s["state"][muon_group[0]].update(momentum_buffer=torch.ones(3)),
        "momentum_buffer holds NaN": lambda s: s["state"][muon_group[0]]["momentum_buffer"].fill_(torch.nan),
        "its muon_momentum is 'x'": lambda s: s["param_groups"][0].update(muon_momentum="x"),
        "its use_muon is 5": lambda s: s["param_groups"][0].update(use_muon=5),
        "its parameters are not": lambda s: s["param_groups"][0]["params"].pop(),
        "other groups of parameters": lambda s: s["param_groups"].pop(),
    }
    for words, damage in damages.items():
        wrong = copy.deepcopy(state)
        damage(wrong["optimizers"][0])
        torch.save(wrong, path)
        capfd.readouterr()
        assert run(options_of_a_run(), "--auto_resume") == 2, words
        error = capfd.readouterr().err
        assert "Traceback" not in error
        message = error[error.index("error: ") :]
        assert len(message.splitlines()) == 1
        assert words in message


def test_groups_that_need_no_average_are_not_asked_for_it():
    """A network whose matrices are all too small has no `momentum_buffer`."""
    bias = parameters([(16,)])
    add_gradients(bias)
    optimizer = MuonAdam([{"params": bias, "use_muon": False}])
    optimizer.step()
    state = optimizer.state_dict()
    check_held(optimizer, state["param_groups"], state["state"])
    with pytest.raises(ValueError, match="use_muon needs momentum_buffer"):
        check_held(optimizer, [state["param_groups"][0] | {"use_muon": True}], state["state"])
