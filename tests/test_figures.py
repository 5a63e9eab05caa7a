"""Pictures of the README: what they say is right, and can be read."""

import json
import re
from itertools import combinations

import architecture
import pytest
import torch
import tradeoff
import yaml
from conftest import ROOT, TINY, OriginalDRCT
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text
from PIL import Image

from drct.archs.drct_arch import DRCT
from drct.archs.drct_plain_arch import DRCTPlain
from drct.archs.families import name_of
from drct.archs.variants import VARIANTS
from drct.errors import DRCTError

XS = VARIANTS["DRCT-XS"]
ODD = TINY | {"upscale": 8, "ape": True, "qk_scale": 0.3}
MEASURED = "figures/results/DRCT-XS_SRx4"


def drawn(**options):
    with torch.device("meta"):
        network = DRCT(**options)
    return architecture.draw_architecture(network, "network")


def strings(figure) -> list[str]:
    """The texts of a drawing, from left to right."""
    return [text.get_text() for text in sorted(figure.axes[0].texts, key=lambda text: text.get_position()[0])]


def group_strings(figure) -> list[str]:
    """Those of the part that shows a dense group."""
    heights = {text.get_text().split()[0]: text.get_position()[1] for text in figure.axes[0].texts if text.get_text()}
    top, bottom = heights["Residual"], heights["attention"]
    inside = [text for text in figure.axes[0].texts if top < text.get_position()[1] < bottom - 50]
    return [text.get_text() for text in sorted(inside, key=lambda text: text.get_position()[0])]


def texts(figure) -> list[Text]:
    """What is really drawn, without the numbers of an axis that lie beyond its ends."""
    seen = []
    draw = Text.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", lambda text, renderer: (seen.append(text), draw(text, renderer)))
        FigureCanvasAgg(figure).draw()
    return [text for text in seen if text.get_visible() and text.get_text().strip()]


def boxes(items, figure):
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [item.get_window_extent(renderer) for item in items]


def assert_legible(figure):
    """No text overlaps another one or leaves the picture, and none is smaller than 11 of 830 pixels."""
    shown = texts(figure)
    extents = boxes(shown, figure)
    for text, box in zip(shown, extents, strict=True):
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert inside, text.get_text()
        assert text.get_fontsize() / 72 / figure.get_figwidth() * 830 >= 11
    for (a, one), (b, other) in combinations(zip(shown, extents, strict=True), 2):
        assert not one.overlaps(other), f"{a.get_text()!r} and {b.get_text()!r}"


# ------------------------------------------------------------------------------------------------------- architecture


@pytest.mark.parametrize(("name", "parameters", "groups"), [("DRCT", "14,139,579", 6), ("DRCT-L", "27,580,719", 12)])
def test_the_drawing_of_a_released_network_has_its_published_dimensions(name, parameters, groups):
    figure = architecture.draw_architecture(*reversed(architecture.find_drct(name)))
    shown = strings(figure)
    assert f"{name} ×4: {parameters} parameters" in shown
    assert {"dense group 1", f"dense group {groups}"} <= set(shown)
    assert f"dense group {groups + 1}" not in shown
    widths = [s for s in group_strings(figure) if re.fullmatch(r"\d+( channels)?", s)]
    assert widths == ["180 channels", "212", "244", "276", "308", "180"]
    heads = [s.split("\n")[0] for s in shown if "head" in s and "MLP" in s]
    assert heads == ["6 heads", "4 heads", "2 heads", "6 heads", "4 heads"]
    assert shown.count("conv 1×1, 32\nLeakyReLU 0.2") == 4 and "conv 1×1, 180" in shown
    assert "Swin block 1: 180 channels in windows of 16 × 16 pixels" in shown
    assert {"× 0.2", "3 × 4H × 4W", "2H × 2W", "blocks 2, 4\nshifted by 8"} <= set(shown)


