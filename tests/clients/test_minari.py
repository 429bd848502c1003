"""Minari: collecting with infos, and recovering the environment from a dataset."""

import gymnasium
import minari
import numpy as np
import pytest
from recipes import ENV_ID, replay, run

SMALL = {"problem": "quadratic", "train_steps": 60}
DECISIONS = 6
IDS = [f"mtl_gym:mtl_gym/{name}-v0" for name in ("LossWeighting", "SampleWeighting", "LayerMerging", "TaskGrouping")]
ABOUT = {
    "algorithm_name": "random",
    "author": "a person",
    "author_email": "person@example.org",
    "code_permalink": "https://example.org",
}


@pytest.fixture(autouse=True)
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def collect(env, episodes=2):
    collector = minari.DataCollector(env, record_infos=True)
    collector.action_space.seed(0)
    for episode in range(episodes):
        collector.reset(seed=episode)
        over = False
        while not over:
            _, _, terminated, truncated, _ = collector.step(collector.action_space.sample())
            over = terminated or truncated
    return collector.create_dataset("tests/random-v0", **ABOUT)


def test_the_recipe_runs(empty_folder):
    names = run("Minari", empty_folder)
    assert names["dataset"].total_steps == 3 * DECISIONS
    assert names["again"].spec.id == "mtl_gym/LossWeighting-v0"


def test_episodes_are_plain_loops_and_infos_are_there():
    dataset = collect(gymnasium.make(ENV_ID, **SMALL))
    for episode in dataset:
        assert len(episode.actions) == DECISIONS
        (instance,) = set(np.asarray(episode.infos["instance"]).flatten().tolist())
        rewards, last = replay(instance, episode.actions, **SMALL)
        np.testing.assert_allclose(episode.rewards, rewards, atol=1e-6)
        for name, values in episode.observations.items():
            np.testing.assert_allclose(values[-1], last[name], atol=1e-6)
    env = dataset.recover_environment()
    assert env.spec.kwargs == SMALL
    env.reset(seed=0)


@pytest.mark.parametrize("env_id", IDS)
def test_every_environment_is_collected_with_infos(env_id):
    own = {"num_tasks": 3} if "TaskGrouping" in env_id else {"train_steps": 60}
    dataset = collect(gymnasium.make(env_id, **own))
    assert dataset.total_episodes == 2
