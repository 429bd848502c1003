"""What is at an address, ``file.py:make`` or ``module:make``: found again everywhere, and errors that name file and line."""

from __future__ import annotations

import json
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
from mtl_gym.identity import source_digest
from mtl_gym.policies.grammar import make_policy, names_and_policies
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
    (tmp_path / "shop.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ValueError, match=r"SystemExit: 0 \(.*shop\.py, line 2"):
        load_problem("shop.py:make")


def test_a_module_in_the_working_folder_is_found(shop, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "my project")
    Path("shop_here.py").write_text(SHOP)
    problem = load_problem("shop_here:make")
    assert problem.identity == load_problem("shop.py:make").identity
    assert str(tmp_path / "my project") not in sys.path
    monkeypatch.chdir(tmp_path)
    assert load_problem("shop_here:make") is problem  # made once, wherever the process has gone
    sys.modules.pop("shop_here")


@pytest.mark.slow
@pytest.mark.parametrize(("way", "address"), [(["-P"], "deep.shop:make"), ([], "my project/shop.py:make")])
def test_the_command_line_finds_it_from_a_folder_of_ones_own(way, address, shop, tmp_path):
    """``-P`` keeps the working folder off the path, as the installed program does."""
    package = tmp_path / "deep"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "shop.py").write_text(SHOP.replace("from beside import SIZES", "from deep.sizes import SIZES"))
    (package / "sizes.py").write_text(BESIDE)
    assert printed(way, tmp_path, "--policies", "ew", "--problem", address)["about"]["problem"] == "shop"


def printed(way, folder, *words):
    """What a comparison in a fresh process prints as JSON."""
    settings = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    answer = subprocess.run(
        [
            sys.executable,
            *way,
            "-m",
            "mtl_gym",
            "compare",
            "--instances",
            "1",
            "--out",
            "out",
            "--quiet",
            "--json",
            *words,
            *settings,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


# --- policies ---------------------------------------------------------------------------------------------------------------

POLICIES = """
import numpy as np

import mtl_gym
from factors import FACTOR
from mtl_gym.baselines.base import Heuristic


class Mine:
    "Weights of a constant ratio."

    requires = mtl_gym.Requirements(observe=("log_loss",), action="weights", steps_per_action=1, env="mtl_gym/LossWeighting-v0")

    def __init__(self, ratio=2.0):
        self.ratio = ratio

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return FACTOR * np.ones_like(observation["log_loss"]) * [self.ratio, 1.0], state


class Derived(Heuristic):
    "The same."

    def __init__(self, ratio=2.0):
        self.ratio = ratio

    def act(self, obs, state):
        return FACTOR * np.ones_like(obs["log_loss"]) * [self.ratio, 1.0], state


ready = Mine(5.0)
trained = mtl_gym.policy(abs)


def inverse(losses, power=1.0):
    return FACTOR / losses**power


def smooth():
    mean = 1.0

    def weights(losses):
        nonlocal mean
        mean = 0.5 * mean + 0.5 * losses
        return mean

    return weights


number = 3
"""
TWO = {"log_loss": np.log([[4.0, 2.0]]).astype(np.float32)}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The path of a file with policies, which needs another file beside it; the working folder is elsewhere."""
    folder = tmp_path / "my+policies"
    folder.mkdir()
    (folder / "mine.py").write_text(POLICIES)
    (folder / "factors.py").write_text("FACTOR = 1.0\n")
    monkeypatch.chdir(tmp_path)
    yield "my+policies/mine.py"
    sys.modules.pop("factors", None)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("Mine", [2, 1]),
        ("Mine:ratio=3", [3, 1]),
        ("Derived:ratio=4", [4, 1]),
        ("ready", [5, 1]),
        ("inverse", [0.25, 0.5]),
        ("inverse:power=2", [1 / 16, 0.25]),
        ("smooth", [2.5, 1.5]),
    ],
)
def test_policies_in_a_file_are_classes_objects_and_functions(text, weights, mine):
    made = make_policy(f"{mine}:{text}")
    np.testing.assert_allclose(made.predict(TWO)[0], [weights], rtol=1e-6)
    assert isinstance(made, mtl_gym.Policy)


def test_a_class_of_a_file_stays_what_it_is(mine):
    made = make_policy(f"{mine}:Derived")
    assert (type(made).__name__, repr(made)) == ("Derived", "Derived(ratio=2.0)")
    assert made.requires.env == LOSS_WEIGHTING


def test_policies_in_a_file_chain_with_others(mine):
    made = make_policy(f"{mine}:Derived:ratio=3+cagrad:c=0.4")
    assert type(made) is type(make_policy("igb+cagrad"))
    assert make_policy(f"{mine}:Derived:ratio=1e+1").ratio == 10


def test_a_list_of_policies_holds_files(mine):
    found = names_and_policies(f"ew,{mine}:Mine:ratio=3,{mine}:inverse:power=1,2")
    assert [*found] == ["ew", f"{mine}:Mine:ratio=3", f"{mine}:inverse:power=1,2"]


@pytest.mark.parametrize("name", ["Mine", "Derived", "ready", "inverse", "smooth"])
def test_its_code_is_part_of_its_identity_and_comments_are_not(name, mine, tmp_path):
    def spec(text=POLICIES, factor="1.0"):
        (tmp_path / mine).write_text(text)
        (tmp_path / "my+policies/factors.py").write_text(f"FACTOR = {factor}\n")
        sys.modules.pop("factors", None)
        source_digest.cache_clear()  # a process reads a module once, as it imports it once
        return make_policy(f"{mine}:{name}").spec

    first = spec()
    assert first is not None
    assert spec() == first
    assert spec(factor="2.0") != first
    assert spec(POLICIES.replace("0.5 * mean", "0.7 * mean").replace("* [self.ratio, 1.0]", "* [self.ratio, 2.0]")) != first
    if name != "Derived":  # whose own identity contains the name of its module
        assert spec(POLICIES + "# a comment\n") == first


def test_its_options_are_part_of_its_identity(mine):
    specs = [
        make_policy(f"{mine}:{text}").spec for text in ("Mine", "Mine:ratio=3", "inverse", "inverse:power=3", "Derived", "ready")
    ]
    assert len({json.dumps(own, sort_keys=True) for own in specs}) == len(specs)


def test_values_that_it_has_read_are_part_of_its_identity(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "import numpy as np\n\n\nclass Read:\n    def __init__(self):\n        self.weights = np.loadtxt('weights.txt')\n\n"
    Path("read.py").write_text(text + "    def predict(self, observation, *more, **others):\n        return self.weights, None\n")
    specs = []
    for weights in ("1 2", "1 3", "1 2"):
        Path("weights.txt").write_text(weights)
        specs.append(make_policy("read.py:Read").spec)
    assert specs[0] == specs[2] != specs[1]


def test_an_object_of_an_installed_class_is_not_identified_by_the_file(mine, tmp_path):
    (tmp_path / "counted.py").write_text(
        "from collections import Counter\nready = Counter()\nready.predict = lambda obs, **more: obs\n"
    )
    assert not hasattr(make_policy("counted.py:ready"), "spec")


def test_results_of_a_file_are_kept_by_its_code(mine, tmp_path):
    from mtl_gym.evaluation.comparison import run
    from mtl_gym.evaluation.plans import plan

    def results():
        given = {"problem": "quadratic", "num_tasks": 2, "instances": 1}
        return run(plan(f"{mine}:Mine", **given, **{**TINY, "hidden_sizes": []}), out=tmp_path / "out")

    first = results()
    assert results() == first
    (tmp_path / mine).write_text(POLICIES.replace("ratio=2.0", "ratio=9.0"))
    assert results()[0].metrics != first[0].metrics


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("mine.py", ValueError, r"name a policy in the file.*mine\.py:MyPolicy"),
        ("my+policies/mine.py", ValueError, r"name a policy in the file.*mine\.py:MyPolicy"),
        ("my+policies/mine.py:Mien", ValueError, "name a policy of .*mine.py: Mine, Derived, ready, trained, inverse, smooth"),
        ("my+policies/mine.py:number", TypeError, "name a class, an object or a function.*needs a method `predict`"),
        ("my+policies/mine.py:Mine:rate=3", ValueError, r"use the options of .*Mine' \(ratio\)"),
        ("my+policies/mine.py:ready:ratio=3", ValueError, r"use the options of .*ready' \(none\)"),
        ("my+policies/mine.py:inverse:exponent=3", ValueError, r"use the options of .*inverse' \(power\)"),
        ("my+policies/mine.py:smooth:a=3", ValueError, r"use the options of .*smooth' \(none\)"),
        ("my+policies/mine.py:Mine:ratio", ValueError, "of the form name:option=value"),
        ("nine/nine.py:Mine", ValueError, r"existing Python file.*There is no .*nine\.py"),
        ("broken.py:Mine", ValueError, r"`policies` should name code that runs.*ZeroDivisionError.*broken\.py, line 2"),
    ],
)
def test_policies_that_are_not_there_are_named(text, error, message, mine, tmp_path):
    (tmp_path / "broken.py").write_text("import math\n1 / 0\n")
    with pytest.raises(error, match=f"(?s){message}"):
        make_policy(text)


@pytest.mark.slow
def test_the_command_line_compares_a_policy_of_ones_own(mine, tmp_path):
    found = printed(["-P"], tmp_path, "--problem", "relations", "--policies", f"ew,{mine}:inverse:power=2")
    assert set(found["policies"]) == {"ew", f"{mine}:inverse:power=2"}
