"""The certificate of a test run, and `drct verify`, which repeats the run and names what differs."""

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import cv2
import pytest
import torch
from conftest import ROOT, test_options, write_options

from drct.commands import test as test_run
from drct.commands.verify import main as verify

CERTIFICATE = Path("results/run/certificate.json")


@pytest.fixture
def certified(pairs, weights):
    """A folder with the results of a test run."""
    assert test_run.main(["-opt", write_options(Path("test.yml"), test_options(weights))]) == 0
    return pairs


def edit(change):
    """Change the content of the certificate by a function."""
    content = json.loads(CERTIFICATE.read_text())
    change(content)
    CERTIFICATE.write_text(json.dumps(content))


def said(capsys, *arguments):
    """Status and lines of `drct verify`."""
    capsys.readouterr()
    status = verify([str(CERTIFICATE), *arguments])
    return status, capsys.readouterr().out.splitlines()


def test_a_repetition_is_the_same_and_leaves_nothing_behind(certified, capsys):
    before = sorted(map(str, certified.rglob("*")))
    status, lines = said(capsys)
    assert (status, lines) == (0, ["the same to the digit: 3 images, weights and options"])
    assert sorted(map(str, certified.rglob("*"))) == before
    content = json.loads(CERTIFICATE.read_text())
    metrics = json.loads(Path("results/run/metrics_set.json").read_text())
    assert {name: image["metrics"] for name, image in content["datasets"]["set"]["images"].items()} == metrics["images"]
    assert content["datasets"]["set"]["mean"] == metrics["mean"]
    assert content["options"]["datasets"]["test_1"]["dataroot_gt"] == "gt"  # as the option file has it
    assert content["versions"]["torch"] == torch.__version__


def test_changes_of_images_weights_and_versions_are_named(certified, weights, capsys):
    for path, value in (("lr/colour.png", 1), ("gt/odd.png", 3)):
        image = cv2.imread(path)
        image[5, 7, 1] ^= value
        cv2.imwrite(path, image)
    content = torch.load(weights, weights_only=True)
    content["params_ema"]["layers.1.adjust1.bias"][0] += 1e-3
    torch.save(content, weights)
    edit(lambda content: content["versions"].update(torch="1.0"))
    status, lines = said(capsys)
    assert status == 1
    assert lines[:2] == ["weights: layers.1 differs", f"version of torch: {torch.__version__}, was 1.0"]
    assert lines[2].startswith("set, colour: the low-resolution image differs; psnr ")
    assert lines[3].startswith("set, gray: psnr ")
    assert lines[4].startswith("set, odd: the ground-truth image differs; psnr ")
    assert lines[5].startswith("set, mean: psnr ")
    assert lines[-1].startswith("not the same: 7 differences; largest: psnr ")


def test_another_file_with_the_same_weights_and_pixels_elsewhere_is_the_same(certified, weights, capsys):
    content = torch.load(weights, weights_only=True)
    torch.save({"params_ema": content["params_ema"], "note": torch.zeros(3)}, "other.pth")
    weights.unlink()
    shutil.move("gt", "truth")
    for path in Path("truth").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path)), [cv2.IMWRITE_PNG_COMPRESSION, 0])
    moved = ["--force_yml", "path:pretrain_network_g=other.pth", "datasets:test_1:dataroot_gt=truth"]
    status, lines = said(capsys, *moved)
    assert (status, lines) == (0, ["the same to the digit: 3 images, weights and options"])


def test_other_options_are_named_whether_given_or_edited(certified, capsys):
    status, lines = said(capsys, "--force_yml", "val:metrics:psnr:crop_border=0", "self_ensemble=true")
    assert status == 1
    assert lines[:2] == [
        "options: val.metrics.psnr.crop_border is 0, was 2",
        "options: self_ensemble is true, was not given",
    ]
    edit(lambda content: content["options"]["val"]["metrics"]["psnr"].update(test_y_channel=False))
    status, lines = said(capsys)
    assert status == 1
    assert lines[0] == "options: val was edited in the certificate"


def test_a_tolerance_takes_figures_that_are_close_and_notes_the_rest(certified, capsys):
    def change(content):
        content["device"] = "CPU, abacus"
        for image in content["datasets"]["set"]["images"].values():
            image["metrics"]["psnr"] += 0.004
            image["result"] = "0" * 64
        content["datasets"]["set"]["mean"]["psnr"] += 0.004

    edit(change)
    status, lines = said(capsys, "--tolerance", "0.005", "ssim=0")
    assert status == 0
    assert lines[0].startswith("note: device: CPU, ") and lines[0].endswith(", was CPU, abacus")
    assert lines[1] == "note: set, colour: the result differs in pixels"
    assert lines[-1] == (
        "the same within the tolerance; largest differences: psnr 0.004: 3 images, weights and options"
    )
    assert said(capsys, "--tolerance", "0.005", "psnr=0.003")[0] == 1
    assert said(capsys)[0] == 1


def test_images_that_come_go_or_fail_are_named(certified, capsys):
    for folder in ("gt", "lr"):
        Path(folder, "gray.png").unlink()
        shutil.copy(f"{folder}/odd.png", f"{folder}/new.png")
    Path("lr/colour.png").write_bytes(b"\x89PNG nothing")
    status, lines = said(capsys)
    assert status == 1
    assert lines[:3] == [
        "set, colour: is not there now, or could not be measured",
        "set, gray: is not there now, or could not be measured",
        "set, new: was not there, or could not be measured",
    ]
    assert lines[3].startswith("set: 1 failed, the first: lr/colour.png: ")


