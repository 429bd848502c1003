"""rl_zoo3 by its command line."""

import shlex
import subprocess
import sys

import gymnasium
import numpy as np
from recipes import recipe
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor, load_results

import mtl_gym  # noqa: F401

DECISIONS = 6


def test_the_recipe_trains_and_the_model_is_the_one_of_a_plain_loop(empty_folder):
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
    env = gymnasium.make("mtl_gym/LossWeighting-v0", problem="digits", train_steps=60)
    agent = PPO.load(model, device="cpu")
    mean, _ = evaluate_policy(agent, Monitor(env), n_eval_episodes=1)
    observation, _ = env.reset(options={"instance": 3})
    total, over = 0.0, False
    while not over:
        action, _ = agent.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, over = total + reward, terminated or truncated
    assert np.isfinite([mean, total]).all()
