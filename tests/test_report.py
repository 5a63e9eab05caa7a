"""The report of a test run, metrics of pyiqa, and the comparison of several runs."""

import json
import re
import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_psnr, calculate_ssim
from basicsr.utils.matlab_functions import imresize
from conftest import photo, test_options, write_options

from drct.commands import report as report_command
from drct.commands import test as test_run
from drct.evaluation import comparison_sheet as sheet
from drct.evaluation import run_report
from drct.evaluation.metric_table import MetricTable
from drct.evaluation.pages import pictures as report_pictures
from drct.evaluation.pages import rows as report_rows
from drct.evaluation.run_settings import run_settings
from drct.images.bgr import read_image, write_png
from drct.models.drct_model import DRCTModel


def run_test(options):
    return test_run.main(["-opt", write_options(Path("test.yml"), options)])


class Page(HTMLParser):
    """Elements of a page by tag, each a dict of its attributes, its text, the cells of its tables, and its lists."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.tables, self.in_cell = {}, "", [], False
        self.folder = Path(path).parent
        html = Path(path).read_text(encoding="utf-8")
        self.feed(html)
        self.lists = [json.loads(text) for text in re.findall(r"lists\[\d+\] = (.*?);</script>", html)]

    def handle_starttag(self, tag, attrs):
        self.elements.setdefault(tag, []).append(dict(attrs))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1][-1] = " ".join(self.tables[-1][-1][-1].split())
            self.in_cell = False

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.tables[-1][-1][-1] += data

    def rows(self, number=0):
        """The values of each image of a list, by the labels of their columns."""
        content = self.lists[number]
        columns = {column["label"]: column["values"] for column in content["columns"]}
        return {
            name: {label: values[i] for label, values in columns.items()} for i, name in enumerate(content["names"])
        }

    def pictures(self, number=0):
        """What the page shows of each image that has pictures."""
        content = self.lists[number]
        return {content["names"][int(i)]: shown for i, shown in content["pictures"].items()}

    def decoded(self, address):
        assert not Path(address).is_absolute()
        return cv2.imread(str(self.folder / unquote(address)), cv2.IMREAD_COLOR)


def bicubic_of(lr):
    return (imresize(lr.astype(np.float32) / 255, 2).clip(0, 1) * 255).round().astype(np.uint8)


def without_truth(options, folder="photos"):
    dataset = {"name": "photos", "type": "SingleImageDataset", "dataroot_lq": folder, "io_backend": {"type": "disk"}}
    return options | {"datasets": {"test_1": dataset}}


# ----------------------------------------------------------------------------------------------------- report of a run


def test_the_report_shows_the_numbers_and_pictures_of_each_image(weights, pairs, capfd):
    assert run_test(test_options(weights)) == 0
    assert f"Report in {Path('results/run/report.html').resolve()}" in capfd.readouterr().err
    page = Page("results/run/report.html")
    names = ["colour", "gray", "odd"]
    measured = json.loads(Path("results/run/metrics_set.json").read_text())
    rows, pictures = page.rows(), page.pictures()
    assert list(rows) == list(pictures) == names
    for name in names:
        lr, gt = read_image(f"lr/{name}.png"), read_image(f"gt/{name}.png")
        result = read_image(f"results/run/visualization/set/{name}_run.png")
        for metric, function in (("psnr", calculate_psnr), ("ssim", calculate_ssim)):
            bicubic = function(bicubic_of(lr), gt, crop_border=2, test_y_channel=True)
            assert rows[name][f"{metric} bicubic"] == pytest.approx(bicubic, abs=1e-6)
            assert rows[name][f"{metric} DRCT"] == pytest.approx(measured["images"][name][metric], abs=1e-6)
        views = {key: page.decoded(address) for key, address in pictures[name]["views"].items()}
        assert np.array_equal(views["lr"], lr)
        assert np.array_equal(views["result"], result)
        for key, picture in (("bicubic", bicubic_of(lr)), ("truth", gt)):
            assert cv2.PSNR(views[key], picture) > 32, (name, key)
        assert [page.decoded(shown["map"]).shape for shown in pictures[name]["maps"]] == [gt.shape] * 2
    columns = page.lists[0]["columns"]
    assert [column["base"] for column in columns] == [None, 0, None, 2]
    assert [column["difference"] for column in columns[1::2]] == ["psnr gain", "ssim gain"]
    mean = measured["mean"]["psnr"]
    bicubic = np.mean(columns[0]["values"])
    cells = page.tables[0][2]
    assert cells[0] == "set (3)"
    assert cells[1:4] == [f"{bicubic:.2f}", f"{mean:.2f}", f"{mean - bicubic:+.2f}".replace("-", "−")]
    assert "weights.pth (params_ema)" in page.text
    assert not list(Path("results/run").glob(".*"))


def test_saved_results_are_linked_and_others_written(weights, pairs):
    options = test_options(weights)
    assert run_test(options) == 0
    linked = Page("results/run/report.html").pictures()["odd"]["views"]["result"]
    assert linked == "visualization/set/odd_run.png"
    assert not list(Path("results/run/report").glob("*/result.jpg"))
    options["val"]["save_img"] = False
    assert run_test(options) == 0
    page = Page("results/run/report.html")
    written = page.pictures()["odd"]["views"]["result"]
    assert re.fullmatch(r"report/[0-9a-f]{16}/result\.jpg", written)
    assert page.decoded(written).shape == (46, 34, 3)


def test_the_page_asks_nothing_of_the_internet_and_sliders_take_the_keyboard(weights, pairs):
    assert run_test(test_options(weights)) == 0
    page = Page("results/run/report.html")
    policy = page.elements["meta"][2]["content"]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?:|\*", policy)
    assert not {"link", "iframe", "object", "base"} & page.elements.keys()
    assert not any({"src", "href"} & attrs.keys() for group in page.elements.values() for attrs in group)
    sliders = [attrs for attrs in page.elements["input"] if attrs["type"] == "range"]
    assert all(attrs["aria-label"] for attrs in sliders)
    assert len(sliders) == 1


def test_the_report_changes_no_metrics_and_can_be_switched_off(weights, pairs):
    assert run_test(test_options(weights)) == 0
    options = test_options(weights, name="without")
    options["val"]["report"] = False
    assert run_test(options) == 0
    for name in ("metrics_set.json", "metrics_set.csv"):
        assert Path("results/run", name).read_bytes() == Path("results/without", name).read_bytes()
    assert not Path("results/without/report.html").exists()
    settings = json.loads(Path("results/without/settings.json").read_text())
    assert settings["options"]["val"]["metrics"]["psnr"]["crop_border"] == 2
    assert settings["versions"]["torch"] == torch.__version__


def test_pictures_without_ground_truth_and_names_that_are_code(weights, pairs):
    names = ["<script>alert(1)<script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "one pixel"]
    for i, name in enumerate(names):
        write_png(f"photos/{name}.png", photo(1, 1) if name == "one pixel" else photo(9, 12, i))
    Path("photos/<b>broken.png").write_bytes(b"broken")
    options = without_truth(test_options(weights))
    options["datasets"]["test_1"]["name"] = "<i>photos"
    assert run_test(options) == 1
    page = Page("results/run/report.html")
    assert len(page.elements["script"]) == 3
    assert not any("src" in attrs or "onerror" in attrs for attrs in page.elements["img"])
    assert "b" not in page.elements
    assert "i" not in page.elements
    assert sorted(page.rows()) == sorted(names)
    assert "photos/<b>broken.png: cannot read image" in page.text
    assert len(page.tables) == 2  # the settings, and the empty list
    assert sorted(page.pictures()) == sorted(names)
    for shown in page.pictures().values():
        views = {key: page.decoded(address) for key, address in shown["views"].items()}
        assert views.keys() == {"lr", "bicubic", "result"}
        assert not shown["maps"]
        lr = views["lr"]
        assert views["bicubic"].shape == views["result"].shape == (lr.shape[0] * 2, lr.shape[1] * 2, 3)


def test_an_image_whose_ground_truth_has_another_size_is_left_out(weights, pairs):
    for name, size in (("right", 40), ("wrong", 20)):
        write_png(f"gt2/{name}.png", photo(size, size))
        write_png(f"lr2/{name}.png", photo(20, 20))
    options = test_options(weights)
    options["datasets"]["test_1"] |= {"dataroot_gt": "gt2", "dataroot_lq": "lr2"}
    assert run_test(options) == 1
    page = Page("results/run/report.html")
    assert "the ground truth gt2/wrong.png is 20x20, lr2/wrong.png 20x20: not 2 times larger but as large" in page.text
    (shown,) = page.pictures().values()  # of the other image
    assert "truth" in shown["views"]


def report_of(folder, pictures, table=None):
    """A page of pictures, by name, without a run."""
    options = {"network_g": {"type": "DRCT"}, "scale": 2, "path": {}, "datasets": {}, "val": {}, "name": "run"}
    table = table or MetricTable("set")
    with run_report.RunReport(folder, run_settings(options, torch.device("cpu"))) as report:
        for name, views in pictures.items():
            report.add(name, views, table)
        report.tables.append(table)
        report.write()
    return Page(folder / "report.html")


def test_of_a_large_picture_the_part_of_most_detail_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(report_pictures, "MAX_SIDE", 64)
    lr = np.full((60, 90, 3), 128, np.uint8)
    lr[5:25, 40:62] = np.random.default_rng(0).integers(0, 256, (20, 22, 3), dtype=np.uint8)
    truth = cv2.resize(lr, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    page = report_of(tmp_path, {"large": {"lq": lr, "img": truth, "img2": truth, "bicubic": bicubic_of(lr)}})
    (shown,) = page.pictures().values()
    part = page.decoded(shown["views"]["lr"])
    assert part.shape == (32, 32, 3)
    assert (shown["size"], shown["width"], shown["height"]) == ([180, 120], 64, 64)
    x, y = (side // 2 for side in shown["area"])
    assert np.array_equal(part, lr[y : y + 32, x : x + 32])
    assert (y <= 5, y + 32 >= 25, x <= 40, x + 32 >= 62) == (True,) * 4
    truth = truth[2 * y :, 2 * x :][:64, :64]
    assert np.abs(page.decoded(shown["views"]["truth"]).astype(int) - truth).mean() < 12


@pytest.mark.parametrize("area", [(0, 0, 8, 8), (5, 3, 12, 9), (20, 30, 10, 10), (0, 0, 30, 40)])
def test_bicubic_of_a_part_is_the_part_of_bicubic(area):
    lr = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    y, x, height, width = area
    part = report_pictures.bicubic_of_area(lr, *area, scale=2)
    assert np.array_equal(part, bicubic_of(lr)[2 * y : 2 * (y + height), 2 * x : 2 * (x + width)])


def test_error_maps_have_the_colours_of_the_legend(tmp_path):
    truth = np.full((32, 48, 3), 100, np.uint8)
    result, bicubic = truth.copy(), truth.copy()
    result[:16] += 64
    bicubic[:, :] += 32
    lq = truth[::2, ::2]
    page = report_of(tmp_path, {"a": {"lq": lq, "img": result, "img2": truth, "bicubic": bicubic}})
    shown = page.pictures()["a"]["maps"]
    maps = [page.decoded(each["map"]).astype(int) for each in shown]
    colours = [report_pictures.legend_colours()[i] for i in (0, 8, 16)]
    first, middle, last = ([int(colour[i : i + 2], 16) for i in (5, 3, 1)] for colour in colours)
    assert np.abs(maps[0] - middle).max() < 6
    assert np.abs(maps[1][:12] - last).max() < 6
    assert np.abs(maps[1][20:] - first).max() < 6
    assert [(each["label"], each["mean"]) for each in shown] == [("bicubic", "32.0"), ("", "32.0")]


@pytest.mark.parametrize(
    ("gains", "shown"),
    [
        ([0, 1, 2, 3, 4, 5, 6], "0156"),
        ([3, 6, 0, 5, 1, 4, 2], "1234"),
        ([2, 2, 2, 9, 2, 2, -1], "0356"),
        ([None] * 7, "0123"),
        ([0, None, 7, 8, None, None, None], "0123"),
    ],
)
def test_of_many_images_those_of_least_and_most_gain_have_pictures(tmp_path, monkeypatch, gains, shown):
    monkeypatch.setattr(run_report, "MAX_PICTURES", 4)
    table = MetricTable("set")
    table.images = {f"{i}": {"psnr": 30.0 + gain} for i, gain in enumerate(gains) if gain is not None}
    table.bicubic = {name: {"psnr": 30.0} for name in table.images}
    lq, img = photo(4, 4), photo(8, 8)
    page = report_of(tmp_path, {f"{i}": {"lq": lq, "img": img} for i in range(7)}, table)
    assert "".join(sorted(page.pictures())) == shown
    assert len(list((tmp_path / "report").iterdir())) == 4
    assert len(page.rows()) == len(table.images.keys() | page.pictures().keys())
    assert "pictures of at most 4 images of a dataset" in page.text
    assert "the pictures of 3 more are left out" in page.text


def test_a_long_list_is_in_a_file_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(report_rows, "INLINE_ROWS", 3)
    table = MetricTable("set")
    table.images = {f"</script>{i}": {"psnr": float(i)} for i in range(4)}
    page = report_of(tmp_path, {}, table)
    assert not page.lists
    assert [attrs["src"] for attrs in page.elements["script"] if "src" in attrs] == ["report/rows_0.js"]
    text = (tmp_path / "report/rows_0.js").read_text()
    assert "</script>" not in text
    content = json.loads(text.removeprefix("lists[0] = ").removesuffix(";"))
    assert content["names"] == list(table.images)
    assert content["columns"][0]["values"] == [0, 1, 2, 3]


@pytest.mark.parametrize("lower", [False, True])
def test_histograms_count_the_gains(lower):
    before = np.zeros(1000)
    gains = np.random.default_rng(0).normal(1, 1, 1000)
    metric = "mse" if lower else "psnr"
    columns = [
        report_rows.Column("bicubic", metric, before.tolist(), lower),
        report_rows.Column("DRCT", metric, [*gains[:-2].tolist(), np.inf, None], lower, 0, "gain"),
    ]
    (histogram,) = report_rows.ImageList(0, ["x"] * 1000, columns).placed(Path("page.html"))["histograms"]
    gains = gains[:-2]
    assert histogram["count"] == sum(bar["count"] for bar in histogram["bars"]) == 998
    assert histogram["losing"] == (gains > 0 if lower else gains < 0).sum()
    assert sum(bar["count"] for bar in histogram["bars"] if bar["worse"]) == histogram["losing"]
    assert max(bar["height"] for bar in histogram["bars"]) == 100
    assert float(histogram["edges"][0].replace("−", "-")) <= gains.min()
    assert float(histogram["edges"][-1]) >= gains.max()
    equal = [columns[0], report_rows.Column("DRCT", metric, [1.0] * 1000, lower, 0, "gain")]
    assert report_rows.ImageList(0, ["x"] * 1000, equal).placed(Path("page.html"))["histograms"] == []


def test_an_interrupted_run_leaves_no_pictures(weights, pairs, monkeypatch):
    original, seen = DRCTModel.test, []

    def interrupted(self):
        seen.append(list(Path("results/run").glob("report/*/thumbnail.jpg")))
        if len(seen) == 3:
            raise KeyboardInterrupt
        original(self)

    monkeypatch.setattr(DRCTModel, "test", interrupted)
    assert run_test(test_options(weights)) == 130
    assert len(seen[-1]) == 2
    assert not list(Path("results/run").glob(".*"))
    assert not list(Path("results/run").glob("report*"))


# ------------------------------------------------------------------------------------------------------------- metrics


class Metric:
    """As pyiqa's: called with (B, 3, H, W) in [0, 1], RGB."""

    def __init__(self, mode, lower, function):
        self.metric_mode, self.lower_better, self.function = mode, lower, function

    def __call__(self, *images):
        assert all(image.ndim == 4 and image.min() >= 0 and image.max() <= 1 for image in images)
        return self.function(*images)


