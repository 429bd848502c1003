"""How weights depend on gap, loss scale and noise: what is recorded of real trainings, and what is drawn of it."""

from __future__ import annotations

from functools import cache

import numpy as np
from rollouts import LOSS_WEIGHTING, make_vec, small

import mtl_gym
from mtl_gym.evaluation.comparison import about, run, to_frame
from mtl_gym.evaluation.curves import CHECKPOINTS
from mtl_gym.evaluation.plans import plan, setting
from mtl_gym.evaluation.results import Result
from mtl_gym.evaluation.rollout import rollout
from mtl_gym.evaluation.summary import summarize
from mtl_gym.evaluation.weight_rules import binned, constant_quantities, relative, weight_rules
from mtl_gym.problems import load_problem

VARIED = {"scale": (0.1, 10.0), "noise": (0.0, 0.4)}
SHORT = {**VARIED, "size": (0.1, 0.2)}  # some epochs of few batches


@cache
def compared(policies, problem="digits_scales", instances=12, clean=False, **others):
    """Results of a comparison, and their summary."""
    arguments = small(problem, distribution="clean" if clean else VARIED, **{"train_steps": 30, **others})
    del arguments["steps_per_action"]
    checked = plan(policies, instances=instances, **arguments)
    results = run(checked)
    return results, summarize(to_frame(results, about(setting(checked), results)))


def slopes(policies, row, problem="digits"):
    """Slopes of each policy's lines in a row of the figure, on logarithmic axes: (policies, 3)."""
    results, summary = compared(policies, problem)
    panels = weight_rules(results, summary).axes[3 * row : 3 * row + 3]
    lines = [[axes.get_lines()[number].get_xydata() for axes in panels] for number in range(len(summary["policies"]))]
    return np.array([[np.polyfit(*np.log(line).T, 1)[0] for line in own] for own in lines])


# --- the figure -----------------------------------------------------------------------------------------------------------


def test_bins_hold_medians_of_equally_many_points():
    points = np.array([[5.0, 1.0, 2.0, 3.0, 4.0, 6.0], [50.0, 10.0, 30.0, 20.0, 60.0, -7.0]])
    np.testing.assert_array_equal(binned(points, 2), [[2, 5], [20, 50]])
    np.testing.assert_array_equal(binned(points, 3), [[1.5, 3.5, 5.5], [20, 40, 21.5]])


def test_points_of_equal_x_share_a_bin():
    points = np.array([[1.0, 1.0, 1.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 6.0, 7.0, 9.0]])
    np.testing.assert_array_equal(binned(points, 3), [[1, 2.5], [2.5, 8]])
    assert binned(np.empty((2, 0)), 3).shape == (2, 0)


def test_relative_values_are_over_the_geometric_mean_of_the_positive_ones():
    np.testing.assert_allclose(relative(np.array([[2.0, 8.0], [3.0, 0.0], [0.0, np.nan]])), [[0.5, 2], [1, 0], [np.nan, np.nan]])


def test_weights_of_si_and_init_undo_the_planted_scales():
    ew, init, si = slopes("ew,init,si", 1, "digits_scales")
    np.testing.assert_allclose(ew, 0, atol=1e-6)
    np.testing.assert_allclose(np.stack([init, si]), -1, atol=0.1)


def test_weights_of_si_are_inverse_to_the_gap():
    """Exactly so before the second epoch is over, when a gap is the loss over the first loss."""
    ew, init, si = slopes("ew,init,si", 0)
    np.testing.assert_allclose(np.stack([ew, init]), 0, atol=1e-4)
    np.testing.assert_allclose(si, -1, atol=0.02)


def test_all_three_quantities_are_drawn_where_they_vary():
    results, summary = compared("ew,init,si")
    labels = [axes.get_ylabel() for axes in weight_rules(results, summary).axes[::3]]
    assert labels == ["weight / first weight, relative", "weight, relative", "weight / first weight, relative"]
    assert constant_quantities(results) == ""


def test_a_clean_distribution_leaves_scale_and_noise_out():
    results, summary = compared("ew,si", "quadratic", 3, clean=True)
    figure = weight_rules(results, summary)
    assert len(figure.axes) == 3
    assert figure.axes[1].get_xlabel() == "improvable gap, relative"
    assert constant_quantities(results) == "Not shown: loss scale and label noise, the same for all tasks here."


def test_one_task_leaves_the_figure_out():
    results, summary = compared("ew,si", "digits", 2, num_tasks=1)
    assert weight_rules(results, summary) is None


def test_weights_of_zero_are_not_drawn_and_do_not_move_the_others():
    curves = {
        "step": [0, 30],
        "weight": {"a": [1.0, 1.0], "b": [1.0, 4.0], "c": [0.0, 0.0]},
        "gap": {name: [1.0, 0.5] for name in "abc"},
    }
    planted = {"scale": {"a": 1.0, "b": 4.0, "c": 2.0}, "noise": dict.fromkeys("abc", 0.0)}
    result = Result("own", 0, {}, {}, 0.0, {}, False, 0.0, curves, planted)
    figure = weight_rules([result], {"policies": {"own": {}}})
    np.testing.assert_allclose(figure.axes[2].get_lines()[0].get_xydata(), [[0.5, 0.5], [1, np.nan], [2, 2]], rtol=1e-6)


# --- what is recorded -----------------------------------------------------------------------------------------------------


class Watching:
    """Equal weights that note the gaps they see; in the first row a million times as large after ``wild`` decisions."""

    requires = mtl_gym.Requirements(observe=("gap",), action="weights")

    def __init__(self, wild=None):
        self.seen, self.wild = [], wild

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.seen.append(observation["gap"])
        actions = np.ones_like(observation["gap"])
        if self.wild and len(self.seen) >= self.wild:
            actions[0] = 1e6
        return actions, state


def watched(policy, ids=(0, 1, 2)):
    """Results of a policy whose decisions end at the checkpoints."""
    metrics = {f"{task.name}/{metric}": 1.0 for task in load_problem("digits").tasks for metric in task.metrics}
    arguments = small(train_steps=2 * CHECKPOINTS, steps_per_action=2, distribution=SHORT, optimizer="sgd")
    return rollout("watching", policy, LOSS_WEIGHTING, ids, arguments=arguments, references=dict.fromkeys(ids, metrics))


def gaps(result):
    """(S, K), NaN for ``None``."""
    return np.array(list(result.curves["gap"].values()), dtype=float).T


def test_the_gaps_of_a_trace_are_those_that_the_environment_shows():
    policy = Watching()
    results = watched(policy)
    traces = np.stack([gaps(result) for result in results], axis=1)  # (S, N, K)
    assert results[0].curves["step"] == list(range(0, 2 * CHECKPOINTS + 1, 2))
    np.testing.assert_allclose(traces[:-1], policy.seen, rtol=1e-5)


def test_a_training_that_ended_has_no_gaps_afterwards():
    wild, *others = watched(Watching(wild=10))
    assert wild.diverged
    assert np.isfinite(gaps(wild)[:10]).all()
    assert np.isnan(gaps(wild)[-10:]).all()
    for other in others:
        assert np.isfinite(gaps(other)).all()


def test_a_result_holds_what_its_instance_planted():
    env = make_vec("digits", distribution=SHORT)
    env.reset(options={"instance": np.arange(3)})
    for result, instance in zip(watched(Watching()), env.unwrapped.decision.trainings.ledger.instances, strict=True):
        assert list(result.planted["scale"].values()) == instance.scales.tolist()
        assert list(result.planted["noise"].values()) == instance.noise.tolist()
        assert list(result.planted["scale"]) == list(result.curves["weight"])
