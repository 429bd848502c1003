"""Statistics against formulas, simulations and scipy's own."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mtl_gym.evaluation.statistics import (
    bootstrap_interval,
    detectable_difference,
    few_carry,
    holm,
    paired_difference,
    probability_of_improvement,
    student_interval,
)
from mtl_gym.evaluation.summary import summarize


def normal(count, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 1, count)


def test_the_bootstrap_agrees_with_one_of_our_own():
    values, rng = normal(30), np.random.default_rng(7)
    means = values[rng.integers(0, 30, (20_000, 30))].mean(1)
    np.testing.assert_allclose(bootstrap_interval(values, np.mean), np.quantile(means, [0.025, 0.975]), atol=0.03)


def test_the_bootstrap_is_the_same_at_every_call():
    assert bootstrap_interval(normal(10), np.mean) == bootstrap_interval(normal(10), np.mean)


def test_the_bootstrap_covers_the_truth():
    intervals = [bootstrap_interval(normal(40, seed), np.mean) for seed in range(200)]
    assert 0.88 <= np.mean([low <= 0 <= high for low, high in intervals]) <= 0.99


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_values_have_no_interval(values):
    assert bootstrap_interval(np.array(values), np.mean) == (None, None)


def test_equal_values_have_an_interval_of_no_width():
    assert bootstrap_interval(np.full(5, 3.0), np.mean) == (3.0, 3.0)


@pytest.mark.parametrize("comparisons", [1, 10])
def test_the_interval_of_a_score_is_students(comparisons):
    values = normal(12)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / comparisons)
    assert student_interval(values, comparisons) == pytest.approx((expected.low, expected.high))


def test_the_intervals_of_several_comparisons_cover_all_truths_together():
    samples = np.random.default_rng(0).normal(size=(400, 6, 10))
    intervals = np.array([[student_interval(own, 6) for own in sample] for sample in samples])
    assert ((intervals[..., 0] <= 0) & (intervals[..., 1] >= 0)).all(1).mean() == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_fewer_than_two_scores_have_no_interval(values):
    assert student_interval(np.array(values)) == (None, None)


def test_the_paired_interval_is_students():
    own, other = normal(12, 1), normal(12, 2, 0.3)
    result = paired_difference(own, other)
    expected = scipy.stats.ttest_rel(own, other).confidence_interval(0.95)
    assert (result["low"], result["high"]) == pytest.approx((expected.low, expected.high))
    assert result["difference"] == pytest.approx((own - other).mean())


def test_a_difference_is_antisymmetric():
    own, other = normal(12, 1), normal(12, 2, 0.3)
    there, back = paired_difference(own, other), paired_difference(other, own)
    assert (there["low"], there["detectable"]) == pytest.approx((-back["high"], back["detectable"]))


def test_the_detectable_difference_is_found_four_times_in_five():
    rng, count = np.random.default_rng(0), 20
    error = 1 / np.sqrt(count)
    samples = rng.normal(size=(4_000, count))
    reach = paired_difference(samples[0], np.zeros(count))["detectable"] / samples[0].std(ddof=1)
    found = scipy.stats.ttest_1samp(samples + reach, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.02)
    assert reach == pytest.approx(2.95 * error, rel=0.02)


def test_one_pair_has_no_interval():
    assert paired_difference(np.array([3.0]), np.array([1.0])) == {
        **{"difference": 2.0, "median": 2.0, "low": None, "high": None, "error": None, "p": None, "p_equal": None},
        **{"detectable": None, "few_carry": False, "instances": 1},
    }


# --- tests and their correction -------------------------------------------------------------------------------------------


def test_a_difference_is_tested_by_a_paired_t_test():
    own, other = normal(12, 1), normal(12, 2, 0.3)
    assert paired_difference(own, other)["p"] == pytest.approx(scipy.stats.ttest_rel(own, other).pvalue)


@pytest.mark.parametrize("smallest", [0.2, 1.0, 2.0])
def test_equality_is_tested_by_two_one_sided_t_tests(smallest):
    differences = normal(12, 1, 0.4)
    above = scipy.stats.ttest_1samp(differences, -smallest, alternative="greater").pvalue
    below = scipy.stats.ttest_1samp(differences, smallest, alternative="less").pvalue
    row = paired_difference(differences, np.zeros(12), smallest)
    assert row["p_equal"] == pytest.approx(min(1, 2 * max(above, below)))
    assert (row["p_equal"] < 0.05) == (-smallest < row["low"] and row["high"] < smallest)


@pytest.mark.parametrize(
    ("difference", "smallest", "p", "p_equal"), [(0.0, 0.0, 1, 0), (0.3, 0.0, 0, 1), (0.3, 0.5, 0, 0), (0.3, 0.2, 0, 1)]
)
def test_differences_that_are_the_same_everywhere_are_certain(difference, smallest, p, p_equal):
    row = paired_difference(np.full(7, difference), np.zeros(7), smallest)
    assert (row["p"], row["p_equal"]) == (p, p_equal)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.5], [1, 1]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
    ],
)
def test_holms_correction_by_hand(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


def test_holms_correction_is_the_closed_test_of_bonferroni():
    p_values = np.random.default_rng(0).uniform(0, 0.2, 5)
    sets = [set(own) for size in range(1, 6) for own in combinations(range(5), size)]
    local = {tuple(own): min(1, len(own) * min(p_values[list(own)])) for own in sets}
    closed = [max(p for own, p in local.items() if index in own) for index in range(5)]
    assert holm(p_values.tolist()) == pytest.approx(closed)


def test_with_holms_correction_nothing_is_found_by_chance_in_nineteen_of_twenty():
    samples = np.random.default_rng(1).normal(size=(600, 10, 8))  # trials, instances, policies
    first, second = np.array([*combinations(range(8), 2)]).T
    p_values = scipy.stats.ttest_1samp(samples[..., first] - samples[..., second], 0, axis=1).pvalue
    assert (p_values < 0.05).any(1).mean() > 0.5
    assert np.mean([min(holm(own)) < 0.05 for own in p_values]) < 0.07


def test_the_detectable_difference_grows_with_the_comparisons():
    quantile = scipy.stats.t.ppf(1 - 0.05 / 40, 19) + scipy.stats.t.ppf(0.8, 19)
    assert detectable_difference(0.5, 20, 20) == pytest.approx(0.5 * quantile)
    assert detectable_difference(0.5, 20, 20) > detectable_difference(0.5, 20)


# --- means that few instances carry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "carried"),
    [
        ([], False),
        ([3.0], False),
        ([0.0, 10.0], False),
        ([0.1] * 7, False),
        ([1.0, 2.0, 3.0, 4.0, 5.0], False),
        ([0.0] * 10 + [1.0] * 10, False),
        ([0.5] * 19 + [1870.0], True),
        ([2.0, 2.1, 1.9, 2.0, -100.0], True),
        ([0.0, 0.0, 0.0, 0.0, 10.0], True),
        ([1.0, 1.1, 1.2, 1.3, 2.0], False),  # a mean of 1.32, beside the middle half of 1.1 to 1.3
        ([1.0, 1.1, 1.2, 1.3, 2.9], False),  # of 1.5, as far from it as it is wide
        ([1.0, 1.1, 1.2, 1.3, 3.0], True),
    ],
)
def test_few_instances_carry_a_mean_far_outside_the_middle_half(values, carried):
    assert few_carry(np.array(values)) is carried


@pytest.mark.parametrize(("instances", "rate"), [(5, 0.013), (10, 0.0), (30, 0.0)])
def test_few_instances_hardly_ever_carry_the_mean_of_a_normal_sample(instances, rate):
    samples = np.random.default_rng(0).normal(size=(4000, instances))
    assert np.mean([*map(few_carry, samples)]) == pytest.approx(rate, abs=0.005)


@pytest.mark.parametrize(
    ("own", "other", "share"),
    [([1, 2], [0, 1], 1), ([1, 2], [1, 2], 0.5), ([1, 2], [2, 1], 0.5), ([1, 0, 5, 0], [1, 1, 1, 1], 0.375)],
)
def test_ties_count_half(own, other, share):
    own, other = np.array(own, dtype=float), np.array(other, dtype=float)
    assert probability_of_improvement(own, other) == share
    assert probability_of_improvement(own, other) + probability_of_improvement(other, own) == 1


def row(policy, instance, delta_m, task="one", value=0.5, **changes):
    head = {"policy": policy, "instance": instance, "task": task, "metric": "accuracy", "value": value, "reference": 0.4}
    return {**head, "gain": 0.0, "delta_m": delta_m, "forward": 10.0, "backward": 8.0, "return": 1.0, "diverged": False, **changes}


def frame_of(*rows):
    frame = pd.DataFrame(list(rows))
    frame.attrs["about"] = {"problem": "by hand"}
    return frame


def test_a_summary_by_hand():
    wild = row("b", 3, -100.0, value=np.nan, diverged=True)
    scores = {"a": [1.0, 2.0, 3.0, 10.0], "b": [2.0, 2.0, 2.0]}
    frame = frame_of(*[row(name, place, score) for name, own in scores.items() for place, score in enumerate(own)], wild)
    summary = summarize(frame)
    a, b = summary["policies"]["a"], summary["policies"]["b"]
    assert summary["about"] == {"problem": "by hand"}
    assert (a["delta_m"]["median"], a["delta_m"]["mean"], a["instances"], a["diverged"]) == (2.5, 4.0, 4, 0)
    assert (b["delta_m"]["median"], b["delta_m"]["mean"], b["instances"], b["diverged"]) == (2.0, -23.5, 4, 1)
    assert b["metrics"]["one/accuracy"] == {"mean": 0.5, "low": 0.5, "high": 0.5, "reference": pytest.approx(0.4)}
    assert a["probability_of_improvement"] == {"b": 0.625}
    assert a["paired"]["b"]["difference"] == pytest.approx(27.5)
    assert (a["cost"], a["return"]) == ({"forward": 10.0, "backward": 8.0}, 1.0)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_tasks_are_summarised_one_by_one_and_scores_once_for_each_instance():
    frame = frame_of(*[row("a", place, float(place), task, 0.1 * place) for place in range(3) for task in ("one", "two")])
    own = summarize(frame)["policies"]["a"]
    assert own["instances"] == 3
    assert own["delta_m"]["mean"] == 1.0
    assert list(own["metrics"]) == ["one/accuracy", "two/accuracy"]


def test_one_instance_has_no_intervals():
    own = summarize(frame_of(row("a", 0, 1.0), row("b", 0, 2.0)))["policies"]["b"]
    assert own["delta_m"] == {"mean": 2.0, "median": 2.0, "low": None, "high": None, "few_carry": False}
    assert own["paired"]["a"]["low"] is None
    assert own["probability_of_improvement"] == {"a": 1.0}


def test_policies_are_paired_on_the_instances_that_they_share():
    frame = frame_of(*[row("a", id, 1.0 * id) for id in (0, 1, 2, 3)], *[row("b", id, 5.0) for id in (3, 2, 9)])
    own = summarize(frame)["policies"]["b"]
    assert own["instances"] == 3
    assert own["paired"]["a"]["difference"] == pytest.approx(2.5)


def test_policies_without_a_shared_instance_are_not_compared():
    own = summarize(frame_of(row("a", 0, 1.0), row("b", 1, 2.0)))["policies"]["a"]
    assert own["probability_of_improvement"] in ({}, {"b": None})


def test_all_diverged_is_minus_100_without_metrics():
    own = summarize(frame_of(*[row("a", id, -100.0, value=np.nan, diverged=True) for id in (0, 1)]))["policies"]["a"]
    assert (own["delta_m"]["mean"], own["diverged"], own["metrics"]) == (-100.0, 2, {})


def test_summarising_leaves_the_frame():
    frame = frame_of(row("a", 0, 1.0), row("b", 0, 2.0))
    before = frame.copy(deep=True)
    summarize(frame)
    assert frame.equals(before)
