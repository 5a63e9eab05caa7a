"""Features through the depth of networks in numbers: every stage, and what becomes of them in a few."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drct.analysis.feature_maps import QUANTITIES, Measured, Size, Stage
from drct.errors import DRCTError


def summarize(
    networks: Mapping[str, Sequence[list[Measured]]], metrics: Mapping[str, Sequence[dict[str, float]]]
) -> list[dict[str, Any]]:
    """How features go through the groups, in a few numbers.

    Args:
        networks: By label, what is measured of networks that differ by their seed alone.
        metrics: Of the same, PSNR by dataset.

    Returns:
        Per label `network`, `seeds` (their number), `psnr` by dataset, and by quantity: `embedding`, `first`, `largest`
        and `last` group's mean, `groups` (the number of the largest, by seed) and `ratio`, last / largest: 1 if the
        features are largest at the end, and the smaller the more they collapse; None if there are none, as of a single
        pixel's variation. All numbers are pairs of the mean and the standard deviation over seeds (None for one).
    """
    rows = []
    for label, seeds in networks.items():
        row: dict[str, Any] = {"network": label, "seeds": len(seeds), "psnr": {}}
        for dataset in dict.fromkeys(dataset for of in metrics[label] for dataset in of):
            row["psnr"][dataset] = _over_seeds([of[dataset] for of in metrics[label] if dataset in of])
        for quantity in QUANTITIES:
            through = np.array(
                [[one.sizes[quantity].mean for one in seed if one.stage.kind == "group"] for seed in seeds]
            )
            row[quantity] = {
                "first": _over_seeds(through[:, 0]),
                "largest": _over_seeds(through.max(1)),
                "last": _over_seeds(through[:, -1]),
                "ratio": _over_seeds(through[:, -1] / through.max(1)) if through.max(1).all() else None,
                "groups": (through.argmax(1) + 1).tolist(),
            }
            if quantity in seeds[0][0].sizes:
                row[quantity]["embedding"] = _over_seeds([seed[0].sizes[quantity].mean for seed in seeds])
        rows.append(row)
    return rows


def _over_seeds(values: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def markdown(rows: list[dict[str, Any]]) -> str:
    """What `summarize` returns as tables, one per quantity."""
    datasets = list(dict.fromkeys(dataset for row in rows for dataset in row["psnr"]))
    head = ["network", "seeds", "embedding", "first group", "largest group", "last group", "last / largest"]
    head += [f"PSNR {dataset}" for dataset in datasets]
    lines = []
    for quantity, (title, definition) in QUANTITIES.items():
        lines += [f"**{title}**: {definition}", "", f"| {' | '.join(head)} |"]
        lines += ["|---|" + "--:|" * (len(head) - 1)]
        for row in rows:
            of = row[quantity]
            numbers = ", ".join(map(str, sorted(set(of["groups"]))))
            cells = [row["network"], str(row["seeds"]), cell(of.get("embedding")), cell(of["first"])]
            cells += [f"{cell(of['largest'])} (group {numbers})", cell(of["last"]), cell(of["ratio"])]
            cells += [cell(row["psnr"].get(dataset), ".2f") for dataset in datasets]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    if any(row["seeds"] > 1 for row in rows):
        lines += ["Mean ± standard deviation over seeds.", ""]
    return "\n".join(lines)


def cell(value: tuple[float, float | None] | None, format: str = ".3f") -> str:
    """A mean and, if there are several seeds, their standard deviation; '' if nothing was measured."""
    if value is None:
        return ""
    mean, deviation = value
    return f"{mean:{format}}" + ("" if deviation is None else f" ± {deviation:{format}}")


def stages(network: list[Measured]) -> list[dict[str, Any]]:
    """What is measured of a network, as JSON has it."""
    first = network[0].sizes
    lines = []
    for one in network:
        line: dict[str, Any] = {"stage": one.stage.label, **one.stage._asdict()}
        for quantity, size in one.sizes.items():
            line[quantity] = size._asdict()
            if quantity in first and first[quantity].mean:
                line[quantity]["relative"] = size.mean / first[quantity].mean
        lines.append(line)
    return lines


def read(file: Path) -> tuple[dict[str, list[list[Measured]]], list[dict[str, Any]]]:
    """What `features.json` holds: what was measured, without maps, of the networks of each label; and the summary.

    Raises:
        DRCTError: if the file is something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        networks: dict[str, list[list[Measured]]] = {}
        for network in content["networks"].values():
            networks.setdefault(network["group"], []).append([_measured(line) for line in network["stages"]])
        markdown(content["summary"])  # has all that it needs
        if not networks:
            raise ValueError("it has no networks")
        return networks, content["summary"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DRCTError(f"{file} is no features.json of drct analyze features: {error}") from error


def _measured(line: dict[str, Any]) -> Measured:
    """What `stages` made a line of."""
    sizes = {
        quantity: Size(**{name: line[quantity][name] for name in Size._fields})
        for quantity in QUANTITIES
        if quantity in line
    }
    return Measured(Stage(*(line[name] for name in Stage._fields)), sizes, {})


def as_csv(measured: Mapping[str, list[Measured]]) -> str:
    """One line per network, stage and quantity."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["network", "stage", "kind", "group", "block", "depth", "quantity", "mean", "maximum", "std"])
    for name, network in measured.items():
        for one in network:
            for quantity, size in one.sizes.items():
                writer.writerow([name, one.stage.label, *one.stage, quantity, *size])
    return text.getvalue()