@pytest.fixture
def pyiqa(monkeypatch):
    """A stand-in with pyiqa's interface; `made` lists the metrics that were made."""
    module = types.ModuleType("pyiqa")
    module.made = []
    metrics = {
        "red_distance": ("FR", True, lambda image, truth: (image - truth)[:, 0].abs().mean()),
        "likeness": ("FR", False, lambda image, truth: 1 - (image - truth).abs().mean()),
        "brightness": ("NR", False, lambda image, *_: image.mean()),
    }

    def create_metric(name, as_loss=False, device=None, **more):
        if name == "lpips":
            raise OSError("Name or service not known\nand more")
        module.made.append((name, str(device), more))
        return Metric(*metrics[name])

    module.create_metric = create_metric
    module.list_models = lambda: [*metrics, "lpips", "fid"]
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return module


def metrics_options(weights, **metrics):
    options = test_options(weights)
    options["val"] |= {"metrics": metrics}
    return options


def test_a_metric_of_pyiqa_is_computed_on_rgb_without_the_border(weights, pairs, pyiqa):
    metrics = {"red": {"type": "red_distance", "crop_border": 3, "net": "vgg"}, "likeness": {"type": "likeness"}}
    options = metrics_options(weights, **metrics)
    options["val"]["bicubic"] = True
    assert run_test(options) == 0
    table = json.loads(Path("results/run/metrics_set.json").read_text())
    for name, values in table["images"].items():
        lr, gt = read_image(f"lr/{name}.png"), read_image(f"gt/{name}.png")
        result = read_image(f"results/run/visualization/set/{name}_run.png")
        for picture, measured in ((result, values), (bicubic_of(lr), table["bicubic"]["images"][name])):
            error = np.abs(picture.astype(np.float64) - gt) / 255
            assert measured["red"] == pytest.approx(error[3:-3, 3:-3, 2].mean(), abs=1e-6)
            assert measured["likeness"] == pytest.approx(1 - error.mean(), abs=1e-6)
    # Made once, not for each image; what is not the option file's own is the metric's
    assert pyiqa.made == [("red_distance", "cpu", {"net": "vgg"}), ("likeness", "cpu", {})]
    metrics = json.loads(Path("results/run/settings.json").read_text())["options"]["val"]["metrics"]
    assert (metrics["red"]["better"], metrics["likeness"]["better"]) == ("lower", "higher")
    header = [cell for cell in Page("results/run/report.html").tables[0][0] if cell]
    assert header == ["red ↓", "likeness ↑"]


