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

import pytest

import mtl_gym
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.envs.loss_weighting import LossWeightingEnv, LossWeightingVectorEnv
from mtl_gym.envs.observations import OBSERVATIONS
from mtl_gym.envs.rewards import REWARDS
from mtl_gym.envs.weights import Weighting

ROOT = Path(mtl_gym.__file__).parents[1]
MANUAL = inspect.getdoc(LossWeightingEnv) or ""
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
    small = block.replace("instances=10", "instances=2, horizon=20")
    assert small != block
    answer = python("-W", "error", "-c", small, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert {"ew", "si", "mine"} <= set(answer.stdout.split())


def test_the_commands_in_the_readme_are_targets_of_make():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)) <= targets


def test_the_manual_has_its_parts_in_order():
    assert tuple(re.findall(r"^## (.+)$", MANUAL, flags=re.MULTILINE)) == HEADINGS


def part(heading):
    return re.split(r"^## .+$", MANUAL, flags=re.MULTILINE)[HEADINGS.index(heading) + 1]


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_the_manual_names_every_observation(name):
    assert f"`{name}`" in part("Observation Space")


@pytest.mark.parametrize("name", REWARDS)
def test_the_manual_names_every_reward(name):
    assert f"`{name}`" in part("Rewards")


@pytest.mark.parametrize("name", ["softmax", "residual", "weights"])
def test_the_manual_names_every_action_mode(name):
    Weighting(action=name, rule="init", weight_range=1e6, scope="all", num_tasks=2)
    assert f'"{name}"' in part("Action Space") or f"`{name}`" in part("Action Space")


def constructor_arguments():
    own = set(inspect.signature(LossWeightingVectorEnv).parameters) - {"num_envs", "arguments"}
    return sorted(own | set(inspect.signature(check_arguments).parameters) - {"environment", "others"})


@pytest.mark.parametrize("name", constructor_arguments())
def test_the_manual_names_every_argument(name):
    assert f"`{name}`" in part("Arguments")


@pytest.mark.parametrize("module", ["mtl_gym.policies", "mtl_gym.envs.loss_weighting"])
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
