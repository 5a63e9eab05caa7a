"""`drct analyze features`: what is measured, against the original implementation's modules, and what is written."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs.swinir_arch import SwinIR
from conftest import TINY, pair, photo, rescale_
from PIL import Image
from torch import nn

from drct.analysis import feature_tables
from drct.analysis.feature_comparison import group_by_seed
from drct.analysis.feature_maps import Magnitude, Stage, StageFeatures, average, measure
from drct.archs.drct_arch import DRCT
from drct.archs.drct_plain_arch import DRCTPlain
from drct.commands.analyze_features import main
from drct.errors import DRCTError

SWIN = {
    "img_size": 16,
    "embed_dim": 8,
    "depths": [2, 2, 2],
    "num_heads": [2, 2, 2],
    "window_size": 4,
    "mlp_ratio": 2,
    "upscale": 2,
    "upsampler": "pixelshuffle",
}
HEIGHT, WIDTH = 18, 21  # no multiples of the window


@pytest.fixture
def image() -> torch.Tensor:
    return torch.from_numpy(photo(HEIGHT, WIDTH)).permute(2, 0, 1) / 255


def padded(image: torch.Tensor, window: int = 4) -> torch.Tensor:
    """To whole windows, by reflection at the bottom and the right."""
    height, width = image.shape[1:]
    return nn.functional.pad(image[None], (0, -width % window, 0, -height % window), mode="reflect")


def tokens_of(network: nn.Module, image: torch.Tensor, names: list[str]) -> dict[str, np.ndarray]:
    """Inputs and outputs of modules that give tokens (1, H * W, C), without the padding: (H, W, C), in float64."""
    x = padded(image)
    seen = {}

    def cropped(tokens: torch.Tensor) -> np.ndarray:
        return tokens.reshape(*x.shape[2:], -1)[:HEIGHT, :WIDTH].detach().double().numpy()

    def hook_for(name):
        def hook(module, inputs, output):
            seen[name], seen[f"{name} input"] = cropped(output), cropped(inputs[0])

        return hook

    modules = dict(network.named_modules())
    for name in names:
        modules[name].register_forward_hook(hook_for(name))
    with torch.no_grad():
        network(x)
    return seen


def check(one: StageFeatures, x: np.ndarray, before: np.ndarray | None = None) -> None:
    """Compare what is measured with the definitions, written down once more."""
    normal = (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5)
    expected = {
        "intensity": np.abs(x),
        "variation": np.abs(x - x.mean((0, 1), keepdims=True)),
        "normalized": np.abs(normal - normal.mean((0, 1), keepdims=True)),
    }
    if before is not None:
        expected["added"] = np.abs(x - before)
    assert list(one.sizes) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(one.sizes[name], (values.mean(), values.max(), values.std()), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(one.maps[name], values.mean(2), rtol=1e-3, atol=1e-4)


def by_label(measured: list[StageFeatures]) -> dict[str, StageFeatures]:
    return {one.stage.label: one for one in measured}


def test_features_of_drct_are_those_of_the_original_with_the_shift_undone_and_the_padding_not_counted(image):
    original, network = pair(2, **TINY)
    names = {"embedding": "pos_drop", "norm": "norm"}
    for i in range(2):
        names |= {f"group {i + 1}, block {k}": f"layers.{i}.swin{k}" for k in range(1, 6)}
        names[f"group {i + 1}"] = f"layers.{i}"
    seen = tokens_of(original, image, list(names.values()))
    measured = by_label(measure(network, image, 4))
    assert set(measured) == set(names)
    for label, name in names.items():
        check(measured[label], seen[name], seen[f"{name} input"] if "layers" in name else None)


def test_features_of_swinir_are_what_its_blocks_and_groups_return(image):
    network = SwinIR(**SWIN).eval()
    rescale_(network)
    names = {
        f"group {i + 1}" + (f", block {k + 1}" if k < 2 else ""): f"layers.{i}"
        + (f".residual_group.blocks.{k}" if k < 2 else "")
        for i in range(3)
        for k in range(3)
    }
    seen = tokens_of(network, image, list(names.values()))
    measured = measure(network, image, 4)
    assert [one.stage.label for one in measured] == ["embedding", *names, "norm"]
    for label, name in names.items():
        check(by_label(measured)[label], seen[name], seen[f"{name} input"])


def test_features_of_hat_have_its_overlapping_attention_for_the_last_block_of_a_group(image):
    from spandrel.architectures.HAT import HAT

    options = SWIN | {"depths": [2], "num_heads": [2], "compress_ratio": 2, "squeeze_factor": 2}
    network = HAT(**options, conv_scale=0.01, overlap_ratio=0.5).eval()
    rescale_(network)
    seen = tokens_of(network, image, ["layers.0.residual_group.overlap_attn", "layers.0"])
    measured = by_label(measure(network, image, SWIN["window_size"]))
    check(measured["group 1, block 3"], *seen_of(seen, "layers.0.residual_group.overlap_attn"))
    check(measured["group 1"], *seen_of(seen, "layers.0"))


def seen_of(seen: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    return seen[name], seen[f"{name} input"]


def test_depth_is_relative_so_that_groups_of_networks_of_different_depth_lie_side_by_side(image):
    depths = {one.stage.label: one.stage.depth for one in measure(DRCTPlain(**TINY, upscale=2).eval(), image, 4)}
    assert depths["embedding"] == 0 and depths["group 1"] == 0.5 and depths["group 2"] == 1
    assert depths["group 2, block 3"] == pytest.approx(0.5 + 0.5 * 3 / 6)


def test_sizes_are_averaged_over_images():
    def measured(value: float) -> list[StageFeatures]:
        return [
            StageFeatures(
                Stage("norm", 0, 0, 1), {"intensity": Magnitude(value, 2 * value, 0)}, {"intensity": np.ones(1)}
            )
        ]

    assert average([measured(1), measured(4)])[0].sizes == {"intensity": Magnitude(2.5, 5, 0)}


def test_an_architecture_that_is_not_known_is_refused():
    with pytest.raises(DRCTError, match="Sequential.*only of DRCT, SwinIR and HAT"):
        measure(nn.Sequential(nn.Conv2d(3, 3, 1)), torch.zeros(3, 8, 8), 1)


# ------------------------------------------------------------------------------------------------------------- tables


def test_runs_by_seeds_are_one_network():
    assert group_by_seed(["a_seed0", "b.pth", "a_seed12"]) == {"a": ["a_seed0", "a_seed12"], "b.pth": ["b.pth"]}
    assert group_by_seed(["a_seed0", "b.pth", "a_seed1"], ["A", "B"]) == {"A": ["a_seed0", "a_seed1"], "B": ["b.pth"]}
    with pytest.raises(DRCTError, match="1 name for 2 networks: a, b"):
        group_by_seed(["a_seed0", "b"], ["A"])
    with pytest.raises(DRCTError, match="give 2 different ones"):
        group_by_seed(["a", "b"], ["A/B", "A B"])


def groups(*means: float) -> list[StageFeatures]:
    """A network of which only the means after the groups are known; the embedding's is 1."""
    kinds = [("embedding", 0), *(("group", i + 1) for i in range(len(means)))]
    return [
        StageFeatures(
            Stage(kind, group, 0, group / len(means)),
            {name: Magnitude(mean, 0, 0) for name in feature_tables.QUANTITIES},
            {},
        )
        for (kind, group), mean in zip(kinds, (1, *means), strict=True)
    ]


