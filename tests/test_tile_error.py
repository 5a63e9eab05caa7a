"""`tile_error`: the overlap of tiles that keeps to an error, what is kept of its measurement, and what it refuses."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import HAT_TINY, TINY, hat_pair, pair, photo, test_options, write_options
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import drct
from drct.archs import progress
from drct.archs.traits import NetworkTraits
from drct.cli import main
from drct.commands.test import main as run_test
from drct.errors import DRCTError
from drct.files import cache_folder
from drct.inference import notes, runner, tile_error
from drct.inference.tile_error import MARGIN, TileOverlaps, sample
from drct.schema.tile_errors import TileErrors

TRAITS = NetworkTraits(2)
TINY_HAT = HAT_TINY | {"depths": (2,), "num_heads": (2,)}


class Distant(nn.Module):
    """Adds, to an image enlarged by 2, a share of the pixel so far to the right."""

    def __init__(self, distance: int, share: float = 0.5) -> None:
        super().__init__()
        self.distance = distance
        self.share = nn.Parameter(torch.tensor(share))

    def forward(self, x):
        seen = nn.functional.pad(x, (0, self.distance))[..., self.distance :]
        return nn.functional.interpolate(x * (1 - self.share) + seen * self.share, scale_factor=2)


class Global(nn.Module):
    """Subtracts the mean of the image."""

    def forward(self, x):
        return nn.functional.interpolate(x - x.mean((-2, -1), keepdim=True) + 0.5, scale_factor=2)


@pytest.fixture(autouse=True)
def cache(workplace, monkeypatch):
    """The folder of what is kept, empty; and small samples."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    monkeypatch.setattr(tile_error, "HALVES", (32, 64))
    return workplace / "cache" / "drct" / "tiles"


@pytest.fixture
def measured(monkeypatch):
    """The sides of samples that are computed, and the precisions."""
    found = []
    measure = TileOverlaps.measure

    def spy(self, half, precision):
        found.append((half, precision))
        return measure(self, half, precision)

    monkeypatch.setattr(TileOverlaps, "measure", spy)
    return found


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255


def pictures(height: int = 70, width: int = 90) -> list[torch.Tensor]:
    """Smooth ones with edges, noise, a checkerboard and a gradient: none is the sample."""
    rng = np.random.default_rng(3)
    rows, columns = np.indices((height, width))
    gray = [(rows + columns) % 2 * 255, columns * 255 / width]
    noise = rng.integers(0, 256, (height, width, 3))
    return [tensor(photo(height, width, seed)) for seed in range(4)] + [
        tensor(image.astype(np.uint8)) for image in (noise, *(np.repeat(g[..., None], 3, 2) for g in gray))
    ]


def rms(a: torch.Tensor, b: torch.Tensor) -> float:
    return 255 * (a.clamp(0, 1) - b.clamp(0, 1)).square().mean().sqrt().item()


def overlap_of(upscaler: drct.Upscaler, x: torch.Tensor) -> int:
    """The overlap that an image gets."""
    tile = upscaler._tile_for(*x.shape[-2:], upscaler.precision)
    assert tile is not None
    return tile[1]


def test_the_overlap_is_the_smallest_that_the_network_needs():
    """Of a network that sees exactly 20 pixels, tiles with 24 differ in nothing, and those with 16 do."""
    x = pictures()[0]
    network = Distant(20)
    upscaler = drct.Upscaler(network, "cpu", "fp32", 16, traits=TRAITS, tile_error=1e-4)
    whole = drct.Upscaler(network, "cpu", "fp32", None, traits=TRAITS).run(x)
    assert overlap_of(upscaler, x) == 24
    assert torch.equal(upscaler.run(x), whole)
    assert rms(drct.Upscaler(network, "cpu", "fp32", (16, 16), traits=TRAITS).run(x), whole) > 1
    assert overlap_of(drct.Upscaler(Distant(0), "cpu", "fp32", 16, traits=TRAITS, tile_error=1e-4), x) == 0


