"""What is written down is what the code does."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import mtl_gym
from mtl_gym.decisions.grouping.modes import GROUPINGS
from mtl_gym.decisions.merging.structures import MERGE_ACTIONS
from mtl_gym.decisions.sample_rules import FEATURES, SAMPLE_ACTIONS
from mtl_gym.decisions.task_rules import ACTIONS, RULES, SCOPES
from mtl_gym.environments import (
    LAYER_MERGING,
    LOSS_WEIGHTING,
    SAMPLE_WEIGHTING,
    TASK_GROUPING,
    environment_class,
    find_environments,
    specification,
)
from mtl_gym.envs.arguments import argument_names, check_arguments
from mtl_gym.envs.manual import manual as filled
from mtl_gym.envs.rewards import REWARDS

ROOT = Path(mtl_gym.__file__).parents[1]
IDS = sorted(find_environments())
MODES = {LOSS_WEIGHTING: ACTIONS, SAMPLE_WEIGHTING: SAMPLE_ACTIONS, LAYER_MERGING: MERGE_ACTIONS, TASK_GROUPING: GROUPINGS}
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


SHORTER = {
    "instances=10": "instances=2, train_steps=20",
    "problem=problem)": "problem=problem, instances=2, train_steps=20)",
    'problem, "cagrad")': 'problem, "cagrad", train_steps=20)',
}
"""Parts of the README's lines of Python, and what they are replaced by to take seconds."""


def python(*words, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=environment, **options)


@pytest.mark.slow
def test_tables_and_pages_are_current():
    answer = python("-m", "docs.generate", "--check", cwd=ROOT)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.slow  # the wheel runs them too
def test_the_lines_of_python_in_the_readme_run(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    names, lines = (ROOT / "tests" / "clients" / "readme" / "names.py").read_text(), "\n".join(blocks)
    for long, short in SHORTER.items():
        assert long in lines
        lines = lines.replace(long, short)
    code = f"{names}\n{lines}\nprint(balancer.step, sorted(done.module(torch.ones(2, 5))))"
    answer = python("-W", "error", "-c", code, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert {"ew", "si", "mine", "cagrad"} <= set(answer.stdout.split())
    assert answer.stdout.splitlines()[-1] == "6 ['kind', 'price']"


def test_the_commands_in_the_readme_are_targets_of_make():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)) <= targets


def test_every_environment_has_a_manual():
    assert set(IDS) == set(MODES) == {name for name in gymnasium.registry if name.startswith("mtl_gym/")}


def manual(env_id):
    return inspect.getdoc(environment_class(env_id)) or ""


def part(env_id, heading):
    return re.split(r"^## .+$", manual(env_id), flags=re.MULTILINE)[HEADINGS.index(heading) + 1]


def keys(env_id, heading):
    """The names in the first columns of a part's tables."""
    return re.findall(r"^\| `(\w+)` \|", part(env_id, heading), flags=re.MULTILINE)


@pytest.mark.parametrize("env_id", IDS)
def test_the_manual_has_its_parts_in_order(env_id):
    assert tuple(re.findall(r"^## (.+)$", manual(env_id), flags=re.MULTILINE)) == HEADINGS


@pytest.mark.parametrize("env_id", IDS)
def test_the_manual_has_no_gap_left_to_fill(env_id):
    assert not re.findall(r"\{[a-z_.]+\}", manual(env_id))
    assert not re.findall(r"^ *\{\w+\} *$", manual(env_id), flags=re.MULTILINE)


@pytest.mark.parametrize("env_id", IDS)
def test_the_names_that_a_manual_points_to_are_there(env_id):
    for name in re.findall(r"`+(mtl_gym\.[\w.]+)", manual(env_id)):
        assert pkgutil.resolve_name(name) is not None


def test_a_manual_is_filled_from_its_specification():
    spec = specification(TASK_GROUPING)
    text = filled("The default is {default}.\n\n    {rewards}\n\n    {common_arguments}", spec)
    assert all(f"`{name}`" in text for name in (*spec.observe, *spec.rewards))
    assert all(f"| `{name}` |" not in text for name in spec.excluded)
    assert spec.problem in text