def test_metrics_that_need_no_ground_truth_measure_images_without(weights, pairs, pyiqa):
    options = metrics_options(weights, light={"type": "brightness", "better": "lower"}, red={"type": "red_distance"})
    assert run_test(without_truth(options, "lr")) == 0
    images = json.loads(Path("results/run/metrics_photos.json").read_text())["images"]
    for name, values in images.items():
        result = read_image(f"results/run/visualization/photos/{name}_run.png")
        assert values == {"light": pytest.approx(result.mean() / 255, abs=1e-6)}
    page = Page("results/run/report.html")
    assert list(page.rows()) == ["colour", "gray", "odd"]
    assert page.tables[0][0] == ["", "light ↓"]


def test_an_image_that_a_metric_of_pyiqa_cannot_measure_is_left_out(weights, pairs, pyiqa):
    write_png("gt/tiny.png", photo(6, 6))
    write_png("lr/tiny.png", photo(3, 3))
    assert run_test(metrics_options(weights, red={"type": "red_distance", "crop_border": 3})) == 1
    table = json.loads(Path("results/run/metrics_set.json").read_text())
    assert table["failed"] == {
        "lr/tiny.png": "red is undefined: the image of 6x6 is too small, less crop_border, or flat"
    }
    assert sorted(table["images"]) == ["colour", "gray", "odd"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("red_distanse", "'red_distanse' is unknown (did you mean 'red_distance'?)"),
        ("calculate_pnsr", "'calculate_pnsr' is unknown (did you mean 'calculate_psnr'?)"),
        ("fid", "'fid' measures sets of images, not an image"),
        ("lpips", "pyiqa cannot make lpips: Name or service not known. The first time, it downloads"),
    ],
)
def test_metrics_that_cannot_be_had_are_explained(weights, pairs, pyiqa, capfd, kind, message):
    assert run_test(metrics_options(weights, x={"type": kind})) == 2
    error = capfd.readouterr().err
    assert message in error
    assert "val.metrics.x" in error
    assert "Traceback" not in error
    assert not Path("results").exists()


