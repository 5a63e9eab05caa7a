"""The log of a run."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from drct.runs import progress
from drct.runs.log import RunLog


def test_the_log_file_has_what_was_said_before_it_was_there(tmp_path):
    with RunLog() as log:
        logging.getLogger("basicsr").info("before")
        log.write_to(tmp_path / "run.log")
        logging.getLogger("basicsr").debug("after")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == ["before", "after"]


def test_names_of_files_that_are_no_text_are_logged(tmp_path, capsys):
    with RunLog() as log:
        log.write_to(tmp_path / "run.log")
        logging.getLogger("basicsr").debug("caf\udce9.png was left out")
    assert (tmp_path / "run.log").read_text(encoding="utf-8").endswith(": caf\\udce9.png was left out\n")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_log_on_a_full_disk_is_told_in_one_line(capsys):
    with RunLog() as log:
        log.write_to(Path("/dev/full"))
        for i in range(3):
            logging.getLogger("basicsr").debug(f"message {i}")
    error = capsys.readouterr().err
    assert error == "error: cannot write /dev/full, in which messages are missing: No space left on device\n"


def test_the_share_of_waiting_is_that_of_all_steps(monkeypatch):
    """Steps of 4 seconds, of which the first waits 2 and the others 1; validation between them does not count."""
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    opt = {"name": "run", "train": {"total_iter": 9}}
    monitor = progress.Monitor(opt, 0, 2, SimpleNamespace(add_scalar=lambda *_: None))
    assert monitor.waited() == 0
    for step in range(3):
        monitor.start_step()
        now += 2 if step == 0 else 1
        monitor.data_ready()
        now += 2 if step == 0 else 3
        monitor.end_step()
        now += 100
        if step == 1:
            monitor.report(0, [1e-4], {"l_pix": 0.1})
    assert monitor.waited() == pytest.approx(4 / 12)
