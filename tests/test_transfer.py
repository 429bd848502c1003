"""The tables of transfer: regrets and differences of what is committed, and that actions do something on every source."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.folds import FOLDS, policy_of, training_sources
from benchmarks.safety import decided, verdict
from docs.transfer_tables import (
    ablation,
    choice,
    costs,
    differences,
    far,
    headroom,
    left_out,
    played,
    references,
    regrets,
    safety,
    transfer_tables,
)
from mtl_gym.policies.grammar import make_policy

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
RULES = json.loads((RESULTS / "rules.json").read_text())
CASES = [case for cases in FOLDS.values() for case in cases]


@pytest.mark.parametrize("name", RULES)
def test_actions_explain_more_of_the_returns_than_chance(name):
    shares = RULES[name]["shares"]
    assert shares["instances"] + shares["rules"] + shares["both"] == pytest.approx(1, abs=1e-3)
    assert shares["rules"] + shares["both"] > 4 * shares["noise"]


def test_every_left_out_case_has_its_headroom():
    assert {*CASES} <= {*RULES}
    assert len(headroom(RULES)) == len(RULES)


def test_the_best_rule_is_the_one_that_was_found():
    found = json.loads((RESULTS / "best_rule.json").read_text())["teachers"]
    named, searched = make_policy("best-rule"), make_policy(policy_of(found))
    assert named.requires == searched.requires
    observation = {"log_loss": np.zeros((2, 3), np.float32)}
    assert (named.predict(observation)[0] == searched.predict(observation)[0]).all()


@pytest.mark.parametrize("fold", FOLDS)
def test_nothing_of_a_fold_is_learned_from(fold):
    learned_from = {source["problem"] for source in training_sources(fold)}
    assert not learned_from & {case.removesuffix("_few").removesuffix("_scales") for case in FOLDS[fold]}


def results(better):
    """Results of a fold in which the agent is ``better`` points better than equal weights everywhere."""
    rng = np.random.default_rng(0)
    base = {case: rng.normal(size=30) for case in [*CASES, "teachers_new", "teachers_beyond"]}
    passes = {"ew": [100, 100], "cagrad": [100, 400], **{name: [100, 100] for name in ("init", "stch", "igb", "ppo")}}
    blind = {
        case: {name: {"scores": list(own - 0.05 * place), "passes": passes[name]} for place, name in enumerate(passes)}
        for case, own in base.items()
    }
    folds = {
        fold: {
            case: {
                "as it is": {
                    **{
                        name: {"scores": [list(base[case] + better + 0.01 * seed) for seed in range(3)], "passes": [105, 100]}
                        for name in ("bandit", "bandit-run")
                    },
                    **{name: {"scores": [list(base[case] + better)], "passes": [100, 100]} for name in ("level", "best-rule")},
                }
            }
            for case in [*cases, "teachers_new", "teachers_beyond"]
        }
        for fold, cases in FOLDS.items()
    }
    return {"blind": blind, "folds": folds}


@pytest.mark.parametrize("better", [0.5, -0.5])
def test_the_tables_say_what_was_planted(better):
    scores = played(results(better), {}, "as it is")
    assert scores["digits"]["bandit"].shape == (3, 30)
    assert scores["teachers_new"]["bandit"].shape == (3 * len(FOLDS), 30)
    rows = regrets(scores, costs(results(better), {}, "as it is"), references({"as it is": scores}))
    assert "`bandit`" in [row["policy"] for row in (rows[:4] if better > 0 else rows[-4:])]
    assert next(row for row in rows if row["policy"] == "`cagrad`")["passes over `ew`"] == "2.50"
    of_equal = next(row for row in differences(scores) if row["policy"] == "`ew`")
    assert of_equal["`bandit-run` minus it"].startswith(f"{better + 0.01:+.2f}")
    assert of_equal["`best-rule` minus it, teachers_new"].startswith(f"{better:+.2f}")


@pytest.mark.parametrize(
    ("pairs", "told", "stops"),
    [
        (((-0.2, 0.9), (-0.29, 0.1)), "yes", True),
        (((-0.2, 0.9), (-0.9, -0.31)), "no", True),
        (((-0.2, 0.9), (-0.9, 0.1)), "not shown", False),
        (((-0.2, 0.3), (-0.5, 0.0)), "not shown", True),
    ],
)
def test_an_agent_is_safe_where_no_interval_holds_a_loss_that_matters(pairs, told, stops):
    rows = [{"low": low, "high": high} for low, high in pairs]
    assert (verdict(rows), decided(rows)) == (told, stops)


def test_safety_and_choice_are_told_by_seed():
    own = [
        {"ew": [0.1, -0.2, 0.4], "init": [0.0, -0.3, 0.3], "safe": "yes"},
        {"ew": [0.3, 0.0, 0.6], "init": [0, -1, 1], "safe": "no"},
    ]
    found = {"digits": {"instances": 250, "agents": dict(zip("ab", own, strict=True))}}
    told = {"minus `ew`": "+0.20 [-0.20, 0.60]", "minus `init`": "+0.00 [-1.00, 1.00]", "safe (seeds)": "yes (1), no (1)"}
    assert safety(found) == [{"problem": "digits", "instances": "250", **told}]
    rows = choice({"choose": {"gains": {"a": [[0.1, 0.1]], "b": [[0.0, 0.2], [0.2, 0.4]]}}})
    assert [row["policy"] for row in rows] == ["`b`", "`a`"]
    assert rows[0] == {"policy": "`b`", "gain": "+0.20 (0.10)", "of seeds": "+0.10, +0.30"}


def test_the_card_and_the_ablation_say_what_was_planted():
    found = results(0.5)
    scores = played(found, {}, "as it is")
    rows = left_out(scores)
    assert [row["problem"] for row in rows] == [*CASES, "teachers_new", "teachers_beyond"]
    assert {row["minus `ew`"][:5] for row in rows} == {"+0.51"}  # the mean of seeds that are .00, .01 and .02 better
    found["folds"]["teachers"] = {
        case: {"as it is": {"bandit": {"scores": [list(scores[case]["init"][0] + 0.3)]}}} for case in CASES
    }
    ablated = {row["recipe"]: row for row in ablation(found, scores, references({"as it is": scores}))}
    assert ablated["`bandit`"]["teachers alone"].startswith("+0.30")
    assert ablated["`bandit`"]["folds"].startswith("+0.61")  # `init` is .1 worse than equal weights
    assert ablated["`bandit`"]["these minus `ew`"].startswith("+0.20")
    assert float(ablated["`bandit`"]["their mean regret"]) == pytest.approx(0.31)  # the best one is .51 better than equal weights
    assert {*ablated["`ppo-rule`"].values()} == {"`ppo-rule`", ""}


def test_what_a_range_has_shown_is_told():
    assert far({"tasks": {"2": {"ew": [-0.73, -2.08, 0.63]}}}) == [{"setting": "tasks 2", "`ew`": "-0.7 [-2.1, 0.6]"}]


def test_two_policies_of_one_name_are_refused():
    found = results(0.1)
    found["blind"]["digits"]["bandit"] = found["blind"]["digits"]["ew"]
    with pytest.raises(ValueError, match="same name on digits: bandit"):
        played(found, {}, "as it is")


def test_without_results_the_tables_say_what_to_run():
    assert regrets({}, {}, {}) == differences({}) == choice({}) == [{"not measured yet": "`python -m benchmarks.transfer`"}]
    assert safety({}) == [{"not measured yet": "`python -m benchmarks.safety`"}]


def test_the_tables_of_the_page_are_made():
    assert {"headroom", "regrets as it is", "differences searched", "safety"} <= set(transfer_tables())
