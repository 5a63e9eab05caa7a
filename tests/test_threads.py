"""Threads beside other programs: limits of containers, the user's choice, and when threads sleep."""

import os
import subprocess
import sys
import time

import pytest

from drct.runtime import threads


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "nonsense\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_limit_of_a_container_is_read(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.cpu_quota(tmp_path) == expected


@pytest.fixture
def prepared(monkeypatch):
    """Prepare with an environment, on 8 cores of which a container has some. Return what was set and started."""

    def prepare(quota=None, **environment):
        started = []
        monkeypatch.setattr(threads.os, "environ", dict(environment))
        monkeypatch.setattr(threads, "cores", lambda: 8)
        monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
        monkeypatch.setattr(threads, "time_waited", lambda: (1, 1))
        with monkeypatch.context() as patch:
            patch.setattr(threads.threading.Thread, "start", lambda thread: started.append(thread.name))
            threads.prepare()
        return dict(threads.os.environ), started

    return prepare


def test_the_environment_is_changed_only_for_a_container(prepared):
    assert prepared() == ({}, ["drct-threads"])
    assert prepared(quota=2) == ({"OMP_NUM_THREADS": "2"}, ["drct-threads"])
    assert prepared(quota=8) == ({}, ["drct-threads"])
    assert prepared(quota=1) == ({"OMP_NUM_THREADS": "1"}, [])


@pytest.mark.parametrize(
    ("environment", "started"),
    [
        ({"OMP_NUM_THREADS": "4"}, ["drct-threads"]),
        ({"OMP_NUM_THREADS": "1"}, []),  # as torchrun sets it
        ({"OMP_WAIT_POLICY": "ACTIVE"}, []),
        ({"GOMP_SPINCOUNT": "1000"}, []),
    ],
)
def test_what_the_user_has_set_stays(prepared, environment, started):
    assert prepared(quota=2, **{"OMP_NUM_THREADS": "3", **environment}) == (
        {"OMP_NUM_THREADS": "3", **environment},
        started,
    )


def test_threads_sleep_while_others_use_the_cores(monkeypatch):
    class Team:
        def __init__(self, *_):
            events.append("sleep")

        def end(self):
            events.append("spin")

    def looks():
        ran = waited = 0
        for name, share, active in seen:
            events.append(name)
            ran, waited = ran + active * (1 - share) * 1e9, waited + active * share * 1e9
            yield int(ran), int(waited)
        yield None

    seen = [("start", 0, 0), ("quiet", 0.02, 1), ("a little", 0.2, 1), ("idle", 0.9, 1e-6), ("busy", 0.5, 1)]
    seen += [("still", 0.15, 1), ("idle", 0, 1e-6), ("quiet again", 0.03, 1), ("busy again", 0.3, 1)]
    events, values = [], looks()
    monkeypatch.setattr(threads, "time_waited", lambda: next(values))
    monkeypatch.setattr(threads, "_team_size", lambda: 2)
    monkeypatch.setattr(threads, "_IdleTeam", Team)
    monkeypatch.setattr(threads.time, "sleep", lambda seconds: None)
    threads._watch()
    expected = ["start", "quiet", "a little", "idle", "busy", "sleep", "still", "idle", "quiet again", "spin"]
    assert events == [*expected, "busy again", "sleep"]


def test_where_no_thread_can_be_started_a_command_goes_on(monkeypatch):
    def refuse(thread):
        attempts.append(thread.name)
        raise RuntimeError("can't start new thread")

    attempts, values = [], iter([(0, 0), (10**9, 10**9), (2 * 10**9, 2 * 10**9), None])
    monkeypatch.setattr(threads.threading.Thread, "start", refuse)
    monkeypatch.setattr(threads.os, "environ", {})
    monkeypatch.setattr(threads, "time_waited", lambda: (1, 1))
    threads.prepare()
    monkeypatch.setattr(threads, "time_waited", lambda: next(values))
    monkeypatch.setattr(threads, "_team_size", lambda: 2)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(threads.time, "sleep", lambda seconds: None)
    threads._watch()
    assert attempts == ["drct-threads", "drct-idle-team", "drct-idle-team"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="is about Linux")
def test_the_kernel_tells_what_threads_waited():
    before = threads.time_waited()
    end = time.perf_counter() + 0.05
    while time.perf_counter() < end:
        pass
    ran, waited = (after - earlier for after, earlier in zip(threads.time_waited(), before, strict=True))
    assert 0 < ran < 1e9 and waited >= 0


IDLE_TEAM = """
import os
import torch
from drct.runtime import threads
def tasks():
    return len(os.listdir("/proc/self/task"))
torch.set_num_threads(2)
threads.cores = lambda: 2
x = torch.randn(300, 300)
expected, before = x @ x, tasks()
assert threads._team_size() == 2, threads._team_size()
team = threads._IdleTeam(torch, 2)
while tasks() < before + 2:  # the thread that holds the team, and the one that it adds
    pass
assert torch.equal(x @ x, expected)
team.end()
while tasks() > before:
    pass
torch.set_num_threads(1)
assert threads._team_size() == 0
"""


@pytest.mark.skipif(not threads._uses_libgomp(), reason="PyTorch has another OpenMP here")
def test_an_idle_team_adds_threads_changes_no_numbers_and_ends():
    environment = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    subprocess.run([sys.executable, "-c", IDLE_TEAM], check=True, timeout=120, env=environment)


def test_nothing_is_started_by_importing_drct():
    code = "import os, threading; before = dict(os.environ); import drct; "
    code += "assert threading.active_count() == 1 and dict(os.environ) == before"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
