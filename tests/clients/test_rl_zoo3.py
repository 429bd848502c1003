"""rl_zoo3 by its command line."""

import shlex
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from recipes import recipe
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor, load_results

import mtl_gym  # noqa: F401

DECISIONS = 6


def test_the_recipe_trains_and_the_returns_of_its_model_are_those_of_a_plain_loop(empty_folder):
    (empty_folder / "ppo.yml").write_text(recipe("rl_zoo3", "yaml"))
    words = shlex.split(recipe("rl_zoo3", "bash").replace("\\\n", " "))
    assert words[0] == "python"
    answer = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    (folder,) = (empty_folder / "logs" / "ppo").glob("*LossWeighting*")
    episodes = load_results(str(folder))
    assert set(episodes["l"]) == {DECISIONS}
    assert np.isfinite(episodes["r"]).all()
    (model,) = folder.glob("*.zip")
    agent = PPO.load(model, device="cpu")
    first, second = (gymnasium.make("mtl_gym/LossWeighting-v0", problem="digits", train_steps=60) for _ in range(2))
    for env in (first, second):  # both draw the same instance at their next reset
        env.reset(seed=5)
    mean, _ = evaluate_policy(agent, Monitor(first), n_eval_episodes=1)
    observation, _ = second.reset()
    total, over = 0.0, False
    while not over:
        action, _ = agent.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = second.step(action)
        total, over = total + reward, terminated or truncated
    assert mean == pytest.approx(total, abs=1e-5)
