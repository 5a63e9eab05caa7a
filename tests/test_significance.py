"""Which differences between runs are more than chance: checked by simulation, and in the words of the report."""

import math
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from test_report import write_results

from drct.commands import report as report_command
from drct.evaluation import significance
from drct.evaluation.run_differences import RunDifference, by_chance, differences, spread_of_seeds
from drct.evaluation.significance import Difference, interval, over_images, over_seeds, p_value

DRAWS = {  # of a distribution whose mean is 0
    "normal": lambda rng, shape: rng.normal(0, 1, shape),
    "skewed": lambda rng, shape: rng.exponential(1, shape) - 1,
    "with outliers": lambda rng, shape: rng.standard_t(3, shape),
}


@pytest.mark.parametrize(
    ("kind", "images", "least"),
    [
        ("normal", 8, 0.92),
        ("normal", 14, 0.93),
        ("normal", 50, 0.93),
        ("skewed", 14, 0.885),  # what is known of bootstrap intervals for few images: see docs/evaluate.md
        ("skewed", 100, 0.92),
        ("with outliers", 50, 0.92),
    ],
)
def test_intervals_cover_the_true_difference_as_often_as_they_claim(kind, images, least):
    draws = DRAWS[kind](np.random.default_rng(11), (2000, images))
    low, high = interval(draws, resamples=499)
    assert least <= np.mean((low <= 0) & (high >= 0)) <= 0.97


def test_plain_percentiles_would_cover_too_little():
    draws = DRAWS["normal"](np.random.default_rng(7), (1000, 8))
    low, high = interval(draws, resamples=499)
    means = draws[:, np.random.default_rng(0).integers(0, 8, (499, 8))].mean(-1)
    plain_low, plain_high = np.percentile(means, (2.5, 97.5), axis=-1)
    assert np.mean((plain_low <= 0) & (plain_high >= 0)) < 0.91
    assert np.all(high - low > plain_high - plain_low)


@pytest.mark.parametrize(
    ("kind", "images", "most"),
    [
        *(("with outliers", images, 0.06) for images in (8, 14, 50)),
        ("skewed", 8, 0.11),  # docs/evaluate.md says so
        ("skewed", 14, 0.095),
        ("skewed", 100, 0.065),
    ],
)
def test_where_there_is_no_difference_one_is_found_in_five_percent_of_cases(kind, images, most):
    draws = DRAWS[kind](np.random.default_rng(3), (1500, images))
    low, high = interval(draws, resamples=499)
    p = p_value(draws, resamples=499)
    assert 0.03 <= np.mean(p < 0.05) <= most + 0.01
    assert 0.03 <= np.mean((p < 0.05) & ((low > 0) | (high < 0))) <= most


def test_for_few_images_p_is_the_share_of_all_exchanges():
    differences = np.random.default_rng(8).normal(0.4, 1, 10).round(1)  # some are equal
    means = np.array(list(product((-1, 1), repeat=10))) @ differences / 10
    share = np.mean(np.abs(means) >= np.abs(differences.mean()) - 1e-12)
    assert p_value(differences) == pytest.approx(share, abs=1e-12)


def test_the_number_of_images_that_would_be_needed_suffices_in_four_of_five_cases():
    measured = np.tile([-0.9, 1.3], 15)
    needed = over_images(measured).needed
    draws = np.random.default_rng(6).normal(measured.mean(), measured.std(ddof=1), (400, needed))
    assert 0.73 <= np.mean(p_value(draws, resamples=299) < 0.05) <= 0.87


def test_over_seeds_intervals_cover_and_no_difference_is_found_where_there_is_none():
    rng = np.random.default_rng(1)
    judged = [over_seeds(*rng.normal(30, 0.02, (2, 3))) for _ in range(500)]
    assert 0.925 <= np.mean([each.low <= 0 <= each.high for each in judged]) <= 0.985
    assert np.mean([each.found for each in judged]) <= 0.07
    apart = [over_seeds(rng.normal(30, 0.02, 5), rng.normal(30.05, 0.02, 5)) for _ in range(200)]
    assert np.mean([each.found for each in apart]) > 0.85


def test_many_images_are_judged_without_resampling_and_alike(monkeypatch):
    values = np.random.default_rng(2).exponential(1, 800) - 0.93
    resampled = over_images(values)
    monkeypatch.setattr(significance, "LARGE", 700)
    monkeypatch.setattr("scipy.stats.bootstrap", None)
    direct = over_images(values)
    assert (direct.low, direct.high) == pytest.approx((resampled.low, resampled.high), abs=0.012)
    assert direct.p == pytest.approx(resampled.p, abs=0.05)
    assert direct.found == resampled.found


def verdict(one, two, lower_is_better=False, images=None):
    """What is said of two runs, or methods, from their values by image; over images, then over seeds."""
    runs = {**one, **two}
    names = [f"{i:03}" for i in range(len(next(iter(runs.values()))))]
    by_run = {name: dict(zip(names, map(float, values), strict=True)) for name, values in runs.items()}
    found = differences("set", "psnr", lower_is_better, by_run, set(names) if images is None else images)
    return [each.cells() for each in found]


