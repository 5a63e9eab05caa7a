"""The HTML pages of reports, which need no other file and no network, and how they show numbers."""

import math
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from drct.evaluation.metric_table import decimals

PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def encoded(text: str) -> bytes:
    """UTF-8; a file's name, which may be no text, is no obstacle."""
    return text.encode("utf-8", "replace")


def formatted(metric: str, value: float | None, sign: str = "") -> str:
    """A value of a metric for people; with sign '+', a difference; '–' if there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:{sign}.{decimals(metric)}f}".replace("inf", "∞").replace("-", "−")
