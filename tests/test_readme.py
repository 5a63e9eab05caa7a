"""What the README says is there and works: every command in it is run, on small data."""

import doctest
import re
import shlex

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, photo

import drct.inference.upscaler
from drct.archs.drct_arch import DRCT
from drct.cli import main as drct_main

README = (ROOT / "README.md").read_text(encoding="utf-8")

# Commands that other tests run, and which
LAUNCH = "python -m torch.distributed.launch --nproc_per_node=8 --master_port=4321"
RECIPE = "-opt options/train/train_DRCT_SRx2_from_scratch.yml --launcher pytorch"
RENDEZVOUS = "--rdzv-backend=c10d --rdzv-endpoint=first-machine:29400"
ELSEWHERE = {
    "drct serve": "test_web.py::test_an_image_is_uploaded_compared_and_downloaded_in_a_browser",
    "torchrun --nproc_per_node=2 -m drct upscale holidays/ -o larger": (
        "test_upscale_command.py::test_several_processes_do_each_file_once"
    ),
    f"CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 {LAUNCH} drct/train.py {RECIPE}": (
        "test_training.py::test_the_command_of_the_original_trains_in_two_processes"
    ),
    f"torchrun --nnodes=2 --nproc_per_node=8 {RENDEZVOUS} --max-restarts=3 drct/train.py {RECIPE} --auto_resume": (
        "test_training.py::test_torchrun_restarts_a_group_that_resumes_by_itself"
    ),
    "sbatch options/slurm.sbatch options/train/train_DRCT_SRx2_from_scratch.yml": (
        "test_distributed.py::test_the_slurm_script_goes_on_after_failures_but_not_after_mistakes"
    ),
}
INSTALLATION = ("make ", "pip install ")  # what the tests themselves were started by


def commands():
    """The lines of the README's blocks of commands, without comments."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in lines]
    programs = ("drct ", ".venv/bin/drct ", "python ", "torchrun ", "sbatch ", "CUDA_", *INSTALLATION)
    return [line for line in found if f"{line} ".startswith(programs)]


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
    headings = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)", README, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= headings
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    extras = (ROOT / "setup.py").read_text()
    for extra in re.findall(r"\[([a-z]+)\]'?`", README):
        assert f'"{extra}": [' in extras, extra


def test_the_python_examples_run():
    shapes = []
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        names: dict = {}
        exec(block, names)
        shapes.append(tuple(names["result"].shape))
    assert shapes == [(200, 280, 3), (1, 3, 200, 280)]


def test_the_examples_of_the_docstrings_run(workplace):
    cv2.imwrite("photo.png", photo(12, 16))
    result = doctest.testmod(drct.inference.upscaler)
    assert result.attempted >= 8
    assert result.failed == 0


def test_commands_that_others_run_are_in_the_readme_and_have_their_test():
    for line, test in ELSEWHERE.items():
        assert line in commands(), line
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


@pytest.fixture
def users_folder(workplace, monkeypatch):
    """A folder with what the README's commands speak of, as small as it may be."""
    monkeypatch.setenv("HOME", str(workplace / "home"))
    pictures = ["photo.jpg", "holidays/1.jpg", "holidays/below/2.png", "portraits/3.png", "scans/4.tif"]
    pictures += [f"datasets/{name}/1.png" for name in ("custom", "ImageNet/GT")]
    pictures += ["home/Set5_HR/1.png"]
    for i, name in enumerate(pictures):
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(workplace / name), photo(16, 24, i))
    (workplace / "home/DF2K_HR").mkdir()
    cv2.imwrite(str(workplace / "home/DF2K_HR/1.png"), photo(480, 480))
    for name in ("Set5", "Set14", "BSD100", "Urban100", "Manga109"):
        for folder, factor in (("GTmod12", 1), ("LRbicx2", 2), ("LRbicx4", 4)):
            path = workplace / "datasets" / name / folder
            path.mkdir(parents=True)
            cv2.imwrite(str(path / "1.png"), photo(48 // factor, 48 // factor))
    (workplace / "options").symlink_to(ROOT / "options")
    weights = workplace / "experiments/pretrained_models"
    weights.mkdir(parents=True)
    (weights / "DRCT-XS_SRx4.pth").symlink_to(ROOT / "experiments/pretrained_models/DRCT-XS_SRx4.pth")
    torch.save({"params_ema": DRCT().state_dict()}, weights / "DRCT_SRx4_ImageNet-pretrain.pth")
    for name in ("a", "b"):
        (workplace / "experiments" / name).mkdir()
        scalars = "iteration,tag,value\n100,losses/l_pix,0.1\n200,losses/l_pix,0.05\n"
        (workplace / "experiments" / name / "scalars.csv").write_text(scalars)
    return workplace


SMALLER = ["train:total_iter=1", "datasets:train:gt_size=32", "datasets:train:batch_size_per_gpu=1", "num_gpu=0"]
SMALLER += ["datasets:train:num_worker_per_gpu=0", "val=null", "datasets:train:dataset_enlarge_ratio=1"]
SMALLER += [f"network_g:{key}={list(v) if isinstance(v, tuple) else v}".replace(" ", "") for key, v in TINY.items()]


def test_every_command_runs(users_folder, capfd):
    lines = [line for line in commands() if line not in ELSEWHERE and not line.startswith(INSTALLATION)]
    # Data come before training, and results before they are compared
    lines.sort(key=lambda line: ("prepare" not in line, "report" in line))
    assert len(lines) >= 15
    for line in lines:
        words = [word.replace("~", str(users_folder / "home")) for word in shlex.split(line)]
        if words[:1] == ["python"]:
            words[:2] = ["drct", words[1].removeprefix("drct/").removesuffix(".py")]
        assert words[0] in ("drct", ".venv/bin/drct"), f"{line}: how is this tested?"
        if words[1] == "train":
            words += ["--force_yml", *SMALLER]
        if words[1] == "upscale":
            words += ["--overwrite"]
        assert drct_main(words[1:]) == 0, f"{line}\n{capfd.readouterr().err}"
    for result in ("larger.png", "larger/holidays/below/2.png", "larger/4_x4.png", "upscaled/photo.jpg", "drct.onnx"):
        assert (users_folder / result).is_file(), result
    assert np.asarray(cv2.imread("larger.png")).shape == (64, 96, 3)
