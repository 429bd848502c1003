"""The trained network in a person's hands: the module that is handed out is the one that was trained."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from rollouts import small
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

import mtl_gym
from mtl_gym.cli import full_app
from mtl_gym.environments import LAYER_MERGING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.evaluation.fitting import refit
from mtl_gym.models.plain import Branches
from mtl_gym.problems import load_problem
from mtl_gym.problems.scores import split_metrics


def settings(problem, env="mtl_gym/LossWeighting-v0", **others):
    given = small(problem, env, **others)
    return {name: value for name, value in given.items() if name not in ("problem", "steps_per_action")}


def measured(module, problem, names):
    """Metrics on *test* of the module that was handed out, on the problem's own inputs."""
    data = load_problem(problem)
    split = data.splits["test"]
    with torch.no_grad():
        outputs = module(split.inputs)
    columns = [outputs.get(task.name, torch.zeros(len(split), task.outputs)) for task in data.tasks]
    found = split_metrics(data, torch.cat(columns, dim=1)[None], split.targets)
    return {name: float(found[name][0]) for name in names}


@pytest.mark.parametrize(
    ("problem", "policy"), [("digits", "igb"), ("census", "mgda"), ("quadratic", "ew"), ("tox21", "uw"), ("stereo", "si")]
)
def test_the_module_has_the_metrics_of_the_training(problem, policy):
    if problem == "stereo":
        pytest.importorskip("skimage")
    done = mtl_gym.fit(problem, policy, seed=4, **settings(problem))
    assert measured(done.module, problem, done.metrics) == pytest.approx(done.metrics, rel=1e-4, abs=1e-4)
    assert not done.module.training
    assert len(done.history) == 8 * load_problem(problem).num_tasks
    assert done.history["loss"].gt(0).all()


def test_a_native_network_is_made_of_torch_s_own_layers():
    done = mtl_gym.fit("digits", "ew", **settings("digits"))
    kinds = {type(own).__module__.split(".")[0] for own in done.module.modules() if own is not done.module}
    assert kinds == {"torch"}
    assert sum(own.numel() for own in done.module.parameters()) == sum(
        own.numel() for own in mtl_gym.fit("digits", "si", **settings("digits")).module.parameters()
    )


def test_a_row_of_a_comparison_is_what_fit_trains(tmp_path):
    given = settings("digits", train_steps=40)
    mtl_gym.compare("uw,si", problem="digits", instances=[3, 5], out=tmp_path, **given)
    done, known = refit(tmp_path, "uw", 5)
    assert done.metrics == pytest.approx(known, rel=1e-3)
    assert done.metrics == mtl_gym.fit("digits", "uw", seed=5, **given).metrics
    with pytest.raises(ValueError, match="Did you mean 'si'"):
        refit(tmp_path, "sii", 5)
    with pytest.raises(ValueError, match=r"one of \[3, 5\]"):
        refit(tmp_path, "si", 4)


OWN = """
import torch
from torch import nn
import mtl_gym

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, WIDTH), nn.ReLU())
        self.sum = nn.Linear(WIDTH, 1)
        self.sign = nn.Linear(WIDTH, 1)

    def forward(self, inputs):
        features = self.trunk(inputs)
        return {"sum": self.sum(features), "sign": self.sign(features)}

def make():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    return mtl_gym.Problem.from_arrays(x, {"sum": x.sum(1), "sign": x[:, 0] > 0}, model=Net)
"""


def test_a_row_with_a_network_of_ones_own_is_trained_again(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("WIDTH", "4"))
    mtl_gym.compare("ew", problem=f"{file}:make", instances=[2], out=tmp_path / "out", train_steps=10)
    done, known = refit(tmp_path / "out", "ew", 2)
    assert done.metrics == known
    file.write_text(OWN.replace("WIDTH", "5"))
    with pytest.raises(ValueError, match=r"be of 'own' as it is now.*restore its code"):
        refit(tmp_path / "out", "ew", 2)


@pytest.mark.parametrize("policy", ["branch:stage=1", "single-task", "shared", "random-merge"])
def test_a_merged_network_shares_what_was_merged(policy):
    done = mtl_gym.fit("digits", policy, LAYER_MERGING, seed=2, num_tasks=3, **settings("digits", LAYER_MERGING, train_steps=40))
    assert measured(done.module, "digits", done.metrics) == pytest.approx(done.metrics, rel=1e-4, abs=1e-4)
    assert isinstance(done.module, Branches)
    tasks = done.outcome["tasks"]
    for stage, copies in enumerate(done.outcome["assign"]):
        for task, other in itertools.pairwise(tasks):
            together = copies[tasks.index(task)] == copies[tasks.index(other)]
            assert (done.module.paths[task][stage] == done.module.paths[other][stage]) == together
    assert len(done.module.stages) == sum(len(set(copies)) for copies in done.outcome["assign"])


