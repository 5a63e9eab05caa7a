"""What the README says is there and works."""

import re

import torch
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_files_and_targets_that_the_notes_name_exist():
    notes = [ROOT / name for name in ("README.md", "datasets/README.md", "experiments/pretrained_models/README.md")]
    text = "".join(note.read_text(encoding="utf-8") for note in notes)
    files = set(re.findall(r"(?:options/(?:test|train)/[\w./-]+\.yml|drct/\w+\.py)", text))
    assert len(files) > 5
    for name in files:
        assert (ROOT / name).is_file(), name
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")}
    for link in links | set(re.findall(r"\]\(([^)#]+)#", README)):
        assert (ROOT / link).exists(), link
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_python_example_runs():
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        names: dict = {}
        exec(block, names)
        assert names["result"].shape == torch.Size((1, 3, 200, 280))
