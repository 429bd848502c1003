"""What is said of a problem before it is trained: facts against what was planted, scales against hand-written gradients."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from rich.cells import cell_len
from rollouts import LOSS_WEIGHTING, slow_unless
from torch.nn import functional
from typer.testing import CliRunner

import mtl_gym
from mtl_gym.agents.cost import training_seconds
from mtl_gym.cli import app, console
from mtl_gym.envs.arguments import check_arguments
from mtl_gym.problems import PROBLEMS
from mtl_gym.problems.axes import AXES
from mtl_gym.problems.divisions import division
from mtl_gym.problems.splits import SPLITS
from mtl_gym.training.trainer import Trainer

ROOT = Path(mtl_gym.__file__).parents[1]
COUNT = 1000


def arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(COUNT, 4))
    price, sold = x.sum(1), x[:, 0] > 1.0
    kind = np.array(["cat", "dog", "owl"])[rng.integers(0, 3, COUNT)]
    return x, price, sold, kind


def planted(**options):
    x, price, sold, kind = arrays()
    price[::4] = np.nan
    return mtl_gym.Problem.from_arrays(x, {"price": price, "sold": sold, "kind": kind}, hidden_sizes=(8,), **options)


@pytest.fixture(scope="module")
def found():
    return mtl_gym.check(planted())


# --- data ------------------------------------------------------------------------------------------------------------------


def test_labels_are_counted(found):
    _, _, sold, kind = arrays()
    rows = division(COUNT).rows
    for name, own in rows.items():
        known = np.sum(own % 4 != 0)
        assert found["tasks"]["price"]["labels"][name] == known
        assert found["tasks"]["price"]["missing"][name] == pytest.approx(1 - known / len(own))
        assert found["tasks"]["sold"]["missing"][name] == 0
    assert found["splits"] == {name: len(own) for name, own in rows.items()}
    train = rows["train"]
    assert found["tasks"]["sold"]["balance"] == pytest.approx({"False": 1 - sold[train].mean(), "True": sold[train].mean()})
    assert found["tasks"]["kind"]["balance"] == pytest.approx({own: np.mean(kind[train] == own) for own in ("cat", "dog", "owl")})
    assert (found["tasks"]["price"]["mean"], found["tasks"]["price"]["deviation"]) == pytest.approx((0, 1), abs=1e-6)
    kinds = {name: (own["kind"], own["loss"], own["metrics"], own["outputs"]) for name, own in found["tasks"].items()}
    assert kinds["price"] == ("real", "mse", ["nrmse"], 1)
    assert kinds["kind"] == ("classes", "cross_entropy", ["accuracy"], 3)


def splits(inputs, targets=None):
    """Four splits of 100 samples each of inputs (400, F)."""
    targets = np.random.default_rng(1).normal(size=(400, 1)) if targets is None else targets
    return {name: mtl_gym.Split(inputs[place::4], targets[place::4]) for place, name in enumerate(SPLITS)}


ONE = (mtl_gym.Task("a", "mse", ("rmse",)),)


def of(inputs, tasks=ONE, targets=None):
    return mtl_gym.Problem("planted", tasks, splits(inputs, targets))


INPUTS = np.random.default_rng(2).normal(size=(400, 3))


class Flat(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.head = torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)

    def forward(self, inputs):
        return self.head(self.trunk(inputs.flatten(1)))


def test_inputs_that_recur_in_other_splits_are_counted():
    inputs = INPUTS.copy()
    inputs[1] = inputs[0]  # train and meta
    inputs[7] = inputs[3]  # both in test
    inputs[[10, 11]] = inputs[4]  # reward and test, and train
    inputs[12], inputs[13] = 0.0, -0.0  # train and meta
    assert mtl_gym.check(of(inputs))["recurring"] == {"train": 3, "meta": 2, "reward": 1, "test": 1}
    assert not any(mtl_gym.check(of(INPUTS))["recurring"].values())


@pytest.mark.parametrize(("shape", "model"), [((3,), None), ((3,), Flat), ((1, 3), None), ((1, 3), Flat)])
def test_constant_inputs_are_told_of_tables_alone(shape, model):
    inputs = (INPUTS * [1, 0, 1]).reshape(-1, *shape)
    found = mtl_gym.check(mtl_gym.Problem.from_arrays(inputs, {"a": INPUTS[:, 0]}, standardise=False, model=model))
    assert found["inputs"]["constant"] == [1]
    told = shape == (3,) and model is None
    assert (found["inputs"]["table"], any("constant in train" in text for text in found["warnings"])) == (told, told)


def test_inputs_are_described():
    scaled = INPUTS * [1, 30, 0] + [0, 0, 5]
    own = mtl_gym.check(of(scaled))["inputs"]
    train = scaled[::4]
    assert own["shape"] == [3]
    assert own["constant"] == [2]
    assert own["largest_mean"] == pytest.approx(5)
    assert (own["smallest_deviation"], own["largest_deviation"]) == pytest.approx((train[:, 0].std(), train[:, 1].std()), rel=1e-5)


# --- the start -------------------------------------------------------------------------------------------------------------


def test_losses_and_gradients_at_the_start_are_those_of_hand_written_networks(found):
    problem = planted()
    recipe = check_arguments(mtl_gym.specification(LOSS_WEIGHTING), problem=problem).recipe
    trainer = Trainer(problem, recipe, 8)
    trainer.begin(range(8), range(8))
    batch, rows = trainer.losses.batch(), []
    for row in range(8):
        weight, bias, head, own_bias = (own[row].detach().clone() for own in trainer.replicas.parameters.values())
        shared = [weight.requires_grad_(), bias.flatten().requires_grad_()]
        outputs = torch.relu(batch.inputs[row] @ shared[0] + shared[1]) @ head + own_bias.flatten()
        price, sold, kind = batch.labels[row].unbind(1)
        known = ~torch.isnan(price)
        losses = [
            ((outputs[known, 0] - price[known]) ** 2).mean(),
            functional.binary_cross_entropy_with_logits(outputs[:, 1], sold),
            functional.cross_entropy(outputs[:, 2:], kind.long()),
        ]
        gradients = [torch.cat([part.flatten() for part in torch.autograd.grad(own, shared, retain_graph=True)]) for own in losses]
        cosine = torch.nn.functional.cosine_similarity(torch.stack(gradients)[:, None], torch.stack(gradients)[None], dim=2)
        rows.append((torch.stack(losses).detach(), torch.stack(gradients).norm(dim=1), cosine))
    losses, norms, cosines = (torch.stack(own).double().mean(0) for own in zip(*rows, strict=True))
    names = ["price", "sold", "kind"]
    assert [found["tasks"][name]["start_loss"] for name in names] == pytest.approx(losses.tolist(), rel=1e-5)
    assert [found["tasks"][name]["start_gradient"] for name in names] == pytest.approx(norms.tolist(), rel=1e-5)
    expected = {(0, 1): cosines[0, 1], (0, 2): cosines[0, 2], (1, 2): cosines[1, 2]}
    own = {(names.index(a), names.index(b)): cosine for a, b, cosine in found["conflicts"]["cosines"]}
    assert own == pytest.approx({pair: float(value) for pair, value in expected.items()}, abs=1e-5)
    assert [*own.values()] == sorted(own.values())
    assert found["conflicts"]["negative"] == sum(value < 0 for value in own.values())


def test_without_shared_parameters_there_are_no_conflicts():
    problem = of(INPUTS, [mtl_gym.Task("a", "mse", ("rmse",), 2), mtl_gym.Task("b", "mse", ("rmse",))], INPUTS)
    own = mtl_gym.check(problem, hidden_sizes=[])
    assert own["conflicts"] == {"pairs": 0, "negative": 0, "cosines": []}
    assert own["network"] == {"name": "mlp", "identity": "mlp[]", "shared": 0, "heads": 12}


def test_a_task_without_a_label_in_the_first_batches_is_not_averaged_in():
    targets = np.random.default_rng(1).normal(size=(400, 2))
    targets[::4, 1] = np.where(np.arange(100) == 0, 3.0, np.nan)  # a single label in train
    own = mtl_gym.check(of(INPUTS, [mtl_gym.Task(name, "mse", ("rmse",)) for name in "ab"], targets), batch_size=2)
    assert own["tasks"]["b"]["labels"]["train"] == 1
    assert own["tasks"]["b"]["start_loss"] is None or own["tasks"]["b"]["start_loss"] > 1
    json.dumps(own, allow_nan=False)


# --- training --------------------------------------------------------------------------------------------------------------


def test_times_and_memory_are_of_the_trainings_that_will_run(found):
    own = found["training"]
    assert own["seconds"]["training"] == pytest.approx(own["train_steps"] * own["step_seconds"]["1"])
    assert own["seconds"]["policy"] == pytest.approx(own["train_steps"] * own["step_seconds"]["16"] * 20 / 16)
    assert own["seconds"]["references"] == pytest.approx(3 * own["seconds"]["policy"])
    assert own["epochs"] == pytest.approx(own["train_steps"] * own["batch_size"] / found["splits"]["train"])
    assert 1e-5 < own["step_seconds"]["1"] < 1
    envs = gymnasium.make_vec(LOSS_WEIGHTING, num_envs=16, vectorization_mode="vector_entry_point", problem=planted())
    assert own["bytes"]["16"] == int(envs.unwrapped.decision.estimated_bytes)
    assert found["network"]["shared"] == 4 * 8 + 8
    assert found["network"]["heads"] == 5 * (8 + 1)


def test_the_training_of_an_agent_costs_its_references_its_evaluations_and_its_decisions(found):
    own = {**found["training"], "train_steps": 100, "num_tasks": 5, "step_seconds": {"1": 1.0, "16": 1.6}}
    own["seconds"] = {**own["seconds"], "reward": 32 * 5 * 100 * 0.1}
    before, then = training_seconds(own, time_steps=10_000, evaluations=10, instances=8)
    evaluation = 8 * 100 * 0.1
    assert before == pytest.approx(32 * 5 * 100 * 0.1 + 5 * evaluation + 3 * evaluation + evaluation)  # ew, init, si; untrained
    assert then == pytest.approx(1000 * 20 * 0.1 + evaluation)
    assert training_seconds({**own, "step_seconds": {"1": 1.0, "16": None}}, time_steps=1, evaluations=1, instances=1) is None
    assert found["training"]["seconds"]["reward"] == pytest.approx(found["training"]["seconds"]["references"] * 32 / 20)


def test_the_page_says_what_the_training_of_an_agent_costs(monkeypatch):
    monkeypatch.setattr(console, "_width", 200)
    answer = CliRunner().invoke(app, ["check", "quadratic"])
    [line] = [line for line in answer.output.splitlines() if line.startswith("train ")]
    assert re.search(
        r"\d+ m?s for references and first scores, then \d+(\.\d+)? m?s per 1,000 decisions \(training steps alone", line
    )


def test_arguments_replace_the_problems_defaults():
    own = mtl_gym.check(planted(), hidden_sizes=[4, 4], batch_size=20, train_steps=40)
    assert own["network"]["identity"] == "mlp[4, 4]"
    assert (own["training"]["batch_size"], own["training"]["train_steps"]) == (20, 40)


def test_what_would_take_too_much_memory_is_not_tried(found, monkeypatch):
    from mtl_gym.evaluation import problem_check

    alone = found["training"]["bytes"]["1"]
    monkeypatch.setattr(problem_check, "allowed_bytes", lambda device: alone + 1)
    own = mtl_gym.check(planted())["training"]
    assert own["bytes"] == {"1": alone, "16": None}
    assert own["step_seconds"]["16"] is None
    assert own["seconds"]["policy"] is None
    assert own["seconds"]["training"] > 0


def test_a_network_that_does_not_fit_into_memory_is_described_without_being_made():
    x, price, sold, _ = arrays()
    problem = mtl_gym.Problem.from_arrays(x, {"price": price, "sold": sold}, hidden_sizes=(200_000, 200_000))
    own = mtl_gym.check(problem)
    too_much = r"should be smaller: [\d,.]+ GB of memory"
    assert re.search(too_much, own["error"])
    assert own["network"]["shared"] > 4e10
    refused = {env: reason for env, reason in own["environments"].items() if re.search(too_much, reason or "")}
    assert {LOSS_WEIGHTING, "mtl_gym/SampleWeighting-v0"} <= refused.keys()


# --- environments and axes -------------------------------------------------------------------------------------------------


def test_environments_say_why_they_do_not_support_it():
    own = mtl_gym.check("quadratic")["environments"]
    assert set(own) == set(mtl_gym.find_environments())
    for env, reason in own.items():
        assert reason == mtl_gym.specification(env).supports(mtl_gym.load_problem("quadratic"))
    few = {name: mtl_gym.Split(INPUTS[:9], INPUTS[:9, :1]) for name in SPLITS}
    problem = mtl_gym.Problem("few", [mtl_gym.Task("a", "mse", ("rmse",))], {**few, "train": mtl_gym.Split(INPUTS, INPUTS[:, :1])})
    assert "at least 10 samples in *meta*" in mtl_gym.check(problem)["environments"]["mtl_gym/SampleWeighting-v0"]


def test_axes_say_along_which_instances_can_vary(found):
    assert found["axes"] == dict.fromkeys(AXES)
    own = mtl_gym.check(of(INPUTS))["axes"]
    assert {axis for axis, reason in own.items() if reason} == {"split", "unrelated", "nearest_flip"}
    with pytest.raises(ValueError, match="no pool from which instances could draw a split"):
        gymnasium.make(LOSS_WEIGHTING, problem=of(INPUTS), distribution={"split": (1.0, 1.0)})


# --- warnings --------------------------------------------------------------------------------------------------------------


def two(targets, first="mse", second="mse"):
    metric = {"mse": "rmse", "bce": "auc"}
    return of(INPUTS, [mtl_gym.Task("a", first, (metric[first],)), mtl_gym.Task("b", second, (metric[second],))], targets)


TARGETS = np.random.default_rng(3).normal(size=(400, 2))


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (of(np.concatenate([INPUTS[:200], INPUTS[:200]])), None),  # equal samples are in the same split
        (of(np.repeat(INPUTS[:200], 2, axis=0)), r"recur in several splits \(100 of 100 in train, .*groups="),
        (of(INPUTS * 100), r"not standardised \(means up to .*, deviations up to 1\d\d\)"),
        (of(INPUTS * 1e-4), "not standardised"),
        (of(INPUTS * [1, 0, 1]), r"1 of 3 inputs are constant in train \(1\)"),
        (two(TARGETS * [1, 1000]), r"Losses start .* times apart \(b .*, a .*\), so that equal weights train b alone.*init, si"),
        (two(TARGETS * [1, 1000]), r"Deviations of labels are far from 1: b \(.*\)\. Standardise"),
        (
            two(np.where(np.arange(400)[:, None] % 4 == 2, np.where([True, False], TARGETS, np.nan), TARGETS)[:, :2]),
            "cannot be used",
        ),
        (two(np.where(np.arange(400)[:, None] % 20 < 6, np.where([True, False], TARGETS, np.nan), TARGETS)), None),
        (
            two(np.where(np.arange(400)[:, None] > 150, np.where([True, False], TARGETS, np.nan), TARGETS)),
            r"Few labels.*b \(38 in train, ",
        ),
        (
            two(np.stack([TARGETS[:, 0], np.arange(400) % 100 < 4], 1), second="bce"),
            r"Classes with fewer than 10 samples in train: b \(1\)\. Merge",
        ),
    ],
)
def test_what_to_mind_is_said(problem, message):
    own = mtl_gym.check(problem)["warnings"]
    if message is None:
        assert own == []
    else:
        assert any(re.search(message, text) for text in own), own


def test_a_sound_problem_has_no_warning(found):
    assert found["warnings"] == []
    assert found["error"] is None


def test_a_problem_that_cannot_be_trained_is_described_all_the_same():
    targets = TARGETS.copy()
    targets[1::4, 1] = np.nan  # all of meta
    own = mtl_gym.check(two(targets))
    assert "contain a label of the task 'b'" in own["error"]
    assert own["training"] is None
    assert own["tasks"]["b"]["labels"] == {"train": 100, "meta": 0, "reward": 100, "test": 100}
    assert own["warnings"][0].startswith("It cannot be used as it is: ")
    json.dumps(own, allow_nan=False)


# --- in all ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_unless(("quadratic", "relations").__contains__, PROBLEMS))
def test_every_listed_problem_can_be_checked(name):
    state = torch.get_rng_state()
    own = mtl_gym.check(name)
    json.dumps(own, allow_nan=False)
    assert own["error"] is None
    assert own["address"] == name
    assert own["environments"][LOSS_WEIGHTING] is None
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("problem", "arguments", "error", "message"),
    [
        ("digit", {}, ValueError, "Did you mean 'digits'"),
        (3, {}, TypeError, "be a name"),
        ("quadratic", {"batch_size": 0}, ValueError, "`batch_size`"),
        ("quadratic", {"batch_size": 500}, ValueError, "`batch_size` should be at most 128"),
        ("quadratic", {"train_steps": 7}, ValueError, "`train_steps` should be a multiple"),
        ("quadratic", {"device": "abacus"}, ValueError, "`device`"),
        ("digits", {"hidden_sizes": 3}, TypeError, "`hidden_sizes` should be a list"),
    ],
)
def test_wrong_arguments_are_named(problem, arguments, error, message):
    with pytest.raises(error, match=message):
        mtl_gym.check(problem, **arguments)


# --- the command -----------------------------------------------------------------------------------------------------------

OWN = """
import numpy as np, mtl_gym

