"""Option files: those of the repository, and mistakes in them."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import options_docs
import pytest
import torch
import yaml
from basicsr.utils.registry import ARCH_REGISTRY
from conftest import ROOT, test_options, train_options, write_options

from drct.commands.run_arguments import parse_options
from drct.errors import DRCTError
from drct.runs.checks import check_options
from drct.runs.options import override
from drct.runtime.yaml_file import load_yaml
from drct.schema.options import Arguments, Options, Section, TrainingOptions

TEST_FILES = sorted((ROOT / "options" / "test").glob("*.yml"))
TRAIN_FILES = sorted((ROOT / "options" / "train").glob("*.yml"))
ORIGINAL = ROOT / "tests" / "original_style.yml"

SCRATCH = (2e-4, [250_000, 400_000, 450_000, 475_000], 500_000, 5_000)
IMAGENET = (2e-4, [300_000, 500_000, 650_000, 700_000, 750_000], 800_000, 10_000)
FINETUNE = (1e-5, [125_000, 200_000, 225_000, 240_000], 250_000, 5_000)
RECIPES = {f"train_DRCT_SRx{s}_from_scratch": SCRATCH for s in (2, 3, 4)}
RECIPES |= {f"train_{v}_SRx{s}_ImageNet_from_scratch": IMAGENET for v in ("DRCT", "DRCT-L") for s in (2, 3, 4)}
RECIPES |= {
    f"train_{v}_SRx{s}_finetune_from_ImageNet_pretrain": FINETUNE for v in ("DRCT", "DRCT-L") for s in (2, 3, 4)
}
RECIPES |= {"train_DRCT_SRx4_finetune_from_SRx2": (1e-4, *FINETUNE[1:])}
RECIPES |= {"train_DRCT-C144_SRx4_from_scratch": SCRATCH, "train_DRCT-XL_SRx4_ImageNet_from_scratch": IMAGENET}
RECIPES |= {"train_DRCT-XL_SRx4_finetune_from_ImageNet_pretrain": FINETUNE}
RECIPES |= {f"train_{v}_SRx{s}_from_scratch": SCRATCH for v in ("HAT", "HAT-S") for s in (2, 3)}
RECIPES |= {f"train_{v}_SRx{s}_ImageNet_from_scratch": IMAGENET for v in ("HAT", "HAT-L") for s in (2, 3, 4)}
RECIPES |= {f"train_{v}_SRx{s}_finetune_from_ImageNet_pretrain": FINETUNE for v in ("HAT", "HAT-L") for s in (2, 3, 4)}
RECIPES |= {f"train_{v}_SRx4_finetune_from_SRx2": (1e-4, *FINETUNE[1:]) for v in ("HAT", "HAT-S")}
PARAMETERS = {
    ("HAT-S", 2): 9_473_471,
    ("HAT-S", 3): 9_658_111,
    ("HAT-S", 4): 9_621_183,
    ("HAT", 2): 20_624_795,
    ("HAT", 3): 20_809_435,
    ("HAT", 4): 20_772_507,
    ("HAT-L", 2): 40_698_863,
    ("HAT-L", 3): 40_883_503,
    ("HAT-L", 4): 40_846_575,
    ("DRCT", 2): 13_991_867,
    ("DRCT", 3): 14_176_507,
    ("DRCT", 4): 14_139_579,
    ("DRCT-L", 2): 27_433_007,
    ("DRCT-L", 3): 27_617_647,
    ("DRCT-L", 4): 27_580_719,
    ("DRCT-XL", 4): 32_061_099,
    ("HAT-XS", 4): 735_867,
    ("DRCT-C144", 4): 10_443_927,
    ("DRCT-XS", 2): 1_206_467,
    ("DRCT-XS", 3): 1_391_107,
    ("DRCT-XS", 4): 1_354_179,
    ("DRCTPlain-XS", 4): 1_378_383,
    ("SwinIR-XS", 4): 1_345_699,
}
COMPARED = [f"train_{network}_SRx4_short" for network in ("DRCT-XS", "DRCTPlain-XS", "SwinIR-XS")]

REAL = {f"train_Real_{name}" for name in ("DRCT_SRx4_mse_model", "DRCT_SRx4_finetune_from_mse_model", "DRCT-XS_SRx4")}
REAL |= {f"train_Real_DRCT-XS_SRx4_{name}" for name in ("stage2", "gan_short")}


def test_every_published_recipe_and_test_file_is_there():
    stages = {f"train_DRCT-XS_SRx4{stage}" for stage in ("", *(f"_stage{number}" for number in (2, 3)))}
    stages |= {"train_DRCT-XS_SRx2", "train_DRCT-XS_SRx3", "train_HAT-XS_SRx4_short"}
    assert {path.stem for path in TRAIN_FILES} == {*RECIPES, *stages, *COMPARED, *REAL}
    tests = {f"{v}_SRx{s}_ImageNet-pretrain" for v in ("DRCT", "DRCT-L") for s in (2, 3, 4)}
    tests |= {f"DRCT_SRx{s}" for s in (2, 3, 4)} | {"DRCT_SRx4_ImageNet-LR", "DRCT_tile_example"}
    tests |= {f"{v}_SRx{s}_ImageNet-pretrain" for v in ("HAT", "HAT-L") for s in (2, 3, 4)}
    tests |= {f"{v}_SRx{s}" for v in ("HAT", "HAT-S") for s in (2, 3, 4)}
    tests |= {"HAT_SRx4_ImageNet-LR", "HAT_tile_example", "HAT_GAN_Real_SRx4"}
    tests |= {
        "DRCT-C144_SRx4",
        "DRCT-XL_SRx4_ImageNet-pretrain",
        "DRCT-XS_SRx4",
        "DRCT-XS_SRx4_demo",
        "DRCT-XS_SRx4_LR",
        "DRCT-XS_SRx4_ladder",
        "Real-DRCT-XS_SRx4_ladder",
    }
    assert {path.stem for path in TEST_FILES} == tests


def unknown_keys(section):
    """Yield keys that are not in the schema, but for arguments of classes that are not ours."""
    if not isinstance(section, Arguments):
        yield from (key for key, value in section.model_extra.items() if not isinstance(value, Section))
    for value in dict(section).values():
        for part in value.values() if isinstance(value, dict) else [value]:
            if isinstance(part, Section):
                yield from unknown_keys(part)


@pytest.mark.parametrize("path", TEST_FILES + TRAIN_FILES, ids=lambda path: path.stem)
def test_option_files_name_their_network_and_scale(path):
    opt = load_yaml(path)
    assert opt["name"] in (path.stem, f"{path.stem}_Set14")
    variant = path.stem.removeprefix("train_").removeprefix("Real_").removeprefix("Real-").split("_")[0]
    network = dict(opt["network_g"])
    kind = network.pop("type")
    with torch.device("cpu" if kind == "SwinIR" else "meta"):  # which BasicSR's SwinIR does not take
        network = ARCH_REGISTRY.get(kind)(**network)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[variant, opt["scale"]]
    assert network.upscale == opt["scale"]
    for metric in opt.get("val", {}).get("metrics", {}).values():
        assert metric["crop_border"] == opt["scale"]
        assert metric["type"] == "calculate_niqe" or metric["test_y_channel"]
    options = (TrainingOptions if path in TRAIN_FILES else Options).model_validate(opt)
    assert not list(unknown_keys(options))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_are_the_published_ones(name):
    opt = load_yaml(ROOT / "options" / "train" / f"{name}.yml")
    lr, milestones, total, every = RECIPES[name]
    train, data = opt["train"], opt["datasets"]["train"]
    assert train["optim_g"] == {"type": "Adam", "lr": lr, "weight_decay": 0, "betas": [0.9, 0.99]}
    assert train["scheduler"] == {"type": "MultiStepLR", "milestones": milestones, "gamma": 0.5}
    assert (train["total_iter"], opt["val"]["val_freq"], train["ema_decay"]) == (total, every, 0.999)
    assert train["pixel_opt"] == {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
    assert (data["gt_size"], data["batch_size_per_gpu"]) == (64 * opt["scale"], 4)
    assert data["type"] == ("ImageNetPairedDataset" if total == 800_000 else "PairedImageDataset")
    assert [opt["datasets"][key]["name"] for key in ("val_1", "val_2")] == ["Set5", "Set14"]
    pretrained = opt["path"]["pretrain_network_g"]
    if "finetune" in name:
        source = Path(pretrained).parts[1]
        assert source in RECIPES
        assert opt["path"]["param_key_g"] == "params_ema"
        assert opt["path"]["strict_load_g"] is (not name.endswith("SRx2"))
    else:
        assert pretrained is None


def test_networks_that_are_compared_are_trained_alike():
    options = [load_yaml(ROOT / "options" / "train" / f"{name}.yml") for name in COMPARED]
    assert len({opt.pop("name") for opt in options}) == len({opt.pop("network_g")["type"] for opt in options}) == 3
    assert options[0] == options[1] == options[2]


@pytest.mark.parametrize("path", TEST_FILES + TRAIN_FILES, ids=lambda path: path.stem)
def test_option_files_read_the_same_with_basicsrs_own_loader(path):
    """So that they also work where only BasicSR reads them: no 2e-4, which is a string in YAML 1.1."""
    assert yaml.safe_load(path.read_text()) == load_yaml(path)


# ------------------------------------------------------------------------------------------------------------ reading


@pytest.fixture
def valid(pairs, weights):
    return test_options(weights)


def refused(options, is_train=False, *more):
    with pytest.raises(DRCTError) as error:
        parse_options(".", is_train, ["-opt", write_options(Path("opt.yml"), options), *more])
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_basicsr_expects_is_filled_in(valid):
    opt, _ = parse_options("root", False, ["-opt", write_options(Path("opt.yml"), valid)])
    assert opt["datasets"]["test_1"]["phase"] == "test"
    assert opt["datasets"]["test_1"]["scale"] == 2
    assert Path(opt["path"]["results_root"]) == Path("root", "results", "run")
    assert (opt["is_train"], opt["dist"], opt["rank"], opt["world_size"]) == (False, False, 0, 1)


def test_lr_only_files_need_no_val_section(valid):
    del valid["val"]
    opt, _ = parse_options(".", False, ["-opt", write_options(Path("opt.yml"), valid)])
    assert opt["val"] == {"save_img": True, "suffix": None, "report": True}


@pytest.mark.parametrize("key", ["name", "model_type", "scale", "num_gpu", "datasets", "path"])
def test_a_missing_key_is_named(valid, key):
    del valid[key]
    assert f"opt.yml has no '{key}'" in refused(valid)


def test_mistakes_are_explained_in_one_line(valid):
    def changed(change):
        options = yaml.safe_load(yaml.safe_dump(valid))
        change(options)
        return refused(options)

    def rename(o):
        o["netwrok_g"] = o.pop("network_g")

    assert "did you mean 'netwrok_g'" in changed(rename)
    assert "did you mean 'DRCTModel'" in changed(lambda o: o.update(model_type="DRCTModle"))
    assert "network_g.type 'DRTC' is unknown (did you mean 'DRCT'" in changed(
        lambda o: o["network_g"].update(type="DRTC")
    )
    assert "'PairedImageDataset'" in changed(lambda o: o["datasets"]["test_1"].update(type="PairedImagesDataset"))
    assert "'calculate_psnr'" in changed(lambda o: o["val"]["metrics"]["psnr"].update(type="calculate_psrn"))
    assert "no such folder: nowhere. Put the images there" in changed(
        lambda o: o["datasets"]["test_1"].update(dataroot_lq="nowhere")
    )
    assert "no such file: weihgts.pth. Put the weight file there" in changed(
        lambda o: o["path"].update(pretrain_network_g="weihgts.pth")
    )
    assert "precision must be fp32, bf16 or fp16, not 'half'" in changed(lambda o: o.update(precision="half"))
    assert "no such file: ~nobody.pth" in changed(lambda o: o["path"].update(pretrain_network_g="~nobody.pth"))
    assert "manual_seed must be 0 or a whole number above, not 'x'" in changed(lambda o: o.update(manual_seed="x"))
    assert "self_ensemble must be true or false" in changed(lambda o: o.update(self_ensemble="all"))
    assert "tile must be a section of keys" in changed(lambda o: o.update(tile="automatic"))
    assert "tile.tile_size must be a whole number above 0" in changed(lambda o: o.update(tile={"tile_size": "big"}))
    assert "a dataset is called" in changed(lambda o: o["datasets"].update(tset_1={}))
    assert "scale must be" in changed(lambda o: o.update(scale="x4"))
    assert "name must be text that can be a folder's name" in changed(lambda o: o.update(name="../up"))
    assert "io_backend" in changed(lambda o: o["datasets"]["test_1"].update(io_backend={"type": "tape"}))
    assert "num_gpu must be" in changed(lambda o: o.update(num_gpu="many"))
    assert "must be a section" in changed(lambda o: o.update(network_g="DRCT"))
    assert "val.save_img must be true or false, not 'yes'" in changed(lambda o: o["val"].update(save_img="yes"))
    assert "param_key_g must be params or params_ema" in changed(lambda o: o["path"].update(param_key_g="parms"))
    assert "depths must be a list" in changed(lambda o: o["network_g"].update(depths="six"))
    assert "scale is 2, but network_g.upscale is 4" in changed(lambda o: o["network_g"].update(upscale=4))
    assert "two datasets are called 'set'" in changed(
        lambda o: o["datasets"].update(test_2=dict(o["datasets"]["test_1"]))
    )
    assert "must be a section with a type" in changed(lambda o: o["val"]["metrics"].update(psnr="calculate_psnr"))
    assert "needs a crop_border" in changed(lambda o: o["val"]["metrics"]["psnr"].pop("crop_border"))
    Path("empty").mkdir()
    assert "is empty" in changed(lambda o: o["datasets"]["test_1"].update(dataroot_gt="empty"))


def test_mistakes_in_training_options_are_explained(pairs):
    def changed(change):
        options = yaml.safe_load(yaml.safe_dump(train_options()))
        change(options)
        return refused(options, True)

    assert "train has no 'total_iter' (did you mean 'total_itre'?)" in changed(
        lambda o: o["train"].update(total_itre=o["train"].pop("total_iter"))
    )
    missing = changed(lambda o: o["logger"].pop("save_checkpoint_freq"))
    assert "logger has no 'save_checkpoint_freq'" in missing
    assert "did you mean" not in missing  # what resembles it has a meaning of its own
    for key, value in {"ema_decay": 9.99, "warmup_iter": "few"}.items():
        assert f"train.{key} must be a" in changed(lambda o, k=key, v=value: o["train"].update({k: v}))
    assert "ema_decay must be a number" in changed(lambda o: o["train"].update(ema_decay="0.999"))
    for key, value in {"milestones": ["a"], "gamma": "half"}.items():
        assert f"train.scheduler.{key} must be a" in changed(
            lambda o, k=key, v=value: o["train"]["scheduler"].update({k: v})
        )
    assert "wandb must be a section" in changed(lambda o: o["logger"].update(wandb="project"))
    assert "must be the path of one folder" in changed(lambda o: o["datasets"]["train"].update(dataroot_gt=["a", "b"]))
    assert "must be the path of a text file" in changed(lambda o: o["datasets"]["train"].update(meta_info_file=5))
    assert "is not a multiple of network_g.window_size 4" in changed(
        lambda o: o["datasets"]["train"].update(gt_size=20)
    )
    assert "gt_size 15 is not a multiple" in changed(lambda o: o["datasets"]["train"].update(gt_size=15))
    assert "precision must be" in changed(lambda o: o["train"].update(precision="fp8"))
    assert "opt.yml has no 'logger'" in changed(lambda o: o.pop("logger"))
    assert "'L1Loss'" in changed(lambda o: o["train"]["pixel_opt"].update(type="L1Los"))
    assert "no such file: meta.txt" in changed(lambda o: o["datasets"]["train"].update(meta_info_file="meta.txt"))
    assert "print_freq must be a whole number" in changed(lambda o: o["logger"].update(print_freq=0))
    assert "gt_size must be a whole number" in changed(lambda o: o["datasets"]["train"].update(gt_size="16"))
    assert "train.optim_g has no 'lr'" in changed(lambda o: o["train"]["optim_g"].pop("lr"))
    assert "has no loss" in changed(lambda o: o["train"].pop("pixel_opt"))
    assert "total_steps (2) ends before" in changed(lambda o: o["train"]["scheduler"].update(total_steps=2))
    assert "use_tb_logger: true" in changed(lambda o: o["logger"].update(wandb={"project": "p"}))
    assert "datasets has no 'train'" in changed(lambda o: o["datasets"].pop("train"))


def test_keys_that_look_misspelt_are_warned_about(valid, caplog):
    valid["val"]["save_imgs"] = True
    valid["my_own_key"] = 1
    valid["val"]["metrics"]["psnr"]["test_y_chanel"] = True
    valid["val"]["SUFFIX"] = "x"
    valid["ema_decay"] = 0.9
    logging.getLogger("drct").addHandler(caplog.handler)
    parse_options(".", False, ["-opt", write_options(Path("opt.yml"), valid)])
    assert "val.save_imgs is not an option (did you mean 'save_img'?)" in caplog.text
    assert "val.metrics.psnr.test_y_chanel is not an option (did you mean 'test_y_channel'?)" in caplog.text
    assert "ema_decay is not an option of this section" in caplog.text
    assert "val.SUFFIX is not an option (did you mean 'suffix'?)" in caplog.text
    assert "my_own_key" not in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", r"opt\.yml, line"),
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' is given twice"),
        ("a: !!python/object/apply:os.system [touch harm]", "python/object/apply"),
        ("- 1\n- 2\n", "does not hold options"),
        ("", "does not hold options"),
        ("a: !!float x\n", r"opt\.yml"),
    ],
)
def test_broken_and_harmful_yaml_is_refused(workplace, text, message):
    Path("opt.yml").write_text(text)
    with pytest.raises(DRCTError, match=message) as error:
        load_yaml("opt.yml")
    assert "\n" not in str(error.value)
    assert not Path("harm").exists()


def test_a_missing_option_file_is_named(workplace):
    with pytest.raises(DRCTError, match=r"cannot read option file nothing\.yml: No such file"):
        load_yaml("nothing.yml")


def test_numbers_read_as_numbers(workplace):
    Path("opt.yml").write_text("a: 2e-4\nb: !!float 1e4\nc: 1.\nd: ~\ne: 1e\nf: 0x1e5\n")
    assert load_yaml("opt.yml") == {"a": 2e-4, "b": 1e4, "c": 1.0, "d": None, "e": "1e", "f": 0x1E5}


def test_merge_keys_are_read(workplace):
    Path("opt.yml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert load_yaml("opt.yml")["b"] == {"x": 1, "y": 3}


def test_lists_of_the_original_project_that_are_not_here_are_passed_over(pairs, caplog):
    options = train_options()
    options["datasets"]["train"]["meta_info_file"] = "drct/data/meta_info/meta_info_DF2Ksub_GT.txt"
    logging.getLogger("drct").addHandler(caplog.handler)
    opt, _ = parse_options(".", True, ["-opt", write_options(Path("opt.yml"), options)])
    assert "meta_info_file" not in opt["datasets"]["train"]
    assert "all files of the folder are used" in caplog.text


def test_force_yml_overrides_and_runs_nothing(valid):
    arguments = ["-opt", write_options(Path("opt.yml"), valid), "--force_yml", "network_g:depths=[6, 6]", "name=other"]
    opt, _ = parse_options(".", False, [*arguments, "network_g:drop_path_rate=1e-1", "manual_seed=~"])
    assert (opt["name"], opt["network_g"]["depths"], opt["network_g"]["drop_path_rate"]) == ("other", [6, 6], 0.1)
    options = {"a": {"bcdef": 1}}
    with pytest.raises(DRCTError, match=r"no key 'bcdeg' \(did you mean 'bcdef'\?\)"):
        override(options, "a:bcdeg=2")
    with pytest.raises(DRCTError, match="no section 'x'"):
        override(options, "x:y=2")
    with pytest.raises(DRCTError, match="expected key=value"):
        override(options, "a")
    override(options, "tile:tile_size=64")
    override(options, "tile.tile_pad=8")
    assert options.pop("tile") == {"tile_size": 64, "tile_pad": 8}
    override(options, "a:bcdef=[__import__('os').mkdir('harm')]")
    assert options == {"a": {"bcdef": ["__import__('os').mkdir('harm')"]}}
    assert not Path("harm").exists()


def test_both_spellings_of_local_rank_are_known(valid):
    file = write_options(Path("opt.yml"), valid)
    for spelling in ("--local_rank=0", "--local-rank=0"):
        parse_options(".", False, ["-opt", file, spelling])


def test_a_launcher_that_did_not_launch_is_explained(valid):
    assert "torchrun --nproc_per_node=2" in refused(valid, False, "--launcher", "pytorch")
    assert "'SLURM_PROCID' is not set" in refused(valid, False, "--launcher", "slurm")


def test_debug_mode_renames_and_shortens(pairs):
    file = write_options(Path("opt.yml"), train_options())
    opt, _ = parse_options(".", True, ["-opt", file, "--debug"])
    assert opt["name"] == "debug_run"
    assert (opt["val"]["val_freq"], opt["logger"]["save_checkpoint_freq"], opt["logger"]["print_freq"]) == (8, 8, 1)


# ------------------------------------------------------------------------------------------------------------- schema

RANGES = {
    "true or false in a test, and false in training": [True, 1],
    "a number from 0 to 1": [-0.1, 1.5],
    "a number from 0 (no average) to below 1": [-0.1, 1],
    "a number above 0": [0, -2.5],
    "a number above 0 in a test, and left out in training": [0, 1.0],
    "a number from 0.01 to 10000": [0, 1e5],
    "0 or a number above": [-0.5],
    "a whole number above 0": [0, -3, 2.5],
    "0 or a whole number above": [-1, 0.5],
    "0 (CPU), a number of GPUs or auto": [-1, 1.5, "all"],
    "the number of a port": [0, 65536],
    "fp32, bf16 or fp16": ["fp8", 16],
    "params or params_ema": ["ema"],
    "higher or lower": ["up"],
    "disk or lmdb": ["tape"],
    "keep or apply": ["ask", True],
    "a list of whole numbers": [[1.5], 6],
    "a list of whole numbers from 1 to 64": [[0], [65], [1.5], 6],
    "a list of iterations": [["a"], 5],
    "an odd number": [2, 0],
    "two numbers of at least 0, the smaller first": [[1], [2, 1], [-1, 2], 3],
    "two different numbers above 0, the smaller first": [[1, 1], [0, 1]],
    "two numbers around 1, the smaller first": [[1.5, 2], [0, 2]],
    "two factors around 1, the smaller first": [[0.1, 0.9], [0, 2]],
    "two qualities from 1 to 99, the smaller first": [[0, 50], [50, 100], [60, 50]],
    "three weights: of enlarging, reducing, and neither": [[0.5, 0.5], [0, 0, 0], [1, -1, 1]],
    "a list of weights, not all 0": [[0.0], [1, -1]],
    "a list of iso, aniso, generalized_iso, generalized_aniso, plateau_iso, plateau_aniso": [["round"], []],
    "a list of area, bilinear, bicubic and antialiased": [["nearest"], []],
    "diffjpeg or libjpeg": ["mozjpeg"],
}
FIELDS = [
    pytest.param(place, section, key, id=f"{place}.{key}".strip("."))
    for place, section in options_docs._sections("", TrainingOptions)
    for key in section.model_fields
    if section.model_fields[key].annotation != Any
]


def complete_options():
    """Training options in which each section of the schema has what it requires."""
    options = train_options() | {"tile": {"tile_size": 8}, "dist_params": {}}
    options["train"]["perceptual_opt"] = {"type": "PerceptualLoss"}
    options["train"] |= {"gan_opt": {"type": "GANLoss"}, "optim_d": {"type": "Adam"}, "ldl_opt": {"type": "L1Loss"}}
    options["network_d"] = {"type": "UNetDiscriminatorSN"}
    options["logger"]["wandb"] = {"project": None, "resume_id": None}
    return options


def refused_value(place, key, value):
    """The message for a value of a key, in a section as `options_docs` names it."""
    options = section = complete_options()
    place = place.replace("datasets.NAME", "datasets.train").replace("metrics.NAME", "metrics.psnr")
    if place.endswith("HAT"):
        place = "network_g"
        options[place] = {"type": "HAT", "upscale": 2}
    for name in filter(None, place.split(".")):
        section = section[name]
    section[key] = value
    with pytest.raises(DRCTError) as error:
        check_options(options, True, "opt.yml", logging.getLogger("drct"))
    assert str(error.value).startswith(f"opt.yml: {f'{place}.{key}'.strip('.')} must be ")
    assert str(error.value).endswith(f", not {value!r}")
    return str(error.value)


@pytest.mark.parametrize(("place", "section", "key"), FIELDS)
def test_every_key_refuses_values_of_a_wrong_type_and_out_of_range(place, section, key):
    field = section.model_fields[key]
    words = options_docs._type_words(field.annotation, field.metadata)
    refused_value(place, key, 5 if words.startswith("section") else {"wrong": 1})
    for value in RANGES.get(words, []):
        assert words in refused_value(place, key, value)
    if "number" in words:  # true and text are none
        refused_value(place, key, True)
        refused_value(place, key, "many")
    assert words in RANGES or words in (
        "text",
        "text or section",
        "section",
        "section or auto",
        "true or false",
        "a number",
        "a whole number",
        "a number, the learning rate",
        "a number or a list of one per channel",
        "a whole number above 0, or a height and a width",
        "text that can be a folder's name",
        "text of one line and at most 100 letters",
        "the path of one file",
        "the path of one folder",
        "the path of a text file",
        "DRCT or DRCTPlain",
        "HAT",
        "pixelshuffle or ''",
        "1conv or identity",
    )


def test_options_are_read_without_being_changed(pairs):
    options = complete_options()
    options["train"] |= {"total_iter": 4e0, "my_own": [1e4, {"a": 2.0}]}
    options["datasets"]["train"] |= {"meta_info_file": "drct/data/meta_info/none.txt", "gt_size": 1.6e1}
    before = copy.deepcopy(options)
    read = check_options(options, True, "opt.yml", logging.getLogger("drct"))
    assert repr(options) == repr(before)
    assert (read.train.total_iter, read.train.accumulation, read.train.warmup_iter) == (4, 1, -1)
    assert (read.val.save_img, read.val.report, read.path.strict_load_g) == (False, False, True)
    opt, _ = parse_options(".", True, ["-opt", write_options(Path("opt.yml"), options)])
    assert repr(opt["train"] | {"total_iter": 4.0}) == repr(before["train"])  # the order too
    assert repr((opt["train"]["total_iter"], opt["datasets"]["train"]["gt_size"])) == "(4, 16)"


@pytest.mark.parametrize(
    "path", [*TEST_FILES, *TRAIN_FILES, ROOT / "tests" / "original_style.yml"], ids=lambda p: p.stem
)
def test_runs_get_what_the_option_file_says(path, workplace):
    """And what BasicSR's classes expect besides, but nothing else."""
    given = load_yaml(path)
    files = [given["path"].get(key) for key in ("pretrain_network_g", "resume_state")]
    for dataset in given["datasets"].values():
        files += [Path(dataset[key], "image.png") for key in ("dataroot_gt", "dataroot_lq") if key in dataset]
        if dataset.get("meta_info_file", "drct").startswith("drct"):  # the original's, which is not here
            dataset.pop("meta_info_file", None)
        else:
            files.append(dataset["meta_info_file"])
    for file in filter(None, files):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    is_train = path not in TEST_FILES
    opt, _ = parse_options("root", is_train, ["-opt", str(path)])
    assert is_train or opt.pop("given") == load_yaml(path)  # for the certificate
    added = {"rank": 0, "world_size": 1, "dist": False, "is_train": is_train, "auto_resume": False, "num_gpu": 0}
    expected = given | added
    for phase, dataset in expected["datasets"].items():
        dataset |= {"phase": phase.split("_")[0], "scale": given["scale"]}
        paths = dataset.keys() & {"dataroot_gt", "dataroot_lq", "meta_info_file"}
        dataset |= {key: str(Path(dataset[key])) for key in paths}
    if expected["path"].get("pretrain_network_g"):
        expected["path"]["pretrain_network_g"] = str(Path(expected["path"]["pretrain_network_g"]))
    folder = Path("root", "experiments" if is_train else "results", given["name"])
    written = {"log": folder, "visualization": folder / "visualization"}
    if is_train:
        written |= {"experiments_root": folder, "models": folder / "models"}
        written |= {"training_states": folder / "training_states"}
    else:
        written |= {"results_root": folder}
    expected["path"] |= {key: str(value) for key, value in written.items()}
    if "val" in given:
        expected["val"] = {"save_img": not is_train, "suffix": None, "report": not is_train} | given["val"]
    assert opt == expected