def test_without_pyiqa_it_is_told_what_to_install(weights, pairs, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    assert run_test(metrics_options(weights, lpips={"type": "lpips"})) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: test.yml: val.metrics.lpips.type 'lpips' is unknown; there are calculate_niqe, ")
    assert error.endswith("such as lpips, need it, and it is not installed: pip install pyiqa")


def test_the_real_pyiqa_measures_psnr_as_basicsr_does(weights, pairs):
    pytest.importorskip("pyiqa")
    options = test_options(weights)
    options["val"]["metrics"] = {
        "psnr": {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": False},
        "theirs": {"type": "psnr", "crop_border": 2},
        "gradients": {"type": "gmsd"},
    }
    assert run_test(options) == 0
    for values in json.loads(Path("results/run/metrics_set.json").read_text())["images"].values():
        assert values["theirs"] == pytest.approx(values["psnr"], abs=1e-3)
    metrics = json.loads(Path("results/run/settings.json").read_text())["options"]["val"]["metrics"]
    assert [metrics[name]["better"] for name in ("theirs", "gradients")] == ["higher", "lower"]


# ------------------------------------------------------------------------------------------------ comparison sheet


def with_errors(truth, *errors):
    """A picture that differs from the ground truth by some amount in some areas."""
    picture = truth.astype(int)
    for rows, columns, error in errors:
        picture[rows, columns] += error
    return picture.astype(np.uint8)


def test_the_sheet_shows_where_the_network_helps_most_and_where_least():
    truth = np.full((120, 160, 3), 100, np.uint8)
    helped, hurt = (slice(0, 32), slice(0, 32)), (slice(70, 102), slice(90, 122))
    bicubic = with_errors(truth, (*helped, 40), (*hurt, 5))
    result = with_errors(truth, (*helped, 10), (*hurt, 20))
    assert sheet.areas_of_gain(bicubic, result, truth, 32) == {"most": (0, 0), "least": (70, 90)}
    assert sheet.areas_of_gain(result, bicubic, truth, 32) == {"most": (70, 90), "least": (0, 0)}
    whole = sheet.areas_of_gain(bicubic, result, truth, 120)
    assert all(row == 0 and 0 <= column <= 40 for row, column in whole.values())
    inside = [picture[hurt] for picture in (result, truth)]
    assert sheet._psnr(*inside) == pytest.approx(calculate_psnr(*inside, 0, test_y_channel=True), abs=1e-6)


@pytest.mark.parametrize(
    ("which", "before", "after", "heading"),
    [
        ("most", 22.11, 25.55, "gains most: +3.44 dB"),
        ("least", 35.65, 36.1, "gains least: +0.45 dB"),
        ("least", 32.55, 31.64, "loses: -0.91 dB"),
        ("least", np.inf, np.inf, "gains least: +0.00 dB"),
    ],
)
def test_an_area_where_the_network_loses_is_labelled_so(which, before, after, heading):
    assert sheet._heading(which, before, after) == heading


def test_the_sheet_has_a_row_for_each_image_with_ground_truth(workplace):
    table = MetricTable("set")
    table.images["b"] = {"psnr": 30.0}
    table.bicubic["b"] = {"psnr": 28.0}
    assert sheet._score(table, "b") == "PSNR 30.00 (+2.00)"
    assert sheet._score(table, "a") == ""
    drawn = sheet.ComparisonSheet("a network with a name that is longer than a panel is wide")
    for name, (height, width) in {"b": (150, 130), "a": (20, 30)}.items():
        images = {kind: photo(height, width, seed) for seed, kind in enumerate(("img", "img2", "bicubic"))}
        drawn.add(name, images, table)
    drawn.add("without ground truth", {"img": photo(20, 30)}, table)
    assert drawn.collect()
    drawn.write("sheet.png")
    picture = read_image("sheet.png")
    assert picture.shape == (
        2 * (sheet.LABEL_HEIGHT + sheet.PANEL + sheet.PANEL_GAP),
        7 * (sheet.PANEL + sheet.PANEL_GAP),
        3,
    )
    truth = photo(150, 130, 1)
    y, x = sheet.areas_of_gain(photo(150, 130, 2), photo(150, 130, 0), truth, sheet.AREA)["most"]
    top, left = len(picture) // 2 + sheet.LABEL_HEIGHT, 3 * (sheet.PANEL + sheet.PANEL_GAP)
    shown = picture[top : top + sheet.PANEL : 2, left : left + sheet.PANEL : 2]
    assert np.array_equal(shown, truth[y : y + sheet.AREA, x : x + sheet.AREA])


# -------------------------------------------------------------------------------------------------- several runs


def write_results(name, images, bicubic=None, crop_border=4, scale=4, failed=None, dataset="Set5", settings=True):
    """Results with given values of psnr and lpips by image."""
    folder = Path("results", name)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"dataset": dataset, "mean": {}, "images": images, "failed": failed or {}}
    if bicubic:
        content["bicubic"] = {"mean": {}, "images": bicubic}
    (folder / f"metrics_{dataset.replace('/', '_')}.json").write_text(json.dumps(content))
    metrics = {
        "psnr": {"type": "calculate_psnr", "crop_border": crop_border},
        "lpips": {"type": "lpips", "better": "lower"},
    }
    if settings:
        options = {"scale": scale, "val": {"metrics": metrics}}
        (folder / "settings.json").write_text(json.dumps({"options": options}))
    return str(folder)


def values(*psnr, lpips=0.2):
    return {name: {"psnr": value, "lpips": lpips} for name, value in zip("abcdef", psnr, strict=False)}


def test_runs_are_compared_in_one_page_and_one_markdown_table(workplace, capsys):
    bicubic = values(27.0, 29.0, lpips=0.5)
    one = write_results("one", values(30.0, 32.0, lpips=0.3), bicubic)
    two = write_results("two", values(31.0, 32.5), bicubic)
    write_results("two", values(25.0), dataset="Set14")
    assert report_command.main([one, two, "-o", "all.html", "--markdown", "table.md"]) == 0
    table = capsys.readouterr().out
    assert table.splitlines() == [
        "| dataset | metric | bicubic | one | two |",
        "| --- | --- | ---: | ---: | ---: |",
        "| Set5 | psnr ↑ | 28.00 | 31.00 | **31.75** |",
        "| Set5 | lpips ↓ | 0.5000 | 0.3000 | **0.2000** |",
        "| Set14 | psnr ↑ | – | – | 25.00 |",
        "| Set14 | lpips ↓ | – | – | 0.2000 |",
        "",
        "* Set14 is not in one",
        "",
        "| dataset | metric | compared | difference | 95 % interval | p | what it means |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
        "| Set5 | psnr | two − one, 2 images | +0.750 | – | – | too few images to tell: at least 6 are needed |",
        "| Set5 | lpips | two − one, 2 images | −0.10000 | – | – | too few images to tell: at least 6 are needed |",
    ]
    assert Path("table.md").read_text(encoding="utf-8") == table
    page = Page("all.html")
    assert page.tables[0][1] == ["Set5", "psnr ↑", "28.00", "31.00", "★ 31.75"]
    assert page.tables[1][1][:4] == ["Set5", "psnr", "two − one, 2 images", "+0.750"]
    assert page.rows() == {"a": {"one": 30, "two": 31}, "b": {"one": 32, "two": 32.5}}
    assert page.lists[0]["columns"][1]["difference"] == "two − one"
    assert page.lists[0]["columns"][1]["base"] == 0
    assert "Set14 is not in one" in page.text
    assert not any("src" in attrs for group in page.elements.values() for attrs in group)


def test_means_are_over_common_images_and_it_is_said(workplace, capsys):
    one = write_results("one", values(30.0, 32.0, 40.0), failed={"lr/d.png": "broken"})
    two = write_results("two", values(31.0, 30.0))
    assert report_command.main([one, two]) == 0
    out = capsys.readouterr().out
    assert "| Set5 | psnr ↑ | **31.00** | 30.50 |" in out
    assert "* Set5: 2 of 3 images are in all runs, means are over these: two lacks c\n" in out
    assert "* Set5: 1 failed in one: lr/d.png\n" in out
    assert Page("comparison.html").rows()["c"] == {"one": 40, "two": None}


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (
            {"crop_border": 0},
            "psnr was measured differently, so the runs cannot be compared: crop\\_border 4, type calculate",
        ),
        ({"scale": 2}, "the scales differ, so the runs cannot be compared: ×4 in one, ×2 in two"),
    ],
)
def test_what_was_measured_otherwise_is_not_ranked(workplace, capsys, change, note):
    runs = [write_results("one", values(30.0)), write_results("two", values(31.0), **change)]
    assert report_command.main(runs) == 0
    out = capsys.readouterr().out
    assert "| Set5 | psnr ↑ | 30.00 | 31.00 |" in out
    assert note in out


