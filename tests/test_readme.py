"""What the README and the pages of docs/ say is there and works: every command in them is run, on small data."""

import doctest
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, photo

import drct.inference.upscaler
from drct.archs.drct_arch import DRCT
from drct.cli import main as drct_main

NOTES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
NOTES_OF_FOLDERS = ("datasets/README.md", "experiments/pretrained_models/README.md", "results/README.md")
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (*(ROOT / name for name in NOTES + NOTES_OF_FOLDERS), *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES[ROOT / "README.md"]
DEVELOP = PAGES[ROOT / "docs/develop.md"]

# Commands that other tests run, and which
LAUNCH = "python -m torch.distributed.launch --nproc_per_node=8 --master_port=4321"
RECIPE = "-opt options/train/train_DRCT_SRx2_from_scratch.yml --launcher pytorch"
RENDEZVOUS = "--rdzv-backend=c10d --rdzv-endpoint=first-machine:29400"
BENCHMARKS = {
    "--sizes 64x64 192x256 --rounds 2 --json speed.json "
    "--contenders original hat swinir onnxruntime openvino openvino-bf16 ours ours-bf16",
    "--sizes 64x64 --rounds 3 --profile --json training_step.json "
    "--contenders original-step ours-step ours-step-checkpoint --reference original-step",
}
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
    "drct train -opt options/train/train_Real_DRCT-XS_SRx4_gan_short.yml": (
        "test_real_drct.py::test_the_short_recipe_with_a_discriminator_trains"
    ),
    "python figures/ladder.py Set14=datasets/Set14/GTmod12 photographs=~/photographs": (
        "test_ladder.py::test_the_script_measures_networks_on_sets"
    ),
    "python figures/outscale.py ~/photographs": (
        "test_weight_figures.py::test_factors_of_the_networks_are_measured_as_by_drct_test"
    ),
    "python figures/weights_table.py --data datasets/Set5/GTmod12 datasets/Set14/GTmod12": (
        "test_weight_figures.py::test_the_modes_of_a_test_stand_beside_each_other"
    ),
    "python options/train_in_background.py start options/train/train_DRCT-XS_SRx4.yml": (
        "test_background.py::test_a_run_is_paused_goes_on_and_is_stopped"
    ),
    "python figures/architecture.py DRCT -o DRCT.png": (
        "test_figures.py::test_the_script_draws_named_networks_and_weight_files"
    ),
    "drct bench --device cuda --json figures/speed_gpu.json": (
        "test_gpu_benchmark.py::test_everything_is_measured_in_this_process"
    ),
    "python figures/data_benchmark.py": "test_data.py::test_the_benchmark_compares_times_and_pixels",
    "python figures/doctor_benchmark.py ~/photographs": "test_doctor.py::test_the_benchmark_plants_and_counts",
    **{
        f"drct prepare check {arguments}": "test_doctor.py::test_the_command_writes_a_page_a_table_and_a_list"
        for arguments in (
            "datasets/mine/HR datasets/mine/LRbicx4 --against datasets/Set5 datasets/Set14",
            "~/photos -o photos.html",
        )
    },
    "python figures/tables.py --results results/DRCT-XS_SRx4": (
        "test_tables.py::test_results_of_test_runs_are_kept_and_their_means_shown"
    ),
    **{
        f"drct bench {arguments}": "test_speed_benchmark.py::test_contenders_are_measured_in_turns"
        for arguments in BENCHMARKS
    },
    **{
        f"drct train -opt options/train/train_Real_DRCT_SRx4_{stage}.yml": (
            "test_training.py::test_every_option_file_trains_validates_saves_and_resumes"
        )
        for stage in ("mse_model", "finetune_from_mse_model")
    },
}
INSTALLATION = ("make ", "pip install ", "source ")  # what the tests themselves were started by
PROGRAMS = ("drct ", "python ", "torchrun ", "sbatch ", "CUDA_", *INSTALLATION)