def test_results_without_ground_truth_are_compared_by_their_pixels(weights, pairs, capsys):
    dataset = {"name": "set", "type": "SingleImageDataset", "dataroot_lq": "lr", "io_backend": {"type": "disk"}}
    options = test_options(weights, datasets={"test": dataset}, val={"save_img": False})
    assert test_run.main(["-opt", write_options(Path("test.yml"), options)]) == 0
    assert said(capsys) == (0, ["the same to the digit: 3 images, weights and options"])
    edit(lambda content: content["datasets"]["set"]["images"]["odd"].update(result="0"))
    assert said(capsys, "--tolerance", "1")[1][0] == "set, odd: the result differs in pixels"


def test_random_weights_are_repeated_and_infinite_figures_compared(pairs, weights, capsys):
    """BasicSR's PSNR of equal images is infinite: here, of the ground truth and itself at scale 1."""
    options = test_options(weights)
    options["path"]["pretrain_network_g"] = None
    del options["manual_seed"]
    assert test_run.main(["-opt", write_options(Path("test.yml"), options)]) == 0
    assert said(capsys)[0] == 0

    def infinite(content):
        content["datasets"]["set"]["images"]["odd"]["metrics"] = {"psnr": "inf", "ssim": None}

    edit(infinite)
    assert "psnr" in said(capsys, "--tolerance", "1000")[1][0]


def test_what_cannot_be_repeated_ends_with_2(certified, capsys):
    Path("nonsense.json").write_text("{}")
    Path("text.json").write_text("certificate")
    for file, message in {
        "nowhere.json": "error: cannot read certificate nowhere.json: No such file or directory",
        "nonsense.json": "error: nonsense.json is not a certificate: drct test writes certificate.json",
        "text.json": "error: text.json is not a certificate of drct test: it is no JSON",
    }.items():
        assert verify([file]) == 2
        assert message in capsys.readouterr().err
    shutil.rmtree("lr")
    assert verify([str(CERTIFICATE)]) == 2
    message = capsys.readouterr().err
    assert "error: the run cannot be repeated: results/run/certificate.json: datasets.test_1.dataroot_lq: " in message
    assert "(--force_yml KEY=VALUE tells where images and weights are now)" in message
    edit(lambda content: content.update(certificate=2))
    assert verify([str(CERTIFICATE)]) == 2
    assert "has format 2, this version of drct reads format 1" in capsys.readouterr().err
    edit(lambda content: content.update(certificate=1, threads="many"))
    assert verify([str(CERTIFICATE)]) == 2
    assert "certificate.json is damaged: threads: " in capsys.readouterr().err


def test_wrong_arguments_and_sections_are_one_line(certified, capsys):
    assert verify([str(CERTIFICATE), "--tolerance", "psn=0.1"]) == 2
    assert "--tolerance psn: the certificate has no such metric (did you mean 'psnr'?)" in capsys.readouterr().err
    edit(lambda content: content["options"].update(val="psnr"))
    assert verify([str(CERTIFICATE)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: the run cannot be repeated: ") and message.count("\n") == 1
    assert "val" in message


def test_a_folder_of_results_is_taken_and_one_difference_is_one(certified, capsys):
    edit(lambda content: content["versions"].update(torch="1.0"))
    assert verify([str(CERTIFICATE.parent)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "not the same: 1 difference"
    assert verify(["gt"]) == 2
    assert f"cannot read certificate {Path('gt/certificate.json')}: No such file" in capsys.readouterr().err


def test_another_number_of_threads_is_noted_where_figures_differ(certified, capsys):
    """They may add up numbers in another order."""
    edit(lambda content: content.update(threads=1000))
    assert said(capsys) == (0, ["the same to the digit: 3 images, weights and options"])
    edit(lambda content: content["datasets"]["set"]["images"]["odd"]["metrics"].update(psnr=20.0))
    status, lines = said(capsys)
    assert (status, lines[-2]) == (1, f"note: threads: {torch.get_num_threads()}, was 1000")


def test_options_of_any_kind_of_yaml_are_certified(weights, pairs, capsys):
    """Dates are not what JSON holds, nor are sections in lists with numbers as keys beside names."""
    remarks = [{1: "one", "two": 2}, datetime(2026, 1, 2, 3, 4, 5)]
    options = test_options(weights, remarks=remarks)
    assert test_run.main(["-opt", write_options(Path("test.yml"), options)]) == 0
    assert said(capsys)[0] == 0


def test_a_run_whose_certificate_cannot_be_written_keeps_its_results(weights, pairs, monkeypatch, capfd):
    from drct.runs import test

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(test, "write_certificate", full)
    assert test_run.main(["-opt", write_options(Path("test.yml"), test_options(weights))]) == 0
    assert "the run has no certificate: disk full" in capfd.readouterr().err
    assert Path("results/run/report.html").is_file()


def test_several_processes_certify_the_same(certified):
    """Two processes divide the images, and their certificate differs in its date and the number of processes alone."""
    one = json.loads(CERTIFICATE.read_text())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [str(ROOT / "drct/test.py"), "-opt", "test.yml", "--launcher", "pytorch"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stderr
    two = json.loads(CERTIFICATE.read_text())
    assert (one.pop("processes"), two.pop("processes")) == (1, 2)
    for content in (one, two):
        del content["date"], content["threads"]
    assert one == two
