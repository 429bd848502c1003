"""Regrets over problems, and differences over problems, instances and seeds."""

import numpy as np
import pytest

from mtl_gym.evaluation.regrets import cross_fitted_regrets, difference_over_problems


def test_a_better_policy_has_no_regret_and_the_others_have_what_they_lack():
    found = cross_fitted_regrets({"best": [3.0, 5.0, 4.0, 4.0], "worse": [2.0, 4.0, 3.0, 3.0], "worst": [0.0, 2.0, 1.0, 1.0]})
    assert found == pytest.approx({"best": 0.0, "worse": 1.0, "worst": 3.0})


def test_the_best_is_chosen_on_the_other_half():
    # On even instances "a" is best, which on odd ones is 4 worse; on odd ones "b", which on even ones is 2 worse.
    found = cross_fitted_regrets({"a": [2.0, 0.0, 2.0, 0.0], "b": [0.0, 4.0, 0.0, 4.0]})
    assert found == pytest.approx({"a": (-2 + 0) / 2, "b": (0 - 4) / 2})


def test_regrets_of_policies_that_are_alike_are_zero_in_the_mean():
    rng = np.random.default_rng(0)
    drawn = [cross_fitted_regrets({str(name): rng.normal(size=30) for name in range(20)}) for _ in range(400)]
    mean = np.mean([list(own.values()) for own in drawn])
    assert abs(mean) < 0.02
    plug_in = np.mean([max(np.mean(rng.normal(size=30)) for _ in range(20)) for _ in range(400)])
    assert plug_in > 0.25  # what choosing and measuring on the same would have called regret


@pytest.mark.parametrize("scores", [{}, {"a": [1.0]}, {"a": [1.0, 2.0], "b": [1.0]}])
def test_wrong_scores_are_refused(scores):
    with pytest.raises(ValueError, match="`scores` should hold at least one policy, all with the same two or more instances"):
        cross_fitted_regrets(scores)


def test_problems_count_alike_whatever_their_number_of_instances():
    found = difference_over_problems([np.full(3, 2.0), np.full(300, 1.0)], [np.zeros(3), np.zeros(300)])
    assert found["difference"] == pytest.approx(1.5)
    assert found["low"] == pytest.approx(1.0)
    assert found["high"] == pytest.approx(2.0)


@pytest.mark.parametrize("seeds", [1, 4])
def test_intervals_hold_the_mean_of_problems_as_often_as_they_say(seeds):
    """An independent oracle: problems, instances and seeds that are drawn anew have the mean 0 in 95 % of the intervals."""
    rng, inside = np.random.default_rng(1), 0
    for _ in range(150):
        of_seeds = rng.normal(size=(seeds, 1)) * 0.2 * (seeds > 1)
        own = [rng.normal() + of_seeds + rng.normal(size=(seeds, 12)) for _ in range(16)]
        found = difference_over_problems(own, [np.zeros(12)] * 16, resamples=400)
        inside += found["low"] <= 0 <= found["high"]
    assert 0.85 <= inside / 150 <= 1.0


def test_problems_that_share_data_are_drawn_as_one():
    """What four problems of a data set share is one piece of evidence."""
    rng, alone, together = np.random.default_rng(3), 0, 0
    groups = [group for group in range(10) for _ in range(4)]
    for _ in range(120):
        shared = rng.normal(size=10)
        own = [shared[group] + 0.3 * rng.normal() + rng.normal(size=8) for group in groups]
        for_each = difference_over_problems(own, [np.zeros(8)] * 40, resamples=300)
        as_one = difference_over_problems(own, [np.zeros(8)] * 40, groups, resamples=300)
        alone += for_each["low"] <= 0 <= for_each["high"]
        together += as_one["low"] <= 0 <= as_one["high"]
    assert alone / 120 < 0.8
    assert 0.85 <= together / 120 <= 1.0


def test_differences_do_not_depend_on_what_both_share():
    rng = np.random.default_rng(2)
    base = [rng.normal(size=10) * 50 for _ in range(5)]
    found = difference_over_problems([own + 1 for own in base], base)
    assert found == pytest.approx({"difference": 1.0, "low": 1.0, "high": 1.0})


def test_different_instances_are_refused():
    with pytest.raises(ValueError, match="scores of the same instances of at least one problem"):
        difference_over_problems([np.zeros(3)], [np.zeros(4)])
