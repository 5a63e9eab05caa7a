"""The pages of reports in Chromium: searched, sorted, with pictures, on a desktop and on a phone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from screenshot import browser
from test_report import write_results

from drct.commands import report as report_command
from drct.evaluation.metric_table import MetricTable
from drct.evaluation.pages import rows
from drct.evaluation.run_report import RunReport
from drct.evaluation.run_settings import run_settings

DESKTOP, PHONE = {"width": 1200, "height": 800}, {"width": 390, "height": 800}
LONG = "a_name_as_long_as_those_of_experiments_with_all_of_their_settings_often_are"


@pytest.fixture(scope="module")
def window():
    with browser() as opened:
        yield opened


@pytest.fixture
def opened(window):
    """A function that opens a page; at the end, it must have made no mistake and asked only for files."""
    pages, mistakes = [], []

    def open_page(path, viewport):
        page = window.new_page(viewport=viewport)
        pages.append(page)
        page.on("pageerror", lambda error: mistakes.append(str(error)))
        missing = "Failed to load resource: net::ERR_FILE_NOT_FOUND"
        page.on("console", lambda message: message.text == missing or mistakes.append(message.text))
        page.on("request", lambda request: request.url.startswith("file:") or mistakes.append(request.url))
        page.goto(Path(path).resolve().as_uri())
        return page

    yield open_page
    assert not mistakes
    for page in pages:
        page.close()


def write_report(folder, count, with_pictures):
    """Write a report of images that gain 0, 1, 2 ... hundredths of a decibel less than 0.3 dB."""
    options = {"network_g": {"type": "DRCT"}, "scale": 2, "path": {}, "datasets": {}, "val": {}, "name": LONG}
    table = MetricTable("set")
    with RunReport(folder, run_settings(options, torch.device("cpu"))) as report:
        for i in range(count):
            name = f"{i:03} <b>"
            table.bicubic[name] = {"psnr": 28.0, "ssim": 0.8}
            table.images[name] = {"psnr": 28.3 - i / 100, "ssim": 0.9}
            if i in with_pictures:
                lq, img = photo(20, 30, i), photo(40, 60, i)
                report.add(name, {"lq": lq, "img": img, "img2": img, "bicubic": img}, table)
        report.tables.append(table)
        report.write()
    return folder / "report.html"


def names_shown(page):
    return [cell.inner_text()[:3] for cell in page.query_selector_all(".images tbody th")]


def test_images_are_sorted_searched_and_shown_page_by_page(tmp_path, opened):
    page = opened(write_report(tmp_path, 120, {5, 60, 119}), DESKTOP)
    assert names_shown(page) == [f"{i:03}" for i in range(119, 69, -1)]
    cells = [cell.inner_text() for cell in page.query_selector_all(".images tbody tr:first-child td")]
    assert cells[1:4] == ["28.00", "27.11", "−0.89"]
    page.click("[data-step='last']")
    assert names_shown(page) == [f"{i:03}" for i in range(19, -1, -1)]
    assert page.inner_text(".pages span") == "page 3 of 3"
    page.select_option(".controls select >> nth=0", label="psnr gain, best first")
    assert names_shown(page)[:3] == ["000", "001", "002"]
    page.fill("[type=search]", "11")
    assert names_shown(page) == ["011", *(f"{i}" for i in range(110, 120))]
    assert page.inner_text(".found") == "11 of 120 images"
    assert page.inner_text("figcaption >> nth=0").startswith("psnr gain of 120 images: from −0.89 to +0.30")
    page.fill("[type=search]", "nothing")
    assert names_shown(page) == []


def test_accents_are_found_however_they_are_written(workplace, opened):
    """A file system may keep an accent as a character of its own, which nobody types."""
    images = {name: {"psnr": 30.0} for name in ("cafe\u0301", "caf\u00e9 2", "cafe 3")}
    assert report_command.main([write_results("one", images)]) == 0
    page = opened("comparison.html", DESKTOP)
    for typed in ("caf\u00e9", "CAFE\u0301"):
        page.fill("[type=search]", typed)
        assert page.inner_text(".found") == "2 of 3 images"


def test_pictures_are_loaded_when_they_are_looked_at(tmp_path, opened):
    page = opened(write_report(tmp_path, 120, {5, 60, 119}), DESKTOP)
    asked = []
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[1]))
    page.wait_for_load_state("networkidle")  # thumbnails
    asked.clear()
    page.click("text=119 <b>")
    loaded = "[...document.querySelectorAll('#viewer img')].every((image) => image.complete && image.naturalWidth)"
    page.wait_for_function(loaded)
    assert sorted(asked) == ["bicubic.jpg", "error_bicubic.jpg", "error_result.jpg", "result.jpg"]
    assert page.inner_text("#viewer h3") == "119 <b>"
    page.select_option("select[data-side=left]", "truth")
    page.wait_for_function(loaded)
    assert asked[-1] == "truth.jpg"
    page.click("[data-by='1']")
    assert page.inner_text("#viewer h3") == "060 <b>"
    page.focus("#viewer input[type=range]")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('.stage').style.getPropertyValue('--p')") == "50.5%"
    for file in tmp_path.glob("report/*/bicubic.jpg"):
        file.unlink()
    page.click("[data-by='1']")
    assert page.inner_text("#viewer h3") == "005 <b>"
    assert not page.is_visible(".missing")
    page.select_option("select[data-side=left]", "bicubic")
    page.wait_for_selector(".missing", state="visible")
    page.keyboard.press("Escape")
    assert not page.is_visible("#viewer")


def overflow(page, element="html"):
    """By how many pixels an element's content is wider than the element."""
    return page.eval_on_selector(element, "(element) => element.scrollWidth - element.clientWidth")


def test_pages_fit_a_phone(workplace, opened):
    page = opened(write_report(workplace / "run", 60, {59}), PHONE)
    page.wait_for_selector(".images tbody th")
    assert overflow(page) == 0
    page.click("text=059 <b>")
    assert overflow(page, "#viewer") == 0
    runs = []
    for i in range(4):
        psnr = np.random.default_rng(i).normal(30, 1, 20)
        runs.append(write_results(f"{LONG}_{i}", {f"{LONG}{j}": {"psnr": value} for j, value in enumerate(psnr)}))
    assert report_command.main(runs) == 0
    page = opened("comparison.html", PHONE)
    page.wait_for_selector(".images tbody th")
    assert overflow(page) == 0


def test_a_long_list_comes_from_a_file_and_its_absence_is_told(workplace, opened, monkeypatch):
    monkeypatch.setattr(rows, "INLINE_ROWS", 10)
    images = {f"{i:03}</script>": {"psnr": float(i)} for i in range(60)}
    assert report_command.main([write_results("one", images)]) == 0
    page = opened("comparison.html", DESKTOP)
    assert names_shown(page)[:2] == ["000", "001"]
    assert len(names_shown(page)) == 50
    Path("comparison/rows_0.js").unlink()
    page.reload()
    page.wait_for_selector("[data-missing]", state="visible")
