"""Option files as the DRCT and HAT projects publish them: our own, with what theirs have otherwise, made small."""

from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from conftest import HAT_TINY, ROOT, network_options, write_options
from test_training import make_data, run_here, shrink

from drct.commands import test as test_run
from drct.runtime.yaml_file import load_yaml

pytestmark = pytest.mark.filterwarnings("error:.*ignores options", "error:This DataLoader")

HAT_IN_DRCT_FILES = {  # and the parameters of the network that they make
    "train_DRCT_SRx3_ImageNet_from_scratch": 20_809_435,
    "train_DRCT-L_SRx3_finetune_from_ImageNet_pretrain": 40_883_503,
}
KEYS_OF_HAT = {"compress_ratio": 3, "squeeze_factor": 30, "conv_scale": 0.01, "overlap_ratio": 0.5}
NAMES = {"DRCTModel": "HATModel", "RealDRCTMSEModel": "RealHATMSEModel", "RealDRCTGANModel": "RealHATGANModel"}


@pytest.mark.parametrize(("name", "parameters"), HAT_IN_DRCT_FILES.items())
def test_the_hat_in_files_of_the_drct_project_is_whole(name, parameters):
    network_g = load_yaml(ROOT / "options" / "train" / f"{name}.yml")["network_g"] | KEYS_OF_HAT
    del network_g["gc"]  # which theirs do not have
    with torch.device("meta"):
        network = build_network(network_g | {"type": "HAT"})
    assert sum(p.numel() for p in network.parameters()) == parameters


def published(name, project):
    """Options of a training file as a project publishes them, but for sizes."""
    opt = shrink(ROOT / "options" / "train" / f"{name}.yml")
    if project != "drct":
        opt["model_type"] = NAMES.get(opt["model_type"], opt["model_type"])
    if project != "drct" or name in HAT_IN_DRCT_FILES:
        opt["network_g"] = network_options(HAT_TINY | KEYS_OF_HAT | {"squeeze_factor": 4}, opt["scale"], "HAT")
    opt["num_gpu"] = "auto"
    opt["datasets"]["train"] |= {
        "meta_info_file": f"{project}/data/meta_info/meta_info_DF2Ksub_GT.txt",
        "num_worker_per_gpu": 3,
        "use_shuffle": True,
        "prefetch_mode": None,
    }
    opt["train"]["total_iter"] = 1
    opt["logger"] |= {"use_tb_logger": True, "wandb": {"project": None, "resume_id": None}}
    if "queue_size" in opt:
        opt["val"] = None
    else:
        opt["val"]["pbar"] = False
        for metric in opt["val"]["metrics"].values():
            metric["better"] = "higher"
    return opt


@pytest.mark.parametrize(
    ("name", "project"),
    [
        *[(name, "drct") for name in HAT_IN_DRCT_FILES],
        ("train_DRCT_SRx4_finetune_from_SRx2", "drct"),
        ("train_HAT_SRx4_finetune_from_SRx2", "hat"),
        ("train_HAT-L_SRx2_ImageNet_from_scratch", "hat"),
        ("train_HAT_SRx3_from_scratch", "hct"),
        ("train_Real_DRCT_SRx4_mse_model", "hat"),
        ("train_Real_DRCT_SRx4_finetune_from_mse_model", "hat"),
    ],
)
def test_training_files_of_both_projects_run(workplace, capfd, name, project):
    opt = published(name, project)
    start = opt["path"]["pretrain_network_g"]
    opt["path"]["strict_load_g"] = True  # theirs say so even where the start is of another scale
    if start and opt["network_g"]["type"] == "HAT":
        state = build_network(opt["network_g"] | {"upscale": 2 if "SRx2" in start else opt["scale"]}).state_dict()
        torch.save({"params": state, "params_ema": state}, start)
    assert run_here(opt) == 0
    told = capfd.readouterr().err
    assert "Network HAT with" in told or opt["network_g"]["type"] == "DRCT"
    assert "is not here; all files of the folder are used" in told
    assert "UserWarning" not in told
    assert ("is of another scale: its upsampler is left out" in told) is name.endswith("finetune_from_SRx2")
    trained = torch.load(f"experiments/{name}/models/net_g_latest.pth", weights_only=True)["params"]
    assert ("layers.0.residual_group.overlap_attn.qkv.weight" in trained) is (opt["network_g"]["type"] == "HAT")


def test_only_the_start_of_training_may_be_of_another_scale(workplace, capfd):
    opt = published("train_HAT_SRx3_from_scratch", "hat")
    assert run_here(opt) == 0
    opt |= {"scale": 2, "network_g": opt["network_g"] | {"upscale": 2}}
    opt["train"]["total_iter"] = 2
    del opt["datasets"]["train"]["meta_info_file"]
    for dataset in opt["datasets"].values():
        dataset |= {"dataroot_gt": "x2/gt", "dataroot_lq": "x2/lq"}
        make_data(dataset, 2)
    assert run_here(opt, "--auto_resume") == 2
    assert "upscale is 3 in the file, 2 in network_g" in capfd.readouterr().err
    opt["path"]["pretrain_network_g"] = "experiments/train_HAT_SRx3_from_scratch/models/net_g_latest.pth"
    opt["datasets"] = {"test_1": opt["datasets"]["val_1"]}
    assert test_run.main(["-opt", write_options(Path("test.yml"), opt)]) == 2
    assert "upscale is 3 in the file, 2 in network_g" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["HAT_tile_example", "HAT_SRx4_ImageNet-LR", "HAT_GAN_Real_SRx4", "HAT-S_SRx3"])
def test_test_files_of_the_hat_project_run(workplace, capfd, name):
    opt = load_yaml(ROOT / "options" / "test" / f"{name}.yml") | {"model_type": "HATModel", "num_gpu": 1}
    opt["network_g"] = network_options(HAT_TINY, opt["scale"], "HAT")
    state = build_network(opt["network_g"]).state_dict()
    Path(opt["path"]["pretrain_network_g"]).parent.mkdir(parents=True)
    torch.save({"params_ema": state}, opt["path"]["pretrain_network_g"])
    opt["val"]["suffix"] = None
    for dataset in opt["datasets"].values():
        make_data(dataset, opt["scale"])
    assert test_run.main(["-opt", write_options(Path("test.yml"), opt)]) == 0
    for dataset in opt["datasets"].values():
        assert len(list(Path(f"results/{name}/visualization/{dataset['name']}").glob(f"*_{name}.png"))) == 3
