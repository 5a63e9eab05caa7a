"""The picture of a run's first batch."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import photo, train_options, write_options
from test_real_drct import options, weights_of
from test_training import assert_equal

from drct.commands import train as train_run
from drct.evaluation.comparison_sheet import LABEL_HEIGHT, PANEL, PANEL_GAP
from drct.evaluation.first_batch import draw_batch
from drct.images.bgr import read_image
from drct.runs import first_batch, train

SHEET = Path("experiments/run/visualization/first_batch.png")


@pytest.fixture
def gt(workplace: Path) -> Path:
    Path("gt").mkdir()
    for i in range(3):
        cv2.imwrite(f"gt/{i}.png", photo(44, 48, i))
    return workplace


def run(opt):
    return train_run.main(["-opt", write_options(Path("run.yml"), opt), "--auto_resume"])


def test_the_panels_are_the_images_of_the_batch():
    lq, gt = torch.rand(9, 3, 8, 8), torch.rand(9, 3, 16, 16)
    sheet = draw_batch(lq, gt / 2, gt)
    row, column = LABEL_HEIGHT + PANEL + PANEL_GAP, PANEL + PANEL_GAP
    assert sheet.shape == (8 * row, 3 * column, 3)
    for i, images in enumerate((lq, gt / 2, gt)):
        panel = sheet[row + LABEL_HEIGHT : 2 * row - PANEL_GAP, i * column : i * column + PANEL]
        step = PANEL // images.shape[-1]
        expected = images[1].flip(0).permute(1, 2, 0).numpy() * 255
        assert np.abs(panel[step // 2 :: step, step // 2 :: step] - expected).max() < 0.51
    assert draw_batch(lq[:, :1], gt[:, :1], gt[:, :1]).shape == sheet.shape  # gray


@pytest.mark.parametrize("model", ["RealDRCTMSEModel", "RealDRCTGANModel"])
def test_it_is_drawn_once_and_changes_nothing(gt, model, monkeypatch):
    opt = options(model, total_iter=3)
    opt["network_g"] |= {"drop_path_rate": 0.3, "drop_rate": 0.1}
    assert run(opt) == 0
    assert read_image(SHEET).shape[0] == 2 * (LABEL_HEIGHT + PANEL + PANEL_GAP)  # the batch has two images
    monkeypatch.setattr(train, "save_first_batch", lambda *_: None)
    assert run(opt | {"name": "without"}) == 0
    assert not Path("experiments/without/visualization/first_batch.png").exists()
    assert_equal(weights_of("run"), weights_of("without"), model)


def test_a_resumed_run_leaves_it_alone(gt):
    assert run(options(total_iter=3)) == 0
    SHEET.write_bytes(b"as it was")
    assert run(options(total_iter=5)) == 0
    assert SHEET.read_bytes() == b"as it was"


def test_a_picture_that_cannot_be_made_does_not_end_the_run(pairs, monkeypatch, capfd):
    def broken(*_):
        raise OSError("no space left")

    monkeypatch.setattr(first_batch, "write_png", broken)
    assert run(train_options()) == 0
    assert "cannot draw images of the first batch: no space left" in capfd.readouterr().err
    assert not SHEET.exists()
