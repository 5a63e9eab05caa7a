"""Results of the speed benchmark as JSON, table and chart."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from drct.analysis.contenders import CONTENDERS
from drct.analysis.kernel_kinds import KernelProfile
from drct.analysis.plotting import LIGHT_GRAY, LINE_COLOURS, save_png
from drct.analysis.speed import SpeedResult
from drct.errors import DRCTError
from drct.text import markdown_table


@dataclass
class Parity:
    """How far results of a device are from those of the CPU in fp32."""

    network: str  # and the way of execution, if it is not the usual one
    precision: str
    size: str
    error: float  # the largest difference of values in [0, 1]
    bound: float

    @property
    def holds(self) -> bool:
        """Return whether the difference is within its bound; NaN is not."""
        return self.error <= self.bound


@dataclass
class AttentionTime:
    """Time of a kernel of attention."""

    kernel: str
    heads: int
    channels: int  # of a head
    windows: int
    seconds: float | None = None
    error: str = ""  # reason why there are none


@dataclass
class SpeedReport:
    """Results of a benchmark."""

    environment: dict[str, Any]  # the machine and the versions, by name
    product_gflops_per_second: dict[str, float]  # rate of the fastest matrix product by precision
    floors: list[str]  # sentences on the time that the network's matrix products take at these rates
    reference: str  # key of the contender that speeds are compared with
    results: list[SpeedResult]
    in_process: bool = False  # measured as on a GPU, by `gpu_speed`; what follows is empty otherwise
    parity: list[Parity] = field(default_factory=list)
    profiles: list[KernelProfile] = field(default_factory=list)
    attention: list[AttentionTime] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # contenders that cannot be measured, and why
    skipped: list[str] = field(default_factory=list)  # for lack of time
    failed: dict[str, str] = field(default_factory=dict)  # with the error

    def as_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(asdict(self), indent=1)

    def text(self) -> str:
        """Return the report for reading: environment, rates, floors and the table."""
        rates = [f"{key} {value:.0f} GFLOP/s" for key, value in self.product_gflops_per_second.items()]
        environment = ", ".join(f"{key} {value}" for key, value in self.environment.items())
        lines = [environment, f"fastest matrix product: {', '.join(rates)}", *self.floors, speed_table(self)]
        return "\n".join(lines)


def read_speed(path: Path) -> SpeedReport:
    """Read the JSON of a report. Raises `DRCTError` if the file is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {"results": SpeedResult, "parity": Parity, "profiles": KernelProfile, "attention": AttentionTime}
        read = {name: [part(**entry) for entry in content.get(name, [])] for name, part in parts.items()}
        return SpeedReport(**content | read)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DRCTError(f"{path} is no result of drct bench --json: {error}") from error


def speed_table(report: SpeedReport) -> str:
    """Return a Markdown table of seconds, their spread, speed relative to the reference at the same size, and memory.

    Peak memory is that above the loaded network.
    """
    titles = ["size", "network", "precision", "median s", "fastest .. slowest"]
    titles += [f"times as fast as {report.reference}", "peak memory", "of the whole process"]
    base = {r.size: r.median for r in report.results if r.contender == report.reference}
    rows = []
    for r in report.results:
        contender = CONTENDERS[r.contender]
        cells = [r.size, contender.title, contender.precision]
        if r.error:
            rows.append([*cells, f"failed: {r.error}", "", "", "", ""])
            continue
        ratio = base.get(r.size, math.nan) / r.median
        cells += [f"{r.median:.2f}", f"{min(r.seconds):.2f} .. {max(r.seconds):.2f}"]
        cells += ["" if math.isnan(ratio) else f"{ratio:.2f}"]
        rows.append([*cells, f"{r.peak_bytes / 1e9:.2f} GB", f"{r.process_bytes / 1e9:.2f} GB"])
    return markdown_table(titles, rows, left=3)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.2 else f"{1000 * seconds:.1f} ms"


def draw_speed(results: list[SpeedResult], path: Path) -> None:
    """Draw bars of the median seconds, a panel per size, into a PNG. Without any measurement, nothing is written."""
    from matplotlib.figure import Figure

    measured = [r for r in results if r.seconds]
    if not measured:
        return
    by_size = {size: [r for r in measured if r.size == size] for size in dict.fromkeys(r.size for r in measured)}
    counts = [len(rows) for rows in by_size.values()]
    figure = Figure(figsize=(8, 0.6 + sum(0.7 + 0.28 * count for count in counts)), dpi=150)
    panels = figure.subplots(len(by_size), 1, squeeze=False, height_ratios=[1 + count for count in counts])[:, 0]
    for panel, (size, members) in zip(panels, by_size.items(), strict=True):
        rows = members[::-1]  # the first at the top
        contenders = [CONTENDERS[r.contender] for r in rows]
        colours = [LINE_COLOURS[0] if c.network == "DRCT" else LIGHT_GRAY for c in contenders]
        bars = panel.barh([f"{c.title} ({c.precision})" for c in contenders], [r.median for r in rows], color=colours)
        panel.bar_label(bars, [f" {_duration(r.median)}, {r.peak_bytes / 1e9:.2f} GB" for r in rows], fontsize=8)
        panel.set_title(f"{size} pixels, x4", fontsize=9, loc="left")
        panel.set_xlim(0, 1.25 * max(r.median for r in rows))
        panel.set_xlabel("median seconds; label: also peak memory above the loaded network", fontsize=7)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    save_png(path, figure)
