"""``decisions``: about how many decisions an episode has, in environments, requirements of policies and files of agents."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from rollouts import TRAINING, make, make_vec, small

import mtl_gym
from mtl_gym import agents
from mtl_gym.agents.defaults import with_defaults
from mtl_gym.decisions.task_features import DEFAULT_FEATURES
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.envs.decision_lengths import exact_steps_of, steps_of


@pytest.mark.parametrize(
    ("decisions", "train_steps", "steps"),
    [(15, 600, 40), (15, 300, 20), (15, 100, 5), (15, 5000, 250), (2, 8, 4), (15, 12, 1), (4, 9, 3), (6, 4 * 9, 6), (10, 5, 1)],
)
def test_a_decision_takes_the_divisor_that_is_nearest(decisions, train_steps, steps):
    assert steps_of(decisions, train_steps) == exact_steps_of(decisions, train_steps) == steps


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 60), st.integers(1, 3000))
def test_it_is_the_nearest_of_all_divisors(decisions, train_steps):
    target = train_steps / decisions
    fitting = [own for own in range(1, train_steps // 2 + 1) if train_steps % own == 0 and 0.5 <= own / target <= 2]
    found = steps_of(decisions, train_steps)
    if not fitting:
        assert found is None
        return
    distance = {own: max(own / target, target / own) for own in fitting}
    assert distance[found] == pytest.approx(min(distance.values()))


def test_a_length_without_such_a_divisor_is_refused_with_the_nearest_that_has_one():
    with pytest.raises(ValueError, match=r"`train_steps` should have a divisor within a factor of 2 .* with decisions=15\. .*105"):
        make(train_steps=101, decisions=15, steps_per_action=None)
    assert exact_steps_of(15, 105) == 7
    with pytest.raises(ValueError, match="decisions=15"):
        exact_steps_of(15, 10**18 + 3)  # at once


def test_only_one_of_two_arguments_says_how_long_a_decision_is():
    with pytest.raises(ValueError, match=r"`steps_per_action` should be left out with decisions=4. Received steps_per_action=2"):
        make(train_steps=8, decisions=4, steps_per_action=2)
    with pytest.raises(ValueError, match=r"`decisions` should be left out with `steps_per_action`. Received decisions=4"):
        mtl_gym.Requirements(steps_per_action=1, decisions=4)


@pytest.mark.parametrize("env_id", [LOSS_WEIGHTING, SAMPLE_WEIGHTING, LAYER_MERGING])
def test_every_environment_with_decisions_in_time_has_that_many(env_id):
    given = {"train_steps": 12, "steps_per_action": None, "num_tasks": 2, "reward": "none"}
    env = make_vec("yeast", env_id=env_id, decisions=4, **given)
    assert (env.arguments.steps_per_action, env.decision.length) == (3, 4)


def test_an_environment_without_decisions_in_time_refuses_them():
    with pytest.raises(ValueError, match=r"`decisions` should be left out: mtl_gym/TaskGrouping-v0 has no such argument"):
        make(env_id=TASK_GROUPING, decisions=4)


class Fifteen:
    """Equal weights, about fifteen times."""

    requires = mtl_gym.Requirements(env=LOSS_WEIGHTING, observe=("pooled_slope",), action="rule", decisions=15)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        assert observation["pooled_slope"].shape[1] == 4
        return np.zeros((len(observation["pooled_slope"]), 1 + len(DEFAULT_FEATURES)), np.float32), state


@pytest.mark.parametrize("train_steps", [20, 60])
def test_a_policy_that_requires_a_number_of_decisions_plays_any_length_and_number_of_tasks(train_steps):
    given = {**small(), "steps_per_action": None, "train_steps": train_steps, "instances": 1, "num_tasks": 2}
    given = {name: value for name, value in given.items() if value is not None}
    frame = mtl_gym.compare({"mine": Fifteen(), "ew": "ew"}, **given)
    scores = frame.groupby("policy")["delta_m"].mean()
    assert scores["mine"] == scores["ew"]


@pytest.mark.parametrize(
    ("given", "received"), [({"decisions": 4}, "decisions=4"), ({"steps_per_action": 2}, "steps_per_action=2")]
)
def test_arguments_that_contradict_what_a_policy_requires_are_refused_by_name(given, received):
    settings = {name: value for name, value in small().items() if name != "steps_per_action"} | {"train_steps": 8, "instances": 1}
    with pytest.raises(ValueError, match=f"`decisions` should be 15, which mine requires. Received {next(iter(given))}="):
        mtl_gym.compare({"mine": Fifteen()}, **settings, **given)
    with pytest.raises(ValueError, match="`steps_per_action` should be 1, which ew requires"):
        mtl_gym.compare("ew", **settings, **given)


def test_a_length_that_a_policy_cannot_play_names_the_policy():
    settings = {name: value for name, value in small().items() if name != "steps_per_action"} | {"train_steps": 101}
    with pytest.raises(ValueError, match=r"decisions=15.* mine requires decisions=15\."):
        mtl_gym.compare({"mine": Fifteen()}, **settings, instances=1)


def test_decisions_replace_the_default_length_of_an_agents_decision():
    assert "steps_per_action" not in with_defaults(LOSS_WEIGHTING, {"decisions": 15})
    assert with_defaults(LOSS_WEIGHTING, {"decisions": None})["steps_per_action"] == 20
    assert with_defaults(LOSS_WEIGHTING, {"steps_per_action": 5})["steps_per_action"] == 5


@pytest.mark.slow
def test_an_agent_keeps_the_number_of_its_decisions_in_its_file(tmp_path):
    given = {name: value for name, value in TRAINING.items() if name != "steps_per_action"}
    agent = agents.train(out=tmp_path, time_steps=40, decisions=10, **given)
    assert "steps_per_action" not in agent.about["environment"]["arguments"]
    loaded = agents.load(tmp_path)
    assert (loaded.requires.decisions, loaded.requires.steps_per_action) == (10, None)
    frame = mtl_gym.compare({"agent": loaded}, problem="quadratic", train_steps=60, instances=1)
    assert np.isfinite(frame["delta_m"]).all()
