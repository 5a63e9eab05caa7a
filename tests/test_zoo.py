"""The weights that are known, and what `drct zoo` says of files that are here."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT

from drct.archs.families import NAMED
from drct.cli import main as drct_main
from drct.evaluation.results import read_run
from drct.runtime import weight_files, zoo
from drct.runtime.zoo import HERE, RELEASES, release, weights_here


@pytest.mark.parametrize("name", dict.fromkeys(row.network for row in RELEASES))
def test_rows_say_how_large_their_networks_are(name):
    family = NAMED[name]
    for scale in {row.scale for row in RELEASES if row.network == name}:
        with torch.device("meta"):
            network = family.network(**family.variants[name], upscale=scale)
        rows = [row for row in RELEASES if (row.network, row.scale) == (name, scale)]
        assert {row.parameters for row in rows} == {sum(p.numel() for p in network.parameters())}


def test_rows_have_hashes_and_name_their_scale():
    for row in RELEASES:
        assert f"SRx{row.scale}" in row.file
        assert len(row.sha256) in (0, 64) and set(row.sha256) <= set("0123456789abcdef")


def test_rows_have_the_names_that_option_files_and_their_page_expect():
    files = {row.file for row in RELEASES}
    assert len(files) == len(RELEASES) == len({row.sha256 or row.file for row in RELEASES})
    expected = set()
    for path in (ROOT / "options/test").glob("*.yml"):
        weights = yaml.safe_load(path.read_text())["path"]["pretrain_network_g"]
        expected |= {weights.rpartition("/")[2]} if "pretrained_models" in weights else set()
    assert len(expected) > 20 and expected <= files
    page = (ROOT / "experiments/pretrained_models/README.md").read_text()
    for name in files:
        assert name in page or name.replace(f"SRx{release(name[:-4]).scale}", "SRx{2,3,4}") in page, name


@pytest.mark.parametrize("row", [row for row in RELEASES if row.source is HERE], ids=lambda row: row.file)
def test_the_rows_of_our_weights_are_what_was_measured(row):
    """Whatever file of ours is here has its hash in the row, and its page; rows without a file say nothing of it."""
    name = Path(row.file).stem
    file = ROOT / "experiments/pretrained_models" / row.file
    assert (hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "") == row.sha256
    assert row.measured and bool(row.psnr) == file.exists()
    if (folder := ROOT / "figures/results" / name).is_dir():
        measured = read_run(name, folder).datasets
        assert row.psnr == {name: round(table.mean()["psnr"], 2) for name, table in measured.items()}


def test_our_weights_are_shipped():
    """Git tracks them and a wheel holds them."""
    ignored, setup = (ROOT / ".gitignore").read_text().splitlines(), (ROOT / "setup.py").read_text()
    for row in RELEASES:
        if row.source is HERE:
            assert f"!/experiments/pretrained_models/{row.file}" in ignored
            assert f'"{Path(row.file).stem}"' in setup


@pytest.fixture
def shelf(workplace, monkeypatch):
    """Folder of weights, and rows whose hashes files made here can have."""
    folder = workplace / "experiments/pretrained_models"
    folder.mkdir(parents=True)
    monkeypatch.setattr(weight_files, "__file__", str(workplace / "a/b/c.py"))  # the repository's folder
    monkeypatch.setattr(weight_files.sysconfig, "get_path", lambda name: str(workplace / "nowhere"))
    known = {"DRCT_SRx4.pth": b"drct", "HAT_SRx4.pth": b"hat", "HAT-L_SRx4_ImageNet-pretrain.pth": b"hat-l"}
    rows = [
        replace(row, sha256=hashlib.sha256(known[row.file]).hexdigest()) if row.file in known else row
        for row in RELEASES
    ]
    monkeypatch.setattr(zoo, "RELEASES", tuple(rows))
    return folder


def states():
    return {each.release.file: each for each in weights_here()[0] if each.path}


def test_files_are_recognized_by_content_and_by_name(shelf):
    (shelf / "HAT_SRx4.pth").write_bytes(b"hat")
    (shelf / "DRCT_X4.pth").write_bytes(b"drct")  # the authors' name
    (shelf / "mine.safetensors").write_bytes(b"hat-l")  # any name
    (shelf / "HAT_SRx2.pth").write_bytes(b"x")  # of unknown hash
    (shelf / "other.pth").write_bytes(b"y")
    (shelf / "README.md").write_bytes(b"hat")
    found = states()
    assert {name: (each.path.name, each.identity) for name, each in found.items()} == {
        "HAT_SRx4.pth": ("HAT_SRx4.pth", "published"),
        "DRCT_SRx4.pth": ("DRCT_X4.pth", "published"),
        "HAT-L_SRx4_ImageNet-pretrain.pth": ("mine.safetensors", "published"),
        "HAT_SRx2.pth": ("HAT_SRx2.pth", "unknown"),
    }
    assert [path.name for path in weights_here()[1]] == ["other.pth"]


def test_files_that_are_not_what_they_are_called_are_pointed_out(shelf, capsys):
    (shelf / "HAT_SRx4.pth").write_bytes(b"hat, damaged")
    (shelf / "DRCT_SRx2.pth").write_bytes(b"drct")  # a row without a hash, and the content of another
    assert drct_main(["zoo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    of = {line.split()[0]: line for line in lines if line}
    assert of["HAT_SRx4.pth"].endswith("another file")
    assert of["DRCT_SRx2.pth"].endswith("another file")
    assert of["DRCT_SRx4.pth"].endswith("yes, as DRCT_SRx2.pth")
    assert of["HAT-S_SRx4.pth"].endswith("missing")
    wrong, expected = (hashlib.sha256(data).hexdigest() for data in (b"hat, damaged", b"hat"))
    remarks = [line for line in lines if "is another file: " in line]
    assert [line.split("/")[-1].split(" is")[0] for line in remarks] == ["DRCT_SRx2.pth", "HAT_SRx4.pth"]
    assert "it is DRCT_SRx4.pth (DRCT_X4.pth)" in remarks[0]
    assert f"SHA-256 {wrong}, not {expected}, which was published" in remarks[1]
    links = "https://github.com/XPixelGroup/HAT and https://drive.google.com/"
    assert any(line.startswith(f"weights of the HAT project: {links}") for line in lines)


def test_everything_is_there_as_json(shelf, capsys):
    (shelf / "HAT_SRx4.pth").write_bytes(b"other")
    assert drct_main(["zoo", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    rows = {row["file"]: row for row in content["weights"]}
    assert len(rows) == len(RELEASES) and content["others"] == []
    row = rows["HAT_SRx4.pth"]
    assert (row["identity"], row["scale"], row["source"]["licence"]) == ("other", 4, "Apache-2.0")
    assert row["sha256_of_path"] == hashlib.sha256(b"other").hexdigest() != row["sha256"]
    assert row["psnr"]["Set5"] == 33.04 and not row["measured"]
    assert rows["HAT-L_SRx4_ImageNet-pretrain.pth"]["identity"] == "missing"


def test_a_folder_elsewhere_does_not_hide_the_first(shelf, workplace):
    second = workplace / "second"
    second.mkdir()
    (shelf / "HAT_SRx4.pth").write_bytes(b"hat")
    (second / "HAT_SRx4.pth").write_bytes(b"changed")
    found = {each.release.file: each for each in weights_here([shelf, second])[0]}
    assert found["HAT_SRx4.pth"].path == shelf / "HAT_SRx4.pth"
