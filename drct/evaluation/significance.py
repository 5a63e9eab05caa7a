"""Whether a difference is more than chance: intervals, tests, and how many images or runs would show it."""

import math
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8  # probability with which `needed` images or runs would show a difference of the measured size
RESAMPLES = 4999
FEWEST_IMAGES = 6  # with fewer, all differences have the same sign in more than 5 % of cases by chance
LARGE = 5000  # images from which on the mean is normally distributed, and resampling only costs time
QUANTILES = 1.96, 0.84  # of the normal distribution, for `CONFIDENCE` and `POWER`


@dataclass
class Difference:
    """The mean of a difference and what chance says of it. Where nothing can be said, `low`, `high` and `p` are None.

    The interval `low` to `high` covers the true mean in 95 % of cases. `p` is the probability with which chance alone
    makes a difference at least as large.
    """

    mean: float
    count: int  # images, or runs of the side that has fewer
    low: float | None = None
    high: float | None = None
    p: float | None = None
    needed: float | None = None  # images, or runs of each side; None if there is no difference

    @property
    def found(self) -> bool:
        """Whether the difference is more than chance: interval and test must agree."""
        if self.low is None or self.high is None or self.p is None:
            return False
        return self.p < 1 - CONFIDENCE and (self.low > 0 or self.high < 0)


def over_images(differences: np.ndarray) -> Difference:
    """Judge the paired differences (N,) of two runs on N images: do they hold for other images of the same kind?"""
    count = len(differences)
    with np.errstate(invalid="ignore"):  # infinities of both signs
        mean = float(differences.mean()) if count else math.nan
    if count < FEWEST_IMAGES or not np.isfinite(differences).all():
        return Difference(mean, count)
    low, high = interval(differences)
    p = p_value(differences)
    return Difference(mean, count, float(low), float(high), float(p), _needed(mean, float(differences.std(ddof=1)), 1))


def over_seeds(one: np.ndarray, two: np.ndarray) -> Difference:
    """Judge how much the means (N,) of some training runs lie above those of others (M,), at least two of each.

    Runs are too few to be resampled: this is Welch's t-test, which assumes that their means are normally distributed.
    """
    from scipy import stats

    with np.errstate(invalid="ignore"):  # of means that are infinite
        mean, count = float(two.mean() - one.mean()), min(len(one), len(two))
        spread = math.sqrt((one.var(ddof=1) + two.var(ddof=1)) / 2)
    if not math.isfinite(mean) or spread <= 1e-12 * max(abs(one.mean()), abs(two.mean())):
        return Difference(mean, count)  # copies of a run, of which chance says nothing
    test = stats.ttest_ind(two, one, equal_var=False)
    bounds = test.confidence_interval(CONFIDENCE)
    return Difference(mean, count, float(bounds.low), float(bounds.high), float(test.pvalue), _needed(mean, spread, 2))


def interval(differences: np.ndarray, resamples: int = RESAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of bootstrap intervals that cover the mean in 95 % of cases: (..., N) -> (...), (...).

    The percentiles are those of Hesterberg (2015), "What Teachers Should Know About the Bootstrap", section 3.2:
    further out than usual for few images, of which plain percentiles cover less than they claim.
    """
    from scipy import stats

    count = differences.shape[-1]
    t = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    if count > LARGE:
        mean, margin = differences.mean(-1), t * differences.std(-1, ddof=1) / math.sqrt(count)
        return mean - margin, mean + margin
    bounds = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        batch=_batch(differences),
        vectorized=True,
        axis=-1,
        confidence_level=1 - 2 * stats.norm.cdf(-t * math.sqrt(count / (count - 1))),
        method="percentile",
        random_state=np.random.default_rng(0),  # the same report for the same runs
    ).confidence_interval
    return bounds.low, bounds.high


def p_value(differences: np.ndarray, resamples: int = RESAMPLES) -> np.ndarray:
    """Return p of a permutation test that exchanges both runs on some images, (..., N) -> (...)."""
    from scipy import stats

    if differences.shape[-1] > LARGE:
        return stats.ttest_1samp(differences, 0, axis=-1).pvalue
    return stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=_batch(differences),
        axis=-1,
        random_state=np.random.default_rng(0),
    ).pvalue


def _batch(differences: np.ndarray) -> int:
    """Return how many resamples to make at once, for 80 MB."""
    return max(1, 10_000_000 // differences.size)


def _needed(mean: float, spread: float, sides: int) -> float | None:
    """Return the images (1 side) or the runs of each of 2 sides that show a difference with probability `POWER`.

    From Guenther (1981), "Sample size formulas for normal theory t tests". None if there is no difference.
    """
    if mean == 0:
        return None
    return math.ceil(sides * (sum(QUANTILES) * spread / mean) ** 2 + QUANTILES[0] ** 2 / (2 * sides))
