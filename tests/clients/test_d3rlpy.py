"""d3rlpy: behaviour cloning on a recorded data set, in an environment of its own (``D3RLPY``), and the policy that comes back."""

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest

import mtl_gym

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SMALL = {"problem": "quadratic", "train_steps": 60}


@pytest.fixture(autouse=True)
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.syspath_prepend(EXAMPLES)


def theirs(*words):
    """What a script of examples/ answers in d3rlpy's environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [os.environ["D3RLPY"], "-W", "ignore", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def trained(dataset, path, steps):
    answer = theirs(EXAMPLES / "offline_d3rlpy.py", dataset, path, steps)
    assert answer.returncode == 0, answer.stderr


def test_its_environment_is_another_one():
    answer = theirs("-c", "import gymnasium, importlib.util; print(gymnasium.__version__, importlib.util.find_spec('mtl_gym'))")
    assert answer.stdout.split() == ["1.0.0", "None"]
    assert gymnasium.__version__ != "1.0.0"


def test_a_student_learns_its_teachers_actions_and_is_compared(tmp_path):
    from offline_student import Student, main

    mtl_gym.record("ppo", dataset="tests/ppo-v0", instances=24, num_envs=24, flat=True, **SMALL)
    mtl_gym.record("ppo", dataset="tests/other-v0", instances=24, num_envs=24, seed=1, **SMALL)
    errors = []
    for steps in (1, 1500):
        trained("tests/ppo-v0", tmp_path / "student.npz", steps)
        student = Student(tmp_path / "student.npz")
        errors.append(
            np.mean(
                [
                    np.square(student.predict({name: own[:-1] for name, own in episode.observations.items()})[0] - episode.actions)
                    for episode in minari.load_dataset("tests/other-v0")
                ]
            )
        )
    assert errors[1] < 0.2 * errors[0]
    frame = main(tmp_path / "student.npz", instances=3, **SMALL)
    assert frame.groupby("policy")["instance"].nunique().to_dict() == {"teacher": 3, "student": 3}


def test_it_is_a_policy_of_the_command_line_whose_results_depend_on_its_arrays(tmp_path):
    mtl_gym.record("ppo", dataset="tests/ppo-v0", instances=4, flat=True, **SMALL)
    specs = []
    for steps in (1, 2):
        trained("tests/ppo-v0", tmp_path / "student.npz", steps)
        address = f"{EXAMPLES / 'offline_student.py'}:Student:path={tmp_path / 'student.npz'}"
        (policy,) = mtl_gym.names_and_policies(address).values()
        specs.append(policy.spec)
    assert specs[0] != specs[1]
    command = [sys.executable, "-m", "mtl_gym", "compare", "--policies", f"ppo,{address}", "--problem", "quadratic"]
    command += ["--set", "train_steps=60", "--instances", "2", "--out", str(tmp_path / "out")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(("options", "words"), [({}, "record with --flat"), ({"policies": "ew", "flat": True}, "answer in")])
def test_data_that_it_cannot_learn_from_is_refused(options, words, tmp_path):
    mtl_gym.record(**{"policies": "ppo", **options}, dataset="tests/own-v0", instances=1, **SMALL)
    answer = theirs(EXAMPLES / "offline_d3rlpy.py", "tests/own-v0", tmp_path / "student.npz", 1)
    assert answer.returncode == 1
    assert words in answer.stderr
    assert not (tmp_path / "student.npz").exists()


def test_the_benchmark_runs(tmp_path):
    command = [sys.executable, "-m", "benchmarks.offline", "--smoke", "--out", str(tmp_path / "found.json")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    assert "minus teacher" in (tmp_path / "found.json").read_text()
