"""Tianshou: a PPO on scalar environments in a row, whose buffer holds plain loops."""

import gymnasium
import numpy as np
import pytest
from recipes import ENV_ID, replay, run
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, SubprocVectorEnv

SMALL = {"problem": "digits", "train_steps": 60}
DECISIONS = 6


def make():
    return gymnasium.wrappers.FlattenObservation(gymnasium.make(ENV_ID, **SMALL))


def test_the_recipe_trains(empty_folder):
    names = run("Tianshou", empty_folder)
    assert names["collector"].collect_step == 72
    assert names["collector"].collect_episode == 72 // DECISIONS


@pytest.mark.parametrize("form", [DummyVectorEnv, SubprocVectorEnv])
def test_what_is_collected_is_what_plain_loops_are(form, empty_folder):
    algorithm = run("Tianshou", empty_folder)["algorithm"]
    buffer = VectorReplayBuffer(60, 2)
    collector = Collector(algorithm, form([make] * 2), buffer)
    found = collector.collect(n_episode=4, reset_before_collect=True)
    assert found.lens.tolist() == [DECISIONS] * 4
    assert len(buffer) == 4 * DECISIONS
    batch, _ = buffer.sample(0)
    ends = np.flatnonzero(batch.done) + 1
    for end in ends:
        episode = batch[end - DECISIONS : end]
        (instance,) = set(episode.info.instance.tolist())
        rewards, last = replay(instance, algorithm.policy.map_action(episode.act), **SMALL)
        np.testing.assert_allclose(episode.rew, rewards, atol=1e-5)
        flat = np.concatenate([last[name] for name in sorted(last)])
        assert np.sort(episode.obs_next[-1]) == pytest.approx(np.sort(flat), abs=1e-4)