@pytest.mark.parametrize("env_id", IDS)
def test_the_manual_names_the_observations_of_its_environment(env_id):
    assert sorted(keys(env_id, "Observation Space")) == sorted(specification(env_id).observations)


@pytest.mark.parametrize("env_id", IDS)
def test_the_manual_names_the_default_observations(env_id):
    text = part(env_id, "Observation Space")
    assert re.findall(r"`(\w+)`", text[text.index("The default is") :]) == list(specification(env_id).observe)
    assert gymnasium.make(env_id).unwrapped.observation_space.keys() == set(specification(env_id).observe)


@pytest.mark.parametrize("env_id", IDS)
def test_the_manual_names_the_rewards_that_its_environment_offers(env_id):
    refused, own = [], specification(env_id).rewards
    names = list(dict.fromkeys([*own, *REWARDS]))
    for name in names:
        try:
            check_arguments(specification(env_id), reward=name)
        except ValueError:
            refused.append(name)
    assert keys(env_id, "Rewards") == [name for name in names if name not in refused] == list(own)


@pytest.mark.parametrize(("env_id", "name"), [(env_id, name) for env_id, names in MODES.items() for name in names])
def test_the_manual_names_every_action_mode(env_id, name):
    steps = {"steps_per_action": 1} if name == "weights" else {}
    assert gymnasium.make(env_id, action=name, **steps).action_space.shape is not None
    assert f'"{name}"' in part(env_id, "Action Space")


def test_the_manual_names_every_feature_of_a_rule():
    assert keys(SAMPLE_WEIGHTING, "Action Space")[-len(FEATURES) :] == list(FEATURES)


@pytest.mark.parametrize("env_id", IDS)
def test_the_manual_names_the_arguments_of_its_environment(env_id):
    own = specification(env_id).own_arguments
    assert sorted(keys(env_id, "Arguments")) == sorted([*argument_names(specification(env_id)), "render_mode"])
    assert keys(env_id, "Arguments")[: len(own)] == list(own)
    for name in ("num_envs", "autoreset_mode", "max_episode_steps"):
        assert f"`{name}`" in part(env_id, "Arguments")


@pytest.mark.parametrize("env_id", IDS)
def test_the_manual_tells_the_defaults_of_an_environments_own_arguments(env_id):
    told = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", part(env_id, "Arguments"), flags=re.MULTILINE))
    for name, value in specification(env_id).own_arguments.items():
        written = json.dumps(value) if isinstance(value, str) else repr(value)
        assert value is None or told[name] in (f"`{written}`", f"`{value:g}`" if isinstance(value, float) else "", "`1e6`"), name


@pytest.mark.parametrize(("heading", "names"), [("Action Space", RULES), ("Arguments", SCOPES)])
def test_the_manual_names_every_rule_and_scope(heading, names):
    assert all(f'"{name}"' in part(LOSS_WEIGHTING, heading) for name in names)


@pytest.mark.parametrize("env_id", IDS)
def test_the_manual_names_what_infos_hold(env_id):
    two = {"num_tasks": 2} if "steps_per_action" in specification(env_id).excluded else {"steps_per_action": 1}  # decisions
    env = gymnasium.make(env_id, train_steps=2, distribution={"noise": [0.5, 0.5]}, **two)
    env.reset(seed=0)
    equal = np.zeros(env.action_space.shape, env.action_space.dtype)
    *_, info = [env.step(equal) for _ in range(2)][-1]
    text = part(env_id, "Information")
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", text, flags=re.MULTILINE)))
    assert sorted(named) == sorted(info)


EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "mtl_gym").rglob("*.py")
    if ">>> " in path.read_text()
)


def test_every_environment_has_an_example():
    assert {environment_class(env_id).__module__ for env_id in IDS} | {"mtl_gym.policies.protocol"} <= set(EXAMPLES)


@pytest.mark.parametrize("module", EXAMPLES)
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
