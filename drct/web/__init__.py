"""Upscaling in the browser: `drct serve`."""

import argparse
import os
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from importlib.util import find_spec
from pathlib import Path

from drct.errors import DRCTError, one_line_errors

EXAMPLES = Path(__file__).resolve().parents[2] / "datasets" / "demo" / "LRbicx4"  # in the repository only
BYTES_PER_PIXEL = 16  # of an uploaded file, at most: RGB and alpha as floats


def argument_parser() -> argparse.ArgumentParser:
    """The arguments of `drct serve`."""
    parser = argparse.ArgumentParser(
        description="Upscale images in the browser: drop one, compare before and after, download the result.",
        epilog="Nothing leaves this machine, and uploads and results are deleted within two hours and at the end.",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on, default 127.0.0.1, this machine only"
    )
    parser.add_argument("--port", type=int, default=7860, help="default 7860; 0 takes one that is free")
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="NAME",
        help="files or names to choose from, besides those that are found",
    )
    parser.add_argument("--max-megapixels", type=float, default=4, metavar="N", help="refuse larger images, default 4")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the accelerator where there is one")
    parser.add_argument("--precision", default="auto", help="fp32, bf16, fp16 or auto, the default")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point. Returns 0 when it is ended by Ctrl-C."""
    args = argument_parser().parse_args(argv)
    if not args.max_megapixels > 0:
        raise DRCTError(f"--max-megapixels must be above 0, not {args.max_megapixels:g}")
    if find_spec("gradio") is None:
        raise DRCTError("the web page needs gradio, which is missing: pip install -e '.[web]'")
    try:
        with socket.create_server((args.host, args.port)) as listener:
            args.port = listener.getsockname()[1]
    except (OSError, OverflowError) as error:
        raise DRCTError(
            f"cannot listen on {args.host}:{args.port}: {getattr(error, 'strerror', None) or error}. Choose another "
            "with --port or --host"
        ) from error
    if args.host not in ("127.0.0.1", "localhost"):
        print(
            f"warning: whoever reaches {args.host}:{args.port} can use this page: there is no password", file=sys.stderr
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job's end deletes the files as well
    with tempfile.TemporaryDirectory(prefix="drct-serve-") as folder:
        try:
            _serve(args, Path(folder))
        except KeyboardInterrupt:
            print("stopped")
    return 0


def _serve(args: argparse.Namespace, folder: Path) -> None:
    """Serve the page until interrupted. Uploads and results are kept in the folder."""
    os.environ |= {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        # Gradio asks itself whether it is there
        "no_proxy": f"{os.environ.get('no_proxy') or os.environ.get('NO_PROXY', '')},{args.host},localhost",
    }
    from drct.inference.weights import DEFAULT_WEIGHTS, available
    from drct.web.service import Service

    default = [DEFAULT_WEIGHTS] if DEFAULT_WEIGHTS in available() else []
    weights = list(dict.fromkeys([*args.weights, *default, *available()]))
    if not weights:
        raise DRCTError("there are no weights: name a file with --weights, or put one in experiments/pretrained_models")
    service = Service(folder, args.max_megapixels, args.device, args.precision)
    service.upscaler(weights[0])  # tells at once if weights, device or precision are not there

    from drct.web.page import build_page  # with Gradio: seconds

    page = build_page(service, weights, sorted(EXAMPLES.glob("*.png")))
    _, url, _ = page.launch(
        server_name=args.host,
        server_port=args.port,
        share=False,
        quiet=True,
        show_error=True,
        prevent_thread_lock=True,
        footer_links=[],
        max_file_size=int(args.max_megapixels * 1e6 * BYTES_PER_PIXEL) + 2**20,
        ssr_mode=False,
        enable_monitoring=False,
    )
    try:
        print(f"Serving {url} until Ctrl-C", flush=True)
        if not args.no_browser:
            webbrowser.open(url)
        threading.Event().wait()
    finally:
        service.stop()
        page.close(verbose=False)