def test_the_summary_tells_how_much_is_left_at_the_end_with_its_spread_over_seeds():
    networks = {"falling": [groups(2, 4, 1), groups(2, 5, 3)], "rising": [groups(1, 2)]}
    rows = feature_tables.summarize(networks, {"falling": [{"Set5": 30.0}, {"Set5": 31.0}], "rising": [{}]})
    falling, rising = (row["intensity"] for row in rows)
    assert falling["first"] == (2, 0) and falling["largest"] == pytest.approx((4.5, 0.5**0.5))
    assert falling["groups"] == [2, 2] and falling["ratio"] == pytest.approx((0.425, 0.35 * 0.5**0.5))
    assert rising["ratio"] == (1, None) and rising["last"] == (2, None) and rising["embedding"] == (1, None)
    lines = feature_tables.summary_tables(rows).splitlines()
    assert lines[2].startswith("| network | seeds |") and lines[2].endswith("| last / largest | PSNR Set5 |")
    assert lines[4] == (
        "| falling | 2 | 1.000 ± 0.000 | 2.000 ± 0.000 | 4.500 ± 0.707 (group 2) | 2.000 ± 1.414 | 0.425 ± 0.247 "
        "| 30.50 ± 0.71 |"
    )
    assert lines[5] == "| rising | 1 | 1.000 | 1.000 | 2.000 (group 2) | 2.000 | 1.000 |  |"


