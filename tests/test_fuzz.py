"""A small share of `make fuzz` and `make torture`, and their own workings: faults of commands must not go unseen."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from fuzz import picture_mutations
from fuzz.option_mutations import mutate
from fuzz.options import silent_fault
from fuzz.pool import MOST_CHILDREN, Outcome, run_cases
from fuzz.summary import count
from fuzz.verdicts import Ended, Verdict, judge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="cases are forked, and watched by /proc")
SHARE = 20  # cases of each kind


def run_module(*arguments):
    """`python -m`, in an interpreter of its own, because threads of other tests do not survive a fork."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", *arguments]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mutants_end_in_a_result_or_in_one_line():
    printed = run_module("fuzz", "--n", str(SHARE), "--from", "100001", "--jobs", "2")
    for kind in ("options", "pictures", "weights"):
        assert f"{kind}: {SHARE} cases" in printed


def outcomes_of(work, folder):
    return {outcome.number: outcome.verdict for outcome in run_cases(range(1, 2), work, folder, 1)}[1]


def test_a_hang_a_crash_and_processes_left_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("fuzz.pool.TIMEOUT", 0.3)
    monkeypatch.setattr("fuzz.pool.LONGEST", 0.6)
    monkeypatch.setattr("fuzz.pool.GRACE", 0.3)

    def busy(number):
        while True:
            pass

    def waiting(number):
        time.sleep(60)

    def crashing(number):
        os.kill(os.getpid(), signal.SIGKILL)

    def leaving(number):
        subprocess.Popen(["sleep", "60"])
        return Verdict("done")

    def many(number):
        for _ in range(MOST_CHILDREN + 1):
            subprocess.Popen(["sleep", "60"])
        time.sleep(60)

    works = {busy: "hang", waiting: "hang", crashing: "crash", leaving: "processes", many: "processes"}
    assert {work.__name__: outcomes_of(work, tmp_path).kind for work in works} == {
        work.__name__: kind for work, kind in works.items()
    }


@pytest.mark.parametrize(
    ("kind", "ended"),
    [
        ("done", Ended(0, "5 images", "")),
        ("refused", Ended(2, "", "WARNING: x\nerror: x.yml: no such file\n")),
        ("words", Ended(2, "", "")),
        ("words", Ended(1, "", "error: one line\nand another\n")),
        ("words", Ended(1, "", "error: " + "x" * 5000)),
        ("traceback", Ended(1, "", "", ValueError("x"))),
        ("traceback", Ended(0, "", "Traceback (most recent call last)\n  File x\nValueError: x\n")),
        ("traceback", Ended(1, "", "error: photo.png: TypeError: no len()")),
        ("crash", Ended(-11, "", "")),
    ],
)
def test_endings_are_judged(kind, ended):
    assert judge(ended).kind == kind


def test_mutants_follow_from_seed_and_number():
    text = (ROOT / "options" / "train" / "train_DRCT-XS_SRx4.yml").read_text()
    first, second = ([mutate(text, random.Random(f"{run}")) for run in range(40)] for _ in range(2))
    assert first == second
    assert len({data for data, _ in first}) > 35
    data = bytes(range(256)) * 4
    pictures = [picture_mutations.mutate(data, random.Random(run)) for run in range(50)]
    assert pictures == [picture_mutations.mutate(data, random.Random(run)) for run in range(50)]


def test_faults_are_counted_by_cause():
    verdicts_of = [
        Verdict("done"),
        Verdict("hang", "over 10 s"),
        Verdict("hang", "over 10 s"),
        Verdict("refused", "no"),
    ]
    counts = count(0, [Outcome(i, verdict, 0.5, 100) for i, verdict in enumerate(verdicts_of)], 3.2)
    assert counts["verdicts"] == {"done": 1, "hang": 2, "refused": 1}
    assert counts["faults"] == {"hang: over 10 s": {"cases": 2, "for example": 1}}


def test_what_a_run_leaves_out_is_seen(tmp_path, monkeypatch):
    """Options as they are end well; too few iterations, weights that are not finite and ignored keys are told."""
    monkeypatch.chdir(tmp_path)
    original = {"name": "x", "train": {"total_iter": 2}, "val": {"suffix": 1}}
    models = tmp_path / "experiments" / "x" / "models"
    models.mkdir(parents=True)
    for weight, printed, options, fault in (
        (1.0, "Trained 2 iterations", original, None),
        (1.0, "Trained 1 iterations", original, "not the iterations asked for"),
        (float("nan"), "Trained 2 iterations", original, "trained weights are not finite"),
        (1.0, "Trained 2 iterations", original | {"val": {"SUFFIX": 1}}, "key ignored without a word in val"),
    ):
        torch.save({"params": {"w": torch.tensor(weight)}}, models / "net_g_latest.pth")
        found = silent_fault(Ended(0, printed, ""), "train", options, original)
        assert (found and found.signature) == fault


def test_kills_lose_nothing():
    assert "no fault" in run_module("fuzz.torture", "--kills", "2", "--only", "upscale")