@pytest.mark.parametrize("policy", ["joint", "single-task", "random-groups"])
def test_groups_are_networks_side_by_side(policy):
    given = settings("digit_tasks", TASK_GROUPING)
    done = mtl_gym.fit("digit_tasks", policy, TASK_GROUPING, seed=1, **given)
    assert measured(done.module, "digit_tasks", done.metrics) == pytest.approx(done.metrics, rel=1e-3, abs=1e-3)
    groups = mtl_gym.suggest_groups("digit_tasks", policy, seed=1, **given)
    assert sorted(task for group in groups for task in group) == sorted(done.outcome["tasks"])
    assert len(groups) == done.outcome["num_groups"]


def test_a_structure_is_suggested_stage_by_stage():
    given = settings("digits", LAYER_MERGING, train_steps=40)
    shared = mtl_gym.suggest_sharing("digits", "shared", num_tasks=3, seed=2, **given)
    apart = mtl_gym.suggest_sharing("digits", "single-task", num_tasks=3, seed=2, **given)
    assert [len(stage) for stage in shared] == [1] * len(shared)
    assert [len(stage) for stage in apart] == [3] * len(apart)


@pytest.mark.parametrize(
    ("problem", "policy", "env", "others"),
    [
        ("digits", "si", "mtl_gym/LossWeighting-v0", {}),
        ("digits", "uniform", SAMPLE_WEIGHTING, {}),
        ("digits", "random-merge", LAYER_MERGING, {"num_tasks": 3, "train_steps": 40}),
        ("digit_tasks", "random-groups", TASK_GROUPING, {}),
        ("quadratic", "ew", "mtl_gym/LossWeighting-v0", {}),
    ],
)
def test_a_file_gives_the_same_module_back(problem, policy, env, others, tmp_path):
    done = mtl_gym.fit(problem, policy, env, seed=1, **settings(problem, env, **others))
    file = done.save(tmp_path / "model")
    assert file.name == "model.safetensors"
    inputs = load_problem(problem).splits["test"].inputs[:5]
    again = mtl_gym.load_module(file)
    for task, outputs in done.module(inputs).items():
        assert torch.equal(again(inputs)[task], outputs)


def test_the_network_of_a_problem_made_in_python_is_loaded_with_it(tmp_path):
    inputs = np.random.default_rng(0).normal(size=(400, 5))
    problem, other = (mtl_gym.Problem.from_arrays(inputs, {name: inputs.sum(1)}, name="shop") for name in ("price", "cost"))
    done = mtl_gym.fit(problem, "ew", train_steps=4)
    file = done.save(tmp_path / "model")
    own = problem.splits["test"].inputs
    assert torch.equal(mtl_gym.load_module(file, problem)(own)["price"], done.module(own)["price"])
    with pytest.raises(ValueError, match="shop"):
        mtl_gym.load_module(file)
    with pytest.raises(ValueError, match=r"also \['price'\]"):
        mtl_gym.load_module(file, other)


def test_a_damaged_file_is_named(tmp_path):
    done = mtl_gym.fit("quadratic", "ew", **settings("quadratic"))
    file = done.save(tmp_path / "model.safetensors")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        mtl_gym.load_module(file)
    with pytest.raises(ValueError, match=r"nothing"):
        mtl_gym.load_module(tmp_path / "nothing")


def test_soft_groups_have_no_network():
    given = settings("digit_tasks", TASK_GROUPING, num_tasks=4)
    with pytest.raises(ValueError, match="soft memberships"):
        mtl_gym.fit("digit_tasks", "stg-mtl:soft=true:m=4", TASK_GROUPING, **given)


@pytest.mark.slow
def test_the_command_writes_the_network_of_a_row(tmp_path):
    given = settings("digits", train_steps=40)
    mtl_gym.compare("si", problem="digits", instances=2, out=tmp_path / "runs", **given)
    words = [sys.executable, "-m", "mtl_gym", "fit", "runs", "--policy", "si", "--instance", "1", "--to", "model.safetensors"]
    answer = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"}, check=True)
    assert "digit/accuracy" in answer.stdout
    module = mtl_gym.load_module(tmp_path / "model.safetensors")
    assert isinstance(module, nn.Module)
    assert json.dumps(sorted(module.paths)) == json.dumps(sorted(task.name for task in load_problem("digits").tasks))


class Own(nn.Module):
    """Somebody's own network of the digits, with batch norm."""

    def __init__(self):
        super().__init__()
        tasks = load_problem("digits").tasks
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU())
        self.heads = nn.ModuleDict({task.name: nn.Linear(16, task.outputs) for task in tasks})

    def forward(self, inputs):
        features = self.trunk(inputs)
        return {task: head(features) for task, head in self.heads.items()}