# ------------------------------------------------------------------------------------------------------------ command


@pytest.fixture
def runs(workplace):
    """Training runs of two seeds of a network, one of another, and `images/` with a good and a broken picture."""
    for name, kind, options in (
        ("mine_seed0", DRCT, {**TINY, "upscale": 2}),
        ("mine_seed1", DRCT, {**TINY, "upscale": 2}),
        ("other", SwinIR, SWIN),
    ):
        (workplace / name / "models").mkdir(parents=True)
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
        (workplace / name / "run.yml").write_text(yaml.safe_dump({"network_g": {"type": kind.__name__, **plain}}))
        torch.manual_seed(int(name[-1]) if name[-1].isdigit() else 0)
        torch.save({"params": kind(**options).state_dict()}, workplace / name / "models" / "net_g_10.pth")
    (workplace / "mine_seed0" / "scalars.csv").write_text(
        "iteration,tag,value\n5,metrics/Set5/psnr,20\n10,metrics/Set5/psnr,25.5\n10,metrics/Set5/ssim,0.5\n"
    )
    (workplace / "other" / "scalars.csv").write_text("iteration,tag,value\n10,metrics/Set5/psnr,40\n")
    (workplace / "other" / "metrics").mkdir()
    table = {"images": {"a": {"psnr": 40}}, "failed": {"b.png": "invalid shape"}}
    (workplace / "other" / "metrics" / "metrics_Set5_10.json").write_text(json.dumps(table))
    (workplace / "images").mkdir()
    cv2.imwrite(str(workplace / "images" / "a.png"), photo(HEIGHT, WIDTH))
    cv2.imwrite(str(workplace / "images" / "gray.png"), photo(12, 12)[..., 0])
    (workplace / "images" / "broken.png").write_bytes(b"no picture")
    return workplace


