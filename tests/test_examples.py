"""The scripts of ``examples/`` that need nothing beyond the project, with small sizes; the others are run by ``make clients``."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mtl_gym

ROOT = Path(mtl_gym.__file__).parents[1]
OTHERS = ("lightning_module", "hugging_face", "offline_d3rlpy", "offline_student")
"""Those that need other libraries, or what these write."""
NAMES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


@pytest.fixture
def example(monkeypatch, request):
    """Imports an example, which is then found by its name, as a script's environments have to be."""
    monkeypatch.syspath_prepend(ROOT / "examples")

    def loaded(name):
        request.addfinalizer(lambda: sys.modules.pop(name, None))
        return importlib.import_module(name)

    return loaded


def test_a_policy_by_name_trains_a_network_of_ones_own(example, capsys):
    plain = example("plain_pytorch")
    accuracy, weights = plain.main("si", steps=120)
    assert accuracy > 0.7  # chance is 0.1
    assert weights["ink"] < 0.2 * weights["digit"]  # whose loss is in squares of grey levels
    assert "si: " in capsys.readouterr().out


@pytest.mark.parametrize("policy", [pytest.param("ppo", marks=pytest.mark.slow), "famo"])
def test_policies_that_read_more_are_given_it(example, policy):
    _, weights = example("plain_pytorch").main(policy, steps=45)
    assert len({*weights.values()}) == 3


@pytest.mark.parametrize("policy", ["cagrad", pytest.param("igb", marks=pytest.mark.slow)])
def test_gradients_are_balanced(example, policy):
    first, last, weights = example("gradient_balancing").main(policy, steps=80)
    assert all(last[task] < 0.8 * first[task] for task in first)
    assert any(abs(weight - 1) > 1e-3 for weight in weights.values())


def test_batches_of_two_data_sets_train_one_trunk(example):
    accuracy, weights = example("two_data_sets").main(steps=240)
    assert accuracy["digit"] > 0.7
    assert accuracy["even"] > 0.7
    assert weights["digit"] != weights["even"]


def test_a_problem_with_few_labels_is_compared_and_trained(example):
    sparse = example("sparse_labels")
    small = {"train_steps": 40, "hidden_sizes": [16]}
    frame, done = sparse.main("ew,si", instances=2, **small)
    problem = sparse.make()
    assert problem.splits["train"].targets[:, 0].isnan().float().mean() == pytest.approx(0.6, abs=0.05)
    assert done.about["policy"] == frame.groupby("policy")["delta_m"].mean().idxmax()
    test = problem.splits["test"]
    with torch.no_grad():
        found = done.module(test.inputs)["digit"].argmax(1)
    known = ~test.targets[:, 0].isnan()
    accuracy = (found[known] == test.targets[known, 0]).float().mean().item()
    assert accuracy == pytest.approx(done.metrics["digit/accuracy"], abs=1e-4)
    assert accuracy > 0.3


def test_methods_of_ones_own_in_three_forms_are_compared(example):
    own = example("own_method")
    frame = own.main(instances=2, train_steps=20)
    means = frame.groupby("policy")["delta_m"].mean()
    assert set(means.index) == {"ew", "si", "roots", "average", "slow"}
    assert means.nunique() == 5
    balancer = mtl_gym.LossBalancer(own.roots, ["a", "b"])
    balancer(torch.tensor([4.0, 0.25], requires_grad=True))
    assert balancer.weights == pytest.approx({"a": 0.5, "b": 2.0})


def test_an_environment_of_a_script_is_compared(example):
    frame = example("own_environment").main(instances=2, train_steps=100, hidden_sizes=[16])
    shares = frame.groupby("policy")["most_frequent"].mean()
    assert shares["in turn"] == pytest.approx(0.2)  # 10 decisions of five tasks
    assert shares["hardest"] > 0.2
    assert frame.groupby("policy")["delta_m"].mean().nunique() == 2


def test_samples_with_wrong_labels_count_less(example):
    noisy = example("noisy_labels")
    accuracy, weights = noisy.main("slgrad", steps=150)
    assert weights["right"] > 1.5 * weights["wrong"]
    assert accuracy > 0.5
    _, uniform = noisy.main("uniform", steps=4)
    assert uniform == {"right": 1, "wrong": 1}


@pytest.mark.slow
def test_an_example_is_a_script_that_runs_anywhere(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "own_environment.py")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert answer.returncode == 0, answer.stderr
    assert "in turn" in answer.stdout


def test_every_example_is_run_by_a_test():
    run = Path(__file__).read_text() + (ROOT / "tests" / "clients" / "test_examples.py").read_text()
    assert [name for name in NAMES if f'"{name}"' not in run] == []
    assert set(OTHERS) <= set(NAMES)
