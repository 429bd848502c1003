"""Verdicts follow corrected tests and the smallest difference that matters."""

from __future__ import annotations

import pytest
from test_statistics import frame_of, normal, row

from mtl_gym.evaluation.statistics import holm
from mtl_gym.evaluation.summary import summarize
from mtl_gym.evaluation.verdicts import verdicts_of_pairs, verdicts_with


def summary_of(smallest=0.0, **scores):
    frame = frame_of(*[row(name, place, score) for name, own in scores.items() for place, score in enumerate(own)])
    frame.attrs["about"]["smallest_difference"] = smallest
    return summarize(frame)


def words(summary, name):
    return {other: own["verdict"] for other, own in summary["verdicts"][name].items()}


NEAR = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
BIASED = {"a": NEAR, "b": [own + 0.2 + 0.1 * (-1) ** place for place, own in enumerate(NEAR)]}  # [.1, .3]


@pytest.mark.parametrize(("smallest", "word"), [(0.0, "worse"), (0.25, "worse"), (0.35, "equal")])
def test_what_differs_by_less_than_matters_is_equal(smallest, word):
    summary = summary_of(smallest, **BIASED)
    pair = summary["policies"]["a"]["paired"]["b"]
    assert (pair["low"] > -smallest) == (word == "equal")
    assert words(summary, "a") == {"b": word}
    assert words(summary, "b") == {"a": {"worse": "better"}.get(word, word)}


def test_without_a_smallest_difference_only_the_same_scores_are_equal():
    summary = summary_of(same=NEAR, again=NEAR, noisy=[1.0, 0.0, 3.0, 2.0, 5.0, 4.0])
    assert words(summary, "same") == {"again": "equal", "noisy": "not told apart"}


def test_verdicts_follow_the_corrected_test():
    scores = {"a": NEAR, "b": [own + gain for own, gain in zip(NEAR, [0.0, 0.9, 0.1, 1.0, 0.2, 0.8], strict=True)]}
    alone = summary_of(**scores)
    p = alone["policies"]["b"]["paired"]["a"]["p"]
    assert 0.05 / 3 < p < 0.05
    assert words(alone, "b") == {"a": "better"}
    among = summary_of(**scores, c=[own + 9 * (-1) ** place for place, own in enumerate(NEAR)])
    assert words(among, "b") == {"a": "not told apart", "c": "not told apart"}
    assert among["verdicts"]["b"]["a"]["p"] == pytest.approx(3 * p)
    assert among["verdicts"]["b"]["a"]["comparisons"] == 3


def test_equality_is_corrected_too():
    reach = [0.0, 0.9, 0.1, 1.0, 0.2, 0.8]  # its interval lies within 1.05, by little
    scores = {"a": NEAR, "b": [own + gain for own, gain in zip(NEAR, reach, strict=True)]}
    assert words(summary_of(1.05, **scores), "b") == {"a": "equal"}
    wild = [own + 9 * (-1) ** place for place, own in enumerate(NEAR)]
    assert words(summary_of(1.05, **scores, c=wild), "b")["a"] == "not told apart"


def test_a_baseline_that_is_named_is_compared_once_with_each():
    policies = summary_of(a=normal(9, 1), b=normal(9, 2), c=normal(9, 3), d=normal(9, 4))["policies"]
    found = verdicts_with(policies, "a")
    assert list(found) == ["b", "c", "d"]
    raw = [policies[name]["paired"]["a"]["p"] for name in found]
    assert [own.p for own in found.values()] == pytest.approx(holm(raw))
    assert {own.comparisons for own in found.values()} == {3}
    assert {own["comparisons"] for row in verdicts_of_pairs(policies).values() for own in row.values()} == {6}


def test_pairs_with_too_few_instances_are_neither_judged_nor_counted():
    frame = frame_of(*[row(name, place, score) for name in "ab" for place, score in enumerate(normal(6))], row("c", 0, 1.0))
    found = summarize(frame)["verdicts"]
    assert found["c"] == {}
    assert list(found["a"]) == ["b"]
    assert found["a"]["b"]["comparisons"] == 1
