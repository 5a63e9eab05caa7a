"""The benchmark's own behaviour; its figures are nobody's test."""

import json
import math
import multiprocessing
import re
from pathlib import Path

import cv2
import pytest
from tqdm import tqdm

from drct.analysis import contenders, speed
from drct.analysis.speed import SpeedResult
from drct.analysis.speed_report import SpeedReport, speed_table
from drct.commands.bench import main


def test_contenders_are_measured_in_turns(workplace, capsys):
    arguments = ["--sizes", "16x16", "--rounds", "2", "--contenders", "ours", "ours-step", "--reference", "ours"]
    assert main([*arguments, "--json", "b.json", "--chart", "b.png", "--profile"]) == 0
    lines = capsys.readouterr().out.splitlines()
    times = r"take [\d.]+ s at fp32, [\d.]+ s at bf16"
    assert re.search(rf"16x16: the \d+ GFLOP of DRCT's products, as computed here, {times}", "\n".join(lines))
    steps = re.search(r"16x16: the (\d+) GFLOP of a training step's products", "\n".join(lines))
    assert int(steps[1]) >= 3 * 9  # forward 9.3, backward twice as many
    shares = [int(found[1]) for line in lines if (found := re.search(r"\| [\d.]+ \| (\d+)% \|$", line))]
    assert len(shares) == 10
    assert all(shares[i] > 0 for i in (0, 1, 5, 6))
    assert 97 <= sum(shares[:5]) <= 103
    rows = [line for line in lines if line.startswith("| 16x16 |")]
    assert [row.split("|")[2].strip() for row in rows] == ["this project", "this project, training step"]
    assert rows[0].split("|")[6].strip() == "1.00"
    content = json.loads(Path("b.json").read_text())
    assert content["environment"]["threads"] >= 1
    assert min(content["product_gflops_per_second"].values()) > 0
    inference, step = content["results"]
    assert len(inference["seconds"]) == 2
    assert 0 < min(inference["seconds"]) < max(step["seconds"])
    assert 10e6 < inference["peak_bytes"] < step["peak_bytes"] < step["process_bytes"]
    assert cv2.imread("b.png").shape[1] == 1200
    assert main(["--show", "b.json", "--chart", "again.png"]) == 0
    again = capsys.readouterr().out.splitlines()
    assert again == lines[: len(again)]
    assert Path("again.png").read_bytes() == Path("b.png").read_bytes()


def test_peers_that_are_not_installed_are_named(monkeypatch, capsys):
    monkeypatch.setattr(contenders, "find_spec", lambda name: None)
    assert main(["--contenders", "original", "openvino"]) == 2
    error = capsys.readouterr().err
    assert "original is left out: spandrel is not installed" in error
    assert "openvino is left out: spandrel, openvino is not installed" in error
    assert "error: there is nothing to measure" in error


def test_mistakes_are_explained(workplace, capsys):
    assert main(["--contenders", "orignal"]) == 2
    assert "no contender 'orignal' (did you mean 'original'?)" in capsys.readouterr().err
    Path("b.json").write_text('{"results": [7]}')
    assert main(["--show", "b.json"]) == 2
    assert "error: b.json is no result of drct bench --json" in capsys.readouterr().err
    for size in ("64", "64x65", "axb"):
        with pytest.raises(SystemExit):
            main(["--sizes", size])
    assert "is not HEIGHTxWIDTH" in capsys.readouterr().err


def test_a_contender_that_fails_does_not_end_the_others():
    here, there = multiprocessing.Pipe()
    dead, silent = SpeedResult("hat", "64x64"), SpeedResult("swinir", "64x64")
    there.send("ValueError: no such shape")
    speed._ask(here, dead, tqdm(disable=True))
    there.close()
    speed._ask(here, silent, tqdm(disable=True))
    original = SpeedResult("original", "64x64", [2.0, 4.0, 3.0], 10**9, 2 * 10**9)
    rows = speed_table(SpeedReport({}, {}, [], "original", [original, dead, silent])).splitlines()[2:]
    assert rows[0] == "| 64x64 | original | fp32 | 3.00 | 2.00 .. 4.00 | 1.00 | 1.00 GB | 2.00 GB |"
    assert "failed: ValueError: no such shape" in rows[1]
    assert "out of memory?" in rows[2]
    assert math.isnan(silent.median)
