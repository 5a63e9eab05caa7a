"""Layout of the web page, and the function behind its button."""

import html
from pathlib import Path
from typing import Any

import gradio as gr

from drct.errors import DRCTError
from drct.web.service import Service

FACTORS = {"as much as the weights do, mostly 4 times": None, "2 times": 2, "3 times": 3, "4 times": 4}
QUEUE = 16  # images that may wait; more are refused
KEEP = 3600  # seconds; uploads and results that are older are deleted, checked at this interval


def build_page(service: Service, weights: list[tuple[str, str]], examples: list[Path]) -> gr.Blocks:
    """Return the page, ready to launch, with weights and example images to choose from.

    Each of the weights is a label and a name; the first are selected.
    """
    names = [name for _, name in weights]

    def upscale(
        uploaded: dict[str, Any] | None,
        name: str,
        self_ensemble: bool,
        tileable: bool,
        factor: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default value
    ) -> tuple[tuple[Path, Path], str, gr.DownloadButton]:
        try:
            if uploaded is None:
                raise DRCTError("choose an image first")
            path = Path(uploaded["path"]).resolve()
            # The page sends only paths of uploads, but requests need not come from the page
            if not path.is_relative_to(Path(picture.GRADIO_CACHE).resolve()) or name not in names:
                raise DRCTError("there is no such file here, or no such weights")
            if factor not in FACTORS:
                raise DRCTError(f"there is no factor {factor}")

            def report(share: float) -> None:
                progress(share, desc="Computing")

            result = service.upscale(path, name, self_ensemble, tileable, report, FACTORS[factor])
        except DRCTError as error:
            raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from None
        download = gr.DownloadButton(f"Download {result.file.name}", value=result.file, interactive=True)
        return (result.before, result.after), result.summary, download

    def clear() -> tuple[None, str, gr.DownloadButton]:
        return None, "", gr.DownloadButton("Download", value=None, interactive=False)

    with gr.Blocks(title="DRCT", analytics_enabled=False, delete_cache=(KEEP, KEEP)) as page:
        gr.Markdown("# DRCT\nEnlarges photographs. Everything is computed on the machine that serves this page.")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                label = f"Image, up to {service.max_megapixels:g} megapixels"
                picture = gr.Image(label=label, type="filepath", sources=["upload", "clipboard"], height=260)
                name = gr.Dropdown(weights, value=names[0], label="Kind of image, or weights")
                factor = gr.Dropdown(list(FACTORS), label="Enlarge")
                self_ensemble = gr.Checkbox(label="Self-ensemble: slightly better, 8 times slower")
                tileable = gr.Checkbox(label="Tileable: a texture to be repeated, without seams")
                button = gr.Button("Upscale", variant="primary")
                if examples:
                    gr.Examples([[str(path)] for path in examples], picture)
            with gr.Column(scale=2):
                slider = gr.ImageSlider(
                    label="Left: bicubic, right: result",
                    type="filepath",
                    interactive=False,
                    buttons=["fullscreen"],  # without its download button, which gives the preview instead of the file
                    max_height=720,
                )
                summary = gr.Markdown()
                download = gr.DownloadButton("Download", interactive=False)
        results = [slider, summary, download]
        picture.change(clear, None, results, queue=False, show_progress="hidden", api_visibility="private")
        button.click(
            upscale,
            [picture, name, self_ensemble, tileable, factor],
            results,
            preprocess=False,  # preprocessing would decode the file, and lose its alpha and 16 bits
            concurrency_limit=1,  # several users should need no more memory than one
            show_progress_on=slider,
        )
    return page.queue(max_size=QUEUE)
