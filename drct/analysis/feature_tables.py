"""Features through the depth of networks in numbers: of every stage, and summarized in a few."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from drct.analysis.feature_maps import QUANTITIES, Magnitude, Stage, StageFeatures
from drct.errors import DRCTError
from drct.text import markdown_table


def summarize(
    networks: Mapping[str, Sequence[list[StageFeatures]]], metrics: Mapping[str, Sequence[dict[str, float]]]
) -> list[dict[str, Any]]:
    """Summarize how features change through the groups.

    Args:
        networks: Measurements by label, of one network or several that differ by their seed alone.
        metrics: PSNR by dataset of the same networks.

    Returns:
        Per label `network`, `seeds` (their number), `psnr` by dataset, and by quantity: `embedding`, `first`, `largest`
        and `last` group's mean, `groups` (the number of the largest, by seed) and `ratio`, last / largest: 1 if the
        features are largest at the end, and the smaller the more they collapse; None if the largest is 0, like the
        variation of a single pixel. All numbers are pairs of the mean and the standard deviation over seeds (None for
        one seed).
    """
    rows = []
    for label, seeds in networks.items():
        row: dict[str, Any] = {"network": label, "seeds": len(seeds), "psnr": {}}
        for dataset in dict.fromkeys(dataset for of in metrics[label] for dataset in of):
            row["psnr"][dataset] = _over_seeds([of[dataset] for of in metrics[label] if dataset in of])
        for quantity in QUANTITIES:
            groups = [[one for one in seed if one.stage.kind == "group"] for seed in seeds]
            means = np.array([[one.sizes[quantity].mean for one in seed] for seed in groups])
            first, largest, last = means[:, 0], means.max(1), means[:, -1]
            row[quantity] = {
                "first": _over_seeds(first),
                "largest": _over_seeds(largest),
                "last": _over_seeds(last),
                "ratio": _over_seeds(last / largest) if largest.all() else None,
                "groups": (means.argmax(1) + 1).tolist(),
            }
            if quantity in seeds[0][0].sizes:
                row[quantity]["embedding"] = _over_seeds([seed[0].sizes[quantity].mean for seed in seeds])
        rows.append(row)
    return rows


def _over_seeds(values: Sequence[float] | np.ndarray) -> tuple[float, float | None]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def summary_tables(rows: list[dict[str, Any]]) -> str:
    """Return the result of `summarize` as Markdown, with a table per quantity."""
    datasets = list(dict.fromkeys(dataset for row in rows for dataset in row["psnr"]))
    header = ["network", "seeds", "embedding", "first group", "largest group", "last group", "last / largest"]
    header += [f"PSNR {dataset}" for dataset in datasets]
    parts = []
    for quantity, (title, definition) in QUANTITIES.items():
        lines = []
        for row in rows:
            of = row[quantity]
            numbers = ", ".join(map(str, sorted(set(of["groups"]))))
            cells = [row["network"], str(row["seeds"]), cell(of.get("embedding")), cell(of["first"])]
            cells += [f"{cell(of['largest'])} (group {numbers})", cell(of["last"]), cell(of["ratio"])]
            cells += [cell(row["psnr"].get(dataset), ".2f") for dataset in datasets]
            lines.append(cells)
        parts.append(f"**{title}**: {definition}\n\n{markdown_table(header, lines)}")
    if any(row["seeds"] > 1 for row in rows):
        parts.append("Mean ± standard deviation over seeds.\n")
    return "\n".join(parts)


def cell(value: tuple[float, float | None] | None, format: str = ".3f") -> str:
    """Return a mean and, if there are several seeds, their standard deviation; '' if there is no value."""
    if value is None:
        return ""
    mean, deviation = value
    return f"{mean:{format}}" + ("" if deviation is None else f" ± {deviation:{format}}")


def stage_entries(network: list[StageFeatures]) -> list[dict[str, Any]]:
    """Return the measurements of a network as `features.json` has them."""
    first = network[0].sizes
    entries = []
    for one in network:
        entry: dict[str, Any] = {"stage": one.stage.label, **one.stage._asdict()}
        for quantity, size in one.sizes.items():
            entry[quantity] = size._asdict()
            if quantity in first and first[quantity].mean:
                entry[quantity]["relative"] = size.mean / first[quantity].mean
        entries.append(entry)
    return entries


def read_features(file: Path) -> tuple[dict[str, list[list[StageFeatures]]], list[dict[str, Any]]]:
    """Read `features.json`: measurements, without maps, of the networks of each label, and the summary.

    Raises:
        DRCTError: if the file is something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        networks: dict[str, list[list[StageFeatures]]] = {}
        for network in content["networks"].values():
            networks.setdefault(network["group"], []).append([_from_entry(entry) for entry in network["stages"]])
        summary_tables(content["summary"])  # fails if anything is missing
        if not networks:
            raise ValueError("it has no networks")
        return networks, content["summary"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DRCTError(f"{file} is no features.json of drct analyze features: {error}") from error


def _from_entry(entry: dict[str, Any]) -> StageFeatures:
    """Reverse `stage_entries`."""
    found = {quantity: entry[quantity] for quantity in QUANTITIES if quantity in entry}
    sizes = {quantity: Magnitude(size["mean"], size["maximum"], size["std"]) for quantity, size in found.items()}
    return StageFeatures(Stage(*(entry[name] for name in Stage._fields)), sizes, {})


def features_csv(measured: Mapping[str, list[StageFeatures]]) -> str:
    """Return CSV text with a line per network, stage and quantity."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["network", "stage", "kind", "group", "block", "depth", "quantity", "mean", "maximum", "std"])
    for name, network in measured.items():
        for one in network:
            for quantity, size in one.sizes.items():
                writer.writerow([name, one.stage.label, *one.stage, quantity, *size])
    return text.getvalue()
