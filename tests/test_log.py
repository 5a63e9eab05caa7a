"""The log of a run."""

import logging
from pathlib import Path

import pytest

from drct.runs.log import RunLog


def test_the_log_file_has_what_was_said_before_it_was_there(tmp_path):
    with RunLog() as log:
        logging.getLogger("basicsr").info("before")
        log.write_to(tmp_path / "run.log")
        logging.getLogger("basicsr").debug("after")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == ["before", "after"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_a_log_on_a_full_disk_is_told_in_one_line(capsys):
    with RunLog() as log:
        log.write_to(Path("/dev/full"))
        for i in range(3):
            logging.getLogger("basicsr").debug(f"message {i}")
    error = capsys.readouterr().err
    assert error == "error: cannot write /dev/full, in which messages are missing: No space left on device\n"
