"""References of suites: shipped for every suite that has them, and the scores that they give."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

import mtl_gym
from docs.leaderboard_tables import together
from mtl_gym.environments import LOSS_WEIGHTING
from mtl_gym.evaluation.suite_references import KINDS, headroom, normalised, suite_references
from mtl_gym.evaluation.suite_tables import SUITES
from mtl_gym.evaluation.suites import find_suites, load_suite

REFERENCED = [key for key in find_suites() if len(suite_references(*key))]


def references(start, constant, best):
    rows = {"start": start, "best_constant": constant, "best_known": best}
    frame = pd.DataFrame({"study": ["a", "a", "b", "b"], "instance": [1, 2, 1, 2], **rows}).astype(dict.fromkeys(rows, float))
    frame.attrs = {"start": "ew", "trainings": 64}
    return frame


def runs(**policies):
    rows = [
        {"study": study, "policy": name, "instance": id, "delta_m": value}
        for name, values in policies.items()
        for (study, id), value in zip([("a", 1), ("a", 2), ("b", 1), ("b", 2)], values, strict=True)
    ]
    return pd.DataFrame(rows)


def test_the_standard_suite_of_loss_weighting_has_references():
    assert ("standard", LOSS_WEIGHTING) in REFERENCED


@pytest.mark.parametrize("key", REFERENCED, ids=str)
def test_references_are_of_instances_of_the_suite(key):
    known, suite = suite_references(*key), load_suite(*key)
    for study in suite.studies:
        own = known[known["study"] == study.name]
        assert [*own["instance"]] == study.ids[: len(own)]
        assert len(own) >= 2
        assert np.isfinite(own[[*KINDS]].to_numpy()).all()


def test_a_suite_without_references_has_no_rows():
    assert len(suite_references("quick")) == 0
    with pytest.raises(ValueError, match="`suite` should be one of"):
        suite_references("quik")


def test_the_start_scores_0_and_the_best_known_1():
    known = references([0, 1, -4, -5], [1, 2, 0, -1], [2, 4, 1, 0])
    found = normalised(runs(start=[0, 1, -4, -5], best=[2, 4, 1, 0], half=[1, 2.5, -1.5, -2.5]), known)
    assert found["start"] == pytest.approx((0, 0, 0))
    assert found["best"] == pytest.approx((1, 1, 1))
    assert found["half"][0] == pytest.approx(0.5)


@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4))
@settings(max_examples=20, deadline=None)
def test_scores_are_ratios_of_means_over_studies(values):
    known = references([0, 1, -4, -5], [1, 2, 0, -1], [2, 4, 1, 0])
    score, low, high = normalised(runs(own=values), known)["own"]
    assert score == pytest.approx((np.mean(values) + 2) / (1.75 + 2))
    assert low - 1e-9 <= high


def test_policies_without_a_referenced_instance_have_no_score():
    known = references([0, 1, -4, -5], [1, 2, 0, -1], [2, 4, 1, 0])
    assert [*normalised(runs(own=[1, 2, 3, 4]).iloc[:3], known)] == []


def test_there_are_no_scores_where_the_best_known_is_not_above_the_start():
    assert normalised(runs(own=[1, 2, 3, 4]), references([3, 1, 1, 2], [0, 0, 0, 0], [1, 3, 1, 2])) == {}


def test_references_of_some_studies_alone_are_not_used(monkeypatch):
    known = {"start": "ew", "trainings": 4, "studies": {"census": {"instances": [1], "start": [0], "best_known": [1]}}}
    monkeypatch.setattr("mtl_gym.evaluation.suite_references.stored", lambda *own: known)
    assert len(suite_references("standard")) == 0


def test_headroom_is_that_of_schedules_over_constant_actions():
    found = headroom(references([0, 0, 0, 0], [1, 2, 0, -1], [2, 4, 1, 0]))
    assert found["difference"] == pytest.approx((1.5 + 1) / 2)


@pytest.mark.slow
def test_leaderboards_have_scores_where_references_are(monkeypatch):
    suite = load_suite("quick")
    known = {"start": "ew", "trainings": 4, "complete": True, "studies": {}}
    for study in suite.studies:
        ids = study.ids[:2]
        known["studies"][study.name] = {
            "instances": ids, "start": [0.0] * 2, "best_constant": [0.5] * 2, "best_known": [1.0, 2.0]
        }  # fmt: skip
    monkeypatch.setattr("mtl_gym.evaluation.suite_references.stored", lambda *own: known)
    frame = mtl_gym.compare_suite("ew", "quick", progress=False)
    table = mtl_gym.standings(frame)
    own = (
        frame.drop_duplicates(["study", "instance"]).groupby("study", sort=False)["delta_m"].apply(lambda own: own.iloc[:2].mean())
    )
    assert table.loc["ew", "score"] == pytest.approx(own.mean() / 1.5)
    assert "Score: 0 is ew" in table.attrs["references"]


def test_adapting_is_worth_more_than_three_standard_errors():
    """On `standard`; the suites that change one thing have too few searched instances each, so it holds of all of them together."""
    standard = headroom(suite_references("standard"))
    assert standard["difference"] > 3 * standard["error"]
    shifts = {name: suite_references(name) for name, env in SUITES if env == LOSS_WEIGHTING and name not in ("quick", "standard")}
    whole = headroom(together(shifts))
    assert whole["difference"] > 3 * whole["error"]
    assert all(headroom(own)["difference"] > 0 for own in shifts.values())


def test_intervals_of_scores_hold_the_score_as_often_as_they_say():
    """Nine studies of four instances, of other spreads, as in the standard suite; the true score is one half."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(150):
        spread = np.repeat(np.linspace(0.3, 3.0, 9), 4)
        start = rng.normal(0, spread)
        best, own = start + 2 + rng.normal(0, spread) / 2, start + 1 + rng.normal(0, spread) / 2
        places = {"study": np.repeat([*"abcdefghi"], 4), "instance": np.arange(36)}
        known = pd.DataFrame({**places, "start": start, "best_constant": start, "best_known": best})
        found = normalised(pd.DataFrame({**places, "policy": "own", "delta_m": own}), known)
        held += found["own"][1] <= 0.5 <= found["own"][2]
    assert 0.9 < held / 150 < 0.99
