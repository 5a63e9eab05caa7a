"""The web page in a real browser, for its tests. Run as a script, it draws the README's picture of the page."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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


def chromium() -> str:
    """Path of Chromium, which is installed on Debian where that is possible; skips the test where there is none."""
    if find_chromium() is None and shutil.which("apt-get") and os.geteuid() == 0:
        _install()
    path = find_chromium()
    if path is None:
        pytest.skip("there is no Chromium, and it could not be installed with apt-get")
    return path


def _install() -> None:
    import fcntl

    with open(Path(tempfile.gettempdir(), "drct_tests_chromium.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if find_chromium() is not None:
            return
        for command in ("apt-get -qq update", "apt-get -qq -y --no-install-recommends install chromium"):
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            try:
                subprocess.run(command.split(), capture_output=True, timeout=300, env=environment)
            except subprocess.TimeoutExpired:
                break


@contextmanager
def served(*arguments: str, cwd: Path = ROOT) -> Iterator[str]:
    """Address of a page of `drct serve` in a process of its own, which must end well."""
    command = [sys.executable, "-m", "drct", "serve", "--no-browser", "--port", "0", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "http_proxy": "http://127.0.0.1:9"}  # where nobody listens
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
def browser():
    """Chromium, with a new profile."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = chromium()
    with playwright.sync_playwright() as driver:
        window = driver.chromium.launch(executable_path=path, args=FLAGS)  # headless and without a sandbox
        try:
            yield window
        finally:
            window.close()


def open_page(window, url: str):
    """The page, ready to use, and the list of all addresses that it asks for."""
    page = window.new_page(viewport={"width": 1200, "height": 845})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url, wait_until="commit")
    page.get_by_role("button", name="Upscale").wait_for()
    return page, asked


def upscale(page, path: Path) -> None:
    """Upload a file and press the button."""
    with page.expect_response(lambda response: "/upload?" in response.url):
        page.locator("input[type=file]").first.set_input_files(path)
    page.locator(".image-frame img").wait_for(state="attached")
    page.get_by_role("button", name="Upscale").click()


def main() -> None:
    """`python tests/browser.py picture.png`"""
    with served("--max-megapixels", "4") as url, browser() as window:
        page, _ = open_page(window, url)
        upscale(page, ROOT / "datasets" / "demo" / "LRbicx4" / "astronaut.png")
        page.get_by_text("megapixels/s").wait_for(timeout=120_000)
        page.wait_for_timeout(1000)  # images appear
        page.screenshot(path=sys.argv[1])


if __name__ == "__main__":
    main()
