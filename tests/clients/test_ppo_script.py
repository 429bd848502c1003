"""A single-file PPO in the style of CleanRL's scripts, over all three ways to make several environments."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ppo_script import make_envs, train
from recipes import replay, run

SMALL = {"problem": "quadratic", "train_steps": 60}
DECISIONS = 6


@pytest.mark.parametrize(
    "vectorization", ["vector_entry_point", *(pytest.param(form, marks=pytest.mark.slow) for form in ("sync", "async"))]
)
def test_episodes_are_those_of_a_plain_loop(vectorization):
    envs = make_envs(vectorization, 3, **SMALL)
    episodes = train(envs, updates=2, steps=2 * (DECISIONS + 1))
    envs.close()
    assert len(episodes) == 3 * 4
    assert len({int(episode["instance"]) for episode in episodes}) == 12
    for episode in episodes:
        assert episode["l"] == DECISIONS
        rewards, _ = replay(episode["instance"], episode["actions"], **SMALL)
        assert episode["r"] == pytest.approx(rewards.sum(), abs=1e-4)


@pytest.mark.slow
def test_the_script_runs_by_itself_in_spawned_processes(tmp_path):
    script = Path(__file__).with_name("ppo_script.py")
    options = ["--vectorization=async", "--num-envs=2", "--updates=1"]
    answer = subprocess.run([sys.executable, str(script), *options], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    lengths = [line.split(", ")[1] for line in answer.stdout.splitlines()]
    assert lengths == ["6 decisions"] * 4
    assert np.isfinite([float(line.split()[1].rstrip(",")) for line in answer.stdout.splitlines()]).all()


def test_the_recipe_runs(empty_folder):
    envs = run("Scripts in CleanRL's style", empty_folder)["envs"]
    assert envs.reset(seed=0)[0].shape == (4, *envs.single_observation_space.shape)