@pytest.mark.parametrize(("options", "scale"), [(TINY, 3), (XS, 4)])
def test_the_drawing_has_the_dimensions_of_the_original_network(options, scale):
    original = OriginalDRCT(upscale=scale, upsampler="pixelshuffle", **options)
    figure = drawn(upscale=scale, **options)
    shown = strings(figure)
    assert f"network: {sum(p.numel() for p in original.parameters()):,} parameters" in shown
    group = original.layers[0]
    blocks = [getattr(group, f"swin{k}") for k in range(1, 6)]
    expected = []
    for block in blocks:
        heads, width = block.num_heads, block.attn.qkv.in_features
        lines = [f"{heads} heads", f"MLP ×{block.mlp.fc1.out_features / width:g}", "windows"]
        expected.append("\n".join(lines + ["shifted"] * (block.shift_size > 0)))
    assert [s for s in shown if "MLP ×" in s] == expected
    widths = [str(block.attn.qkv.in_features) for block in blocks]
    assert [s.split()[0] for s in group_strings(figure) if re.fullmatch(r"\d+( channels)?", s)] == [*widths, widths[0]]
    convolutions = [getattr(group, f"adjust{k}").out_channels for k in range(1, 6)]
    assert [s.split("\n")[0] for s in shown if "conv 1×1" in s] == [f"conv 1×1, {n}" for n in convolutions]
    upsampling = [m for m in original.upsample if isinstance(m, torch.nn.PixelShuffle)]
    assert [s for s in shown if "shuffle" in s] == [f"pixel shuffle {m.upscale_factor}" for m in upsampling]
    mlp = blocks[0].mlp
    assert f"linear {mlp.fc1.in_features} → {mlp.fc1.out_features}\nGELU\n" in "".join(shown)
    positions = len(blocks[0].attn.relative_position_bias_table)
    assert f"B: of {positions**0.5:.0f} × {positions**0.5:.0f} relative positions" in "".join(shown)


def test_the_drawing_leaves_out_what_the_network_has_not():
    shown = strings(drawn(**TINY | {"img_size": 4}, patch_norm=False, resi_connection="identity", upsampler=""))
    assert shown.count("LayerNorm") == 3  # after the body, and two in the block
    assert not [s for s in shown if "shuffle" in s or "shifted" in s or "conv 3×3" in s and s != "conv 3×3, 12"]
    assert shown.count("conv 3×3, 12") == 1 and "HR" not in shown and "blocks 1, 2, 3, 4, 5" in shown


@pytest.mark.parametrize("options", [VARIANTS["DRCT"], VARIANTS["DRCT-L"], XS, TINY, ODD])
def test_the_drawing_can_be_read(options):
    figure = drawn(**options)
    assert_legible(figure)
    patches = figure.findobj(FancyBboxPatch)
    shown = texts(figure)
    for text, extent in zip(shown, boxes(shown, figure), strict=True):
        for box in boxes(patches, figure):
            within = box.x0 <= extent.x0 and box.x1 >= extent.x1 and box.y0 <= extent.y0 and box.y1 >= extent.y1
            assert within or not box.overlaps(extent), f"{text.get_text()!r} crosses the edge of a box"


def test_the_script_draws_named_networks_and_weight_files(workplace, weights, capsys):
    assert architecture.main([str(weights)]) == 0
    assert capsys.readouterr().out == "architecture of weights: architecture.png\n"
    with Image.open("architecture.png") as image:
        assert image.width == 1660
    assert architecture.main(["DRCT-XS", "-o", "new/xs.png"]) == 0
    assert (workplace / "new/xs.png").is_file()
    assert architecture.main(["DRCT-XS", "-o", "xs.pdf"]) == 2
    assert capsys.readouterr().err == "error: the picture is a PNG, but xs.pdf is not: -o xs.png\n"


def test_a_network_without_dense_connections_is_not_drawn_with_them():
    with pytest.raises(DRCTError, match="its groups are PlainGroups"):
        architecture.draw_architecture(DRCTPlain(**TINY), "plain")


# ----------------------------------------------------------------------------------------------------------- tradeoff


@pytest.fixture(scope="module")
def published():
    return tradeoff.published_points("Set14")


def marks(axes) -> dict[str, tuple[float, float]]:
    """Position of each network in a panel."""
    lines = [line for line in axes.lines if line.get_gid() not in (None, "published")]
    return {line.get_gid(): tuple(line.get_xydata()[0]) for line in lines}


def hollow(axes) -> set[tuple[float, float]]:
    return {tuple(line.get_xydata()[0]) for line in axes.lines if line.get_gid() == "published"}