def test_a_module_of_ones_own_comes_back_as_what_it_is(tmp_path):
    digits = load_problem("digits")
    problem = mtl_gym.Problem("own", digits.tasks, digits.splits, model=Own)
    given = {"train_steps": 24, "batch_size": 16, "holdout_size": 16}
    done = mtl_gym.fit(problem, "igb", seed=1, **given)
    assert type(done.module) is Own
    outputs = done.module(digits.splits["test"].inputs)
    found = split_metrics(digits, torch.cat([*outputs.values()], dim=1)[None].detach(), digits.splits["test"].targets)
    assert {name: float(found[name][0]) for name in done.metrics} == pytest.approx(done.metrics, rel=1e-4, abs=1e-4)
    file = done.save(tmp_path / "own")
    again = Own()
    again.load_state_dict(load_file(file))
    assert torch.equal(again.eval()(digits.splits["test"].inputs)["digit"], outputs["digit"])
    groups = mtl_gym.fit(problem, "random-groups", TASK_GROUPING, tasks=["digit", "parity", "loop"], train_steps=8, batch_size=16)
    assert set(groups.module(digits.splits["test"].inputs[:4])) == set(groups.outcome["tasks"])


def test_a_problem_made_in_python_is_not_taken_for_the_one_of_that_name(tmp_path):
    digits = load_problem("digits")
    problem = mtl_gym.Problem("digits", digits.tasks, digits.splits, network="mlp", version=7)
    given = {"train_steps": 4, "batch_size": 16, "holdout_size": 16}
    done = mtl_gym.fit(problem, "ew", **given)
    assert done.about["problem"] == "digits"
    with pytest.raises(ValueError, match=r"one made in Python.*load_module\(path, problem\)"):
        mtl_gym.load_module(done.save(tmp_path / "model"))
    assert mtl_gym.load_module(tmp_path / "model.safetensors", problem) is not None
    mtl_gym.compare("ew", problem=problem, instances=1, out=tmp_path / "runs", **given)
    with pytest.raises(ValueError, match="one made in Python"):
        refit(tmp_path / "runs", "ew", 0)


def test_a_row_of_a_problem_that_has_changed_is_refused(tmp_path):
    file = tmp_path / "shop.py"
    code = (
        "import numpy as np, mtl_gym\n\ndef make():\n    x = np.random.default_rng(SEED).normal(size=(300, 3))\n"
        "    return mtl_gym.Problem.from_arrays(x, {'price': x.sum(1)}, train_steps=60)\n"
    )
    file.write_text(code.replace("SEED", "0"))
    mtl_gym.compare("ew", problem=f"{file}:make", instances=1, out=tmp_path / "runs")
    assert refit(tmp_path / "runs", "ew", 0)[0].about["address"] == f"{file}:make"
    file.write_text(code.replace("SEED", "1"))
    with pytest.raises(ValueError, match=r"as it is now.*Compare again"):
        refit(tmp_path / "runs", "ew", 0)


@pytest.mark.parametrize("call", [mtl_gym.compare, mtl_gym.fit])
def test_an_unknown_argument_lists_those_of_the_function_too(call):
    own = {"compare": "instances, seed, num_envs", "fit": "seed"}[call.__name__]
    with pytest.raises(TypeError, match=rf"`argument` should be one of {own}.*problem.*'quiet'"):
        call(*["quadratic", "ew"][call is mtl_gym.compare :], quiet=True)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_sizes": "x"},
        {"hidden_sizes": [0]},
        {"hidden_sizes": None},
        {"hidden_sizes": [3]},
        {"tasks": []},
        {"tasks": None},
        {"address": 3},
        {"address": ["digits"]},
        {"paths": "x"},
        {"paths": {"nope": [0, 1]}},
        {"paths": {"digit": [0, 1, 2, 3]}},
    ],
)
def test_a_file_with_a_damaged_description_is_refused_by_its_path(change, described, tmp_path):
    state, about = described
    file = tmp_path / "damaged.safetensors"
    save_file(state, file, metadata={"mtl_gym": json.dumps({**about, **change})})
    with pytest.raises(ValueError, match=r"`path` should.*damaged\.safetensors"):
        mtl_gym.load_module(file)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """What a file of a network holds."""
    file = mtl_gym.fit("digits", "ew", **settings("digits", num_tasks=3)).save(tmp_path_factory.mktemp("network") / "good")
    with safe_open(str(file), framework="pt") as content:
        return load_file(file), json.loads(content.metadata()["mtl_gym"])


@pytest.mark.parametrize(
    ("to", "words"), [("", "`--to` should be a path"), ("/dev/null/model", "`--to` should be a folder that can")]
)
def test_a_file_that_cannot_be_written_is_named_before_anything_is_trained(to, words, tmp_path):
    arguments = ["fit", str(tmp_path / "nothing"), "--policy", "ew", "--instance", "0", "--to", to]
    answer = CliRunner().invoke(full_app(), arguments, env={"COLUMNS": "300"})
    assert answer.exit_code
    assert words in answer.output


@pytest.mark.parametrize("path", ["", ".", "/dev/null/model"])
def test_a_network_is_not_saved_to_what_is_no_file(path):
    done = mtl_gym.fit("quadratic", "ew", **settings("quadratic"))
    with pytest.raises(ValueError, match="`path` should"):
        done.save(path)
