"""Options that are changed before a run is resumed: told, kept or applied."""

import copy
import json
import logging
from pathlib import Path

import basicsr  # noqa: F401 - registers the model, which needs the modules imported below
import pytest
import torch
from conftest import train_options, write_options

from drct.commands import train as train_run
from drct.errors import DRCTError
from drct.models.changed_options import apply_options
from drct.models.checkpoint_content import check_held, check_optimization, optimization_state
from drct.models.drct_model import DRCTModel
from drct.models.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule, update_learning_rates
from drct.schema.training_state import problem_of_state

ADAM = {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]}
SCHEDULE_OPTIONS = {
    "ConstantLR": {"factor": 0.5, "total_iters": 7},
    "CosineAnnealingLR": {"T_max": 12},
    "CosineAnnealingRestartLR": {"periods": [4, 9], "restart_weights": [1, 0.5], "eta_min": 1e-7},
    "CosineAnnealingWarmRestarts": {"T_0": 5},
    "CyclicLR": {"base_lr": 1e-5, "max_lr": 1e-3, "step_size_up": 3, "cycle_momentum": False},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {"total_iters": 9},
    "MultiStepLR": {"milestones": [2, 7, 9], "gamma": 0.5},
    "MultiStepRestartLR": {"milestones": [2, 7], "gamma": 0.5, "restarts": [0, 5], "restart_weights": [1, 0.3]},
    "OneCycleLR": {"max_lr": 1e-2, "total_steps": 14},
    "PolynomialLR": {"total_iters": 12},
    "StepLR": {"step_size": 3, "gamma": 0.5},
}


def rates(optimizer, schedule, steps, warmup=-1):
    """Step through iterations; the learning rates and momenta of each."""
    seen = []
    for step in steps:
        update_learning_rates([optimizer], [schedule], step, warmup)
        optimizer.step()
        group = optimizer.param_groups[0]
        seen.append((group["lr"], group["betas"]))
    return seen


def made(scheduler, **optimizer):
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    options = {key: value for key, value in (ADAM | optimizer).items() if key != "type"}
    made_optimizer = make_optimizer("Adam", [weight], **options)
    options = dict(scheduler)
    return made_optimizer, make_schedule(options.pop("type"), made_optimizer, 12, **options)


def test_every_schedule_is_tried():
    assert SCHEDULE_OPTIONS.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("warmup", [-1, 8])
@pytest.mark.parametrize("name", SCHEDULE_OPTIONS)
def test_an_applied_schedule_goes_on_as_in_a_run_that_had_it_from_the_beginning(name, warmup):
    old = made({"type": "ExponentialLR", "gamma": 0.5})
    rates(*old, range(1, 7))
    state = optimization_state([old[0]], [old[1]])
    scheduler = {"type": name, **SCHEDULE_OPTIONS[name]}
    change = {"lr": 3e-4, "betas": [0.8, 0.95], "weight_decay": 0.1, "eps": 1e-6}
    whole = rates(*made(scheduler, **change), range(1, 13), warmup)
    optimizer, schedule = made(scheduler, **change)
    apply_options(state, [optimizer], [schedule], warmup, 6)
    group = optimizer.param_groups[0]
    assert (group["weight_decay"], group["eps"]) == (0.1, 1e-6)
    averages = optimizer.state_dict()["state"][0]
    assert torch.equal(averages["exp_avg"], state["optimizers"][0]["state"][0]["exp_avg"])
    assert averages["step"] == 6
    assert rates(optimizer, schedule, range(7, 13), warmup) == whole[6:]


def test_what_the_old_state_does_not_hold_is_named():
    old = made({"type": "StepLR", "step_size": 3})
    rates(*old, range(1, 3))
    state = optimization_state([old[0]], [old[1]])
    optimizer, schedule = made({"type": "StepLR", "step_size": 3}, amsgrad=True)
    with pytest.raises(ValueError, match="amsgrad needs max_exp_avg_sq"):
        apply_options(state, [optimizer], [schedule], -1, 2)


# --------------------------------------------------------------------------------------------------------------- runs


def run(options, *arguments):
    return train_run.main(["-opt", write_options(Path("train.yml"), options), *arguments])


def stopped(capfd):
    """Options of a run that has ended after 2 iterations, without validation."""
    options = train_options(total_iter=2)
    options["val"] = None
    assert run(options) == 0
    capfd.readouterr()
    return options


def changed(options):
    """A change of each kind."""
    options = copy.deepcopy(options)
    options["train"] |= {"total_iter": 4, "ema_decay": 0.5, "grad_clip": 1.0, "accumulation": 2, "precision": "bf16"}
    options["train"]["optim_g"] |= {"lr": 5e-5, "betas": [0.5, 0.9], "weight_decay": 0.01}
    options["train"]["scheduler"]["milestones"] = [1, 3]
    options["datasets"]["train"]["batch_size_per_gpu"] = 3
    options["logger"]["print_freq"] = 2
    options["manual_seed"] = 7
    return options


