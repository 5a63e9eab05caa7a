"""The estimate of a training run in words."""

import math
import statistics
from collections.abc import Iterator

from drct.inference.waiting import duration
from drct.runs.estimate import WARM_UP, Cost, Estimate
from drct.text import count, markdown_table

PAGE = "docs/train.md#cost-before-the-start"


def estimate_text(found: Estimate) -> str:
    """Return the estimate: notes, memory, time and disk of the run, and a table of what other options would change."""
    return "\n".join([*_lines(found), "", _table(found), f"How this is found out: {PAGE}"])


def _lines(found: Estimate) -> Iterator[str]:
    for note in found.notes:
        yield f"note: {note}"
    where = {"cpu": "the CPU", "mps": "the GPU (MPS)"}.get(found.device.type, "the GPU")
    several = f" in each of {found.processes} processes" if found.processes > 1 else ""
    first = found.costs[0]
    yield f"{found.name}: {count(found.iterations, 'iteration')} of {first.batch} patches, on {where}{several}"
    measured = f", {size_text(found.peak)} measured at the peak" if found.peak else ""
    yield f"memory: {size_text(found.memory(first))} computed{measured}; {size_text(found.free)} are free"
    if found.device.type != "cuda":
        yield f"memory of a GPU: {size_text(first.memory.on_gpu())} computed from the tensors of a step, not measured"
    yield from _time(found, first) if first.seconds else ["time: not measured, as the memory does not suffice"]
    weights, state = found.checkpoint
    yield (
        f"disk: {size_text(found.disk())} at the end: {count(found.checkpoints, 'checkpoint')} of "
        f"{size_text(weights + state)}, and {count(found.extra_weights, 'file')} of weights of {size_text(weights)}"
    )


def _time(found: Estimate, cost: Cost) -> Iterator[str]:
    waiting = cost.iteration - cost.computing
    yield (
        f"iteration: {cost.iteration:.3g} s, ± {statistics.pstdev(cost.seconds):.2g} s from step to step "
        f"({len(cost.seconds)} steps after {WARM_UP}), of which {waiting:.2g} s waiting for images"
    )
    validations = ""
    if found.validations:
        each = duration(found.validation_seconds)
        validations = f", with {count(found.validations, 'validation')} of about {each}"
    yield f"to the end: {duration(found.total_seconds(cost.iteration))}{validations}"


def _table(found: Estimate) -> str:
    """Return a table of what other options would change. Its times leave out the waiting for images."""
    header = ["images at hand", "memory", "s per iteration", "patches per s", "to the end"]
    return markdown_table(header, (_row(found, cost) for cost in found.costs))


def _row(found: Estimate, cost: Cost) -> list[str]:
    name, memory = cost.change or "the option file", size_text(found.memory(cost))
    if not cost.seconds:
        return [name, f"{memory}: not enough free", "–", "–", "–"]
    rate, end = cost.batch / cost.computing, duration(found.total_seconds(cost.computing))
    return [name, memory, f"{cost.computing:.3g}", f"{rate:.3g}", end]


def size_text(size: float) -> str:
    """Format bytes, such as '850 MB' or '1.25 GB'."""
    if math.isinf(size):
        return "any amount"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
