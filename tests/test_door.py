"""Networks of every kind through the same door: spandrel's, those of the registry and of runs."""

import json
import shutil
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.srvgg_arch import SRVGGNetCompact
from basicsr.metrics import calculate_psnr
from conftest import TINY, photo, rescale_, train_options, write_options
from spandrel import ModelLoader
from spandrel.architectures.Compact import Compact
from spandrel.architectures.DAT import DAT
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.PLKSR import PLKSR
from spandrel.architectures.SPAN import SPAN
from spandrel.architectures.SwinIR import SwinIR

import drct
from drct.analysis import networks
from drct.archs.traits import NetworkTraits
from drct.cli import main
from drct.data.prepare import reduce_image
from drct.errors import DRCTError
from drct.inference.weights import read_network
from drct.web.service import Service

SWINIR = {"img_size": 16, "embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 8, "mlp_ratio": 2}
OF_SPANDREL = {
    "SwinIR": lambda: SwinIR(**SWINIR, upscale=2, upsampler="pixelshuffle", resi_connection="1conv"),
    "ESRGAN": lambda: ESRGAN(num_filters=8, num_blocks=1, scale=4),
    "SPAN": lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2),
    "PLKSR": lambda: PLKSR(dim=8, n_blocks=1, upscaling_factor=3),
    "Compact": lambda: Compact(num_feat=8, num_conv=2, upscale=2),
    "DAT": lambda: DAT(embed_dim=32, depth=[2], num_heads=[2], split_size=[4, 8], upscale=2, upsampler="pixelshuffle"),
}


