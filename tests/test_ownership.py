"""Two runs of one name at the same time."""

import multiprocessing
import os
from pathlib import Path

import pytest
from conftest import test_options, train_options, write_options

from drct.commands import test as test_run
from drct.commands import train as train_run
from drct.errors import DRCTError
from drct.runs.ownership import Ownership

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows moves no folder with open files")


@pytest.fixture
def other():
    """What another run owns."""
    ownership = Ownership()
    yield ownership
    ownership.release()


def test_a_second_test_run_does_not_mix_with_the_first(weights, pairs, capfd, other):
    options = write_options(Path("test.yml"), test_options(weights))
    assert test_run.main(["-opt", options]) == 0
    before = sorted(Path("results").rglob("*"))
    other.take(Path("results/run"))
    assert test_run.main(["-opt", options]) == 2
    assert "error: another run is writing to results/run: wait for it, or set another name" in without_root(capfd)
    assert sorted(Path("results").rglob("*")) == before
    other.release()
    assert test_run.main(["-opt", options]) == 0


def test_a_second_training_run_does_not_mix_with_the_first(pairs, capfd, other):
    options = write_options(Path("train.yml"), train_options(total_iter=2))
    assert train_run.main(["-opt", options]) == 0
    other.take(Path("experiments/run"))
    for more in ([], ["--auto_resume"]):
        assert train_run.main(["-opt", options, *more]) == 2
        assert "error: another run is writing to experiments/run" in without_root(capfd)
    other.release()
    assert train_run.main(["-opt", options, "--auto_resume"]) == 0
    assert [path.name for path in Path("experiments").iterdir()] == ["run"]


def without_root(capfd):
    return capfd.readouterr().err.replace(f"{Path.cwd()}/", "")


def test_a_folder_stays_taken_when_renamed_and_processes_of_a_run_do_not_keep_it(workplace, other):
    mine = Ownership()
    Path("folder").mkdir()
    mine.take(Path("folder"))
    mine.take(Path("folder"))
    Path("folder").rename("moved")
    with pytest.raises(DRCTError, match="another run is writing to moved"):
        other.take(Path("moved"))
    begun, end = multiprocessing.Event(), multiprocessing.Event()
    worker = multiprocessing.get_context("fork").Process(target=lambda: begun.set() or end.wait(60))
    worker.start()
    try:
        assert begun.wait(60)
        mine.release()
        other.take(Path("moved"))
    finally:
        end.set()
        worker.join()