APPLIED = {
    "train.total_iter": (4, 2),
    "train.ema_decay": (0.5, 0.9),
    "train.grad_clip": (1.0, None),
    "train.accumulation": (2, 1),
    "train.precision": ("bf16", "fp32"),
    "datasets.train.batch_size_per_gpu": (3, 2),
    "logger.print_freq": (2, 1),
}
KEPT = {
    "train.optim_g.lr": (5e-5, 2e-4),
    "train.optim_g.betas": ([0.5, 0.9], [0.9, 0.99]),
    "train.optim_g.weight_decay": (0.01, None),
    "train.scheduler.milestones": ([1, 3], [3]),
}


def applied_words(changes):
    return {
        f"INFO: {key} is {now!r} from now on; the training state has {old!r}" for key, (now, old) in changes.items()
    }


def kept_words(changes):
    remedy = "which stays: train.on_resume: apply takes the option file's"
    return {
        f"WARNING: {key} is {now!r} in the option file but {old!r} in the training state, {remedy}"
        for key, (now, old) in changes.items()
    }


def told(error):
    """Lines about changes of options."""
    lines = [line.strip() for line in error.splitlines() if "the training state" in line]
    return {f"{'INFO' if ' INFO: ' in line else 'WARNING'}: {line.split(': ', 1)[1]}" for line in lines}


def last_group():
    states = sorted(Path("experiments/run/training_states").iterdir(), key=lambda path: int(path.stem))
    return torch.load(states[-1], weights_only=True)["optimizers"][0]["param_groups"][0]


def test_kept_options_are_told_again_and_again(pairs, capfd):
    options = stopped(capfd)
    options = changed(options)
    assert run(options, "--auto_resume") == 0
    seed = "WARNING: manual_seed is 7 in the option file but 0 in the training state, which stays: a run has one seed"
    error = capfd.readouterr().err
    assert told(error) == applied_words(APPLIED) | kept_words(KEPT) | {seed}
    assert (last_group()["initial_lr"], tuple(last_group()["betas"])) == (2e-4, (0.9, 0.99))
    options["train"]["total_iter"] = 5
    assert run(options, "--auto_resume") == 0
    assert told(capfd.readouterr().err) == applied_words({"train.total_iter": (5, 4)}) | kept_words(KEPT) | {seed}


def test_applied_options_are_told_once(pairs, capfd):
    options = stopped(capfd)
    options = changed(options)
    options["train"]["on_resume"] = "apply"
    del options["manual_seed"]  # a random seed is no change
    assert run(options, "--auto_resume") == 0
    assert told(capfd.readouterr().err) == applied_words(APPLIED | KEPT)
    group = last_group()
    assert (group["lr"], group["weight_decay"], tuple(group["betas"])) == (pytest.approx(1.25e-5), 0.01, (0.5, 0.9))
    options["train"] |= {"total_iter": 5, "on_resume": "keep"}
    assert run(options, "--auto_resume") == 0
    assert told(capfd.readouterr().err) == applied_words({"train.total_iter": (5, 4)})


def test_changed_options_of_the_network_are_told(pairs, capfd):
    options = stopped(capfd)
    options["train"]["total_iter"] = 4
    options["network_g"]["drop_path_rate"] = 0.25
    assert run(options, "--auto_resume") == 0
    assert "network_g.drop_path_rate is 0.25 from now on; the training state has" in capfd.readouterr().err


def test_another_schedule_can_be_applied_but_not_another_optimizer(pairs, capfd):
    options = stopped(capfd)
    options["train"] |= {"total_iter": 4, "scheduler": {"type": "CosineAnnealingLR", "T_max": 4}}
    assert run(options, "--auto_resume") == 2
    assert "train.on_resume: apply takes another schedule" in capfd.readouterr().err
    options["train"]["on_resume"] = "apply"
    assert run(options, "--auto_resume") == 0
    assert last_group()["lr"] == pytest.approx(2e-4 * 0.1464466)
    options["train"] |= {"total_iter": 5, "optim_g": {"type": "SGD", "lr": 1e-3}}
    assert run(options, "--auto_resume") == 2
    assert "it is one of Adam, CosineAnnealingLR, not of SGD" in capfd.readouterr().err