def picture_tensor(image: np.ndarray) -> torch.Tensor:
    """A picture of OpenCV's as (1, 3, H, W), RGB in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))).float()[None] / 255


def pixels_of(result: torch.Tensor) -> np.ndarray:
    """A result (1, 3, H, W) as `drct upscale` writes it, BGR."""
    return (result.clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy().astype(np.uint8)[..., ::-1]


@pytest.mark.parametrize("kind", OF_SPANDREL)
def test_networks_of_spandrel_compute_what_spandrel_computes(workplace, capsys, kind):
    network = OF_SPANDREL[kind]()
    rescale_(network)
    torch.save({"params": network.state_dict()}, "w.pth")
    by_hand = ModelLoader(device="cpu").load_from_state_dict(dict(network.state_dict()))
    image = photo(90, 130)
    expected = by_hand(picture_tensor(image))
    assert expected.std() > 0.05
    upscaler = drct.load("w.pth", "cpu", tile=None)
    assert upscaler.precision == "fp32"
    assert (upscaler.upscale(picture_tensor(image)) - expected).abs().max() <= 1e-5

    cv2.imwrite("a.png", image)
    assert main(["upscale", "a.png", "-o", "out.png", "--weights", "w.pth", "--device", "cpu"]) == 0
    assert np.abs(cv2.imread("out.png").astype(int) - pixels_of(expected)).max() <= 1
    served = Service(workplace, 1, "cpu").upscale(Path("a.png"), "w.pth")
    assert np.array_equal(cv2.imread(str(served.file)), cv2.imread("out.png"))
    assert f"; by {kind}".replace("Compact", "RealESRGAN Compact") in served.summary
    capsys.readouterr()
    assert main(["info", "w.pth"]) == 0
    parameters = sum(p.numel() for p in by_hand.model.parameters())
    out = capsys.readouterr().out
    assert kind in out and f"upscales {by_hand.scale} times, {parameters:,} parameters" in out and "3 channels" in out


@pytest.mark.parametrize("kind", ["SwinIR", "DAT", "ESRGAN"])
def test_small_images_are_padded_to_what_the_network_takes(workplace, kind):
    network = OF_SPANDREL[kind]()
    torch.save(network.state_dict(), "w.pth")
    by_hand = ModelLoader(device="cpu").load_from_state_dict(dict(network.state_dict()))
    x = torch.rand(1, 3, 9, 11)
    assert (drct.load("w.pth", "cpu").upscale(x) - by_hand(x)).abs().max() <= 1e-5
    assert drct.load("w.pth", "cpu").upscale(x[..., :1, :2]).shape == (1, 3, by_hand.scale, 2 * by_hand.scale)


class Square(torch.nn.Module):
    """Takes squares of 16 pixels or more only."""

    def forward(self, x):
        assert x.shape[-1] == x.shape[-2] >= 16
        return torch.nn.functional.interpolate(x, scale_factor=2)


@pytest.mark.parametrize("tile", [None, 8, (8, 4)])
def test_networks_of_squares_and_of_a_least_size_get_them(tile):
    traits = NetworkTraits(2, 4, minimum=16, square=True)
    image = photo(50, 37)
    upscaler = drct.Upscaler(Square(), "cpu", "fp32", tile, traits=traits)
    assert np.array_equal(upscaler.upscale(image), image.repeat(2, 0).repeat(2, 1))


def test_a_network_with_a_position_embedding_is_computed_in_tiles_of_its_size():
    network = drct.DRCT(**TINY, ape=True, upscale=2).eval()  # of 16x16 pixels, so that tiles overlap by 8
    rescale_(network)
    x = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        left, right = network(x[..., :16]), network(x[..., 8:])
    expected = torch.cat([left[..., :24], right[..., 8:]], -1).clamp(0, 1)
    assert (drct.Upscaler(network, "cpu", "fp32").upscale(x) - expected).abs().max() <= 1e-6
    assert drct.Upscaler(network, "cpu", "fp32").upscale(photo(5, 40)).shape == (10, 80, 3)


def test_a_gray_network_takes_gray_and_each_channel_of_colours():
    network = drct.DRCT(**TINY, in_chans=1, upscale=2).eval()
    rescale_(network)
    image = photo(9, 14)
    upscaler = drct.Upscaler(network, "cpu", "fp32")
    result = upscaler.upscale(image)
    for channel in range(3):
        assert np.array_equal(result[..., channel], upscaler.upscale(np.ascontiguousarray(image[..., channel])))


# ------------------------------------------------------------------------------------------------------------ registry


def edsr(scale: int = 2) -> EDSR:
    network = EDSR(3, 3, num_feat=8, num_block=1, upscale=scale, img_range=1.0).eval()
    rescale_(network)
    return network


EDSR_OPTIONS = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 2}
EDSR_OPTIONS |= {"img_range": 1.0}


def test_a_network_of_the_registry_is_named_by_an_option_file(workplace, capsys):
    network = edsr()
    torch.save({"params": network.state_dict()}, "w.pth")
    Path("net.yml").write_text(yaml.safe_dump({"scale": 2, "network_g": EDSR_OPTIONS}))
    image = photo(23, 31)
    with torch.no_grad():
        expected = network(picture_tensor(image))
    for options in ("net.yml", Path("net.yml"), EDSR_OPTIONS, {"network_g": EDSR_OPTIONS, "scale": 2}):
        upscaler = drct.load("w.pth", "cpu", "fp32", network=options)
        assert (upscaler.upscale(picture_tensor(image)) - expected.clamp(0, 1)).abs().max() <= 1e-6
    cv2.imwrite("a.png", image)
    named = ["--network", "net.yml"]
    assert main(["upscale", "a.png", "-o", "o.png", "--weights", "w.pth", "--precision", "fp32", *named]) == 0
    assert np.abs(cv2.imread("o.png").astype(int) - pixels_of(expected)).max() <= 1
    assert main(["info", "w.pth", *named]) == 0
    assert "EDSR, upscales 2 times" in capsys.readouterr().out
    assert main(["complexity", "w.pth", *named, "--size", "16x16"]) == 0
    assert main(["export", "w.pth", "-o", "w.onnx", *named, "--check"]) == 0
    assert main(["export", "w.pth", "-o", "w.safetensors", *named]) == 2
    assert "w.pth is a network of EDSR: of those other than DRCT" in capsys.readouterr().err
    of_model = drct.load("w.onnx", "cpu").upscale(picture_tensor(image))
    assert (of_model - expected.clamp(0, 1)).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network_g": EDSR_OPTIONS | {"type": "EDSRR"}}, r"net\.yml: there is no network EDSRR.*EDSR"),
        ({"network_g": EDSR_OPTIONS | {"feats": 3}}, r"net\.yml: network_g \(EDSR\) cannot be built: .*feats"),
        ({"network_g": EDSR_OPTIONS | {"num_feat": 4}}, r"w\.pth does not fit the network of net\.yml, EDSR"),
        ({"network_g": EDSR_OPTIONS, "scale": 3}, r"net\.yml: scale is 3, but the network enlarges 2 times"),
        ({"network_g": EDSR_OPTIONS, "scale": "x"}, r"net\.yml: scale must be a whole number"),
        ({"scale": 3}, r"net\.yml names no network"),
    ],
)
def test_mistakes_in_the_option_file_of_a_network_are_explained(workplace, options, message):
    torch.save({"params": edsr().state_dict()}, "w.pth")
    Path("net.yml").write_text(yaml.safe_dump(options))
    with pytest.raises(DRCTError, match=message) as caught:
        read_network("w.pth", "net.yml")
    assert "\n" not in str(caught.value)


def test_an_option_file_that_is_not_there_is_told_before_anything(workplace, capsys):
    cv2.imwrite("a.png", photo(4, 4))
    torch.save({"params": edsr().state_dict()}, "w.pth")
    for command in (["upscale", "a.png", "--weights"], ["info"], ["complexity"], ["export", "-o", "x.onnx"]):
        assert main([*command, "w.pth", "--network", "none.yml"]) == 2
        assert "none.yml" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------- runs


def run_folder(root: Path, network_g: dict, *files: str) -> None:
    """A folder of a run, with an EDSR of random weights in each of the files."""
    (root / "models").mkdir(parents=True)
    (root / "option.yml").write_text(yaml.safe_dump({"name": "x", "scale": 2, "network_g": network_g}))
    for seed, file in enumerate(files):
        network = edsr()
        rescale_(network, seed)
        torch.save({"params": network.state_dict()}, root / "models" / file)


@pytest.mark.parametrize(
    ("files", "taken"),
    [
        (["net_g_10.pth", "net_g_best.pth", "net_g_latest.pth"], "net_g_best.pth"),
        (["net_g_900.pth", "net_g_1000.pth", "net_g_latest.pth"], "net_g_1000.pth"),
        (["net_g_latest.pth"], "net_g_latest.pth"),
    ],
)
def test_of_a_run_the_best_or_newest_weights_are_taken_and_named(workplace, caplog, files, taken):
    run_folder(Path("experiments/mine"), EDSR_OPTIONS, *files)
    expected = torch.load(f"experiments/mine/models/{taken}", weights_only=True)["params"]
    for name in ("experiments/mine", "experiments/mine/models", Path("experiments/mine/")):
        caplog.clear()
        loaded = read_network(name)
        assert f"taking {taken}" in caplog.text
        assert loaded.name == "mine" and loaded.kind == "EDSR" and loaded.traits.scale == 2
        assert torch.equal(loaded.network.conv_last.weight, expected["conv_last.weight"])
    caplog.clear()
    assert read_network(f"experiments/mine/models/{taken}").kind == "EDSR"
    assert not [record for record in caplog.records if record.name.startswith("drct")]


def test_a_run_without_weights_or_of_several_networks_says_so(workplace):
    Path("empty").mkdir()
    with pytest.raises(
        DRCTError, match=r"empty is no folder of weights: .*models/net_g_<iteration>\.pth.*config\.json"
    ):
        read_network("empty")
    run_folder(Path("run"), EDSR_OPTIONS)
    with pytest.raises(DRCTError, match=r"run/models has no weights net_g_<iteration>\.pth"):
        read_network("run")
    run_folder(Path("two"), EDSR_OPTIONS, "net_g_5.pth")
    Path("two/other.yml").write_text(yaml.safe_dump({"network_g": EDSR_OPTIONS | {"num_feat": 4}}))
    with pytest.raises(
        DRCTError, match=r"several networks: choose one of two/option\.yml, two/other\.yml|other.*option"
    ):
        read_network("two")
    assert read_network("two", "two/option.yml").kind == "EDSR"


def test_weights_that_are_trained_name_their_network(pairs, capsys):
    """Without the option file, in the metadata, which BasicSR and spandrel do not mind."""
    options = train_options(total_iter=1)
    options["network_g"] = EDSR_OPTIONS
    assert main(["train", "-opt", write_options(Path("train.yml"), options)]) == 0
    (file,) = Path("experiments").glob("*/models/net_g_1.pth")
    content = torch.load(file, weights_only=True)
    assert json.loads(content["metadata"]["network_g"]) == EDSR_OPTIONS
    EDSR(**{key: value for key, value in EDSR_OPTIONS.items() if key != "type"}).load_state_dict(content["params"])
    in_its_run = read_network(file.parents[1])
    shutil.copy(file, "elsewhere.pth")
    alone = read_network("elsewhere.pth")
    x = torch.rand(1, 3, 8, 9)
    with torch.no_grad():
        assert torch.equal(alone.network(x), in_its_run.network(x))
    assert alone.kind == "EDSR" and alone.traits == in_its_run.traits
    capsys.readouterr()
    assert main(["info", "elsewhere.pth"]) == 0
    assert "made by      drct train" in capsys.readouterr().out


def test_trained_weights_of_a_drct_are_read_with_all_arguments(pairs):
    options = train_options(total_iter=1)
    options["network_g"]["img_range"] = 2.0  # does not follow from shapes
    assert main(["train", "-opt", write_options(Path("train.yml"), options)]) == 0
    (file,) = Path("experiments").glob("*/models/net_g_1.pth")
    shutil.copy(file, "w.pth")
    assert read_network("w.pth").network.img_range == read_network(file).network.img_range == 2.0


@pytest.mark.parametrize(
    "change",
    [
        {"num_block": 10**9},
        {"num_feat": 1024},
        {"spynet_path": "x.pth"},
        {"num_feat": [10**9, 3]},
        {"num_feat": {"a": 1e300}},
        {"type": "NoSuch"},
        {"type": 5},
    ],
)
def test_metadata_that_could_do_harm_is_refused(workplace, change):
    metadata = {"network_g": json.dumps(EDSR_OPTIONS | change), "scale": "2"}
    torch.save({"params": edsr().state_dict(), "metadata": metadata}, "w.pth")
    with pytest.raises(DRCTError, match=r"w\.pth") as caught:
        read_network("w.pth")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- refused


def test_what_cannot_be_taken_says_what_it_is(workplace, monkeypatch):
    from spandrel.architectures.SCUNet import SCUNet

    torch.save({"some.weight": torch.zeros(3)}, "other.pth")
    with pytest.raises(DRCTError, match=r"other\.pth: not weights of a DRCT or a HAT.*spandrel does not.*--network"):
        read_network("other.pth")
    torch.save(SCUNet(config=[1] * 7, dim=8).state_dict(), "restore.pth")
    with pytest.raises(DRCTError, match=r"restore\.pth: a network of SCUNet for restoration"):
        read_network("restore.pth")
    torch.save(OF_SPANDREL["Compact"]().state_dict(), "compact.pth")
    with pytest.raises(DRCTError, match=r"drct\.onnx|leave out --network"):
        drct.DRCT(**TINY).save_pretrained("folder")
        read_network("folder", EDSR_OPTIONS)
    with pytest.raises(DRCTError, match="a network is an option file, or a mapping of its content, not 3"):
        read_network("compact.pth", 3)
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(DRCTError, match=r"compact\.pth \(not weights of a DRCT.*needs spandrel: pip install spandrel"):
        read_network("compact.pth")


def test_warnings_of_networks_of_spandrel_are_not_shown(workplace, monkeypatch, recwarn):
    torch.save(OF_SPANDREL["Compact"]().state_dict(), "compact.pth")
    load = ModelLoader.load_from_state_dict

    def with_warning(*args):
        warnings.warn("a function will change", stacklevel=1)
        return load(*args)

    monkeypatch.setattr(ModelLoader, "load_from_state_dict", with_warning)
    read_network("compact.pth")
    assert not [each for each in recwarn if "will change" in str(each.message)]


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_a_network_that_cannot_be_recorded_says_so_in_one_line(workplace, monkeypatch, capsys, format):
    torch.save(OF_SPANDREL["SwinIR"]().state_dict(), "w.pth")
    if format == "onnx":
        monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: {}["of the kind\nthat PyTorch raises"])
    assert main(["export", "w.pth", "-o", f"w.{format}"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[1].startswith("error: w.pth cannot be recorded for images of all sizes by ")
    assert not Path(f"w.{format}").exists()


def test_a_network_of_the_registry_is_also_known_to_spandrel(workplace):
    """Real-ESRGAN's compact networks, as BasicSR trains them."""
    network = SRVGGNetCompact(num_feat=8, num_conv=2, upscale=2).eval()
    torch.save({"params": network.state_dict()}, "w.pth")
    x = torch.rand(1, 3, 10, 12)
    with torch.no_grad():
        expected = network(x).clamp(0, 1)
    assert (drct.load("w.pth", "cpu").upscale(x) - expected).abs().max() <= 1e-6