def commands(text: str) -> list[str]:
    """The lines of a page's blocks of commands, without comments; `drct x` for `python drct/x.py`."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if not language for line in re.sub(r"\\\n", " ", block).splitlines()]
    found = [" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in lines]
    found = [re.sub(r"^python drct/(\w+)\.py", r"drct \1", line) for line in found]
    return [line for line in found if f"{line} ".startswith(PROGRAMS)]


def section(title: str) -> str:
    """The text of a section of docs/develop.md."""
    return re.split(r"^## ", DEVELOP.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


for example in ("network", "dataset", "metric"):
    for command in commands(section(f"Add a {example}")):
        ELSEWHERE[command] = f"test_docs.py::test_the_{example}_of_the_page_works"
COMMANDS = list(dict.fromkeys(line for text in PAGES.values() for line in commands(text)))


def anchors(text: str) -> set[str]:
    """The names under which GitHub links to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_begins_with_a_picture_and_two_commands():
    assert len(README.splitlines()) <= 200
    first_screen = "\n".join(README.splitlines()[:20])
    assert "(figures/demo.png)" in first_screen
    assert [line for line in commands(first_screen) if line.startswith("make")] == ["make demo", "make test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        there = target.exists() and target.is_relative_to(ROOT)
        if not link.startswith("http") and not (there and (not anchor or anchor in anchors(PAGES[target]))):
            broken.append(link)
    assert not broken


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\(([\w./-]+\.md)", README))
    assert {page.relative_to(ROOT).as_posix() for page in PAGES} - linked <= {"README.md", "results/README.md"}


def test_files_and_targets_that_the_pages_name_exist():
    text = "".join(PAGES.values())
    files = set(re.findall(r"(?:options/(?:test|train)/[\w./-]+\.yml|(?:drct|figures|tests)/[\w/]+\.py)", text))
    assert len(files) > 20
    files -= set(re.findall(r"^`(\S+)`:$", DEVELOP, re.MULTILINE))  # which that page writes
    assert not [name for name in sorted(files) if not (ROOT / name).is_file()]
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", "\n".join([*COMMANDS, *re.findall(r"`make \w+", text)])):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    extras = (ROOT / "setup.py").read_text()
    for extra in re.findall(r"\[([a-z]+)\]'?`", text):
        assert f'"{extra}": [' in extras, extra


def test_the_pages_map_every_folder_of_the_package():
    folders = {path.name for path in (ROOT / "drct").iterdir() if (path / "__init__.py").is_file()}
    contract = set(re.findall(r"drct\.(\w+)", (ROOT / "pyproject.toml").read_text().split("layers = [")[1]))
    for name in folders:
        assert f"\n| `{name}/` |" in DEVELOP, name
        assert name in contract, name


def test_the_python_examples_run():
    shapes = []
    for page in ("README.md", "docs/python.md"):
        for block in re.findall(r"```python\n(.*?)```", PAGES[ROOT / page], re.DOTALL):
            names: dict = {}
            exec(block, names)
            shapes.append(tuple(names["result"].shape))
    assert shapes == [(200, 280, 3), (200, 280), (1, 3, 200, 280)]


def test_the_examples_of_the_docstrings_run(workplace):
    cv2.imwrite("photo.png", photo(12, 16))
    result = doctest.testmod(drct.inference.upscaler)
    assert result.attempted >= 8
    assert result.failed == 0


def test_commands_that_others_run_are_in_the_pages_and_have_their_test():
    for line, test in ELSEWHERE.items():
        assert line in COMMANDS, line
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


@pytest.fixture
def users_folder(workplace, monkeypatch):
    """A folder with what the commands of the pages speak of, as small as it may be."""
    monkeypatch.setenv("HOME", str(workplace / "home"))
    pictures = ["photo.jpg", "holidays/1.jpg", "holidays/below/2.png", "portraits/3.png", "scans/4.tif", "bricks.png"]
    pictures += ["map.png", "Set5/HR/1.png"]
    pictures += [f"datasets/{name}/1.png" for name in ("custom", "ImageNet/GT")]
    pictures += [f"home/{name}/1.png" for name in ("Set5_HR", "Set14_HR")]
    for i, name in enumerate(pictures):
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(workplace / name), photo(16, 24, i))
    for name, size in (("DF2K_HR", 480), ("photos", 48)):
        (workplace / "home" / name).mkdir()
        cv2.imwrite(str(workplace / "home" / name / "1.png"), photo(size, size))
    for name, truth, side in (("Set5", "GTmod12", 48), ("Set14", "GTmod12", 204), ("demo", "GT", 48)):
        for folder, factor in ((truth, 1), ("LRbicx2", 2), ("LRbicx4", 4)):
            path = workplace / "datasets" / name / folder
            path.mkdir(parents=True)
            cv2.imwrite(str(path / "1.png"), photo(side // factor, side // factor))  # NIQE needs 104x200
    (workplace / "options").symlink_to(ROOT / "options")
    weights = workplace / "experiments/pretrained_models"
    weights.mkdir(parents=True)
    for name in ("DRCT-XS_SRx4.pth", "Real-DRCT-XS_SRx4.pth"):
        (weights / name).symlink_to(ROOT / "experiments/pretrained_models" / name)
    (workplace / "card.yml").write_text("licence: CC0\n")
    torch.save({"params": DRCT(upscale=2, **TINY).state_dict()}, workplace / "tiny.pth")
    assert drct_main(["export", "tiny.pth", "-o", "model.onnx", "--no-check"]) == 0
    torch.save({"params_ema": DRCT().state_dict()}, weights / "DRCT_SRx4_ImageNet-pretrain.pth")
    for name in (f"{which}_seed{number}" for which in ("old", "new") for number in range(3)):
        shutil.copytree(ROOT / "figures/results/DRCT-XS_SRx4", workplace / "results" / name)
    for name in ("a", "b"):
        (workplace / "experiments" / name).mkdir()
        scalars = "iteration,tag,value\n100,losses/l_pix,0.1\n200,losses/l_pix,0.05\n"
        (workplace / "experiments" / name / "scalars.csv").write_text(scalars)
    return workplace


SMALLER = ["train:total_iter=1", "datasets:train:gt_size=32", "datasets:train:batch_size_per_gpu=1", "num_gpu=0"]
SMALLER += ["datasets:train:num_worker_per_gpu=0", "val=null", "datasets:train:dataset_enlarge_ratio=1"]
SMALLER += [f"network_g:{key}={list(v) if isinstance(v, tuple) else v}".replace(" ", "") for key, v in TINY.items()]


def test_every_command_runs(users_folder, capfd):
    lines = [line for line in COMMANDS if line not in ELSEWHERE and not f"{line} ".startswith(INSTALLATION)]
    # Data come before training, and results before they are compared
    lines.sort(key=lambda line: ("prepare" not in line, "report" in line))
    assert len(lines) >= 25
    for line in lines:
        words = [word.replace("~", str(users_folder / "home")) for word in shlex.split(line)]
        assert words[0] == "drct", f"{line}: how is this tested?"
        if words[1] == "train":
            words += ["--force_yml", *SMALLER]
        if words[1] == "upscale":
            words += ["--overwrite"]
        if words[1] == "bench":
            words += ["--sizes", "16x16", "--rounds", "1"]
        assert drct_main(words[1:]) == 0, f"{line}\n{capfd.readouterr().err}"
    for result in ("larger.png", "larger/holidays/below/2.png", "larger/4_x4.png", "upscaled/photo.jpg", "drct.onnx"):
        assert (users_folder / result).is_file(), result
    assert Path("results/DRCT-XS_SRx4_demo/report.html").is_file()
    assert np.asarray(cv2.imread("larger.png")).shape == (64, 96, 3)
