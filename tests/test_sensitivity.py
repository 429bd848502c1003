"""Actions matter: in every environment and problem they explain what differs in returns, and where they do nothing this is seen."""

import json
from importlib import resources

import gymnasium
import numpy as np
import pytest
from rollouts import IDS

from benchmarks.sensitivity import pairs
from mtl_gym.environments import LOSS_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.evaluation import sensitivity
from mtl_gym.evaluation.sensitivity import action_sensitivity

SHIPPED = json.loads((resources.files("mtl_gym") / "data" / "sensitivity.json").read_text())
LEAST = 0.5
"""The share of the variance within instances, at least, that is due to actions."""


def test_it_is_measured_for_every_environment_and_problem():
    assert sorted((env, problem) for env, own in SHIPPED.items() for problem in own) == sorted(pairs())


@pytest.mark.parametrize(("env", "problem"), [(env, problem) for env, own in SHIPPED.items() for problem in own])
def test_actions_explain_most_of_what_differs_within_an_instance(env, problem):
    found = SHIPPED[env][problem]
    assert found.get("actions", 1.0) > LEAST  # choices have no copies that differ by chance
    assert found["deviation"] > 0.01


@pytest.mark.parametrize("env", IDS)
def test_actions_matter(env):
    given = {"num_tasks": 4} if env == TASK_GROUPING else {}
    found = action_sensitivity(env, [1, 2], rows=4, problem="relations", train_steps=120, **{"num_tasks": 4, **given})
    assert found.get("actions", 1.0) > LEAST
    assert found["deviation"] > 0.01
    assert 0 < found["within"] <= 1
    assert ("actions" in found) == (env != TASK_GROUPING)


@pytest.mark.parametrize(("ids", "rows"), [([1], 4), ([1, 2], 1)])
def test_a_single_instance_or_training_has_no_variance(ids, rows):
    with pytest.raises(ValueError, match=r"`(ids|rows)` should be at least two"):
        action_sensitivity(LOSS_WEIGHTING, ids, rows=rows, problem="quadratic")


def test_it_is_seen_where_actions_do_nothing(monkeypatch):
    """A decision that ignores its action leaves nothing but chance."""
    envs = specification(LOSS_WEIGHTING)
    made = gymnasium.make_vec

    def deaf(*args, **options):
        env = made(*args, **options)
        decision = env.unwrapped.decision
        apply = decision.apply
        decision.apply = lambda actions, active, view: apply(actions * 0, active, view)
        return env

    monkeypatch.setattr("mtl_gym.evaluation.best_known.gymnasium.make_vec", deaf)
    found = action_sensitivity(envs.id, [1, 2], rows=4, problem="quadratic", train_steps=48)
    assert found["actions"] <= LEAST
    assert found["deviation"] < 1e-3


def test_copies_are_near_their_originals_and_within_the_space():
    space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    held = sensitivity._held(space, 5, np.random.default_rng(0))
    assert space.contains(held[0])
    assert 0 < np.abs(held[:5] - held[5:]).max() <= 0.021
    assert np.unique(held[:5], axis=0).shape == (5, 3)