@pytest.mark.parametrize("kind", ["drct", "hat"])
@pytest.mark.parametrize("tile", [4, 16])
def test_the_error_is_kept_to_on_images_that_are_not_the_sample(kind, tile):
    _, network = pair(2, **TINY) if kind == "drct" else hat_pair(2, **TINY_HAT)
    images = [pictures(2 * tile + 12, 3 * tile + 12)[k] for k in (0, 2, 4, 5)]
    wholes = [drct.Upscaler(network, "cpu", "fp32", None).run(x) for x in images]
    for error in (20, 2):
        upscaler = drct.Upscaler(network, "cpu", "fp32", tile, tile_error=error)
        found = [rms(upscaler.run(x), whole) for x, whole in zip(images, wholes, strict=True)]
        assert max(found) <= error


def test_self_ensemble_keeps_to_the_error_too():
    _, network = pair(2, **TINY)
    x = pictures(40, 52)[0]
    whole = drct.Upscaler(network, "cpu", "fp32", None, self_ensemble=True).run(x)
    tiled = drct.Upscaler(network, "cpu", "fp32", 16, self_ensemble=True, tile_error=2).run(x)
    assert 0 < rms(tiled, whole) <= 2


def test_networks_of_squares_get_an_overlap():
    traits = NetworkTraits(2, 4, minimum=16, square=True)
    x = pictures()[1]
    upscaler = drct.Upscaler(Distant(6), "cpu", "fp32", 16, traits=traits, tile_error=1e-4)
    whole = drct.Upscaler(Distant(6), "cpu", "fp32", None, traits=NetworkTraits(2)).run(x)
    assert overlap_of(upscaler, x) == 8
    assert rms(upscaler.run(x)[..., :120], whole[..., :120]) < 1e-4  # but for the edge that is padded


def test_a_network_is_measured_once_and_again_if_anything_of_it_changes(cache, measured):
    x = pictures()[0]

    def runs(network, precision="fp32", error=1e-3, tile=16):
        before = len(measured)
        overlap_of(drct.Upscaler(network, "cpu", precision, tile, traits=TRAITS, tile_error=error), x)
        return len(measured) - before

    assert runs(Distant(12)) == 1
    assert [runs(Distant(12)), runs(Distant(12), error=3), runs(Distant(12), tile=24)] == [0, 0, 0]
    assert runs(Distant(12, share=0.25)) == 1  # a weight
    assert runs(Distant(13)) == 1  # a setting that is no weight
    assert runs(Distant(12), "bf16", 50) == 1
    assert len(list(cache.glob("*.json"))) == 4
    (cache.parent / "tiles").rename(cache.parent / "gone")
    assert runs(Distant(12)) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": 2}', b"\xff\xfe", "nan", "fewer", "unknown", "steps"],
)
def test_a_damaged_file_is_made_again(cache, measured, content):
    x = pictures()[0]

    def overlap():
        return overlap_of(drct.Upscaler(Distant(12), "cpu", "fp32", 16, traits=TRAITS, tile_error=1e-3), x)

    assert overlap() == 16
    (file,) = cache.iterdir()
    good = json.loads(file.read_bytes())
    bad = {
        "nan": good | {"slowdown": float("nan")},
        "fewer": good | {"rms": good["rms"][1:]},
        "unknown": {**good, "a": 1},
        "steps": good | {"step": 11, "rms": good["rms"][:3], "largest": good["largest"][:3]},
    }
    file.write_bytes(json.dumps(bad[content]).encode() if isinstance(content, str) else content)
    assert (overlap(), len(measured)) == (16, 2)
    made = json.loads(file.read_bytes())
    assert {**made, "slowdown": 0} == {**good, "slowdown": 0}
    assert (overlap(), len(measured)) == (16, 2)


def test_a_folder_that_cannot_be_written_only_costs_another_measurement(workplace, monkeypatch, measured):
    (workplace / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "file"))
    x = pictures()[0]
    for number in (1, 2):
        assert overlap_of(drct.Upscaler(Distant(12), "cpu", "fp32", 16, traits=TRAITS, tile_error=1e-3), x) == 16
        assert len(measured) == number
    assert (workplace / "file").read_text() == "in the way"


