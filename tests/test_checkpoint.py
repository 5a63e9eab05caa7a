"""Weight files and training states."""

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from conftest import TINY, pair
from spandrel.architectures.DRCT import DRCT as OriginalDRCT  # noqa: N811

from drct.archs.drct_arch import DRCT
from drct.errors import DRCTError
from drct.runtime import checkpoint


@pytest.mark.parametrize(
    ("keys", "wanted", "used"),
    [
        (["params", "params_ema"], "params_ema", "params_ema"),
        (["params", "params_ema"], "params", "params"),
        (["params"], "params_ema", "params"),
        (["params_ema"], "params", "params_ema"),
        ([], "params_ema", ""),
        ([], None, ""),
    ],
)
def test_weights_are_read_from_every_kind_of_file(tmp_path, keys, wanted, used):
    original, network = pair(2, **TINY)
    state = {f"module.{name}" if not keys else name: value for name, value in original.state_dict().items()}
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    content = {key: state if key == used else other for key in keys} if keys else state
    torch.save(content, tmp_path / "weights.pth")
    weights, key = checkpoint.read_weights(tmp_path / "weights.pth", wanted)
    assert key == used
    loaded = DRCT(upscale=2, **TINY)
    assert checkpoint.load_weights(loaded, weights, strict=True, path="weights.pth") == []
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_our_files_load_in_the_original(tmp_path):
    _, network = pair(2, **TINY)
    checkpoint.save(tmp_path / "ours.pth", {"params": network.state_dict()})
    original = OriginalDRCT(upscale=2, upsampler="pixelshuffle", **TINY)
    original.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True)["params"], strict=True)


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def test_files_that_run_code_are_refused(workplace):
    torch.save({"params": Harmful()}, "bad.pth")
    with pytest.raises(DRCTError, match=r"bad\.pth.*not loaded"):
        checkpoint.read_weights("bad.pth")
    Path("pickle.pth").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(DRCTError, match=r"pickle\.pth"):
        checkpoint.read_weights("pickle.pth")
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(100), "truncated", "list", "no tensors"]
)
def test_files_that_hold_no_weights_are_explained_in_one_line(workplace, content):
    if content == "truncated":
        torch.save({"params": {"a": torch.rand(1000)}}, "x.pth")
        Path("x.pth").write_bytes(Path("x.pth").read_bytes()[:-1500])
    elif content == "list":
        torch.save([1, 2], "x.pth")
    elif content == "no tensors":
        torch.save({"epoch": 1}, "x.pth")
    else:
        Path("x.pth").write_bytes(content)
    with pytest.raises(DRCTError, match=r"x\.pth") as error:
        checkpoint.read_weights("x.pth")
    assert "\n" not in str(error.value)


def test_weights_of_another_network_are_explained_or_partly_loaded():
    _, x2 = pair(2, **TINY)
    x4 = DRCT(upscale=4, **TINY)
    initial = x4.upsample[2].weight.clone()
    with pytest.raises(DRCTError, match=r"file\.pth does not fit.*missing upsample\.2\.weight"):
        checkpoint.load_weights(x4, x2.state_dict(), strict=True, path="file.pth")
    differences = checkpoint.load_weights(x4, x2.state_dict(), strict=False, path="file.pth")
    assert sorted(differences) == ["missing upsample.2.bias", "missing upsample.2.weight"]
    assert torch.equal(x4.conv_first.weight, x2.conv_first.weight)
    assert torch.equal(x4.upsample[2].weight, initial)

    wide = DRCT(upscale=2, **TINY | {"embed_dim": 16})
    with pytest.raises(DRCTError, match=r"conv_first\.weight is \[12, 3, 3, 3\], not \[16, 3, 3, 3\]"):
        checkpoint.load_weights(wide, x2.state_dict(), strict=True, path="file.pth")
    assert checkpoint.load_weights(wide, x2.state_dict(), strict=False, path="file.pth")


def test_weights_trained_at_another_img_size_load(tmp_path):
    """The masks of the file have other shapes; they are computed, not loaded."""
    original, _ = pair(2, **TINY | {"img_size": 32})
    network = DRCT(upscale=2, **TINY)
    assert checkpoint.load_weights(network, original.state_dict(), strict=True, path="") == []


def test_a_failed_write_is_an_error_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    checkpoint.save(path, {"a": 1})

    def full_disk(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DRCTError, match=r"cannot write .*net\.pth: No space left on device"):
        checkpoint.save(path, {"a": 2})
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["net.pth"]


def weights_of_zip(folder):
    """Save weights in a file, and return its path and where in it the values of the weights lie."""
    torch.save({"params": {"conv.weight": torch.arange(1000.0)}}, folder / "net.pth")
    return folder / "net.pth", (folder / "net.pth").read_bytes().index(torch.arange(1000.0).numpy().tobytes())


@pytest.mark.parametrize("how", ["a bit", "a range", "the end"])
def test_damaged_values_are_noticed_when_a_file_is_read(tmp_path, how):
    path, start = weights_of_zip(tmp_path)
    data = bytearray(path.read_bytes())
    if how == "a bit":
        data[start + 2001] ^= 1
    elif how == "a range":
        data[start + 500 : start + 600] = bytes(100)
    else:
        del data[start + 3000 :]
    path.write_bytes(data)
    with pytest.raises(DRCTError, match=r"net\.pth is damaged.* copy it again") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["no checksums", "the format before PyTorch 1.6"])
def test_files_without_checksums_are_read(tmp_path, kind):
    path, content = tmp_path / "net.pth", {"params": {"a": torch.arange(10.0)}}
    config = pytest.importorskip("torch.utils.serialization.config")  # not before PyTorch 2.7
    with config.patch("save.compute_crc32", False):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "no checksums")
    assert torch.equal(checkpoint.load(path)["params"]["a"], content["params"]["a"])
