"""Serving the web page until it is interrupted."""

import os
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from drct.errors import DRCTError
from drct.runtime.weight_files import AUTO, DEFAULT_WEIGHTS, PHOTO_WEIGHTS, available
from drct.web.service import Service

DEMO_IMAGES = Path(__file__).resolve().parents[2] / "datasets" / "demo" / "LRbicx4"  # in the repository only
BYTES_PER_PIXEL = 16  # of an uploaded file, at most: RGB and alpha as floats


def serve(
    host: str,
    port: int,
    *,
    weights: Sequence[str] = (),
    network: str | None = None,
    max_megapixels: float = 4,
    device: str | None = None,
    precision: str = "auto",
    open_browser: bool = True,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM. Uploads and results are deleted at the end.

    Args:
        host, port: Address to listen on. With 127.0.0.1, only this machine reaches the page; port 0 takes a free one.
        weights: Files or names to choose from, besides those that are found.
        network: Option file that names the architecture of these weights, where they do not tell.
        max_megapixels: Limit above which images are refused.
        device, precision: See `drct.load`.
        open_browser: Whether to open the page in a browser.

    Raises:
        DRCTError: if Gradio is not installed, the address cannot be used, or the weights, device or precision are not
            available.
    """
    if find_spec("gradio") is None:
        raise DRCTError("the web page needs gradio, which is missing: pip install gradio")
    port = _free_port(host, port)
    if host not in ("127.0.0.1", "localhost"):
        print(f"warning: anyone who can reach {host}:{port} can use this page: there is no password", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the files are deleted then as well
    with tempfile.TemporaryDirectory(prefix="drct-serve-") as folder:
        try:
            service = Service(Path(folder), max_megapixels, device, precision, dict.fromkeys(weights, network))
            _run_page(service, host, port, _choices(weights), open_browser)
        except KeyboardInterrupt:
            print("stopped")


def _free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0. Raises `DRCTError` if nothing can listen there."""
    try:
        with socket.create_server((host, port)) as listener:
            return listener.getsockname()[1]
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DRCTError(f"cannot listen on {host}:{port}: {reason}. Choose another with --port or --host") from error


def _choices(weights: Sequence[str]) -> list[tuple[str, str]]:
    """Return the weights to choose from, each as label and name: those given, the project's, and others found."""
    found = available()
    labels = {
        AUTO: "automatic: by the kind of file",
        PHOTO_WEIGHTS: f"photograph ({PHOTO_WEIGHTS})",
        DEFAULT_WEIGHTS: f"clean image ({DEFAULT_WEIGHTS})",
    }
    ours = [name for name in labels if name in found]
    if len(ours) == 2:  # nothing to choose from otherwise
        ours = [AUTO, *ours]
    choices = [(labels.get(name, name), name) for name in dict.fromkeys([*weights, *ours, *found])]
    if not choices:
        raise DRCTError("there are no weights: name a file with --weights, or put one in experiments/pretrained_models")
    return choices


def _run_page(service: Service, host: str, port: int, weights: list[tuple[str, str]], open_browser: bool) -> None:
    """Serve the page until interrupted."""
    os.environ |= {
        "GRADIO_TEMP_DIR": str(service.folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        # Gradio requests its own page to see whether it is up
        "no_proxy": f"{os.environ.get('no_proxy') or os.environ.get('NO_PROXY', '')},{host},localhost",
    }
    first = weights[0][1]
    # Raises if the weights, the device or the precision are not available
    service.upscaler(DEFAULT_WEIGHTS if first == AUTO else first)

    from drct.web.page import build_page  # Gradio is optional, and reads the environment when it is imported

    page = build_page(service, weights, sorted(DEMO_IMAGES.glob("*.png")))
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        show_error=True,
        prevent_thread_lock=True,
        footer_links=[],
        max_file_size=int(service.max_megapixels * 1e6 * BYTES_PER_PIXEL) + 2**20,
        ssr_mode=False,
        enable_monitoring=False,
    )
    try:
        print(f"Serving {url} until Ctrl-C", flush=True)
        if open_browser:
            webbrowser.open(url)
        threading.Event().wait()
    finally:
        service.stop()
        page.close(verbose=False)
