"""What CONTRIBUTING.md says is all that is touched: one of each kind is added to a copy of the packages, and used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtl_gym

ROOT = Path(mtl_gym.__file__).parents[1]
FILES = {
    "baselines/loudest.py": '''
"""Weights the largest loss alone."""
import numpy as np
from mtl_gym.baselines.base import Heuristic, losses


class Loudest(Heuristic):
    """The largest loss alone: a test of the recipes."""

    def act(self, obs, state):
        """All weight where the loss is largest."""
        values = losses(obs)
        return (values == values.max(1, keepdims=True)) * float(values.shape[1]), state
''',
    "mtl_gym/problems/coins.py": '''
"""Two tasks on coin tosses."""
import numpy as np
from mtl_gym.problems.base import Split, Task


def load():
    """Tasks and splits."""
    rng, splits = np.random.default_rng(0), {}
    for name in ("train", "meta", "reward", "test"):
        tosses = rng.integers(0, 2, (80, 4)).astype(float)
        splits[name] = Split.of(tosses, [tosses[:, 0], tosses.sum(1)])
    return (Task("first", "bce", ("accuracy",)), Task("heads", "mse", ("nrmse",))), splits
''',
    "mtl_gym/models/halved.py": '''
"""A network of half the widths."""
from mtl_gym.models.native import Network, mlp


def halved(problem, hidden_sizes):
    """An mlp of half the widths."""
    made = mlp(problem, tuple(width // 2 for width in hidden_sizes))
    made.identity = f"halved{list(hidden_sizes)}"
    return made
''',
}
LINES = {
    "baselines/__init__.py": ("BASELINES = {", '    "loudest": "mtl_gym.baselines.loudest:Loudest",'),
    "mtl_gym/problems/__init__.py": ("PROBLEMS = {", '    "coins": _row("coins", "coin tosses", network="halved"),'),
    "mtl_gym/models/__init__.py": ("NETWORKS = {", '    "halved": "mtl_gym.models.halved:halved",'),
    "mtl_gym/envs/observations.py": (
        "OBSERVATIONS = {",
        '    "doubled_progress": Observation("one", 0, 2, lambda v: 2 * v.progress, "twice the progress"),',
    ),
    "mtl_gym/envs/rewards.py": (
        "REWARDS = {",
        '    "one": Reward(lambda v: torch.ones_like(v.progress), "always 1", of_main=True),',
    ),
    "mtl_gym/training/optim.py": (
        "OPTIMIZERS = {",
        '    "sign": Optimizer(1, lambda rows, gradients, buffers, steps, *, lr, momentum, weight_decay:'
        " [row.sub_(lr * own.sign()) for row, own in zip(rows, gradients)]),",
    ),
    "agents/__init__.py": ("AGENTS = {", '    "ppo-slow": "mtl_gym.agents.algorithms:SlowPPO",'),
}
APPENDED = {
    "agents/algorithms.py": '''

class SlowPPO(PPO):
    """Proximal policy optimisation with a tenth of the rate."""

    defaults = {**PPO.defaults, "learning_rate": 8e-4}
'''
}
USE = """
import gymnasium, numpy as np, torch, mtl_gym
from mtl_gym.agents import train
settings = dict(problem="coins", train_steps=8, steps_per_action=4, batch_size=16, holdout_size=16, hidden_sizes=[8])
chosen = dict(observe=["log_loss_mean", "doubled_progress"], reward="one", optimizer="sign")
env = gymnasium.make(mtl_gym.LOSS_WEIGHTING, **settings, **chosen)
env.reset(seed=0)
observation, reward, *_ = env.step(np.zeros(2))
assert observation["doubled_progress"] == 1.0 and reward == 1.0, (observation, reward)
assert env.unwrapped.vector.decision.trainer.model.identity == "halved[8]"
assert "doubled_progress" in type(env.unwrapped).__doc__ and "| `one` |" in type(env.unwrapped).__doc__
free = {name: value for name, value in settings.items() if name != "steps_per_action"}
frame = mtl_gym.compare("ew,loudest", instances=1, **free)
assert set(frame["policy"]) == {"ew", "loudest"}
agent = train("coins", out="mine", algorithm="ppo-slow", time_steps=8, num_envs=2, evaluations=1, instances=1,
              **{name: value for name, value in settings.items() if name != "problem"}, action="softmax", distribution="clean")
assert agent.about["hyperparameters"]["learning_rate"] == 8e-4
print("used")
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the packages with one of each kind added."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("mtl_gym", "agents", "baselines"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in FILES.items():
        (folder / path).write_text(text)
    for path, (table, row) in LINES.items():
        source = (folder / path).read_text()
        line = next(line for line in source.splitlines() if line.startswith(table.split(" =")[0]) and "= {" in line)
        (folder / path).write_text(source.replace(line, line.replace("= {", f"= {{\n{row}\n   ", 1), 1))
    for path, text in APPENDED.items():
        (folder / path).write_text((folder / path).read_text() + text)
    return folder


@pytest.mark.slow
def test_one_of_each_kind_is_added_and_used(copy, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "MTL_GYM_CACHE": str(tmp_path / "cache")}
    answer = subprocess.run([sys.executable, "-c", USE], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.stdout.split()[-1:] == ["used"], answer.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loudest", "coins"])
def test_what_is_added_is_listed(copy, tmp_path, name):
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "mtl_gym", "list"]
    assert name in subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
