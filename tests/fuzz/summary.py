"""Counts of verdicts, by cause."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fuzz.pool import Outcome
from fuzz.verdicts import REFUSED


def one_line(outcome: Outcome) -> str:
    verdict = outcome.verdict
    detail = " ".join(verdict.detail.split())[-500:]
    return f"{verdict.kind}: {verdict.signature} | {' '.join(verdict.what.split())[:200]} | {detail}"


def describe(outcome: Outcome) -> str:
    verdict = outcome.verdict
    lines = [verdict.what, f"{verdict.kind}: {verdict.signature}", verdict.detail]
    return "\n".join([*lines, f"{outcome.seconds:.2f} s, {outcome.memory / 1e6:.0f} MB"])


def count(kind: str, seed: int, outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """Count the verdicts of a run, and its faults by cause with the number of one case each."""
    kinds = Counter(outcome.verdict.kind for outcome in outcomes)
    refusals = Counter(outcome.verdict.signature for outcome in outcomes if outcome.verdict.kind == REFUSED)
    faults: dict[str, dict[str, Any]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.number):
        if not outcome.verdict.good:
            name = f"{outcome.verdict.kind}: {outcome.verdict.signature}"
            fault = faults.setdefault(name, {"cases": 0, "for example": outcome.number})
            fault["cases"] += 1
    return {
        "kind": kind,
        "seed": seed,
        "cases": len(outcomes),
        "verdicts": dict(sorted(kinds.items())),
        "slowest": round(max((outcome.seconds for outcome in outcomes), default=0), 2),
        "largest": max((outcome.memory for outcome in outcomes), default=0),
        "seconds": round(seconds),
        "refusals": dict(refusals.most_common()),
        "faults": dict(sorted(faults.items(), key=lambda item: -item[1]["cases"])),
    }


def table(counts: dict[str, Any]) -> str:
    verdicts = ", ".join(f"{number} {kind}" for kind, number in counts["verdicts"].items())
    lines = [f"{counts['kind']}: {counts['cases']} cases in {counts['seconds']} s: {verdicts}"]
    lines.append(f"  slowest {counts['slowest']} s, largest {counts['largest'] / 1e6:.0f} MB")
    lines += [f"  {fault['cases']:4} {name}, case {fault['for example']}" for name, fault in counts["faults"].items()]
    return "\n".join(lines)


def torture_table(counts: dict[str, Any]) -> str:
    lines = []
    for name, entry in counts.items():
        disk = f", {entry['fills']} times full ({entry['disk']})" if "disk" in entry else ""
        faults = f"{len(entry['faults'])} faults" if entry["faults"] else "no fault"
        lines.append(f"{name}: {entry['kills']} kills{disk}, {entry['completed']} runs completed, {faults}")
    return "\n".join(lines)
