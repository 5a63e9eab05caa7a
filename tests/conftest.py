"""What the tests share: networks to compare with the original implementation, small images, small option files."""

import os
from pathlib import Path
from typing import Any

# Tests that run side by side share the cores, as do the programs that they start
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

import cv2
import numpy as np
import pytest
import torch
import yaml
from spandrel.architectures.DRCT import DRCT as OriginalDRCT  # noqa: N811
from spandrel.architectures.HAT import HAT as OriginalHAT  # noqa: N811
from torch import nn

import drct  # noqa: F401
from drct.archs import execution, variants
from drct.archs.drct_arch import DRCT
from drct.archs.hat_arch import HAT

ROOT = Path(__file__).resolve().parents[1]

VARIANTS = {name: variants.VARIANTS[name] for name in ("DRCT", "DRCT-C144", "DRCT-XS")}
TINY: dict[str, Any] = {  # for tests of everything but the network's numbers
    "embed_dim": 12,
    "gc": 4,
    "depths": (6, 6),
    "num_heads": (2, 2),
    "window_size": 4,
    "img_size": 16,
}
HAT_TINY = {
    "embed_dim": 12,
    "depths": (2, 1),
    "num_heads": (2, 2),
    "window_size": 4,
    "img_size": 16,
    "compress_ratio": 3,
    "squeeze_factor": 4,
    "conv_scale": 0.5,
}


def rescale_(network: nn.Module, seed: int = 0) -> None:
    """Give every parameter a size at which it matters: outputs vary by about 0.5, and an error anywhere shows.

    Initial weights are so small that attention is uniform and blocks add next to nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            noise = torch.randn(p.shape, generator=generator).to(p)
            if "norm" in name:
                p.add_(noise * 0.2)
            elif "relative_position_bias_table" in name or "absolute_pos_embed" in name:
                p.copy_(noise)
            elif p.ndim == 1:
                p.copy_(noise * 0.1)
            else:
                gain = 1.5 if "qkv" in name else 0.55 if "conv_last" in name else 1.0
                p.copy_(noise * gain / p[0].numel() ** 0.5)


def definition(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the definition computes, whatever the execution could do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "takes_over", lambda network: False)
        return network(x)


def check_gradients_of_definition(network: nn.Module) -> None:
    """Compare the gradients of a float64 network in training with those of its definition, at equal random numbers."""
    x = torch.rand(2, 3, 16, 20, dtype=torch.float64)
    gradients = []
    for run in (network, lambda x: definition(network, x)):
        network.zero_grad()
        torch.manual_seed(7)
        run(x).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        scale = gradients[1][name].abs().max().clamp_min(1e-9)
        assert (gradient - gradients[1][name]).abs().max() <= 1e-9 * scale, name


def pair(scale: int, dtype: torch.dtype = torch.float32, **options) -> tuple[nn.Module, DRCT]:
    """The original network and ours with the same, rescaled weights, in evaluation mode."""
    original = OriginalDRCT(upscale=scale, upsampler="pixelshuffle", **options)
    rescale_(original)
    network = DRCT(upscale=scale, **options)
    network.load_state_dict(original.state_dict())
    return original.eval().to(dtype), network.eval().to(dtype)


def hat_pair(scale: int, dtype: torch.dtype = torch.float32, **options) -> tuple[nn.Module, HAT]:
    """The original HAT and ours with the same, rescaled weights, in evaluation mode."""
    arguments = {"window_size": 16, "mlp_ratio": 2.0, "upsampler": "pixelshuffle", **options, "upscale": scale}
    original = OriginalHAT(**arguments)
    rescale_(original)
    network = HAT(**arguments)
    network.load_state_dict(original.state_dict())
    return original.eval().to(dtype), network.eval().to(dtype)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth coloured picture with edges, (H, W, 3), BGR, uint8."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    image[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3, dtype=np.uint8)
    return image


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run commands in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pairs(workplace: Path) -> Path:
    """`gt/` and `lr/` (x2) with a colour image, a gray one and one of odd sizes."""
    from drct.data.prepare import reduce_image

    for folder in ("gt", "lr"):
        (workplace / folder).mkdir()
    images = {"colour": photo(48, 56), "odd": photo(46, 34, 1), "gray": cv2.cvtColor(photo(40, 40, 2), 6)}
    for name, image in images.items():
        cv2.imwrite(str(workplace / "gt" / f"{name}.png"), image)
        image = cv2.imread(str(workplace / "gt" / f"{name}.png"))
        small = reduce_image(image, 2)
        cv2.imwrite(str(workplace / "lr" / f"{name}.png"), small[..., 0] if name == "gray" else small)
    return workplace


def network_options(options: dict[str, Any], scale: int, kind: str = "DRCT") -> dict[str, Any]:
    """Section `network_g` of an option file."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return {"type": kind, "upscale": scale, "upsampler": "pixelshuffle", **plain}


def metrics_options(scale: int) -> dict[str, Any]:
    return {
        name: {"type": f"calculate_{name}", "crop_border": scale, "test_y_channel": True} for name in ("psnr", "ssim")
    }


def test_options(weights: os.PathLike | str, scale: int = 2, network: dict[str, Any] = TINY, **more) -> dict[str, Any]:
    """Options of a test run on `gt/` and `lr/`."""
    dataset = {"name": "set", "type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lr"}
    options = {
        "name": "run",
        "model_type": "DRCTModel",
        "scale": scale,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {"test_1": dataset | {"io_backend": {"type": "disk"}}},
        "network_g": network_options(network, scale),
        "path": {"pretrain_network_g": str(weights), "strict_load_g": True, "param_key_g": "params_ema"},
        "val": {"save_img": True, "suffix": None, "metrics": metrics_options(scale)},
    }
    return options | more


test_options.__test__ = False  # type: ignore[attr-defined] - a helper, whatever its name


def train_options(scale: int = 2, **train) -> dict[str, Any]:
    """Options of a short training run on `gt/` and `lr/`."""
    options = test_options("unused", scale)
    dataset = options["datasets"]["test_1"]
    training = {"gt_size": 16, "use_hflip": True, "use_rot": True, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    return options | {
        "datasets": {"train": dataset | training, "val": dict(dataset)},
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.9,
            "optim_g": {"type": "Adam", "lr": 2e-4, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [3], "gamma": 0.5},
            "total_iter": 4,
            "warmup_iter": -1,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            **train,
        },
        "val": {"val_freq": 2, "save_img": False, "metrics": metrics_options(scale)},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }


def write_options(path: Path, options: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return str(path)


@pytest.fixture
def weights(workplace: Path) -> Path:
    """Rescaled weights of a tiny x2 network, written from the original implementation."""
    original, _ = pair(2, **TINY)
    path = workplace / "weights.pth"
    torch.save({"params_ema": original.state_dict()}, path)
    return path


@pytest.fixture(autouse=True)
def fresh_loggers():
    """BasicSR's logger lives as long as the process: give each test a new one."""
    import logging

    from basicsr.utils import logger

    yield
    for handler in logging.getLogger("basicsr").handlers[:]:
        logging.getLogger("basicsr").removeHandler(handler)
        handler.close()
    logger.initialized_logger.clear()
