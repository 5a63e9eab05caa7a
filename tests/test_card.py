"""What weight files say of their training, and that other programs read them as before."""

import json

import onnx
import pytest
import safetensors
import torch
from basicsr.models.base_model import BaseModel
from conftest import ROOT, TINY, pair
from spandrel import ModelLoader

from drct.archs.drct_arch import DRCT
from drct.archs.variants import VARIANTS
from drct.commands.export import main as export
from drct.commands.info import main as info
from drct.inference import upscale
from drct.inference.card import TECHNICAL, checked_card
from drct.inference.export import metadata
from drct.inference.weights import read_network
from drct.runtime.weight_files import CLEAN_WEIGHTS, PHOTO_WEIGHTS
from drct.runtime.yaml_file import load_yaml

FOLDER = ROOT / "experiments/pretrained_models"
SHIPPED = FOLDER / "DRCT-XS_SRx4.pth"


@pytest.fixture
def tiny(workplace):
    """`tiny.pth`, weights and their average, and `card.yml`."""
    original, network = pair(2, **TINY)
    torch.save({"params": DRCT(upscale=2, **TINY).state_dict(), "params_ema": original.state_dict()}, "tiny.pth")
    (workplace / "card.yml").write_text("licence: CC0\nyear: 2026\ndata: >-\n  two\n  photographs\n")
    return network


@pytest.mark.parametrize("name", [*CLEAN_WEIGHTS, PHOTO_WEIGHTS])
def test_the_shipped_weights_are_small_and_hold_the_average_only(name):
    file = FOLDER / f"{name}.pth"
    content = torch.load(file, weights_only=True)
    assert list(content) == ["params_ema", "metadata"]
    assert content["metadata"]["title"] == name
    assert file.stat().st_size <= 6e6


def test_the_shipped_weights_say_what_they_are(capsys):
    card = checked_card(load_yaml(FOLDER / "DRCT-XS_SRx4/card.yml"), "card.yml")
    assert {"title", "licence", "data", "recipe", "results"} == card.keys()
    assert read_network(SHIPPED).card == card
    assert info([str(SHIPPED)]) == 0
    said = capsys.readouterr().out
    for text in card.values():
        assert text in said
    page = (FOLDER / "README.md").read_text()
    for number in ("800 photographs", "12,827"):
        assert number in page and number in said


def test_basicsr_and_spandrel_read_the_shipped_weights_as_ours(workplace):
    loaded = read_network(SHIPPED)
    network = DRCT(**VARIANTS["DRCT-XS"], upscale=4).eval()
    model = BaseModel({"num_gpu": 0, "is_train": False, "dist": False})
    BaseModel.load_network(model, network, str(SHIPPED), True, "params_ema")  # BasicSR's own
    others = ModelLoader(device="cpu").load_from_file(SHIPPED).model.eval()
    x = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    expected = upscale(loaded.network, x, 8, 4)
    assert torch.equal(upscale(network, x, 8, 4), expected)
    with torch.no_grad():
        assert (others(x) - expected).abs().max() <= 1e-5
    ours = dict(loaded.network.named_parameters())
    assert all(torch.equal(value, ours[name]) for name, value in others.named_parameters())


@pytest.mark.parametrize("name", ["new.pth", "new.safetensors", "new.onnx"])
def test_metadata_are_written_into_files_of_every_kind_and_go_on_from_file_to_file(tiny, name, capsys):
    assert export(["tiny.pth", "-o", "first.pth", "--metadata", "card.yml"]) == 0
    content = torch.load("first.pth", weights_only=True)
    assert list(content) == ["params_ema", "metadata"]  # the average only
    assert all(torch.equal(value, tiny.state_dict()[key]) for key, value in content["params_ema"].items())
    card = {"licence": "CC0", "year": "2026", "data": "two photographs"}
    assert card.items() <= content["metadata"].items()
    assert json.loads(content["metadata"]["drct_config"])["embed_dim"] == TINY["embed_dim"]
    with open("more.yml", "w") as file:
        file.write("year: 2027\nresults: good\n")
    assert export(["first.pth", "-o", name, "--metadata", "more.yml", *["--no-check"] * name.endswith("onnx")]) == 0
    card |= {"year": "2027", "results": "good"}
    if name.endswith("onnx"):
        found = {entry.key: entry.value for entry in onnx.load(name).metadata_props}
    elif name.endswith("pth"):
        found = torch.load(name, weights_only=True)["metadata"]
    else:
        with safetensors.safe_open(name, "pt") as file:
            found = file.metadata()
    assert card.items() <= found.items()
    capsys.readouterr()
    assert info([name]) == 0
    assert "licence      CC0\n" in capsys.readouterr().out
    if not name.endswith("onnx"):
        assert read_network(name).card == card


def test_every_technical_entry_is_known_as_such(tiny):
    assert metadata(read_network("tiny.pth"), False).keys() == {*TECHNICAL} - {
        "format",
        "network_g",
        "minimum",
    }  # of other networks
    assert read_network("tiny.pth").card == {}


@pytest.mark.parametrize(
    "text, words",
    {
        "scale: 4": "card.yml: scale is written by drct itself: remove it",
        "results: {Set5: 31}": "card.yml: results must be text or a number, not {'Set5': 31}",
        "results: yes": "card.yml: results must be text or a number, not True",
        "results: ~": "card.yml: results must be text or a number, not None",
        "1: a": "card.yml: 1 is not a name",
        f"a: {'b' * 2001}": "card.yml: a has 2,001 characters, more than 2,000: shorten it",
        "- a": "error: metadata file card.yml does not hold entries (key: value)",
    }.items(),
)
def test_mistakes_in_metadata_are_told_in_one_line(tiny, capsys, text, words):
    with open("card.yml", "w") as file:
        file.write(text)
    assert export(["tiny.pth", "-o", "new.pth", "--metadata", "card.yml"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and words in said[0]