def test_the_cache_is_where_other_programs_have_theirs(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("USERPROFILE", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/drct")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() is None


def test_larger_samples_are_taken_where_smaller_ones_do_not_suffice(measured):
    x = pictures(100, 200)[0]
    upscaler = drct.Upscaler(Distant(40), "cpu", "fp32", 16, traits=TRAITS, tile_error=1e-3)
    assert overlap_of(upscaler, x) == 40
    assert measured == [(33, "fp32"), (65, "fp32")]
    assert overlap_of(drct.Upscaler(Distant(40), "cpu", "fp32", 32, traits=TRAITS, tile_error=1e-3), x) == 40
    assert len(measured) == 2
    with pytest.raises(DRCTError, match="with an overlap of 56 pixels, no less than .* larger ones are not tried"):
        overlap_of(drct.Upscaler(Distant(60), "cpu", "fp32", 16, traits=TRAITS, tile_error=1e-3), x)


def test_what_was_measured_before_does_not_change_the_overlap(monkeypatch):
    """Further away from the cuts than the first sample reaches, a larger one may have larger differences."""
    found = {33: [5, 1, 0.1, 0.1], 65: [5, 1, 0.1, 0.1, 0.3, 0, 0, 0]}

    def measure(_, half, __):
        return TileErrors(half=half, step=8, rms=found[half], largest=found[half], slowdown=1)

    monkeypatch.setattr(TileOverlaps, "measure", measure)
    x = pictures(100, 200)[0]

    def overlap(error):
        return overlap_of(drct.Upscaler(Distant(0), "cpu", "fp32", 16, traits=TRAITS, tile_error=error), x)

    assert [overlap(error) for error in (0.4, 0.2, 0.4)] == [16, 40, 16]


def test_what_cannot_be_kept_is_refused_and_what_can_is_named(measured):
    """A mean of the whole image differs from that of a tile, whatever the overlap."""
    x = pictures()[0]
    with pytest.raises(DRCTError, match="tile_error 0.01 cannot be kept: with an overlap of 56 pixels") as caught:
        drct.Upscaler(Global(), "cpu", "fp32", 16, traits=TRAITS, tile_error=0.01).run(x)
    assert measured == [(33, "fp32"), (65, "fp32")]
    least = float(re.search(r"no less than (\S+) of 255", str(caught.value))[1])
    assert overlap_of(drct.Upscaler(Global(), "cpu", "fp32", 16, traits=TRAITS, tile_error=least), x) >= 0


class RoundsByPlace(nn.Module):
    """A network whose result in 16 bits depends on where a tile begins, as sums in another order do."""

    traits = NetworkTraits(scale=2, window=4)

    def forward(self, x):
        shade = 1 + x[..., :1, :1].float() / 1000  # less than a step of bfloat16 at 1
        return (nn.functional.interpolate(x.float(), scale_factor=2) * shade).to(x.dtype)


def test_rounding_in_16_bits_is_part_of_the_error():
    x = pictures(40, 52)[0]
    network = RoundsByPlace()
    with pytest.raises(DRCTError, match="for precision fp32"):
        drct.Upscaler(network, "cpu", "bf16", 16, tile_error=1e-3).run(x)


def test_memory_that_does_not_suffice_is_told(monkeypatch):
    x = pictures()[0]
    monkeypatch.setattr(runner, "free_memory", lambda device: 0)
    _, network = pair(2, **TINY)
    with pytest.raises(DRCTError, match="the free memory does not suffice to measure it"):
        drct.Upscaler(network, "cpu", "fp32", 16, tile_error=1).run(x)


def test_images_that_fit_are_not_measured_and_others_get_tiles_with_the_overlap(monkeypatch, measured):
    _, network = pair(2, **TINY)
    x = pictures()[0]
    whole = drct.Upscaler(network, "cpu", "fp32", None).run(x)
    automatic = drct.Upscaler(network, "cpu", "fp32", "auto", tile_error=2)
    assert torch.equal(automatic.run(x), whole)
    fixed = drct.Upscaler(network, "cpu", "fp32", 96, tile_error=2)
    assert torch.equal(fixed.run(x), whole)
    assert not measured
    needed = network.traits.memory(70, 90, torch.float32, torch.device("cpu"))
    monkeypatch.setattr(runner, "free_memory", lambda device: needed)
    monkeypatch.setattr(automatic._overlaps, "_fits", lambda *size: True)
    tiled = automatic.run(x)
    assert 0 < rms(tiled, whole) <= 2
    size, overlap = automatic._tile_for(70, 90, "fp32")
    assert overlap == TileErrors.model_validate_json(next(cache_folder().rglob("*.json")).read_bytes()).overlap(
        2 / MARGIN
    )
    assert torch.equal(tiled, drct.Upscaler(network, "cpu", "fp32", (size, overlap)).run(x))


def test_the_user_is_told_once_what_tiles_change_and_cost():
    x = pictures()[0]
    upscaler = drct.Upscaler(Distant(12), "cpu", "fp32", 16, traits=TRAITS, tile_error=1e-3)
    shares = []
    with notes.collected() as found, progress.watched(shares.append):
        upscaler.run(x)
        upscaler.run(x)
    (note,) = found
    assert note.startswith(
        "tiles of 16 pixels with 16 around each, to differ from the whole image by no more than 0.001 "
    )
    # Five rows and six columns of tiles overlap at both sides of each cut, but end with the image
    rows, columns = 70 + 2 * 4 * 16 - 10, 90 + 2 * 5 * 16 - 6
    assert f"{rows * columns / (70 * 90):.2f} times the pixels are computed" in note
    assert all(0 <= share <= 1 for share in shares)


def test_the_sample_is_the_same_each_time_and_of_any_channels():
    assert torch.equal(sample(40, 3), sample(40, 3))
    assert sample(40, 1).shape == (1, 1, 40, 40) and sample(40, 4).shape == (1, 4, 40, 40)
    colours = sample(130, 3)
    assert colours.min() == 0 and colours.max() == 1 and colours.std() > 0.2
    edges = (colours[..., 1:] != colours[..., :-1]).any(1).float().mean()
    assert 0.05 < edges < 0.5  # discs of many pixels, not noise


@pytest.mark.parametrize("error", [0, -1, float("nan"), float("inf"), True, "0.01"])
def test_errors_that_are_none_are_refused(error):
    with pytest.raises(DRCTError, match="tile_error must be a number above 0, in levels of 255"):
        drct.Upscaler(Distant(1), "cpu", "fp32", 16, traits=TRAITS, tile_error=error)


def test_what_does_not_go_with_an_error_is_refused():
    with pytest.raises(DRCTError, match="images are to be computed as a whole"):
        drct.Upscaler(Distant(1), "cpu", "fp32", None, traits=TRAITS, tile_error=1)
    with pytest.raises(DRCTError, match="chooses the overlap of tiles: give their size only"):
        drct.Upscaler(Distant(1), "cpu", "fp32", (16, 8), traits=TRAITS, tile_error=1)
    with pytest.raises(DRCTError, match="takes images of 24x16 pixels only, so there is no whole image"):
        drct.Upscaler(Distant(1), "cpu", "fp32", traits=NetworkTraits(2, only_size=(16, 24)), tile_error=1)


def write_onnx(file: str, reach: int) -> None:
    """A model that enlarges by 2, and to each pixel adds a share of the one so far to its right."""
    weight = np.zeros((12, 3, 1, 2 * reach + 1), np.float32)
    for channel in range(12):
        weight[channel, channel // 4, 0, [reach, -1]] = 0.6, 0.4
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["f"], pads=[0, reach, 0, reach]),
        helper.make_node("DepthToSpace", ["f"], ["y"], blocksize=2, mode="CRD"),
    ]
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, f"{name}h", f"{name}w"]) for name in ("x", "y")
    ]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    Path(file).write_bytes(model.SerializeToString())


