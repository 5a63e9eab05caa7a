"""options/train_in_background.py: a run that gives way to everything else, is paused, goes on and is stopped."""

import importlib.util
import os
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import ROOT, train_options, write_options

spec = importlib.util.spec_from_file_location("train_in_background", ROOT / "options/train_in_background.py")
background = importlib.util.module_from_spec(spec)
spec.loader.exec_module(background)

STAND_IN = """
import multiprocessing, os, signal, sys, time

def work():
    while True:
        print("reader", flush=True)
        time.sleep(0.02)

def stop(*_):
    global asked
    asked = True

if __name__ == "__main__":
    asked = False
    signal.signal(signal.SIGTERM, stop)
    print(sys.argv[1:], os.environ["OMP_WAIT_POLICY"], flush=True)
    reader = multiprocessing.get_context("fork").Process(target=work, daemon=True)
    reader.start()
    while not asked:
        time.sleep(0.02)
    reader.kill()
    print("saved", flush=True)
"""


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def log() -> str:
    path = Path("experiments/mine.log")
    return path.read_text() if path.exists() else ""


@pytest.fixture
def act(workplace, monkeypatch, capfd):
    """Does something with mine.yml, and tells status and output. `python -m drct` is what stands in this folder."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(background, "_give_way", lambda process: None)  # the tests beside this one leave it no time

    def run(action, *more):
        status = background.main([action, "mine.yml", *more])
        return status, "".join(capfd.readouterr())

    yield run
    if process := background.find(Path("mine.yml")):
        for each in background._family(process):
            each.kill()


@pytest.fixture
def stand_in(workplace):
    Path("drct").mkdir()
    Path("drct/__init__.py").touch()
    Path("drct/__main__.py").write_text(STAND_IN)
    Path("mine.yml").touch()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_run_is_paused_goes_on_and_is_stopped(act, stand_in):
    assert act("pause") == act("stop") == (2, "error: mine is not being trained\n")
    assert act("status") == (0, "mine: not running\n")
    status, told = act("start", "--force_yml", "name=mine")
    process = background.find(Path("mine.yml"))
    assert status == 0 and str(process.pid) in told and "experiments/mine.log" in told
    until(lambda: "reader" in log())
    expected = ["train", "-opt", "mine.yml", "--auto_resume", "--force_yml", "name=mine"]
    assert log().startswith(f"{expected} PASSIVE\n")
    assert act("start") == (2, f"error: mine is being trained already, by process {process.pid}\n")
    assert f"running, process {process.pid}; " in act("status")[1]
    assert os.getsid(process.pid) == process.pid

    assert act("pause")[1].startswith("mine: paused; ")
    assert {each.status() for each in background._family(process)} == {psutil.STATUS_STOPPED}
    before = log()
    time.sleep(0.2)
    assert log() == before and act("status")[1].startswith("mine: paused; ")
    assert act("continue")[1].startswith("mine: running")
    until(lambda: len(log()) > len(before))

    act("pause")  # a paused run is stopped as well
    assert act("stop") == (0, "mine: not running; saved\n")
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert act("continue")[0] == 2


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="of Linux")
def test_everything_else_goes_first(workplace, monkeypatch):
    command = [sys.executable, "-c", "import time; time.sleep(100)"]
    monkeypatch.setattr(background, "_command", lambda option_file, arguments: command)
    process = background.start(Path("mine.yml"), [])
    try:
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        group = Path(f"/proc/{process.pid}/autogroup")
        assert not group.exists() or group.read_text().endswith("nice 19\n")
    finally:
        process.kill()


def test_another_process_with_its_number_is_left_alone(act, stand_in):
    Path("experiments").mkdir()
    Path("experiments/mine.pid").write_text(f'{{"pid": {os.getpid()}, "created": 1.5}}')
    assert act("stop") == (2, "error: mine is not being trained\n")
    Path("experiments/mine.pid").write_text("{")
    assert act("status") == (0, "mine: not running\n")


def test_mistakes_are_told(act, workplace):
    assert act("start") == (2, "error: no such option file: mine.yml\n")
    assert act("stop", "--debug") == (2, "error: stop takes no further arguments, such as --debug\n")
    assert not Path("experiments").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_training_saves_when_it_is_stopped(act, pairs):
    options = train_options(total_iter=100_000) | {"name": "mine", "val": None}
    options["logger"]["save_checkpoint_freq"] = 100_000
    write_options(Path("mine.yml"), options)
    assert act("start")[0] == 0
    until(lambda: "iter:" in log(), 300)
    status, told = act("stop")
    assert status == 0 and told.startswith("mine: not running; ")
    saved = sorted(Path("experiments/mine/models").glob("net_g_*.pth"))
    assert len(saved) == 1 and "stopping after this step and saving" in log()
    assert "params_ema" in torch.load(saved[0], weights_only=True)
    assert Path(f"experiments/mine/training_states/{saved[0].stem.split('_')[-1]}.state").is_file()
