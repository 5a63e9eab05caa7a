"""Differences between test runs, over images and over seeds, and what they mean in plain words."""

import math
import re
import statistics
from dataclasses import dataclass

import numpy as np

from drct.evaluation.metric_table import decimals, format_metric, format_number
from drct.evaluation.significance import CONFIDENCE, FEWEST_IMAGES, Difference, over_images, over_seeds

SEED = re.compile(r"(?P<name>.+)_seed\d+")  # names of runs that differ in nothing but their seed
MANY = 1_000_000  # images or runs; a larger number is not given


@dataclass
class RunDifference:
    """How much a method differs from the first one in a metric, over images or over seeds."""

    dataset: str
    metric: str
    one: str
    two: str
    unit: str  # 'images' or 'seeds'
    lower_is_better: bool
    measured: Difference

    @property
    def _digits(self) -> int:
        """Digits after the point: one more than of values, since differences are small."""
        return decimals(self.metric) + 1

    def cells(self) -> tuple[str, ...]:
        """Return the texts of `HEADER`'s columns."""
        d = self.measured
        signed = [format_number(value, self._digits, "+") for value in (d.mean, d.low, d.high)]
        p = "–" if d.p is None else "≤ 0.001" if d.p < 0.001 else f"{d.p:.3f}"
        compared = f"{self.two} − {self.one}, {d.count:,} {self.unit if d.count != 1 else self.unit[:-1]}"
        bounds = "–" if d.low is None else f"{signed[1]} to {signed[2]}"
        return self.dataset, self.metric, compared, signed[0], bounds, p, self.verdict()

    def verdict(self) -> str:
        """Say what the numbers mean."""
        d, of_each = self.measured, " of each" if self.unit == "seeds" else ""
        if d.found:
            better = self.one if (d.mean > 0) == self.lower_is_better else self.two
            size = 0.1**self._digits
            little = f", but by less than {size:.{self._digits}f}" if abs(d.mean) < size / 2 else ""
            return f"{better} is better{little}"
        if d.p is None:
            return self._reason()
        if d.needed is None:
            return "equal on average"
        number = _rounded_up(max(d.needed, d.count + 1))
        about = "more than a million" if number > MANY else f"about {number:,}"
        return f"cannot be told from chance; {about} {self.unit}{of_each} would be needed"

    def _reason(self) -> str:
        if not np.isfinite(self.measured.mean):
            return "cannot be judged: some values are not finite"
        if self.unit == "seeds":
            return "cannot be judged: the runs of a method are equal"
        return f"too few images to tell: at least {FEWEST_IMAGES} are needed"


def _rounded_up(number: float) -> int:
    """Round up to two digits that count: an estimate is not better than that."""
    whole = math.ceil(number)
    step = 10 ** max(0, len(str(whole)) - 2)
    return -(-whole // step) * step


HEADER = ("dataset", "metric", "compared", "difference", "95 % interval", "p", "what it means")


def differences(
    dataset: str, metric: str, lower_is_better: bool, values_by_run: dict[str, dict[str, float]], images: set[str]
) -> list[RunDifference]:
    """Compare the first method with each other, over the given images and, where both have several runs, over seeds.

    A method is one run, or all runs whose names end in `_seed<number>` and are otherwise equal; its value of an image
    is then the mean over these runs.
    """
    order = sorted(images)
    methods: dict[str, list[list[float]]] = {}
    for name, values in values_by_run.items():
        methods.setdefault(method_of(name), []).append([values[image] for image in order])
    tables = {name: np.array(rows, dtype=np.float64) for name, rows in methods.items()}  # (runs, images)
    if not images or len(tables) < 2:
        return []
    (first, one), *others = tables.items()
    found = []
    for second, two in others:
        by_unit = {"images": over_images(_paired(one, two))}
        if min(len(one), len(two)) > 1:
            by_unit["seeds"] = over_seeds(one.mean(1), two.mean(1))
        for unit, difference in by_unit.items():
            found.append(RunDifference(dataset, metric, first, second, unit, lower_is_better, difference))
    return found


def _paired(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Return the differences (N,) of two tables (runs, N); 0 where both are infinite, as PSNR of equal images is."""
    first, second = one.mean(0), two.mean(0)
    with np.errstate(invalid="ignore"):
        return np.where(first == second, 0.0, second - first)


def method_of(run: str) -> str:
    """Return the name of a run without its seed."""
    match = SEED.fullmatch(run)
    return match["name"] if match else run


def spread_of_seeds(metric: str, means: dict[str, float | None]) -> str:
    """Say, for each method of several runs, how much their finite means spread; '' if there is none."""
    methods: dict[str, list[float]] = {}
    for name, mean in means.items():
        if mean is not None and math.isfinite(mean):
            methods.setdefault(method_of(name), []).append(mean)
    return ", ".join(
        f"{name} {format_metric(metric, statistics.mean(runs))} ± "
        f"{format_number(statistics.stdev(runs), decimals(metric) + 1)} ({len(runs)})"
        for name, runs in methods.items()
        if len(runs) > 1
    )


def by_chance(found: list[RunDifference]) -> str:
    """Say how many of several comparisons would seem more than chance if all runs were equally good; '' for few."""
    number = sum(difference.measured.p is not None for difference in found)
    if number < 2:
        return ""
    expected = (1 - CONFIDENCE) * number
    of_these = f": about {max(1, round(expected))} of these {number}" if expected >= 0.5 else ""
    return f"Even if all runs were equally good, one comparison in 20 would look like a real difference{of_these}."
