"""Gymnasium's wrappers around both forms, for a whole episode each."""

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector
from recipes import ENV_ID, run

SMALL = {"problem": "quadratic", "train_steps": 60}
DECISIONS = 6


def flat(env):
    return wrappers.FlattenObservation(env)


def bounded(wrapper, *words, **options):
    """A wrapper of flat observations with finite bounds."""
    return lambda env: wrapper(flat(env), *words, **options)


KEEPING = {
    "FlattenObservation": flat,
    "FilterObservation": lambda env: wrappers.FilterObservation(env, ["progress"]),
    "TransformObservation": lambda env: wrappers.TransformObservation(
        flat(env), np.square, Box(0, np.inf, flat(env).observation_space.shape)
    ),
    "NormalizeObservation": bounded(wrappers.NormalizeObservation),
    "RescaleObservation": bounded(wrappers.RescaleObservation, -1, 1),
    "FrameStackObservation": bounded(wrappers.FrameStackObservation, 3),
    "DelayObservation": bounded(wrappers.DelayObservation, 1),
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
    "TimeLimit": lambda env: wrappers.TimeLimit(env, DECISIONS),
    "ClipAction": wrappers.ClipAction,
    "RescaleAction": lambda env: wrappers.RescaleAction(env, np.float32(-2), np.float32(2)),
    "RenderCollection": wrappers.RenderCollection,
}
"""Wrappers that leave rewards and, of the action of zeros, its meaning."""


def episode(env, action):
    rewards, over = [], False
    env.reset(seed=0)
    while not over:
        _, reward, terminated, truncated, _ = env.step(action)
        rewards.append(float(reward))
        over = bool(terminated or truncated)
    return rewards


@pytest.fixture(scope="module")
def plain():
    return episode(gymnasium.make(ENV_ID, **SMALL), np.zeros(3, dtype=np.float32))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "RenderCollection" else name for name in KEEPING]
)
def test_a_wrapper_leaves_the_episode(name, plain):
    env = KEEPING[name](gymnasium.make(ENV_ID, render_mode="rgb_array" if name == "RenderCollection" else None, **SMALL))
    assert episode(env, np.zeros(3, dtype=np.float32)) == pytest.approx(plain, abs=1e-6)
    assert len(plain) == DECISIONS


def test_time_aware_observation_needs_a_time_limit(plain):
    with pytest.raises(ValueError, match="TimeLimit"):
        wrappers.TimeAwareObservation(gymnasium.make(ENV_ID, **SMALL))
    env = wrappers.TimeAwareObservation(gymnasium.make(ENV_ID, max_episode_steps=DECISIONS, **SMALL), flatten=False)
    assert episode(env, np.zeros(3, dtype=np.float32)) == pytest.approx(plain)
    assert env.observation_space["time"].high == DECISIONS


VECTOR = {
    "FlattenObservation": vector.FlattenObservation,
    "FilterObservation": lambda envs: vector.FilterObservation(envs, ["progress"]),
    "NormalizeObservation": lambda envs: vector.NormalizeObservation(vector.FlattenObservation(envs)),
    "RescaleObservation": lambda envs: vector.RescaleObservation(vector.FlattenObservation(envs), -1, 1),
    "RecordEpisodeStatistics": vector.RecordEpisodeStatistics,
    "ClipAction": vector.ClipAction,
    "RescaleAction": lambda envs: vector.RescaleAction(envs, np.float32(-2), np.float32(2)),
    "DictInfoToList": vector.DictInfoToList,
}


def vectorised(**arguments):
    return gymnasium.make_vec(ENV_ID, num_envs=2, vectorization_mode="vector_entry_point", **SMALL, **arguments)


@pytest.mark.parametrize("name", VECTOR)
def test_a_wrapper_of_the_vector_form_leaves_the_episodes(name, plain):
    envs = VECTOR[name](vectorised(autoreset_mode="NextStep"))
    envs.reset(seed=0)
    rewards, ends = [], []
    for _ in range(2 * DECISIONS + 2):
        _, reward, terminated, truncated, _ = envs.step(np.zeros((2, 3), dtype=np.float32))
        rewards.append(reward)
        ends.append(np.logical_or(terminated, truncated))
    assert np.array(rewards)[:DECISIONS, 0] == pytest.approx(plain, abs=1e-4)
    assert np.flatnonzero(np.array(ends)[:, 0]).tolist() == [DECISIONS - 1, 2 * DECISIONS]


def test_vector_wrappers_of_observations_refuse_same_step():
    with pytest.raises((ValueError, AssertionError)):  # Gymnasium 1.1 asserts
        vector.FlattenObservation(vectorised())


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])  # the page says which releases count SAME_STEP
def test_statistics_are_right(mode):
    envs = vector.RecordEpisodeStatistics(vectorised(autoreset_mode=mode))
    envs.reset(seed=0)
    found = []
    for _ in range(2 * DECISIONS + 2):
        *_, terminated, _, infos = envs.step(np.zeros((2, 3), dtype=np.float32))
        found += infos["episode"]["l"][infos["_episode"]].tolist() if "_episode" in infos else []
        if mode is AutoresetMode.DISABLED and terminated.all():
            envs.reset(options={"reset_mask": terminated})
    assert found == [DECISIONS] * 4


def test_the_recipe_runs(empty_folder):
    names = run("Gymnasium", empty_folder)
    assert names["lengths"] == [6] * 12