def make():
    x = np.random.default_rng(0).normal(size=(400, 4))
    price = x.sum(1)
    return mtl_gym.Problem.from_arrays(x, {"price": price, "kind": x[:, 0] > 0}, name="shop")

def untrainable():
    x = np.random.default_rng(0).normal(size=(400, 4))
    late = np.where(np.arange(400) < 300, x[:, 0], np.nan)
    return mtl_gym.Problem.from_arrays(x, {"price": x.sum(1), "late": late}, time=np.arange(400), name="shop")
"""


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("name", ["quadratic", pytest.param("clusters", marks=pytest.mark.slow)])
def test_the_page_fits_the_terminal(width, name, monkeypatch):
    monkeypatch.setattr(console, "_width", width)
    answer = CliRunner().invoke(app, ["check", name])
    assert answer.exit_code == 0
    lines = answer.output.splitlines()
    assert all(cell_len(line) <= width for line in lines)
    for word in ("samples", "network", "a step", "memory", "conflicts", "tasks", "environments", "LayerMerging", "warnings"):
        assert any(word in line for line in lines), word
    assert ("88 more tasks" in answer.output) == (name == "clusters")


def test_the_page_of_standardised_labels_has_no_digits_of_rounding(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setattr(console, "_width", 100)
    answer = CliRunner().invoke(app, ["check", f"{tmp_path}/own.py:make"])
    assert re.search(r"price +number +0% .* 0 ± 1 +nrmse", answer.output)
    assert re.search(r"kind +binary +0% .* (True|False): \d\d\.\d% +auc", answer.output)


def test_the_command_prints_json_and_takes_settings():
    answer = CliRunner().invoke(app, ["check", "quadratic", "--json", "--set", "batch_size=16", "--set", "train_steps=40"])
    assert answer.exit_code == 0
    own = json.loads(answer.stdout)
    assert (own["problem"], own["training"]["batch_size"], own["training"]["train_steps"]) == ("quadratic", 16, 40)


def test_the_command_names_what_is_wrong():
    answer = CliRunner().invoke(app, ["check", "quadratic", "--set", "batchsize=16"])
    assert answer.exit_code == 2
    assert "Did you mean 'batch_size'" in answer.output
    assert CliRunner().invoke(app, ["check", "digit"]).exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize(("function", "status"), [("make", 0), ("untrainable", 1)])
def test_a_file_of_ones_own_is_checked_from_the_command_line(function, status, tmp_path):
    (tmp_path / "shop.py").write_text(OWN)
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "mtl_gym", "check", f"shop.py:{function}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )
    assert answer.returncode == status, answer.stderr
    assert answer.stdout.startswith("shop: 2 tasks")
    assert ("It cannot be used as it is" in answer.stdout) == bool(status)