def test_onnx_models_are_measured_and_known_by_their_files(measured):
    x = pictures()[0]
    for number, reach in enumerate((10, 18, 18), 1):
        write_onnx("model.onnx", reach)
        upscaler = drct.load("model.onnx", "cpu", tile=16, tile_error=1e-3)
        assert overlap_of(upscaler, x) == -(-reach // 8) * 8
        assert rms(upscaler.run(x), drct.load("model.onnx", "cpu", tile=None).run(x)) <= 1e-3
        assert len(measured) == min(number, 2)


# ------------------------------------------------------------------------------------------------------------ commands


@pytest.fixture
def files(pairs):
    """Weights of a tiny network, beside the pairs of images."""
    original, _ = pair(2, **TINY)
    torch.save({"params_ema": original.state_dict()}, "weights.pth")
    return pairs


def test_upscale_takes_an_error(files, capsys, monkeypatch):
    cv2.imwrite("a.png", photo(70, 90))
    plain = ["upscale", "a.png", "--weights", "weights.pth", "--device", "cpu", "--precision", "fp32"]
    assert main([*plain, "-o", "tiled", "--tile", "16", "--tile-error", "2"]) == 0
    assert "note: a.png: tiles of 16 pixels with " in capsys.readouterr().err
    assert main([*plain, "-o", "whole", "--tile-error", "2"]) == 0
    assert "tiles" not in capsys.readouterr().err
    tiled, whole = (cv2.imread(f"{folder}/a.png").astype(float) for folder in ("tiled", "whole"))
    assert 0 < np.sqrt(np.square(tiled - whole).mean()) <= 2
    assert main([*plain, "-o", "off", "--tile", "off", "--tile-error", "2"]) == 2
    assert "leave out one of them" in capsys.readouterr().err
    monkeypatch.setattr(tile_error, "HALVES", (16,))
    next(cache_folder().rglob("*.json")).unlink()
    assert main([*plain, "-o", "tiny", "--tile", "16", "--tile-error", "1e-9"]) == 1
    assert "error: a.png: tile_error 1e-09 cannot be kept" in capsys.readouterr().err
    assert not Path("tiny/a.png").exists()
    for value in ("0", "x", "inf", "-1"):
        with pytest.raises(SystemExit):
            main([*plain, f"--tile-error={value}"])
        assert f"{value} is not a number above 0" in capsys.readouterr().err


def test_a_test_run_takes_an_error_as_an_option_and_as_an_argument(files, capfd):
    options = test_options("weights.pth", tile={"tile_size": 16}, tile_error=2)
    assert run_test(["-opt", write_options(Path("a.yml"), options)]) == 0
    said = capfd.readouterr()
    overlap = int(re.search(r"tiles of 16 pixels with (\d+) around each", said.err + said.out)[1])
    expected = test_options("weights.pth", name="by_hand", tile={"tile_size": 16, "tile_pad": overlap})
    assert run_test(["-opt", write_options(Path("b.yml"), expected)]) == 0
    arguments = ["--weights", "weights.pth", "--data", "gt", "--lr", "lr", "--device", "cpu", "--tile", "16"]
    assert run_test([*arguments, "--name", "plain", "--tile-error", "2"]) == 0
    hashes = []
    for name in ("run", "by_hand", "plain"):
        found = json.loads(Path(f"results/{name}/certificate.json").read_text())["datasets"]
        hashes.append({image: entry["result"] for image, entry in next(iter(found.values()))["images"].items()})
    assert hashes[0] == hashes[1] == hashes[2] and len(hashes[0]) == 3
    capfd.readouterr()
    assert main(["verify", "results/run/certificate.json"]) == 0


def test_options_that_contradict_are_refused(files, capfd):
    def refusal(**options):
        assert run_test(["-opt", write_options(Path("a.yml"), test_options("weights.pth", **options))]) == 2
        return capfd.readouterr().err

    assert "tile_error is about tiles, but there are none: set tile: auto" in refusal(tile_error=1)
    assert "leave out one of them" in refusal(tile={"tile_size": 16, "tile_pad": 8}, tile_error=1)
    assert "tile_error must be a number above 0, not 0" in refusal(tile="auto", tile_error=0)
    assert run_test(["-opt", "a.yml", "--tile-error", "1"]) == 2
    assert "--tile-error goes with --weights" in capfd.readouterr().err
