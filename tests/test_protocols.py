"""PSNR by the protocols of other papers."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr
from conftest import photo, test_options, train_options, write_options
from test_report import Page, without_truth

from drct.commands import test as test_run
from drct.commands import train as train_run
from drct.commands.run_arguments import options_parser
from drct.data.prepare import reduce_image
from drct.evaluation.protocols import Protocol, ProtocolMeter, mean_psnr, protocol_rows, protocol_text, psnr_of_mean
from drct.images.bgr import read_image, write_png


def as_tensor(image):
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))[None].float() / 255


def nearest(lq):
    """Upscale by 2, to values that are no whole gray levels."""
    return torch.nn.functional.interpolate(lq, scale_factor=2, mode="nearest") * 0.97 + 0.0111


def by_nearest(lr):
    """What `nearest` makes of an image, BGR in [0, 255], not rounded."""
    return np.clip(np.repeat(np.repeat(lr, 2, 0), 2, 1) * 0.97 + 0.0111 * 255, 0, 255)


def test_the_errors_are_those_of_basicsr_by_each_protocol():
    truth = photo(48, 40)
    truth[8:24] = np.random.default_rng(0).integers(0, 256, (16, 40, 3), dtype=np.uint8)
    lrs = {"given": photo(24, 20, 5), "MATLAB": reduce_image(truth, 2)}
    lrs["OpenCV"] = cv2.resize(truth, (20, 24), interpolation=cv2.INTER_CUBIC)
    meter = ProtocolMeter(nearest, 2)
    meter(as_tensor(lrs["given"]))
    errors = meter.errors(truth)
    assert len(errors) == 2 * 2 * 2 * 3
    for protocol, error in errors.items():
        image = by_nearest(lrs[protocol.lr].astype(np.float64))
        if protocol.rounded:
            image = image.round()
        psnr = calculate_psnr(image, truth, protocol.border, test_y_channel=protocol.channel == "Y")
        assert 10 * math.log10(255**2 / error) == pytest.approx(psnr, abs=1e-4), protocol
    assert len(set(errors.values())) == len(errors)


def test_the_network_does_not_run_again_where_lr_is_matlabs():
    truth, calls = photo(48, 40), []
    meter = ProtocolMeter(lambda lq: calls.append(lq) or nearest(lq), 2)
    meter(as_tensor(reduce_image(truth, 2)))
    errors = meter.errors(truth)
    assert len(calls) == 2
    for protocol, error in errors.items():
        if protocol.lr == "MATLAB":
            assert error == errors[replace(protocol, lr="given")]


def test_means_of_psnr_and_psnr_of_means():
    usual = Protocol(border=4)
    errors = {name: {usual: error} for name, error in (("a", 255**2 / 1e3), ("b", 255**2 / 1e5))}
    assert mean_psnr(errors, usual) == pytest.approx(40)
    assert psnr_of_mean(errors, usual) == pytest.approx(10 * math.log10(1 / ((1e-3 + 1e-5) / 2)))
    errors["c"] = {usual: 0.0}
    assert mean_psnr(errors, usual) == math.inf
    assert psnr_of_mean(errors, usual) < 40


def test_the_table_names_each_difference():
    errors = {}
    for channel in ("Y", "RGB"):
        for border in (0, 4):
            for rounded in (True, False):
                for lr in ("given", "MATLAB", "OpenCV"):
                    protocol = Protocol(channel, border, rounded, lr)
                    decibels = 30 - (channel == "RGB") * 2 - (border == 0) * 3 + (not rounded) * 0.5
                    decibels -= {"given": 0, "MATLAB": 0, "OpenCV": 4}[lr]
                    errors[protocol] = 255**2 / 10 ** (decibels / 10)
    rows = protocol_rows({"a": errors}, 4)
    assert [round(row.psnr, 6) for row in rows] == [30, 28, 27, 30.5, 30, 26, 30]
    assert [row.difference and round(row.difference, 6) for row in rows] == [None, -2, -3, 0.5, 0, -4, 0]
    lines = protocol_text({"a": errors}, 4).splitlines()
    assert lines[0].split()[-1] == "30.00"
    assert lines[1].split()[-2:] == ["28.00", "−2.00"]


def test_a_test_run_reports_protocols(weights, pairs, capfd):
    write_png("gt/tiny.png", photo(8, 4))
    write_png("lr/tiny.png", photo(4, 2))
    options = write_options(Path("test.yml"), test_options(weights) | {"val": {"metrics": {}}})
    psnr = "val:metrics={psnr: {type: calculate_psnr, crop_border: 2, test_y_channel: true}}"
    assert test_run.main(["-opt", options, "--protocols", "--force_yml", psnr]) == 1  # tiny.png has no metric
    log = capfd.readouterr().err
    assert "set: PSNR of 3 images by other protocols" in log
    with open("results/run/protocols_set.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
    images = {name: read_image(f"results/run/visualization/set/{name}_run.png") for name in ("colour", "gray", "odd")}
    expected = np.mean(
        [calculate_psnr(image, read_image(f"gt/{name}.png"), 2, test_y_channel=True) for name, image in images.items()]
    )
    (usual,) = [row for row in rows if list(row.values())[:5] == ["Y", "2", "True", "given", "mean of PSNR"]]
    assert float(usual["psnr"]) == pytest.approx(expected, abs=1e-3)
    assert usual["difference"] == "0.0000"
    for row in rows:
        assert float(row["difference"]) == pytest.approx(float(row["psnr"]) - expected, abs=2e-3)
    table = Page("results/run/report.html").tables[2]
    assert table[1][1:] == [f"{expected:.2f}", ""]
    assert table[5][2] == "+0.00"  # the LR images are MATLAB's
    metrics = Path("results/run/metrics_set.csv").read_bytes()
    assert test_run.main(["-opt", options, "--force_yml", psnr]) == 1
    assert Path("results/run/metrics_set.csv").read_bytes() == metrics
    assert not Path("results/run/protocols_set.csv").exists()


def test_images_too_small_for_protocols_are_left_out_and_told(weights, pairs, capfd):
    write_png("gt/tiny.png", photo(8, 4))
    write_png("lr/tiny.png", photo(4, 2))
    options = test_options(weights)
    options["val"] = {"protocols": True, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}}
    assert test_run.main(["-opt", write_options(Path("test.yml"), options)]) == 0
    log = capfd.readouterr().err
    assert "lr/tiny.png is left out of the protocols: the protocols need a colour image" in " ".join(log.split())
    assert "PSNR of 3 images by other protocols" in log


def test_protocols_without_ground_truth_are_not_dropped_in_silence(weights, pairs, capfd):
    options = without_truth(test_options(weights), "lr") | {"val": {"protocols": True}}
    assert test_run.main(["-opt", write_options(Path("test.yml"), options)]) == 0
    told = "photos: no image has a ground truth that other protocols can measure it by"
    assert told in " ".join(capfd.readouterr().err.split())


def test_training_has_no_protocols(pairs, capfd):
    assert train_run.main(["-opt", write_options(Path("train.yml"), train_options()), "--protocols"]) == 2
    assert "val.protocols" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--protocols", "--force_yml", "a=1", "b=2"],
        ["--force_yml", "a=1", "b=2", "--protocols"],
        ["--force_yml", "a=1", "--protocols", "--force_yml", "b=2"],
    ],
)
def test_arguments_that_change_options_add_up(arguments):
    for _ in range(2):
        changes = options_parser().parse_args(["-opt", "x.yml", *arguments]).force_yml
        assert sorted(changes) == ["a=1", "b=2", "val:protocols=true"]
    assert options_parser().parse_args(["-opt", "x.yml"]).force_yml == []
