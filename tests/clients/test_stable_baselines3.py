"""Stable-Baselines3 and sb3-contrib, with the adapter and without it."""

import gymnasium
import numpy as np
import pytest
from recipes import ENV_ID, replay, run
from sb3_contrib import MaskablePPO
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.vec_env import SubprocVecEnv

SMALL = {"problem": "quadratic", "train_steps": 60}


@pytest.mark.slow
def test_the_recipe_runs(empty_folder):
    names = run("Stable-Baselines3", empty_folder)
    assert {episode["l"] for episode in names["model"].ep_info_buffer} == {6}
    assert np.isfinite(names["mean"])


@pytest.mark.slow
def test_no_masker_is_needed():
    """By name, sb3-contrib's own fails under Gymnasium 1, whose wrappers hide attributes."""
    env = gymnasium.make("mtl_gym:mtl_gym/TaskGrouping-v0", problem="digit_tasks", num_tasks=3)
    with pytest.raises(AttributeError, match="action_masks"):
        ActionMasker(env, "action_masks")
    model = MaskablePPO("MultiInputPolicy", env, n_steps=12, batch_size=12, n_epochs=1, device="cpu", seed=0)
    model.learn(12)
    assert [episode["l"] for episode in model.ep_info_buffer] == [3] * 4


@pytest.mark.slow
def test_spawned_processes_find_the_environment_by_its_module():
    envs = SubprocVecEnv([lambda: gymnasium.make(ENV_ID, **SMALL)] * 2, start_method="spawn")
    envs.seed(0)
    envs.reset()
    instances = [info["instance"] for info in envs.reset_infos]
    rewards = []
    for _ in range(6):
        _, reward, dones, _ = envs.step(np.zeros((2, 3), dtype=np.float32))
        rewards.append(reward)
    envs.close()
    assert dones.all()
    for row, instance in enumerate(instances):
        assert np.array(rewards)[:, row] == pytest.approx(replay(instance, np.zeros((6, 3)), **SMALL)[0], abs=1e-5)
