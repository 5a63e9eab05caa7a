"""Results of the benchmark of a GPU as text and tables."""

import math

from drct.analysis.contenders import CONTENDERS, Contender
from drct.analysis.speed import SpeedResult
from drct.analysis.speed_report import SpeedReport
from drct.text import markdown_table


def gpu_text(report: SpeedReport) -> str:
    """Return a report for reading: environment, rates, tables, and what is missing."""
    environment = ", ".join(f"{key} {value}" for key, value in report.environment.items())
    rates = [f"{key} {rate / 1e3:.2f} TFLOP/s" for key, rate in report.product_gflops_per_second.items()]
    tables = {
        "Images": gpu_table(report, training=False),
        "Training steps": gpu_table(report, training=True),
        "Largest difference to the CPU in fp32": parity_table(report),
        "Time by kind of kernel": profile_table(report),
        "Attention, milliseconds": attention_table(report),
    }
    parts = [f"{environment}\nlarge matrix products: {', '.join(rates)}\n"]
    parts += [f"\n{title}:\n{table}" for title, table in tables.items() if table.count("\n") > 2]
    return "".join(parts) + missing(report)


def missing(report: SpeedReport) -> str:
    """Return lines that name what was not measured."""
    lines = [f"not measured: {note}" for note in report.left_out]
    lines += [f"not measured for lack of time: {name}" for name in report.skipped]
    lines += [f"failed: {name}: {error}" for name, error in report.failed.items()]
    return "".join(f"{line}\n" for line in lines)


def gpu_table(report: SpeedReport, training: bool) -> str:
    """Return a Markdown table of the time, memory and rate of images or training steps.

    Speed is relative to the reference at the same size and precision. Peak memory is that above the loaded network.
    Rates count the operations of the definition, and their share is of the rate of a large matrix product.
    """
    reference = CONTENDERS[report.reference]
    titles = ["size", "network", "precision", "median ms", "fastest .. slowest"]
    titles += [f"times as fast as {reference.title}", "peak memory", "TFLOP/s", "of the product rate"]
    members = [r for r in report.results if CONTENDERS[r.contender].training == training]
    base = {_cell(r): r.median for r in members if _is_plain(CONTENDERS[r.contender], reference.network)}
    rows = []
    for r in members:
        contender = CONTENDERS[r.contender]
        cells = [r.size, contender.title, contender.precision]
        if not r.seconds:
            rows.append([*cells, f"failed: {r.error}", *[""] * 5])
            continue
        rate = r.operations / r.median / 1e9
        share = rate / report.product_gflops_per_second.get(contender.precision, math.nan)
        ratio = base.get(_cell(r), math.nan) / r.median
        cells += [_ms(r.median), f"{_ms(min(r.seconds))} .. {_ms(max(r.seconds))}", _or_nothing(ratio, ".2f")]
        rows.append([*cells, f"{r.peak_bytes / 1e9:.2f} GB", f"{rate / 1e3:.2f}", _or_nothing(share, ".0%")])
    return markdown_table(titles, rows, left=3)


def _cell(result: SpeedResult) -> tuple[str, str]:
    return result.size, CONTENDERS[result.contender].precision


def _is_plain(contender: Contender, network: str) -> bool:
    return contender.network == network and not (contender.switch or contender.recorded or contender.checkpoint)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}" if seconds < 1 else f"{1000 * seconds:.0f}"


def _or_nothing(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def parity_table(report: SpeedReport) -> str:
    """Return a Markdown table of the differences to the CPU."""
    rows = [
        (p.network, p.precision, p.size, f"{p.error:.1e}", f"{p.bound:.1e}", "yes" if p.holds else "NO")
        for p in report.parity
    ]
    return markdown_table(["network", "precision", "size", "difference", "bound", "within it"], rows, left=3)


def profile_table(report: SpeedReport) -> str:
    """Return a Markdown table of the shares of kinds of kernels, a column for each profile."""
    kinds = list(dict.fromkeys(kind for p in report.profiles for kind in p.seconds))
    titles = [
        f"{CONTENDERS[p.contender].title}, {CONTENDERS[p.contender].precision}, {p.size}" for p in report.profiles
    ]
    totals = [sum(p.seconds.values()) or math.nan for p in report.profiles]
    rows = []
    for kind in kinds:
        shares = [p.seconds.get(kind, 0) / total for p, total in zip(report.profiles, totals, strict=True)]
        rows.append([kind, *(_or_nothing(share, ".0%") for share in shares)])
    rows.append(["all, ms", *(_or_nothing(1000 * total, ".2f") for total in totals)])
    rows.append(["kernels started", *(str(p.kernels) for p in report.profiles)])
    return markdown_table(["kernels", *titles], rows if report.profiles else [])


def attention_table(report: SpeedReport) -> str:
    """Return a Markdown table of kernels of attention, a column for each width of a block."""
    shapes = list(dict.fromkeys((a.heads, a.channels) for a in report.attention))
    rows = []
    for kernel in dict.fromkeys(a.kernel for a in report.attention):
        found = {(a.heads, a.channels): a for a in report.attention if a.kernel == kernel}
        times = [found[shape].seconds if shape in found else None for shape in shapes]
        rows.append([kernel, *("none" if time is None else f"{1000 * time:.3f}" for time in times)])
    return markdown_table(["kernel", *(f"{heads} heads of {d}" for heads, d in shapes)], rows)
