"""What is written down is what the code does."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import mtl_gym
from mtl_gym.envs.arguments import LEFT_OUT, check_arguments
from mtl_gym.envs.grouping import GROUPINGS
from mtl_gym.envs.layer_merging import LayerMergingEnv, LayerMergingVectorEnv
from mtl_gym.envs.loss_weighting import LossWeightingEnv, LossWeightingVectorEnv
from mtl_gym.envs.merging import MERGE_ACTIONS
from mtl_gym.envs.observations import DEFAULTS, of_environment
from mtl_gym.envs.rewards import REWARDS
from mtl_gym.envs.sample_weighting import SampleWeightingEnv, SampleWeightingVectorEnv
from mtl_gym.envs.sample_weights import FEATURES, SAMPLE_ACTIONS
from mtl_gym.envs.task_grouping import TaskGroupingEnv, TaskGroupingVectorEnv
from mtl_gym.envs.weights import ACTIONS
from mtl_gym.problems import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING

ROOT = Path(mtl_gym.__file__).parents[1]
FORMS = {
    LOSS_WEIGHTING: (LossWeightingEnv, LossWeightingVectorEnv),
    SAMPLE_WEIGHTING: (SampleWeightingEnv, SampleWeightingVectorEnv),
    LAYER_MERGING: (LayerMergingEnv, LayerMergingVectorEnv),
    TASK_GROUPING: (TaskGroupingEnv, TaskGroupingVectorEnv),
}
MODES = {LOSS_WEIGHTING: ACTIONS, SAMPLE_WEIGHTING: SAMPLE_ACTIONS, LAYER_MERGING: MERGE_ACTIONS, TASK_GROUPING: GROUPINGS}
FOREIGN = {env_id: {"main_task"} | {*LEFT_OUT.get(env_id, ())} for env_id in FORMS} | {SAMPLE_WEIGHTING: set()}
"""Common arguments that an environment refuses."""
HEADINGS = (
    "Description",
    "Action Space",
    "Observation Space",
    "Rewards",
    "Starting State",
    "Episode End",
    "Information",
    "Arguments",
    "Example",
    "References",
    "Version History",
)


def python(*words, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=environment, **options)


def test_tables_and_pages_are_current():
    answer = python("docs/generate.py", "--check", cwd=ROOT)
    assert answer.returncode == 0, answer.stderr


def test_the_lines_of_python_in_the_readme_run(tmp_path):
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL).group(1)
    small = block.replace("instances=10", "instances=2, train_steps=20")
    assert small != block
    answer = python("-W", "error", "-c", small, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert {"ew", "si", "mine"} <= set(answer.stdout.split())


def test_the_commands_in_the_readme_are_targets_of_make():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)) <= targets


def test_every_environment_has_a_manual():
    assert set(FORMS) == {name for name in gymnasium.registry if name.startswith("mtl_gym/")}


def manual(env_id):
    return inspect.getdoc(FORMS[env_id][0]) or ""


def part(env_id, heading):
    return re.split(r"^## .+$", manual(env_id), flags=re.MULTILINE)[HEADINGS.index(heading) + 1]


def keys(env_id, heading):
    """The names in the first columns of a part's tables."""
    return re.findall(r"^\| `(\w+)` \|", part(env_id, heading), flags=re.MULTILINE)


@pytest.mark.parametrize("env_id", FORMS)
def test_the_manual_has_its_parts_in_order(env_id):
    assert tuple(re.findall(r"^## (.+)$", manual(env_id), flags=re.MULTILINE)) == HEADINGS


@pytest.mark.parametrize("env_id", FORMS)
def test_the_manual_has_no_gap_left_to_fill(env_id):
    assert not re.search(r"\{(observations|rewards|features|default)\}", manual(env_id))


@pytest.mark.parametrize("env_id", FORMS)
def test_the_manual_names_the_observations_of_its_environment(env_id):
    assert sorted(keys(env_id, "Observation Space")) == sorted(of_environment(env_id))  # other tests move rows


@pytest.mark.parametrize("env_id", FORMS)
def test_the_manual_names_the_default_observations(env_id):
    text = part(env_id, "Observation Space")
    assert re.findall(r"`(\w+)`", text[text.index("The default is") :]) == list(DEFAULTS[env_id])
    assert gymnasium.make(env_id).unwrapped.observation_space.keys() == set(DEFAULTS[env_id])


@pytest.mark.parametrize("env_id", FORMS)
def test_the_manual_names_the_rewards_that_its_environment_offers(env_id):
    refused = []
    for name in REWARDS:
        try:
            check_arguments(env_id, reward=name)
        except ValueError:
            refused.append(name)
    assert keys(env_id, "Rewards") == [name for name in REWARDS if name not in refused]


@pytest.mark.parametrize(("env_id", "name"), [(env_id, name) for env_id, names in MODES.items() for name in names])
def test_the_manual_names_every_action_mode(env_id, name):
    steps = {"steps_per_action": 1} if name == "weights" else {}
    assert gymnasium.make(env_id, action=name, **steps).action_space.shape is not None
    assert f'"{name}"' in part(env_id, "Action Space")


def test_the_manual_names_every_feature_of_a_rule():
    assert keys(SAMPLE_WEIGHTING, "Action Space")[-len(FEATURES) :] == list(FEATURES)


@pytest.mark.parametrize("env_id", FORMS)
def test_the_manual_names_the_arguments_of_its_environment(env_id):
    own = set(inspect.signature(FORMS[env_id][1]).parameters) - {"num_envs", "arguments", "autoreset_mode", "max_episode_steps"}
    common = set(inspect.signature(check_arguments).parameters) - {"environment", "others"} - FOREIGN[env_id]
    assert sorted(keys(env_id, "Arguments")) == sorted(own | common)
    for name in ("num_envs", "autoreset_mode", "max_episode_steps"):
        assert f"`{name}`" in part(env_id, "Arguments")


@pytest.mark.parametrize("env_id", FORMS)
def test_the_manual_names_what_infos_hold(env_id):
    two = {"num_tasks": 2} if env_id == TASK_GROUPING else {"steps_per_action": 1}  # decisions
    env = gymnasium.make(env_id, train_steps=2, distribution={"noise": [0.5, 0.5]}, **two)
    env.reset(seed=0)
    equal = np.zeros(env.action_space.shape, env.action_space.dtype)
    *_, info = [env.step(equal) for _ in range(2)][-1]
    text = part(env_id, "Information")
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", text, flags=re.MULTILINE)))
    assert sorted(named) == sorted(info)


@pytest.mark.parametrize("module", ["mtl_gym.policies", *sorted(form.__module__ for form, _ in FORMS.values())])
def test_examples_run(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def public(tree):
    """Public functions, classes and methods of a module."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


@pytest.mark.parametrize(
    "path", sorted(path for package in ("mtl_gym", "baselines", "agents") for path in (ROOT / package).rglob("*.py"))
)
def test_everything_public_has_a_docstring(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert not [node.name for node in public(tree) if not ast.get_docstring(node)]
