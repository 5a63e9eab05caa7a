"""How far a computation has come: reported by networks, and shown by commands."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HAT_TINY, TINY, hat_pair, pair, photo, test_options, write_options
from PIL import Image

import drct
from drct.archs import progress
from drct.cli import main as drct_main
from drct.inference import waiting


@pytest.fixture
def network():
    return pair(2, **TINY)[1]


@pytest.fixture
def impatient(monkeypatch):
    """Announce every image, and print every line."""
    for name in ("LONG", "FIRST_LOOK", "INTERVAL"):
        monkeypatch.setattr(waiting, name, 0)


@pytest.fixture
def upscale(network, workplace):
    """Run the command on images a.png and b.png; the status."""
    torch.save(network.state_dict(), "tiny.pth")
    for name in ("a.png", "b.png"):
        Image.fromarray(photo(9, 14)).save(name)

    def run(*arguments):
        settings = ["--weights", "tiny.pth", "--precision", "fp32", "--device", "cpu"]
        return drct_main(["upscale", *arguments, "-o", "out", "--overwrite", *settings])

    return run


def shares_of(upscaler, image):
    shares = []
    with progress.watched(shares.append):
        upscaler.upscale(image)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    return shares


def test_the_definition_reports_its_groups(network):
    upscaler = drct.Upscaler(network, "cpu", "fp32", tile=None)
    fast = shares_of(upscaler, torch.rand(1, 3, 64, 64))
    assert len(fast) > 2 * 5
    network.norm.register_forward_hook(lambda *_: None)  # the definition runs where somebody watches
    assert shares_of(upscaler, torch.rand(1, 3, 8, 8))[:2] == [0.5, 1]


def test_hat_reports_what_it_does_within_a_group():
    _, network = hat_pair(2, **HAT_TINY)
    upscaler = drct.Upscaler(network, "cpu", "fp32", tile=None)
    image = torch.rand(1, 3, 90, 70)
    shares = shares_of(upscaler, image)
    assert len(set(shares)) > 30
    assert max(b - a for a, b in zip(shares, shares[1:], strict=False)) < 0.2
    unwatched = upscaler.upscale(image)
    with progress.watched(lambda _: None):
        assert torch.equal(upscaler.upscale(image), unwatched)
    network.norm.register_forward_hook(lambda *_: None)
    assert shares_of(upscaler, torch.rand(1, 3, 8, 8))[:2] == [0.5, 1]


def test_a_network_with_a_position_embedding_reports_its_groups():
    runner = drct.Upscaler(drct.DRCT(**TINY, ape=True), "cpu", "fp32", tile=None)
    assert shares_of(runner, torch.rand(1, 3, 16, 16))[:2] == [0.5, 1]


def test_a_result_does_not_depend_on_whether_it_is_watched(network):
    upscaler, image = drct.Upscaler(network, "cpu", "fp32"), np.random.default_rng(0).random((20, 30, 3))
    with progress.watched(lambda _: None):
        watched = upscaler.upscale(image)
    assert np.array_equal(watched, upscaler.upscale(image))
    with pytest.raises(KeyboardInterrupt), progress.watched(interrupt):
        upscaler.upscale(image)
    assert not progress.is_watched()


def interrupt(_):
    raise KeyboardInterrupt


def test_a_long_image_is_announced_and_lines_follow_where_there_is_no_terminal(upscale, capfd, impatient):
    assert upscale("a.png", "b.png", "--tile", "8") == 0
    lines = capfd.readouterr().err.splitlines()
    announced = [line for line in lines if re.fullmatch(r"a.png: 14 x 9 pixels, about 0.\d GB, in tiles of 8 .*", line)]
    assert len(announced) == 1
    assert re.fullmatch(r".*pixels, about \d+ s", announced[0])
    shares = [re.fullmatch(r"([12]) of 2: ([ab].png): (\d+)%, about \d+ s left", line) for line in lines]
    found = [(match[1], match[2], int(match[3])) for match in shares if match]
    assert found == sorted(found)
    assert {name for _, name, _ in found} == {"a.png", "b.png"}
    assert len({share for _, _, share in found}) > 3


def test_short_images_give_no_words(upscale, capfd):
    assert upscale("a.png", "b.png") == 0
    assert capfd.readouterr().err == ""


def test_a_terminal_shows_a_bar_that_moves_within_an_image(upscale, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(waiting.tqdm, "monitor_interval", 0)
    monkeypatch.setattr(waiting, "LONG", 0)
    monkeypatch.setattr(waiting, "FIRST_LOOK", 0)
    monkeypatch.setattr(waiting.BatchProgress, "image", slowly(waiting.BatchProgress.image))
    assert upscale("a.png", "b.png") == 0
    shown = sys.stderr.getvalue()
    assert {int(percent) for percent in re.findall(r"(\d+)%\|", shown)} & set(range(1, 50))
    assert "2 of 2: b.png" in shown
    assert "a.png: 14 x 9 pixels, about" in shown


def slowly(image):
    """Refresh the bar at every report."""

    def refreshing(self, *arguments):
        self._bar.mininterval = self._bar.miniters = 0
        return image(self, *arguments)

    return refreshing


def test_a_test_run_logs_its_progress(weights, pairs, impatient):
    assert drct_main(["test", "-opt", write_options(Path("test.yml"), test_options(weights))]) == 0
    (log,) = Path("results/run").glob("*.log")
    text = log.read_text()
    assert re.search(r"INFO: colour: 28 x 24 pixels, about 0.\d GB, about \d+ s", text)
    assert re.search(r"INFO: set: 1 of 3: colour: \d+%, about \d+ s left", text)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (3600, "60 min"), (11100, "3 h 5 min")]
)
def test_durations(seconds, words):
    assert waiting.duration(seconds) == words