def test_networks_are_analyzed_through_the_same_door(workplace):
    torch.save({"params": edsr().state_dict()}, "w.pth")
    loaded = networks.load("w.pth", EDSR_OPTIONS)
    assert loaded.kind == "EDSR"


# ---------------------------------------------------------------------------------------------------------------- test


@pytest.mark.parametrize("kind", ["SwinIR", "ESRGAN", "ONNX", "registry"])
def test_networks_of_any_kind_are_tested_without_an_option_file(workplace, kind):
    Path("set").mkdir()
    cv2.imwrite("set/a.png", photo(44, 60))
    weights, named = "w.pth", []
    if kind == "registry":
        torch.save({"params": edsr().state_dict()}, "w.pth")
        Path("net.yml").write_text(yaml.safe_dump({"scale": 2, "network_g": EDSR_OPTIONS}))
        named = ["--network", "net.yml"]
    else:
        network = OF_SPANDREL[kind if kind != "ONNX" else "Compact"]()
        rescale_(network)
        torch.save({"params": network.state_dict()}, "w.pth")
    if kind == "ONNX":
        weights = "w.onnx"
        assert main(["export", "w.pth", "-o", weights]) == 0
    arguments = ["test", "--weights", weights, *named, "--data", "set", "--device", "cpu", "--name", "run"]
    assert main([*arguments, "--force_yml", "val:report=false"]) == 0
    lq = reduce_image(cv2.imread("set/a.png"), drct.load(weights, network="net.yml" if named else None).scale)
    cv2.imwrite("lq.png", lq)
    exactly = ["--device", "cpu", "--precision", "fp32"]
    assert main(["upscale", "lq.png", "-o", "out.png", "--weights", weights, *named, *exactly]) == 0
    saved = cv2.imread("results/run/visualization/set/a_run.png")
    assert np.array_equal(saved, cv2.imread("out.png"))
    psnr = json.loads(Path("results/run/metrics_set.json").read_text())["images"]["a"]["psnr"]
    scale = saved.shape[0] // lq.shape[0]
    gt = cv2.imread("set/a.png")[: saved.shape[0], : saved.shape[1]]
    assert psnr == pytest.approx(calculate_psnr(saved, gt, scale, test_y_channel=True), abs=1e-6)