def test_verdicts():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(30, 3, 100), rng.normal(0, 0.1, 100)
    better = verdict({"a": truth}, {"b": truth + 0.1 + noise})
    assert better[0][:3] == ("set", "psnr", "b − a, 100 images")
    assert better[0][-2:] == ("≤ 0.001", "b is better")
    assert verdict({"a": truth}, {"b": truth + 0.1 + noise}, lower_is_better=True)[0][-1] == "a is better"
    noise -= noise.mean()
    (unclear,) = verdict({"a": truth}, {"b": truth + 0.005 + noise})
    assert unclear[3] == "+0.005"
    assert re.fullmatch("cannot be told from chance; about [23],[0-9]00 images would be needed", unclear[-1])
    (equal,) = verdict({"a": truth}, {"b": truth})
    assert equal[3:] == ("+0.000", "+0.000 to +0.000", "1.000", "equal on average")
    (tiny,) = verdict({"a": truth}, {"b": truth + 1e-7})
    assert (tiny[3], tiny[-1]) == ("+0.000", "b is better, but by less than 0.001")
    assert verdict({"a": truth}, {"b": truth + 0.0006})[0][3:5] == ("+0.001", "+0.001 to +0.001")
    assert verdict({"a": truth}, {"b": truth + 0.0006})[0][-1] == "b is better"
    few = verdict({"a": truth[:5]}, {"b": truth[:5] + 1})
    assert few[0][2:] == ("b − a, 5 images", "+1.000", "–", "–", "too few images to tell: at least 6 are needed")


def test_infinite_values_are_judged_where_both_runs_have_them():
    one, two = np.arange(10.0), np.arange(10.0) + 1
    one[3] = two[3] = np.inf
    assert verdict({"a": one}, {"b": two})[0][-1] == "b is better"
    one[3] = 5
    assert verdict({"a": one}, {"b": two})[0][3:] == ("+∞", "–", "–", "cannot be judged: some values are not finite")
    two[4] = -np.inf
    assert verdict({"a": one}, {"b": two})[0][3:] == ("–", "–", "–", "cannot be judged: some values are not finite")


@pytest.mark.filterwarnings("error")
def test_infinite_means_over_seeds_are_not_judged_and_nothing_is_warned():
    one = {f"a_seed{i}": np.full(8, np.inf) for i in range(2)}
    two = {f"b_seed{i}": np.arange(8.0) + i for i in range(2)}
    for runs in ((one, two), (two, one), (one, {f"c{name[1:]}": values for name, values in one.items()})):
        assert verdict(*runs)[1][4:] == ("–", "–", "cannot be judged: some values are not finite")
    means = {"a_seed0": math.inf, "a_seed1": math.inf, "b_seed0": 30.0, "b_seed1": 30.006, "c_seed0": None}
    assert spread_of_seeds("psnr", means) == "b 30.00 ± 0.004 (2)"


def test_runs_that_differ_in_their_seed_are_one_method():
    rng = np.random.default_rng(0)
    images = rng.normal(30, 3, 20)
    one = {f"a_seed{i}": images + rng.normal(0, 0.05) for i in range(3)}
    two = {f"b_seed{i}": images + 0.04 + rng.normal(0, 0.05) for i in range(4)}
    over, seeds = verdict(one, two)
    assert over[2] == "b − a, 20 images"
    assert seeds[2] == "b − a, 3 seeds"
    assert "seeds of each would be needed" in seeds[-1]
    single = verdict({"a": images}, two)
    assert [row[2] for row in single] == ["b − a, 20 images"]
    copies = verdict({f"a_seed{i}": images for i in range(2)}, {f"b_seed{i}": images for i in range(2)})
    assert copies[1][-1] == "cannot be judged: the runs of a method are equal"
    assert verdict(one, {}) == []
    assert verdict({"a": images}, {"b": images}, images=set()) == []


def test_chance_over_several_comparisons_is_told():
    judged = RunDifference("set", "psnr", "a", "b", "images", False, Difference(0.1, 9, -0.1, 0.3, 0.4, 80))
    unjudged = replace(judged, measured=Difference(0.1, 5))
    words = "Even if all runs were equally good, one comparison in 20 would look like a real difference"
    assert by_chance([judged, *[unjudged] * 9]) == ""
    assert by_chance([judged] * 2) == f"{words}."
    assert by_chance([judged] * 10 + [unjudged]) == f"{words}: about 1 of these 10."
    assert by_chance([judged] * 100) == f"{words}: about 5 of these 100."


def test_the_command_and_the_page_say_which_differences_are_chance(workplace, capsys):
    rng = np.random.default_rng(0)
    truth = rng.normal(30, 3, 60)
    runs = []
    for method, gain in (("old", 0), ("new", 0.3)):
        for seed in range(3):
            psnr = truth + gain + rng.normal(0, 0.3, 60) + rng.normal(0, 0.02)
            images = {f"{i:02}": {"psnr": value, "lpips": rng.uniform()} for i, value in enumerate(psnr)}
            runs.append(write_results(f"{method}_seed{seed}", images, dataset="Urban<100>"))
    assert report_command.main(runs) == 0
    out = capsys.readouterr().out
    page = Path("comparison.html").read_text(encoding="utf-8")
    for words in ("new − old, 60 images", "new − old, 3 seeds", "new is better", "cannot be told from chance; about"):
        assert words in out
        assert words in page
    assert re.search(r"\* Urban\\<100\\>: psnr, mean and .* over seeds: old 3\d\.\d\d ± 0\.0\d\d \(3\), new ", out)
    assert "one comparison in 20 would look like a real difference." in out
    assert "docs/evaluate.md" in page
