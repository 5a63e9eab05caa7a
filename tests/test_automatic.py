"""Weights that nobody has named: chosen by the picture and the size of its result, among those that are installed."""

import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, photo
from PIL import Image

import drct
from drct.archs.drct_arch import DRCT
from drct.cli import main as drct_main
from drct.errors import DRCTError
from drct.images.pictures import read_picture
from drct.inference.weights import read_network
from drct.runtime import weight_files
from drct.runtime.weight_files import CLEAN_WEIGHTS, PHOTO_WEIGHTS, clean_weights
from drct.web.service import Service

X2, X3, X4 = CLEAN_WEIGHTS


@pytest.fixture(scope="module")
def files():
    """Contents of files with tiny networks, by the names of the project's weights."""
    contents = {}
    for name, scale in (CLEAN_WEIGHTS | {PHOTO_WEIGHTS: 4}).items():
        buffer = io.BytesIO()
        torch.save({"params_ema": DRCT(**TINY | {"upscale": scale}).state_dict()}, buffer)
        contents[name] = buffer.getvalue()
    return contents


@pytest.fixture
def shelf(files, workplace, monkeypatch):
    """Folder with tiny networks under the names of the project's weights, and no other weights anywhere."""
    folder = workplace / "shelf"
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.pth").write_bytes(content)
    monkeypatch.setattr(weight_files, "folders", lambda: [folder])
    image = Image.fromarray(photo(9, 14))
    image.save("clean.png")
    image.save("coarse.jpg", quality=50)
    return folder


@pytest.mark.parametrize(
    ("factor", "name"),
    [(0.5, X2), (1, X2), (1.5, X2), (2, X2), (2.01, X3), (2.5, X3), (3, X3), (3.5, X4), (4, X4), (4.5, X4), (100, X4)],
)
def test_the_smallest_scale_that_reaches_the_factor_is_taken(factor, name):
    assert clean_weights(factor) == name


def test_the_factor_decides_for_each_call_by_itself(shelf):
    automatic = drct.load(device="cpu", precision="fp32")
    pixels = np.asarray(Image.open("clean.png"))
    x = torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)
    for outscale, name in ((1.5, X2), (None, X4), (3, X3), (2, X2), (6, X4)):
        expected = np.asarray(drct.load(name, "cpu", "fp32").upscale("clean.png", outscale))
        assert np.array_equal(automatic.upscale("clean.png", outscale), expected)
        assert automatic.for_picture(read_picture("clean.png"), outscale).name == name
        assert np.array_equal(automatic.upscale(pixels, outscale), expected)
        of_tensor = automatic.upscale(x, outscale).permute(1, 2, 0).numpy()
        assert np.abs(of_tensor * 255 - expected).max() <= 0.501


def test_compressed_photographs_get_the_weights_for_them_at_any_factor(shelf):
    automatic = drct.load(device="cpu", precision="fp32")
    expected = drct.load(PHOTO_WEIGHTS, "cpu", "fp32")
    for outscale in (None, 1.5, 3):
        assert np.array_equal(automatic.upscale("coarse.jpg", outscale), expected.upscale("coarse.jpg", outscale))


def test_networks_are_loaded_once_and_when_they_are_needed(shelf, monkeypatch):
    loaded = []
    monkeypatch.setattr("drct.inference.upscaler.read_network", lambda *a: loaded.append(a[0]) or read_network(*a))
    automatic = drct.load(device="cpu", precision="fp32")
    picture = read_picture("clean.png")
    for outscale in (None, 4, 2, 1, 2, 3):
        automatic.for_picture(picture, outscale)
    assert loaded == [X4, X2, X3]


def test_weights_that_are_not_installed_are_replaced_and_told_once(shelf, caplog):
    (shelf / f"{X2}.pth").unlink()
    automatic = drct.load(device="cpu", precision="fp32")
    expected = drct.load(X4, "cpu", "fp32").upscale("clean.png", 2)
    with caplog.at_level(logging.WARNING, "drct"):
        assert np.array_equal(automatic.upscale("clean.png", 2), expected)
        automatic.upscale("clean.png", 1.5)
        automatic.upscale("clean.png", 3)
    assert caplog.messages == [f"{X2} is not installed: {X4} takes its place, whose results are reduced"]


def test_damaged_weights_are_no_reason_to_take_others(shelf):
    (shelf / f"{X2}.pth").write_bytes(b"nonsense")
    with pytest.raises(DRCTError, match=rf"{X2}\.pth"):
        drct.load(device="cpu").upscale("clean.png", 2)


@pytest.mark.parametrize("outscale", ["2", 0, -1, True, float("nan"), 1e9])
def test_what_is_no_factor_is_refused_before_anything_is_chosen(shelf, outscale):
    automatic = drct.load(device="cpu", precision="fp32")
    for image in ("clean.png", np.zeros((8, 8), np.uint8), torch.zeros(3, 8, 8)):
        with pytest.raises(DRCTError, match="outscale must be a number above 0"):
            automatic.upscale(image, outscale)


def test_the_command_tells_which_weights_were_taken_for_the_factor(shelf, capfd):
    clean = "for clean images (lossless, or JPEG of quality 92 or above)"
    for factor, told in (("2", f"{X2}, {clean} and factors up to 2."), ("4", f"{X4}, {clean}.")):
        Path("in").mkdir(exist_ok=True)
        Path("in/a.png").write_bytes(Path("clean.png").read_bytes())
        assert drct_main(["upscale", "in", "--outscale", factor, "--overwrite", "--device", "cpu"]) == 0
        output, errors = capfd.readouterr()
        assert output.startswith(f"weights: 1 image by {told} --weights NAME takes one for all\n")
        assert "note:" not in errors
    assert Image.open("upscaled/a.png").size == (56, 36)


def test_the_command_tells_once_that_weights_are_not_installed(shelf, capfd):
    (shelf / f"{X2}.pth").unlink()
    for name in ("a", "b"):
        Path("in").mkdir(exist_ok=True)
        Path(f"in/{name}.png").write_bytes(Path("clean.png").read_bytes())
    assert drct_main(["upscale", "in", "--outscale", "2", "--device", "cpu", "--precision", "fp32"]) == 0
    output, errors = capfd.readouterr()
    assert errors.count(f"{X2} is not installed: {X4} takes its place") == 1
    assert output.startswith(f"weights: 2 images by {X4}, for clean images")
    expected = drct.load(X4, "cpu", "fp32").upscale("clean.png", 2)
    assert np.array_equal(np.asarray(Image.open("upscaled/b.png")), np.asarray(expected))


@pytest.mark.parametrize(("missing", "name"), [(None, X2), (X2, X4)])
def test_the_page_chooses_alike(shelf, missing, name):
    if missing:
        (shelf / f"{missing}.pth").unlink()
    result = Service(shelf, 1, "cpu", "fp32").upscale(Path("clean.png"), "auto", outscale=1.5)
    assert f"automatic choice: {name}" in result.summary
    assert ("is not installed" in result.summary) == (missing is not None)
    assert result.file.name == "clean_x1.5.png"
    expected = drct.load(name, "cpu", "fp32").upscale("clean.png", 1.5)
    assert np.array_equal(np.asarray(Image.open(result.file)), np.asarray(expected))