def test_everything_is_written_and_a_broken_image_is_reported(runs, capsys):
    arguments = [
        "mine_seed0",
        "mine_seed1",
        "other",
        "--names",
        "mine",
        "SwinIR, small",
        "--input",
        "images",
        "-o",
        "out",
    ]
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert "note: other: 1 image of Set5 failed: PSNR of the others left out" in said.err
    assert "cannot read image images/broken.png" in said.err and "Traceback" not in said.err
    names = {"features.json", "features.csv", "features.png", "features.gif", "strip_mine.png"}
    assert {path.name for path in (runs / "out").iterdir()} == {*names, "strip_SwinIR_small.png"}

    report = json.loads((runs / "out" / "features.json").read_text())
    assert report["images"] == ["images/a.png", "images/gray.png"]
    assert [(name, of["group"], of["psnr"]) for name, of in report["networks"].items()] == [
        ("mine_seed0", "mine", {"Set5": 25.5}),
        ("mine_seed1", "mine", {}),
        ("other", "SwinIR, small", {}),
    ]
    assert report["markdown"] in said.out and "| mine | 2 |" in said.out and "| 25.50 |" in said.out
    stages = report["networks"]["mine_seed1"]["stages"]
    assert [stage["stage"] for stage in stages[:3]] == ["embedding", "group 1, block 1", "group 1, block 2"]
    relative = stages[6]["variation"]["mean"] / stages[0]["variation"]["mean"]
    assert stages[6]["variation"]["relative"] == pytest.approx(relative) and "relative" not in stages[6]["added"]

    with open(runs / "out" / "features.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * (2 * 3 + 12 * 4) + 2 * 3 + 9 * 4
    assert float(lines[0]["mean"]) == report["networks"]["mine_seed0"]["stages"][0]["intensity"]["mean"]

    with Image.open(runs / "out" / "features.png") as curves, Image.open(runs / "out" / "features.gif") as animation:
        assert curves.width == 1200
        assert animation.n_frames == 13 and animation.width == 830  # embedding, and two groups of five blocks

    assert main(["--show", "out/features.json", "-o", "again"]) == 0
    assert capsys.readouterr().out.strip() == report["markdown"].strip()
    assert (runs / "again" / "features.png").read_bytes() == (runs / "out" / "features.png").read_bytes()
    for content in ("{}", '{"networks": {}, "summary": []}', '{"networks": {}, "summary": [{}]}'):
        (runs / "other.json").write_text(content)
        assert main(["--show", "other.json", "-o", "again"]) == 2
        assert "other.json is no features.json" in capsys.readouterr().err
    assert main(["mine_seed0", "--show", "out/features.json", "-o", "again"]) == 2
    assert "--show draws what was measured" in capsys.readouterr().err


def test_a_single_pixel_varies_nowhere(runs):
    cv2.imwrite("pixel.png", photo(1, 1))
    assert main(["mine_seed0", "--input", "pixel.png", "-o", "out"]) == 0
    (row,) = json.loads((runs / "out" / "features.json").read_text())["summary"]
    assert row["variation"]["ratio"] is None and row["variation"]["last"][0] == 0 and row["intensity"]["ratio"][0] > 0


def test_curves_have_a_line_per_network_and_a_band_over_its_seeds():
    from drct.analysis.feature_pictures import draw_depth_curves

    figure = draw_depth_curves({"a": [groups(2, 1), groups(4, 3), groups(3, 8)], "b": [groups(1, 1, 1)]})
    axes = figure.axes[0]
    first, second = (line for line in axes.lines if line.get_gid() == "groups")
    assert first.get_ydata().tolist() == [1, 3, 3]
    assert second.get_xdata().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    (band,) = axes.collections
    assert band.get_paths()[0].get_extents().intervaly.tolist() == [1, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody.pth", "--input", "images"], "nobody.pth"),
        (["other", "--input", "nothing.png"], "no such file: nothing.png"),
        (["other", "--input", "other/run.yml"], "none of the images could be read"),
        (["other", "--input", "images", "--names", "a", "b"], "2 names for 1 network: other"),
        (["other.pth", "--input", "images"], "other.pth: where RRDBNet has its blocks and groups is not known"),
        (["mine_seed0", "mine_seed1", "--input", "images"], "mine_seed0 and mine_seed1 differ by more than their seed"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(runs, capsys, monkeypatch, arguments, message):
    from basicsr.archs.rrdbnet_arch import RRDBNet

    torch.save({"params": RRDBNet(3, 3, num_feat=8, num_block=1, num_grow_ch=32).state_dict()}, "other.pth")
    if "mine_seed1" in arguments:
        for path in ("run.yml", "models/net_g_10.pth"):
            (runs / "mine_seed1" / path).write_bytes((runs / "other" / path).read_bytes())
    assert main([*arguments, "-o", "out"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_without_matplotlib_it_tells_what_to_install(runs, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert main(["other", "--input", "images", "-o", "out"]) == 2
    assert capsys.readouterr().err == (
        "error: pictures of features need matplotlib, which is missing: pip install matplotlib\n"
    )
