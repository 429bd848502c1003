"""Whether a comparison tells policies apart, and whether two comparisons agree, against scipy and by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from test_report import make_about, make_result, scored

import mtl_gym
from mtl_gym.evaluation.frames import to_frame

RNG = np.random.default_rng(0)
INSTANCES = RNG.normal(0, 5, 12)  # what all policies share
SCORES = {
    name: INSTANCES + mean + RNG.normal(0, 1, 12)
    for name, mean in {"ew": 0.0, "si": 0.1, "igb": 2.0, "rlw": -3.0, "gls": 0.2}.items()
}


def frame_of(scores, **about):
    results = scored(**scores)
    return to_frame(results, make_about(results, **about))


def holm_by_hand(p_values):
    adjusted, most = {}, 0.0
    for rank, pair in enumerate(sorted(p_values, key=p_values.get)):
        most = max(most, (len(p_values) - rank) * p_values[pair])
        adjusted[pair] = min(most, 1.0)
    return adjusted


def test_discrimination_by_scipy():
    found = mtl_gym.discrimination(frame_of(SCORES))
    p_values = {pair: scipy.stats.ttest_rel(SCORES[pair[0]], SCORES[pair[1]]).pvalue for pair in combinations(SCORES, 2)}
    told = [p < 0.05 for p in holm_by_hand(p_values).values()]
    assert 0 < sum(told) < 10
    assert (found["policies"], found["instances"], found["pairs"]) == (5, 12, 10)
    assert (found["told_apart"], found["equal"]) == (pytest.approx(sum(told) / 10), 0)
    assert found["best"] == "igb"


@pytest.mark.parametrize(
    ("name", "values", "comparisons"),
    [
        ("best_over_baseline", SCORES["igb"] - SCORES["ew"], 4),
        ("best_over_single_task", SCORES["igb"], 4),
        ("baseline_over_single_task", SCORES["ew"], 1),
    ],
)
def test_differences_have_the_intervals_of_scipy(name, values, comparisons):
    row = mtl_gym.discrimination(frame_of(SCORES))[name]
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / comparisons)
    assert row["difference"] == pytest.approx(values.mean())
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))


def test_differences_that_are_too_small_to_matter_are_not_told_apart():
    scores = {"ew": INSTANCES, "si": INSTANCES + np.linspace(0.1, 0.2, 12)}
    known = [mtl_gym.discrimination(frame_of(scores, smallest_difference=own)) for own in (0.0, 0.5)]
    assert [(own["told_apart"], own["equal"]) for own in known] == [(1, 0), (0, 1)]


def test_the_best_is_another_than_the_baseline_and_single_task_learning():
    scores = {"ew": INSTANCES + 3, "si": INSTANCES - 1, "alone": np.zeros(12), "rlw": INSTANCES - 2}
    found = mtl_gym.discrimination(frame_of(scores))
    assert found["best"] == "si"
    assert found["best_over_baseline"]["difference"] == pytest.approx(-4)
    assert mtl_gym.discrimination(frame_of(scores), baseline="rlw")["best"] == "ew"


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"si": INSTANCES, "rlw": INSTANCES + 1}, "`baseline` should be one of si, rlw"),
        ({"ew": INSTANCES}, "policies besides 'ew'"),
        ({"ew": INSTANCES, "alone": np.zeros(12)}, "policies besides 'ew'"),
        ({"ew": INSTANCES[:4], "si": INSTANCES[:4] + 1}, "same instances for all policies, at least 5"),
        ({"ew": INSTANCES, "si": INSTANCES[:8] + 1}, "same instances for all policies, at least 5"),
    ],
)
def test_what_cannot_be_told_is_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        mtl_gym.discrimination(frame_of(scores))


# --- rank correlation -----------------------------------------------------------------------------------------------------


def constant(**means):
    return frame_of({name: [mean, mean] for name, mean in means.items()})


def test_the_rank_correlation_by_hand():
    first, second = constant(a=5.0, b=4.0, c=3.0, d=2.0), constant(d=20.0, b=40.0, a=30.0, c=25.0, other=99.0)
    found = mtl_gym.rank_correlation(first, second)  # one neighbouring swap of four
    assert found["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert found["kendall"] == pytest.approx((5 - 1) / 6)
    assert found["policies"] == 4
    assert found["ranks"] == {"a": (1, 2), "b": (2, 1), "c": (3, 3), "d": (4, 4)}


def test_the_rank_correlation_is_scipys():
    names = [f"p{number}" for number in range(8)]
    first, second = ({name: RNG.normal(size=6).round(1) for name in names} for _ in range(2))
    found = mtl_gym.rank_correlation(frame_of(first), frame_of(second))
    means = [[own[name].mean() for name in names] for own in (first, second)]
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(*means).statistic)
    assert found["kendall"] == pytest.approx(scipy.stats.kendalltau(*means).statistic)


def test_halves_of_a_frame_are_correlated():
    frame = frame_of(SCORES)
    halves = [frame[frame["instance"] % 2 == rest] for rest in (0, 1)]
    found = mtl_gym.rank_correlation(*halves)
    means = [[SCORES[name][rest::2].mean() for name in SCORES] for rest in (0, 1)]
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(*means).statistic)


def test_an_order_and_its_reverse_and_ties():
    assert mtl_gym.rank_correlation(constant(a=1.0, b=2.0, c=3.0), constant(a=3.0, b=2.0, c=1.0))["kendall"] == pytest.approx(-1)
    assert mtl_gym.rank_correlation(constant(a=1.0, b=1.0, c=3.0), constant(a=3.0, b=2.0, c=9.0))["ranks"]["a"] == (2.5, 2)


@pytest.mark.parametrize(
    ("second", "message"),
    [(constant(a=1.0, b=2.0), "at least three policies of `first`"), (constant(a=1.0, b=1.0, c=1.0), "with different scores")],
)
def test_orders_that_are_none_are_refused(second, message):
    with pytest.raises(ValueError, match=message):
        mtl_gym.rank_correlation(constant(a=1.0, b=2.0, c=3.0), second)


def test_every_task_of_an_instance_counts_once():
    results = [make_result(name, 0, ("one", "two"), delta_m=mean) for name, mean in {"a": 1.0, "b": 2.0, "c": 3.0}.items()]
    frame = to_frame(results, make_about(results))
    assert mtl_gym.rank_correlation(frame, frame)["spearman"] == pytest.approx(1)
