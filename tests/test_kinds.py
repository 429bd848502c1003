"""Scores by kind of task: classification and regression, beside the mean over all tasks."""

from __future__ import annotations

import numpy as np
import pytest
from test_report import make_about, make_result, summary_of

import mtl_gym
from mtl_gym.evaluation import report_tables
from mtl_gym.evaluation.frames import to_frame
from mtl_gym.problems import PROBLEMS, load_problem
from mtl_gym.problems.base import Task
from mtl_gym.problems.losses import KINDS, LOSSES
from mtl_gym.problems.metrics import METRICS
from mtl_gym.problems.scores import delta_m_by_kind

METRIC_VALUES = {"a/accuracy": 0.6, "a/auc": 0.9, "b/accuracy": 0.4, "c/rmse": 3.0}
REFERENCES = {"a/accuracy": 0.5, "a/auc": 0.9, "b/accuracy": 0.5, "c/rmse": 2.0}
BY_KIND = {"classification": -5.0, "regression": -50.0}  # a: mean of +20 % and 0, b: -20 %; c: -50 %


def mixed(policy="ew", instance=0, **changes):
    return make_result(policy, instance, **{"metrics": METRIC_VALUES, "references": REFERENCES, **changes})


def test_scores_by_kind_by_hand():
    assert delta_m_by_kind(METRIC_VALUES, REFERENCES) == pytest.approx(BY_KIND)
    assert delta_m_by_kind({"c/rmse": 3.0}, REFERENCES) == {"regression": -50.0}
    assert delta_m_by_kind({"a/accuracy": np.nan, "c/rmse": 2.0}, REFERENCES) == {"classification": -100.0, "regression": 0.0}


@pytest.mark.parametrize("loss", LOSSES)
def test_every_metric_of_a_task_has_the_kind_of_its_loss(loss):
    kind = KINDS[LOSSES[loss].labels]
    for metric in METRICS:
        try:
            Task("own", loss, (metric,))
        except ValueError:
            continue
        value = {f"own/{metric}": 0.5}
        assert [*delta_m_by_kind(value, value)] == [kind]


@pytest.mark.parametrize("name", ["quadratic", "digits", "river_flow", "yeast"])
def test_the_kinds_of_a_problem_are_those_of_its_losses(name):
    assert name in PROBLEMS
    tasks = load_problem(name).tasks
    values = {f"{task.name}/{metric}": 0.5 for task in tasks for metric in task.metrics}
    assert set(delta_m_by_kind(values, values)) == {KINDS[LOSSES[task.loss].labels] for task in tasks}


def test_the_frame_the_leaderboard_and_the_page_have_both_kinds():
    results = [mixed(instance=instance) for instance in range(3)]
    frame = to_frame(results, make_about(results))
    assert frame[["classification", "regression"]].drop_duplicates().to_numpy().tolist() == [pytest.approx([-5.0, -50.0])]
    board = mtl_gym.leaderboard(frame)
    assert board.loc["ew", ["classification", "classification_median", "regression_low"]].tolist() == pytest.approx([-5, -5, -50])
    table = report_tables.scores(summary_of(results), "ew")
    assert '<th scope="col">delta_m of classification, % <small>mean</small></th>' in table
    assert ">-50.00 <small>[-50.00, -50.00]</small></td>" in table


def test_a_training_that_diverged_has_the_worst_score_of_every_kind():
    frame = to_frame([mixed(diverged=True, delta_m=-100.0)], make_about([]))
    assert set(frame["classification"]) == set(frame["regression"]) == {-100.0}


def test_one_kind_alone_has_no_column():
    results = [make_result(metrics={"a/accuracy": 0.6}, references={"a/accuracy": 0.5})]
    assert "classification" not in to_frame(results, make_about(results))


def test_a_main_task_is_of_one_kind():
    results = [mixed()]
    frame = to_frame(results, make_about(results, arguments={"main_task": "a"}))
    assert not {"classification", "regression"} & {*frame}


def test_an_instance_without_a_task_of_a_kind_has_no_score_of_it():
    results = [mixed(), make_result(instance=1, metrics={"c/rmse": 3.0}, references=REFERENCES)]
    frame = to_frame(results, make_about(results)).drop_duplicates("instance")
    assert np.isnan(frame["classification"].iloc[1])
    assert summary_of(results)["policies"]["ew"]["classification"]["mean"] == pytest.approx(-5.0)


def test_a_comparison_has_the_kinds_of_its_tasks():
    frame = mtl_gym.compare("ew", problem="digits", instances=1, train_steps=4, hidden_sizes=[8])
    gains = frame.groupby(frame["metric"].map({"accuracy": "classification"}).fillna("regression"))["gain"].mean()
    runs = frame.iloc[0]
    for kind, gain in gains.items():
        assert runs[kind] == pytest.approx(max(gain, -100.0))
