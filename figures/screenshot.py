"""Operate the web page in Chromium: for its tests and, run as a script, for the README's picture of the page."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[1]
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """Return the path of Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def served(*arguments: str, cwd: Path = ROOT) -> Iterator[str]:
    """Run `drct serve` in a process of its own, which must end well, and yield the address of the page."""
    command = [sys.executable, "-m", "drct", "serve", "--no-browser", "--port", "0", *arguments]
    # The proxy does not exist: requests to other machines would fail
    environment = os.environ | {"PYTHONPATH": str(ROOT), "http_proxy": "http://127.0.0.1:9"}
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()  # type: ignore[union-attr]
        assert line.startswith("Serving http://"), line
        yield line.split()[1]
    finally:
        process.terminate()
        rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "stopped\n")


@contextmanager
def browser() -> Iterator["Browser"]:
    """Yield Chromium with a new profile; skip the test if there is no Chromium or Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = find_chromium()
    if path is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        window = driver.chromium.launch(executable_path=path, args=FLAGS)  # headless and without a sandbox
        try:
            yield window
        finally:
            window.close()


def open_page(window: "Browser", url: str) -> tuple["Page", list[str]]:
    """Return the page, ready to use, and a list to which all addresses that it requests are added."""
    page = window.new_page(viewport={"width": 1200, "height": 845})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url, wait_until="commit")
    page.get_by_role("button", name="Upscale").wait_for()
    return page, asked


def upscale(page: "Page", path: Path) -> None:
    """Upload a file and press the button."""
    with page.expect_response(lambda response: "/upload?" in response.url):
        page.locator("input[type=file]").first.set_input_files(path)
    page.locator(".image-frame img").wait_for(state="attached")
    page.get_by_role("button", name="Upscale").click()


def main() -> None:
    """Upscale the astronaut and write a picture of the page: `python figures/screenshot.py picture.png`."""
    with served("--max-megapixels", "4") as url, browser() as window:
        page, _ = open_page(window, url)
        upscale(page, ROOT / "datasets" / "demo" / "LRbicx4" / "astronaut.png")
        page.get_by_text("megapixels/s").wait_for(timeout=120_000)
        page.wait_for_timeout(1000)  # until the images are drawn
        page.screenshot(path=sys.argv[1])


if __name__ == "__main__":
    main()
