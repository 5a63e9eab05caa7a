"""Training states whose checksums are right but whose entries are wrong: refused in one line before a step is taken."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import train_options, write_options

from drct.commands import train
from drct.errors import DRCTError
from drct.runtime import checkpoint
from drct.schema.training_state import problem_of_state

STATE = Path("experiments/run/training_states/2.state")
ENTRIES = {
    "epoch": [None, -1, 1.5, "0", True],
    "iter": [{"type": "L1Loss"}, -2, 10**30, float("inf")],
    "seed": [[], "%s", 1.5, -1, 2**32],
    "samples": ["a\tb", float("inf"), float("nan")],
    "validated": [[2], "2"],
    "kinds": ["Adam", [{1: 2}, "MultiStepRestartLR"], [10**30]],
    "options": ["[]", "{", 5],
    "scaler": [[1], "x"],
    "best_metric_results": [0, "auto", {"set": 3}, {"set": {"psnr": 3}}, {5: {}}],
    "best_metric_results.set.psnr": [{"val": {"a": []}, "better": "higher", "iter": 1}],
    "optimizers": [{}, [[]], None],
    "optimizers.0.state": [[], {"x": {}}, {0: 5}],
    "optimizers.0.param_groups": [{}, [], [0]],
    "schedulers": [{}, [5]],
}
# What only the optimizer and the schedule of the run can judge
ENTRIES_OF_PARTS = {
    "optimizers": [[]],
    "optimizers.0.state.0.exp_avg": ["x", torch.ones(3)],
    "optimizers.0.param_groups.0.eps": ["two\nlines", True],
    "optimizers.0.param_groups.0.amsgrad": [1e30, True],
    "optimizers.0.param_groups.0.betas": [0.9],
    "optimizers.0.param_groups.0.params": [[0]],
    "schedulers.0.gamma": [[1], float("inf")],
    "schedulers.0.milestones": ["x"],
}


def set_entry(state, key, value):
    """Replace an entry of nested sections and lists; one that is missing is made."""
    *parts, last = (int(part) if part.isdigit() else part for part in key.split("."))
    for part in parts:
        state = state.setdefault(part, {}) if isinstance(state, dict) else state[part]
    state[last] = value


@pytest.fixture
def options(pairs):
    """The option file of a run of 4 iterations, which is stopped after 2."""
    options = train_options()
    options["val"] = None
    options["logger"] |= {"save_checkpoint_freq": 2, "save_best": None}
    options["train"]["total_iter"] = 2
    assert train.main(["-opt", write_options(Path("opt.yml"), options)]) == 0
    options["train"]["total_iter"] = 4
    return write_options(Path("opt.yml"), options)


def test_entries_of_other_kinds_are_named(options):
    state = torch.load(STATE, weights_only=True)
    assert problem_of_state(state) == ""
    for key, values in ENTRIES.items():
        for value in values:
            wrong = copy.deepcopy(state)
            set_entry(wrong, key, value)
            assert problem_of_state(wrong).startswith(f"its {key.split('.')[0]}"), (key, value)


def test_what_does_not_fit_the_run_is_refused_in_one_line(options, capfd):
    state = torch.load(STATE, weights_only=True)
    for key, values in ({"kinds": [[{1: 2}]]} | ENTRIES_OF_PARTS).items():
        for value in values:
            wrong = copy.deepcopy(state)
            set_entry(wrong, key, value)
            torch.save(wrong, STATE)
            capfd.readouterr()
            assert train.main(["-opt", options, "--auto_resume"]) == 2, (key, value)
            output = capfd.readouterr().err
            assert "Traceback" not in output, (key, value)
            assert len(output[output.index("error: ") :].splitlines()) == 1, (key, value)
    torch.save(state, STATE)
    assert train.main(["-opt", options, "--auto_resume"]) == 0


@pytest.mark.parametrize("entry", ["epoch", "iter", "optimizers", "schedulers"])
def test_a_state_of_basicsr_is_whole_but_not_with_less(entry):
    state = {"epoch": 0, "iter": 2, "optimizers": [{"state": {}, "param_groups": [{}]}], "schedulers": [{}]}
    assert problem_of_state(state) == ""
    del state[entry]
    assert problem_of_state(state) == f"it has no {entry}"


def test_a_byte_that_is_not_the_one_of_the_checksum_is_found(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.full((1000,), 0.1)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((2,), 0.1).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(DRCTError, match="checksum"):
        checkpoint.load(path)
