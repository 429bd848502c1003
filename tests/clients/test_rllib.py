"""RLlib's new stack: scalar environments in a row, and the vector entry point."""

import os

os.environ["RAY_AUTH_MODE"] = "disabled"  # else ray writes a file of credentials

import numpy as np
import pytest
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from recipes import ENV_ID, replay, run

SMALL = {"problem": "quadratic", "train_steps": 60}
DECISIONS = 6


@pytest.fixture(autouse=True, scope="module")
def machine():
    ray.init(num_cpus=2, include_dashboard=False)
    yield
    ray.shutdown()


def algorithm(mode, runners=0, **arguments):
    config = (
        PPOConfig()
        .environment(ENV_ID, env_config={**SMALL, **arguments})
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=3,
            gym_env_vectorize_mode=mode,
            env_to_module_connector=lambda env, spaces, device: FlattenObservations(),
        )
        .training(train_batch_size_per_learner=72, minibatch_size=36, num_epochs=1)
    )
    return config.build_algo()


MODES = {"sync": {}, "vector_entry_point": {"autoreset_mode": "NextStep"}}


@pytest.mark.parametrize("mode", MODES)
def test_episodes_are_plain_loops(mode):
    built = algorithm(mode, **MODES[mode])
    episodes = built.env_runner.sample(num_episodes=9, random_actions=True)
    built.stop()
    done = [episode for episode in episodes if episode.is_done]
    assert len(done) >= 9
    for episode in done:
        assert len(episode) == DECISIONS
        instance = episode.get_infos(-1)["instance"]
        rewards, _ = replay(instance, episode.get_actions(), **SMALL)
        np.testing.assert_allclose(episode.get_rewards(), rewards, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_remote_runners_train(mode):
    built = algorithm(mode, runners=1, **MODES[mode])
    results = [built.train()["env_runners"] for _ in range(2)]
    built.stop()
    assert results[-1]["episode_len_mean"] == DECISIONS
    assert np.isfinite(results[-1]["episode_return_mean"])


def test_with_the_default_mode_episodes_are_wrong_in_silence():
    """What the page warns of; if RLlib learns to handle or to refuse the mode, the page has to say so."""
    built = algorithm("vector_entry_point", autoreset_mode="SameStep")
    mean = built.train()["env_runners"]["episode_len_mean"]
    built.stop()
    assert mean != DECISIONS


def test_the_recipe_runs(empty_folder):
    assert run("RLlib", empty_folder)["result"]["env_runners"]["episode_len_mean"] == DECISIONS