def test_other_notes_on_comparability(workplace, capsys):
    runs = [
        write_results("one", values(30.0), values(25.0)),
        write_results("two", values(31.0), values(26.0)),
        write_results("three", {"x": {"psnr": "inf"}}, dataset="new", settings=False),
        write_results("four", {"y": {"psnr": None}}, dataset="new"),
    ]
    assert report_command.main(runs) == 0
    out = capsys.readouterr().out
    assert "Set5: psnr of bicubic upscaling differs, so images or settings do too: 25.00 in one, 26.00" in out
    assert "three: scale and cropped borders are unknown, because settings.json is missing" in out
    assert "new: 0 of 2 images are in all runs, there is nothing to compare: three lacks y; four lacks x" in out
    x, y = Page("comparison.html").rows(2).values()
    assert x == {"three": np.inf, "four": None}
    assert (y["three"], np.isnan(y["four"])) == (None, True)


def test_names_from_files_are_no_code_in_page_or_markdown(workplace, capsys):
    images = {"<script>alert(1)</script>": {"<b>|": 1.0}}
    assert report_command.main([write_results("one", images, dataset="<i>|x")]) == 0
    assert "| \\<i\\>\\|x | \\<b\\>\\| ↑ | 1.0000 |" in capsys.readouterr().out
    page = Page("comparison.html")
    assert not {"b", "i"} & page.elements.keys()
    assert len(page.elements["script"]) == 3
    assert page.rows() == {"<script>alert(1)</script>": {"one": 1}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "results/bad has no metrics_<dataset>.json: name folders such as"),
        ("{", "cannot read results/bad/metrics_x.json: "),
        ("[1]", "cannot read results/bad/metrics_x.json: it was not written by a test run"),
        ('{"dataset": "x"}', "the files in results/bad were not written by a test run: KeyError: 'failed'"),
        ('{"dataset": "x", "failed": {}, "images": {"a": 1}}', "the files in results/bad were not"),
        ('{"dataset": "x", "failed": {}, "images": {}}', "no image was measured"),
    ],
)
def test_results_that_cannot_be_read_are_explained(workplace, capsys, content, message):
    Path("results/bad").mkdir(parents=True)
    if content:
        Path("results/bad/metrics_x.json").write_text(content)
    assert report_command.main(["results/bad"]) == 2
    assert f"error: {message}" in capsys.readouterr().err.replace("the results have no metrics to compare: ", "")
    assert not Path("comparison.html").exists()


def test_results_of_runs_are_read(weights, pairs, capsys):
    for name in ("one", "two"):
        options = test_options(weights, name=name)
        options["val"]["bicubic"] = True
        assert run_test(options) == 0
    Path("results/without_truth").mkdir()
    capsys.readouterr()
    assert report_command.main(["results/one", "results/without_truth", "results/two"]) == 0
    out, err = capsys.readouterr()
    assert "results/without_truth is left out: it has no metrics" in err
    assert report_command.main(["results/nowhere"]) == 2
    assert "error: no such folder: results/nowhere" in capsys.readouterr().err
    mean = json.loads(Path("results/one/metrics_set.json").read_text())["mean"]["psnr"]
    assert f"| **{mean:.2f}** | **{mean:.2f}** |" in out
    assert "\n* " not in out  # nothing to note