def test_published_networks_are_at_their_published_psnr_and_true_size(published):
    parameters, operations = tradeoff.draw_tradeoff(published, "Set14").axes
    psnr = {"HAT": 29.23, "DRCT": 29.35, "HAT-L": 29.47, "DRCT-L": 29.54}
    millions = {"HAT": 20.772507, "DRCT": 14.139579, "HAT-L": 40.846575, "DRCT-L": 27.580719}
    gflop = {"HAT": 207.76, "DRCT": 148.67, "HAT-L": 405.98, "DRCT-L": 287.80}
    assert marks(parameters) == {name: pytest.approx((millions[name], psnr[name])) for name in psnr}
    assert marks(operations) == {name: pytest.approx((gflop[name], psnr[name]), abs=0.005) for name in psnr}
    assert hollow(parameters) == {(9.621, 29.23), (10.443, 29.35)}  # the others are of the networks of their names
    assert hollow(operations) == {(42.18, 29.23), (7.92, 29.35), (79.60, 29.47), (11.07, 29.54)}


def test_measured_networks_are_read_from_results(published, tmp_path):
    folder = tmp_path / "DRCT-XS_mine"
    folder.mkdir()
    (folder / "metrics_Set14.json").write_text(json.dumps({"mean": {"psnr": 27.125}}))
    point = tradeoff.measured_point(folder, "Set14")
    parameters, operations = tradeoff.draw_tradeoff([point, *published], "Set14").axes
    assert marks(parameters)["DRCT-XS"] == (1.354179, 27.125)
    assert marks(operations)["DRCT-XS"] == (pytest.approx(16.31, abs=0.005), 27.125)
    star = {line.get_gid() for line in parameters.lines if line.get_marker() == "*"}
    assert star == {"DRCT-XS"}, "only what was measured has the mark of it"


@pytest.mark.parametrize("benchmark", ["Set5", "Set14"])
def test_the_panels_can_be_read(published, benchmark):
    psnr = {p.name: p.psnr[benchmark] for p in tradeoff.DRCT_PAPER}
    points = [point._replace(psnr=psnr[point.name]) for point in published]
    figure = tradeoff.draw_tradeoff([tradeoff.measured_point(ROOT / MEASURED, benchmark), *points], benchmark)
    assert_legible(figure)
    assert [axes.get_xlabel().split("(")[1] for axes in figure.axes] == ["millions)", "GFLOP)"]
    assert figure.axes[0].get_ylabel() == f"PSNR on Y, {benchmark} ×4 (dB)"


def test_results_that_cannot_be_used_are_told_in_one_line(tmp_path, capsys):
    for name, message in (
        ("mine", "does not begin with the name of a network: DRCT, "),
        ("DRCT-XS_a", "metrics_Set14"),
    ):
        assert tradeoff.main([str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------- README


def test_results_go_by_the_name_of_their_network():
    """Over the results in the comparison, and in the report."""
    names = {}
    for path in (ROOT / "options").glob("*/*.yml"):
        names[path.stem] = name_of(yaml.safe_load(path.read_text(encoding="utf-8"))["network_g"])
    assert names["DRCT-XS_SRx4_demo"] == names["DRCT-XS_SRx4"] == "DRCT-XS"
    assert names["DRCT_SRx4_ImageNet-pretrain"] == names["train_DRCT_SRx2_from_scratch"] == "DRCT"
    assert {"DRCT-L", "DRCT-XL", "DRCT-C144"} <= set(names.values())
    assert name_of({"type": "SwinIR", "embed_dim": 180}) == "SwinIR"
    assert name_of({"type": "DRCT", **TINY}) == "DRCT"
    assert name_of({"type": "HAT"}) == "HAT"
    assert name_of({"type": "HAT", "depths": [6] * 12, "num_heads": [6] * 12}) == "HAT-L"
    assert name_of({"type": "HAT", "embed_dim": 60}) == "HAT"


def test_all_pictures_of_the_pages_are_made_by_make_figures():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")))
    pictures = set(re.findall(r"!\[[^\]]*\]\((?:\.\./)?([^)]+)\)", pages))
    assert len(pictures) >= 7
    target = re.search(r"^figures:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert target
    made = set(re.findall(r"figures/[\w.-]+\.(?:png|gif)", target[1]))
    assert pictures <= made
    for picture in made:
        with Image.open(ROOT / picture) as image:
            image.verify()
