"""Problems at an address, ``file.py:make`` or ``module:make``: found again everywhere, and errors that name file and line."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from rollouts import LOSS_WEIGHTING

import mtl_gym
from mtl_gym.problems import load_problem

ROOT = Path(mtl_gym.__file__).parents[1]
SHOP = """
from dataclasses import dataclass

import numpy as np

import mtl_gym
from beside import SIZES


@dataclass
class Customers:
    seed: int = 0

    def split(self, count):
        inputs = np.random.default_rng([self.seed, count]).normal(size=(count, 4))
        return mtl_gym.Split.of(inputs, [inputs[:, 0] > 0, inputs @ [1.0, 2.0, 0.0, 1.0]])


def make():
    tasks = [mtl_gym.Task("bought", "bce", ("accuracy",)), mtl_gym.Task("spent", "mse", ("nrmse",))]
    return mtl_gym.Problem("shop", tasks, {name: Customers().split(count) for name, count in SIZES.items()})


def listed():
    return mtl_gym.load_problem("quadratic")


def number():
    return 3


def broken():
    return 1 / 0


ready = make()
value = 3
"""
BESIDE = 'SIZES = {"train": 80, "meta": 24, "reward": 28, "test": 32}\n'
TINY = {"train_steps": 4, "batch_size": 16, "holdout_size": 16, "hidden_sizes": [4]}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """The address of a problem in a person's file, which needs another file beside it; the working folder is elsewhere."""
    folder = tmp_path / "my project"
    folder.mkdir()
    (folder / "shop.py").write_text(SHOP)
    (folder / "beside.py").write_text(BESIDE)
    monkeypatch.chdir(tmp_path)
    yield "my project/shop.py:make"
    sys.modules.pop("beside", None)


def test_a_file_is_run_once_and_its_problem_is_kept(shop, tmp_path):
    problem = load_problem(shop)
    assert problem.name == "shop"
    assert load_problem(f"{tmp_path}/my project/shop.py:make") is problem
    assert problem.address == f"{tmp_path}/my project/shop.py:make"
    assert str(tmp_path / "my project") not in sys.path


def test_a_variable_may_stand_in_the_place_of_the_function(shop):
    assert load_problem(shop.replace("make", "ready")).identity == load_problem(shop).identity


def test_a_problem_of_the_table_stays_one(shop):
    assert load_problem(shop.replace("make", "listed")).address == "quadratic"
    assert load_problem("quadratic").identity == ["quadratic", 0]


def test_a_module_is_found_like_a_file(shop, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "my project")
    problem = load_problem("shop:make")
    assert problem.address == "shop:make"
    assert problem.identity == load_problem(shop).identity
    sys.modules.pop("shop")


def test_the_data_are_part_of_the_identity_and_a_changed_file_is_read_again(shop, tmp_path):
    before = load_problem(shop)
    assert before.identity[:2] == ["shop", 0]
    assert len(before.identity) == 3
    (tmp_path / "my project/shop.py").write_text(SHOP.replace("seed: int = 0", "seed: int = 1"))
    after = load_problem(shop)
    assert after.identity[:2] == before.identity[:2]
    assert after.identity != before.identity


def test_a_changed_network_of_a_file_is_another_problem(shop, tmp_path):
    network = "\n\ndef net(problem, hidden_sizes):\n    return {}\n\n\ndef own():\n    problem = make()\n"
    network += '    return mtl_gym.Problem("shop", problem.tasks, problem.splits, network=net)\n'
    identities = []
    for size in ("1", "2"):
        (tmp_path / "my project/shop.py").write_text(SHOP + network.format(size))
        identities.append(load_problem(shop.replace("make", "own")).identity)
    assert identities[0] != identities[1]


UNPICKLED = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    problem = pickle.load(file)
print(problem.address, problem.identity)
"""


@pytest.mark.slow
def test_another_process_in_another_folder_finds_it_again(shop, tmp_path):
    problem = load_problem(shop)
    (tmp_path / "pickle").write_bytes(pickle.dumps(problem))
    assert len(pickle.dumps(problem)) < 300
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", UNPICKLED, str(tmp_path / "pickle")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=environment)
    assert answer.stdout.strip() == f"{problem.address} {problem.identity}", answer.stderr


@pytest.mark.parametrize("given", ["address", "problem"])
def test_gymnasiums_specification_finds_it_again(given, shop, tmp_path, monkeypatch):
    env = gymnasium.make(LOSS_WEIGHTING, problem=shop if given == "address" else load_problem(shop), steps_per_action=2, **TINY)
    text = env.spec.to_json()
    monkeypatch.chdir("/")
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(text))
    assert again.unwrapped.vector.arguments.problem is load_problem(f"{tmp_path}/{shop}")
    for first, second in zip(env.reset(seed=3)[0].values(), again.reset(seed=3)[0].values(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_results_are_kept_by_their_data(shop, tmp_path):
    from mtl_gym.evaluation.comparison import perform
    from mtl_gym.evaluation.plans import plan

    def ids():
        results, about = perform(plan("ew", problem=shop, instances=1, **TINY), out=tmp_path / "out")
        assert about["address"] == f"{tmp_path}/{shop}"
        return results

    first = ids()
    assert ids() == first
    (tmp_path / "my project/shop.py").write_text(SHOP.replace("seed: int = 0", "seed: int = 1"))
    assert ids()[0].metrics != first[0].metrics


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("my project/shop.py", ValueError, r"file\.py:function.*For example: my project/shop\.py:make"),
        (":make", ValueError, "file.py:function"),
        ("my project/shops.py:make", ValueError, r"existing Python file.*There is no .*/my project/shops\.py"),
        ("my project/shop.py:mke", ValueError, "name a function of .*shop.py: make, listed, number, broken, ready"),
        ("my project/shop.py:value", TypeError, "a Problem, or a function that returns one"),
        ("my project/shop.py:number", TypeError, "It returned 3"),
        ("my project/shop.py:broken", ValueError, r"ZeroDivisionError: division by zero \(.*shop\.py, line 33\)"),
        ("no_such_module:make", ValueError, "No module named 'no_such_module'"),
        ("", ValueError, "be one of digits, .*file.py:function"),
        ("digit", ValueError, "Did you mean 'digits'"),
    ],
)
def test_what_is_missing_is_named(change, error, message, shop):
    with pytest.raises(error, match=message):
        load_problem(change)


def test_a_file_that_does_not_run_is_named(shop, tmp_path):
    (tmp_path / "shop.py").write_text("import nothing_of_the_kind\n")
    with pytest.raises(ValueError, match=r"No module named 'nothing_of_the_kind' \(.*shop\.py, line 1\)"):
        load_problem("shop.py:make")
    (tmp_path / "shop.py").write_text("def make(:\n")
    with pytest.raises(ValueError, match=r"SyntaxError: .*shop\.py, line 1"):
        load_problem("shop.py:make")
    (tmp_path / "only_a_file.py").write_text("")
    with pytest.raises(ValueError, match=r"A file is given with its ending: only_a_file\.py:make"):
        load_problem("only_a_file:make")