def test_keys_of_other_peoples_classes_pass(pairs, weights):
    options = test_options(weights)
    options["network_g"] = {"type": "SwinIR", "upscale": 2, "depths": "any", "num_heads": None, "window_size": [4, 4]}
    options["datasets"]["test_1"] |= {"my_list": [1, {"a": None}], "mean": [0.5, 0.5, 0.5], "std": 1.0}
    options["val"]["metrics"]["psnr"] |= {"my_argument": {"b": 1}}
    options["path"]["pretrain_network_d"] = "none.pth"
    options["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3}
    opt, _ = parse_options(".", False, ["-opt", write_options(Path("opt.yml"), options)])
    assert opt["network_g"] == options["network_g"]
    assert opt["network_d"] == options["network_d"]
    assert opt["datasets"]["test_1"]["my_list"] == [1, {"a": None}]
    assert opt["val"]["metrics"] == options["val"]["metrics"]
    assert opt["path"]["pretrain_network_d"] == "none.pth"
    training = train_options(gan_opt={"type": "GANLoss", "gan_type": "vanilla"}, optim_d={"type": "Adam"})
    training["train"]["optim_g"]["foreach"] = False
    training["train"]["scheduler"]["last_epoch"] = -1
    training["train"]["pixel_opt"]["eps"] = 1e-6
    opt, _ = parse_options(".", True, ["-opt", write_options(Path("opt.yml"), training)])
    assert opt["train"] == training["train"]


def test_documents_of_the_schema_are_up_to_date(workplace, monkeypatch, capsys):
    made_by = json.loads((ROOT / "options" / "schema.json").read_text(encoding="utf-8"))["$comment"]
    if made_by != options_docs.json_schema()["$comment"]:
        pytest.skip(f"options/schema.json was {made_by}")
    assert options_docs.main(["--check"]) == 0, capsys.readouterr().err
    for path in options_docs.documents():
        copied = Path(path.relative_to(ROOT))
        copied.parent.mkdir(exist_ok=True)
        copied.write_text(path.read_text(encoding="utf-8") + "edited\n", encoding="utf-8")
    monkeypatch.setattr(options_docs, "ROOT", workplace)
    assert options_docs.main(["--check"]) == 1
    assert capsys.readouterr().err.count("is not up to date") == 2
    assert options_docs.main([]) == 0
    assert options_docs.main(["--check"]) == 0
    assert Path("docs/options.md").read_text(encoding="utf-8") == (ROOT / "docs/options.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TEST_FILES + TRAIN_FILES, ids=lambda path: path.stem)
def test_editors_find_the_schema_of_option_files(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    schema = json.loads((path.parent / first.partition("=")[2]).read_text(encoding="utf-8"))
    try:
        import jsonschema
    except ImportError:  # pydantic makes of the same schema what it accepts
        Options.model_validate(load_yaml(path))
    else:
        jsonschema.validate(load_yaml(path), schema)


def test_the_json_schema_helps_editors():
    schema = options_docs.json_schema()
    sections = [schema, *schema["$defs"].values()]
    for section in sections:
        assert all(key.get("description") for key in section["properties"].values()), section["title"]
    assert schema["$defs"]["DRCTNetwork"]["properties"]["resi_connection"]["enum"] == ["1conv", "identity"]
    decay = schema["$defs"]["Train"]["properties"]["ema_decay"]
    assert (decay["minimum"], decay["exclusiveMaximum"], decay["default"]) == (0, 1, 0.0)
    assert {"type": "null"} in schema["$defs"]["Train"]["properties"]["accumulation"]["anyOf"]
    closed = [name for name, section in schema["$defs"].items() if section["additionalProperties"] is False]
    assert closed == ["Datasets"]  # whose names have a form
    assert schema["then"]["required"] == ["logger", "scale", "network_g"]
    assert not {"scale", "network_g"} & set(schema["required"])  # which tests read from the weights
