"""Counts of verdicts, by cause, on the terminal and in figures/robustness.json."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
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


def count(seed: int, outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """Count the verdicts of a run, and its faults by cause with the number of one case each."""
    kinds = Counter(outcome.verdict.kind for outcome in outcomes)
    refusals = {outcome.verdict.signature for outcome in outcomes if outcome.verdict.kind == REFUSED}
    faults: dict[str, dict[str, Any]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.number):
        if not outcome.verdict.good:
            name = f"{outcome.verdict.kind}: {outcome.verdict.signature}"
            fault = faults.setdefault(name, {"cases": 0, "for example": outcome.number})
            fault["cases"] += 1
    return {
        "seed": seed,
        "cases": len(outcomes),
        "verdicts": dict(sorted(kinds.items())),
        "slowest": round(max((outcome.seconds for outcome in outcomes), default=0), 2),
        "largest MB": round(max((outcome.memory for outcome in outcomes), default=0) / 1e6),
        "seconds": round(seconds),
        "different refusals": len(refusals),
        "faults": dict(sorted(faults.items(), key=lambda item: -item[1]["cases"])),
    }


def table(kind: str, counts: dict[str, Any]) -> str:
    verdicts = ", ".join(f"{number} {kind}" for kind, number in counts["verdicts"].items())
    lines = [f"{kind}: {counts['cases']} cases in {counts['seconds']} s: {verdicts}"]
    lines.append(f"  slowest {counts['slowest']} s, largest {counts['largest MB']} MB")
    lines += [f"  {fault['cases']:4} {name}, case {fault['for example']}" for name, fault in counts["faults"].items()]
    return "\n".join(lines)


def torture_table(counts: dict[str, Any]) -> str:
    lines = []
    for name, entry in counts.items():
        disk = f", {entry['fills']} times full ({entry['disk']})" if "disk" in entry else ""
        faults = f"{len(entry['faults'])} faults" if entry["faults"] else "no fault"
        lines.append(f"{name}: {entry['kills']} kills{disk}, {entry['completed']} runs completed, {faults}")
    return "\n".join(lines)


def keep(path: Path, section: str, counts: dict[str, Any]) -> None:
    """Put counts into a section of a JSON file, beside those of other kinds that it has already."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content.setdefault(section, {}).update(counts)
    path.write_text(json.dumps(content, indent=1) + "\n")