@pytest.mark.parametrize("kinds", [True, False], ids=["an early state", "BasicSR's"])
def test_states_without_options_show_changes_by_their_optimizer_and_schedule(pairs, capfd, kinds):
    options = changed(stopped(capfd)) | {"manual_seed": 0}
    path = Path("experiments/run/training_states/2.state")
    state = torch.load(path, weights_only=True)
    early = {"epoch", "iter", "optimizers", "schedulers", *(["kinds"] if kinds else [])}
    torch.save({key: state[key] for key in early}, path)
    kept = KEPT | {"train.optim_g.weight_decay": (0.01, 0)}
    for total, others in ((4, {}), (5, {"train.total_iter": (5, 4)})):
        options["train"]["total_iter"] = total
        assert run(options, "--auto_resume") == 0
        assert told(capfd.readouterr().err) == kept_words(kept) | applied_words(others)


def test_a_state_holds_its_options_as_text(pairs, capfd):
    stopped(capfd)
    state = torch.load("experiments/run/training_states/2.state", weights_only=True)
    options = json.loads(state["options"])
    assert options["train"]["optim_g"] == {"type": "Adam", "lr": 2e-4, "betas": [0.9, 0.99]}
    assert "path" not in options


def test_basicsrs_models_resume_with_it(pairs):
    """`resume_training` of the model alone applies the options, as BasicSR's own train.py calls it."""
    opt = train_options(on_resume="apply", total_iter=9)
    opt |= {"is_train": True, "dist": False, "rank": 0, "world_size": 1}
    opt["path"]["training_states"] = opt["path"]["models"] = "states"
    first = DRCTModel(copy.deepcopy(opt))
    first.save(0, 2)
    opt["train"]["optim_g"]["lr"] = 1e-5
    second = DRCTModel(copy.deepcopy(opt))
    logging.getLogger("basicsr").setLevel(logging.ERROR)
    second.resume_training(torch.load("states/2.state", weights_only=True))
    assert second.optimizers[0].param_groups[0]["lr"] == 1e-5
    opt["train"]["on_resume"] = "keep"
    third = DRCTModel(copy.deepcopy(opt))
    third.resume_training(torch.load("states/2.state", weights_only=True))
    assert third.optimizers[0].param_groups[0]["lr"] == 2e-4


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ({"type": "OneCycleLR", "max_lr": 1e-3, "total_steps": 20, "pct_start": 0.05}, "division by zero"),
        ({"type": "OneCycleLR", "max_lr": 1e-3, "epochs": 1, "steps_per_epoch": 2}, "Tried to step"),
        ({"type": "CosineAnnealingRestartLR", "periods": [2], "restart_weights": [1]}, "in iteration 12"),
        ({"type": "StepLR", "step_size": 0}, "by zero"),
        ({"type": "CosineAnnealingLR", "T_max": 0}, "by zero"),
        ({"type": "LinearLR", "end_factor": 1, "gamma": 1}, "no argument 'gamma'"),
        ({"type": "ConstantLR", "factor": 0.5, "total_itres": 7}, "did you mean 'total_iters'?"),
        ({"type": "ReduceLROnPlateau"}, "is unknown"),
        ({"type": "LambdaLR"}, "is unknown"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_a_schedule_that_cannot_reach_the_end_is_refused_at_the_start(scheduler, words):
    with pytest.raises(DRCTError, match=r"train\.scheduler") as error:
        made(scheduler)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"betas": [0.9]}, r"betas must be 2 numbers"),
        ({"eps": "x"}, r"train\.optim_g \(Adam\)"),
        ({"beta": [0.9, 0.99]}, r"no argument 'beta' \(did you mean 'betas'\?\)"),
        ({"capturable": True}, r"train\.optim_g \(Adam\): If capturable=True"),
    ],
)
def test_options_that_an_optimizer_refuses_are_explained_at_the_start(options, words):
    with pytest.raises(DRCTError, match=words):
        made({"type": "StepLR", "step_size": 3}, **options)


@pytest.mark.parametrize("scheduler", SCHEDULE_OPTIONS)
def test_the_own_state_of_a_schedule_fits(scheduler, tmp_path):
    parts = made({"type": scheduler, **SCHEDULE_OPTIONS[scheduler]})
    rates(*parts, range(1, 6))
    torch.save(optimization_state([parts[0]], [parts[1]]), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    new = made({"type": scheduler, **SCHEDULE_OPTIONS[scheduler]})
    check_optimization(state, [new[0]], [new[1]])


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
def test_the_own_state_of_an_optimizer_fits(kind, tmp_path):
    weights = [torch.nn.Parameter(torch.ones(2, 2))]
    weights[0].grad = torch.ones(2, 2)
    optimizer = make_optimizer(kind, weights, lr=1e-3)
    optimizer.step()
    torch.save(optimization_state([optimizer], []), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    check_optimization(state, [make_optimizer(kind, weights, lr=1e-3)], [])
    assert problem_of_state(state | {"epoch": 0, "iter": 1}) == ""
    check_held(optimizer, state["optimizers"][0]["param_groups"], state["optimizers"][0]["state"])
