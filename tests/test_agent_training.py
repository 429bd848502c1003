"""Training of agents: what is written, kills, settings, wrong arguments, curves, the command, comparisons, and SB3's evaluation."""

from __future__ import annotations

import json
import random
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from rollouts import TRAINING, slow_unless
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

import mtl_gym
from mtl_gym import agents
from mtl_gym.agents import AGENTS
from mtl_gym.agents.agent import Agent, load
from mtl_gym.agents.defaults import DEFAULTS
from mtl_gym.agents.files import read
from mtl_gym.cache import locked
from mtl_gym.cli import full_app
from mtl_gym.environments import ENVIRONMENTS
from mtl_gym.policies.grammar import make_policy

ROOT = Path(mtl_gym.__file__).parents[1]
ENV = "mtl_gym/LossWeighting-v0"
ON_POLICY = {"batch_size": 4, "n_epochs": 1}
OFF_POLICY = {"batch_size": 4, "gradient_steps": 1, "learning_starts": 4, "buffer_size": 1000}
OPTIONS = {
    "ppo": ON_POLICY,
    "recurrent-ppo": ON_POLICY,
    "sac": {**OFF_POLICY, "ent_coef": "auto"},
    "td3": OFF_POLICY,
    "tqc": OFF_POLICY,
}
LONG = {**TRAINING, "time_steps": 32, "evaluations": 4}
KILLED = """
import json, os, signal, sys
from mtl_gym import agents

def on_progress(steps, known):
    if steps >= 16:
        os.kill(os.getpid(), signal.SIGKILL)

agents.train(out=sys.argv[2], on_progress=on_progress, **json.loads(sys.argv[1]))
"""


def train(out, **changes):
    given = {**TRAINING, "out": out, "time_steps": 8, "options": OPTIONS.get(changes.get("algorithm", "ppo"), {}), **changes}
    return agents.train(**given)


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def same(first, second):
    """Whether two nests are equal bit for bit."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short training, its agent, and what its on_progress was told."""
    out, told = tmp_path_factory.mktemp("trained") / "new" / "folder", []
    agent = train(out, on_progress=lambda steps, known: told.append((steps, dict(known))))
    return out, agent, told


@pytest.fixture
def killed(algorithm, tmp_path):
    """The folder of a training that was killed at the 16th of 32 time steps, after the checkpoint at the 8th."""
    settings = {**LONG, "algorithm": algorithm, "options": OPTIONS[algorithm]}
    command = [sys.executable, "-c", KILLED, json.dumps(settings), str(tmp_path / "killed")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == -9, answer.stderr
    return tmp_path / "killed"


# --- what is written ------------------------------------------------------------------------------------------------------


def test_a_training_leaves_its_agents_its_checkpoint_and_its_curves(finished):
    out, agent, told = finished
    [events] = [name for name in names(out) if name.startswith("events/agent/events.out.tfevents")]
    assert names(out) == {"best.safetensors", "last.safetensors", "checkpoint.safetensors", events}
    assert agent.spec == load(out).spec == load(out / "best.safetensors").spec
    scores = load(out / "last.safetensors").about["scores"]
    assert [score["steps"] for score in scores] == [0, 8]
    best = max(scores, key=lambda score: score["reward"])
    assert agent.about["training"]["time_steps"] == best["steps"]
    assert [steps for steps, _ in told] == [8]
    assert set(told[0][1]) == {"return", "score", "delta_m", "evaluated"}
    assert told[0][1]["evaluated"] == 0


@pytest.mark.parametrize("algorithm", slow_unless("ppo".__eq__, ["ppo", "sac"]))
def test_the_same_seed_gives_the_same_agent_whatever_the_global_generators(algorithm, tmp_path):
    first = train(tmp_path / "a", algorithm=algorithm, time_steps=16)
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(123)
    second = train(tmp_path / "b", algorithm=algorithm, time_steps=16)
    other = train(tmp_path / "c", algorithm=algorithm, time_steps=16, seed=1)
    for name in ("last", "checkpoint", "best"):
        assert same(read(tmp_path / "a" / f"{name}.safetensors"), read(tmp_path / "b" / f"{name}.safetensors"))
    assert first.spec == second.spec != other.spec


def test_the_global_generators_are_left_alone(tmp_path):
    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002

    before = states()
    train(tmp_path / "a")
    assert states() == before
    with pytest.raises(ValueError, match="weight for each"):
        train(tmp_path / "b", references=["constant:w=1,2"])
    assert states() == before


# --- kills and going on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", slow_unless("sac".__eq__, ["ppo", "sac"]))
def test_a_killed_training_is_gone_on_from(algorithm, killed, tmp_path):
    out, told = killed, []
    before, last = read(out / "checkpoint.safetensors"), load(out / "last.safetensors")
    assert before["steps"] == 8
    assert [score["steps"] for score in before["scores"]] == [0, 8]
    assert same(last.parameters, before["parameters"]["policy"])
    agents.train(
        out=out, algorithm=algorithm, options=OPTIONS[algorithm], on_progress=lambda steps, known: told.append(steps), **LONG
    )
    after = read(out / "checkpoint.safetensors")
    assert told[0] == 16
    assert told[-1] == after["steps"] == 32
    assert after["scores"][:2] == before["scores"]
    assert [score["steps"] for score in after["scores"]] == [0, 8, 16, 24, 32]
    assert after["updates"] > before["updates"]
    if algorithm == "sac":
        assert (before["buffer"]["pos"], after["buffer"]["pos"]) == (2, 8)
        assert torch.equal(after["buffer"]["rewards"][:2], before["buffer"]["rewards"])
        for name, rows in before["buffer"]["observations"].items():
            assert torch.equal(after["buffer"]["observations"][name][:2], rows)
        assert list(before["variables"]) == ["log_ent_coef"]
        assert not torch.equal(after["variables"]["log_ent_coef"], before["variables"]["log_ent_coef"])
    best = max(after["scores"], key=lambda score: score["reward"])
    assert load(out).about["training"]["time_steps"] == best["steps"]
    agents.train(out=tmp_path / "whole", algorithm=algorithm, options=OPTIONS[algorithm], **LONG)
    for name in ("last", "best", "checkpoint"):  # as if nothing had happened
        assert (out / f"{name}.safetensors").read_bytes() == (tmp_path / "whole" / f"{name}.safetensors").read_bytes()


@pytest.mark.slow
def test_a_training_that_is_interrupted_at_once_ends_as_if_it_had_not_been(tmp_path):
    def stop(steps, known):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        agents.train(out=tmp_path / "a", options=ON_POLICY, on_progress=stop, **LONG)
    assert read(tmp_path / "a" / "checkpoint.safetensors")["steps"] == 0
    for name in "ab":
        agents.train(out=tmp_path / name, options=ON_POLICY, **LONG)
    for name in ("last", "best", "checkpoint"):
        assert (tmp_path / "a" / f"{name}.safetensors").read_bytes() == (tmp_path / "b" / f"{name}.safetensors").read_bytes()


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="`out` should be a folder in which no other process trains"):
        train(tmp_path)
    assert not names(tmp_path)


def test_a_finished_training_returns_at_once_and_changes_nothing(finished):
    out, agent, _ = finished
    before = {name: (out / name).read_bytes() for name in names(out)}
    assert train(out, on_progress=lambda steps, known: pytest.fail("trained again")).spec == agent.spec
    assert {name: (out / name).read_bytes() for name in names(out)} == before


OTHERS = {
    "seed": 1,
    "time_steps": 16,
    "num_envs": 8,
    "rollouts_per_instance": 1,
    "evaluations": 2,
    "instances": 3,
    "references": ["ew"],
    "options": {**ON_POLICY, "gamma": 0.5},
    "algorithm": "recurrent-ppo",
    "train_steps": 60,
    "lr": 0.1,
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_setting_in_the_same_folder_is_refused_and_named(name, finished):
    out, _, _ = finished
    before = {name: (out / name).read_bytes() for name in names(out)}
    known = "arguments" if name in ("train_steps", "lr") else name
    with pytest.raises(ValueError, match=rf"`{known}` should be .*, as in the training in .* Or choose another folder"):
        train(out, **{"options": ON_POLICY, name: OTHERS[name]})
    assert {name: (out / name).read_bytes() for name in names(out)} == before


def test_a_truncated_checkpoint_is_refused(finished, tmp_path):
    whole = (finished[0] / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"`path` should be a complete agent file.*checkpoint\.safetensors.*Move it away"):
        train(tmp_path)
    assert names(tmp_path) == {"checkpoint.safetensors"}


def test_an_agent_in_the_place_of_a_checkpoint_is_refused(finished, tmp_path):
    finished[1].save(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="`out`"):
        train(tmp_path)


@pytest.mark.slow
def test_an_interrupted_command_says_from_where_it_resumes(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mtl_gym.agents.monitor.Monitor._on_step", interrupted)
    answer = command(tmp_path)
    assert answer.exit_code == 130
    assert "The training resumes from its last evaluation" in answer.stderr
    assert read(tmp_path / "checkpoint.safetensors")["steps"] == 0


# --- problems of one's own ------------------------------------------------------------------------------------------------


def own_problem(seed=0):
    rng, tasks = np.random.default_rng(seed), [mtl_gym.Task(name, "mse", ("nrmse",)) for name in "ab"]
    inputs = {name: rng.normal(size=(40, 3)) for name in ("train", "meta", "reward", "test")}
    splits = {name: mtl_gym.Split.of(own, [own[:, 0], own[:, 1] - own[:, 2]]) for name, own in inputs.items()}
    return mtl_gym.Problem("of my own", tasks, splits)


OWN = {"batch_size": 8, "holdout_size": 16, "hidden_sizes": [4]}


def test_an_agent_is_trained_on_a_problem_of_ones_own(tmp_path):
    agent = train(tmp_path, problem=own_problem(), **OWN)
    assert agent.about["environment"]["arguments"]["problem"] == "of my own"
    assert agent.about["environment"]["problem"] == own_problem().identity
    assert "trained on of my own for" in repr(agent)
    assert load(tmp_path).spec == agent.spec
    mtl_gym.evaluate(load(tmp_path), problem="quadratic", train_steps=40, instances=1)
    with pytest.raises(ValueError, match=r"of my own.*given as file\.py:function, or as a Problem"):
        gymnasium.make(ENV, problem=agent.about["environment"]["arguments"]["problem"])
    assert train(tmp_path, problem=own_problem(), **OWN).spec == agent.spec
    with pytest.raises(ValueError, match=r"`arguments` should be .*of my own"):
        train(tmp_path, problem=own_problem(seed=1), **OWN)


def test_an_agent_records_where_its_problem_is_found(tmp_path, monkeypatch):
    lines = ["import mtl_gym", "from test_agent_training import own_problem as make"]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    agent = train(tmp_path / "out", problem="mine.py:make", **OWN)
    address = agent.about["environment"]["arguments"]["problem"]
    assert address == f"{tmp_path}/mine.py:make"
    assert mtl_gym.load_problem(address).name == "of my own"
    (tmp_path / "mine.py").write_text("raise AssertionError('an agent runs no code')")
    mtl_gym.evaluate(load(tmp_path / "out"), problem="quadratic", train_steps=40, instances=1)


# --- algorithms and arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [name for name in AGENTS if name not in ("ppo", "dqn", "maskable-ppo")])
def test_every_algorithm_for_these_actions_trains_and_loads(algorithm, tmp_path):
    agent = train(tmp_path, algorithm=algorithm)
    assert agent.about["algorithm"] == algorithm
    before, after = read(tmp_path / "best.safetensors"), read(tmp_path / "last.safetensors")
    assert agent.spec == load(tmp_path).spec
    assert after["about"]["training"]["time_steps"] == 8
    assert list(before["parameters"]) == list(after["parameters"])
    frame = mtl_gym.evaluate(agent, problem="quadratic", train_steps=40, instances=1)
    assert np.isfinite(frame["delta_m"]).all()


@pytest.mark.parametrize("algorithm", ["dqn", "maskable-ppo"])
def test_algorithms_of_discrete_decisions_refuse_continuous_ones(algorithm, tmp_path):
    with pytest.raises(ValueError, match=r"`algorithm` should be one that has a policy for .*: ppo, recurrent-ppo, sac, td3, tqc"):
        train(tmp_path / "new", algorithm=algorithm)
    assert not (tmp_path / "new").exists()


WRONG = [
    {"time_steps": 0},
    {"time_steps": 1.5},
    {"num_envs": "4"},
    {"rollouts_per_instance": 3},
    {"rollouts_per_instance": 0},
    {"evaluations": 0},
    {"instances": -1},
    {"seed": -1},
    {"seed": True},
    {"algorithm": "os:system"},
    {"env": "CartPole-v1"},
    {"env": "os:system"},
    {"problem": "digit"},
    {"problem": ""},
    {"problem": "missing.py:make"},
    {"vectorization_mode": "sync"},
    {"self": 1},
    {"problem": object()},
    {"train_steps": 30},
    {"nothing": 5},
    {"action": "strange"},
    {"observe": ["nothing"]},
    {"autoreset_mode": "Disabled"},
    {"references": ["nothing"]},
    {"references": ["constant:w=1,2"]},
    {"references": [mtl_gym.policy(lambda losses: losses)]},
    {"options": {**ON_POLICY, "unknown": 1}},
    {"options": {**ON_POLICY, "learning_rate": -1}},
    {"options": {**ON_POLICY, "learning_rate": "a"}},
    {"options": {**ON_POLICY, "policy_kwargs": {"unknown": 1}}},
    {"options": {**ON_POLICY, "policy_kwargs": {"activation_fn": "os:system"}}},
    {"options": {**ON_POLICY, "policy_kwargs": 3}},
    {"options": {**ON_POLICY, "device": "cpu"}},
    {"options": {**ON_POLICY, "learning_rate": object()}},
]


@pytest.mark.parametrize("changes", WRONG, ids="-".join)
def test_wrong_arguments_are_refused_before_anything_is_written(changes, tmp_path):
    with pytest.raises((ValueError, TypeError, gymnasium.error.Error)):
        train(tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


def test_a_first_deviation_may_be_a_whole_number(tmp_path):
    agent = train(tmp_path, options={**ON_POLICY, "policy_kwargs": {"log_std_init": -1}})
    assert agent.about["policy"] == {"log_std_init": -1}


REFUSED = [{"episodes": 0}, {"batch_size": 1}, {"n_steps": 5}, {"use_sde": True}]


@pytest.mark.parametrize("options", REFUSED, ids=str)
def test_wrong_options_are_refused_by_a_message(options, tmp_path):
    with pytest.raises((ValueError, TypeError), match=r"`options`|`episodes`"):
        train(tmp_path / "new", options={**ON_POLICY, **options})
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="out"):
        train(tmp_path / "file")
    with pytest.raises(ValueError, match="`out` should be a folder that can be written"):
        train(tmp_path / "file" / "below", on_progress=lambda steps, known: pytest.fail("trained"))
    (tmp_path / "best.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"`out` should not contain a folder called best\.safetensors"):
        train(tmp_path, on_progress=lambda steps, known: pytest.fail("trained"))


# --- the command and the curves ---------------------------------------------------------------------------------------


def command(out, *more):
    words = [
        "train",
        "--out",
        out,
        "--num-envs",
        4,
        "--rollouts-per-instance",
        2,
        "--time-steps",
        8,
        "--evaluations",
        1,
        "--instances",
        2,
    ]
    words += ["--references", "ew,init", "--set", "train_steps=40", "--option", "batch_size=4", "--option", "n_epochs=1", *more]
    return CliRunner().invoke(full_app(), [str(word) for word in words])


@pytest.fixture(scope="module")
def commanded(tmp_path_factory):
    """The folder of a training on digits by the command, and what it printed."""
    out = tmp_path_factory.mktemp("commanded") / "my agent"
    answer = command(out)
    assert answer.exit_code == 0, answer.output
    return out, answer.output


def scalars(run):
    events = EventAccumulator(str(run))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_command_trains_and_says_what_comes_next(commanded):
    out, output = commanded
    lines = " ".join(output.split())
    assert "on held-out instances, after" in lines
    assert re.search(r"return -?\d+\.\d{3} of the reward terminal_delta_m \(higher is better\), delta_m", lines)
    assert f"tensorboard --logdir '{out}'/events" in lines
    given = "--set distribution=varied --set train_steps=40"
    assert f"mtl-gym compare --problem digits --policies ew,init,si,'{out}' --out '{out}'/comparison {given}" in lines
    assert load(out).about["environment"]["arguments"]["train_steps"] == 40


@pytest.mark.parametrize("steps", [0, 8])
def test_the_command_says_whether_the_training_has_helped(steps, commanded):
    """The file of the best agent is replaced by that of the untrained one, or of the last."""
    out, _ = commanded
    best, last = load(out), load(out / "last.safetensors")
    scores = [score for score in last.about["scores"] if score["steps"] <= steps]
    try:
        Agent({**last.about, "scores": scores}, last.parameters).save(out / "best")
        output = " ".join(command(out).output.split())
    finally:
        best.save(out / "best")
    assert ("attention: no evaluation was better than that of the untrained agent" in output) == (steps == 0)
    assert ("after 0 time steps, untrained" in output) == (steps == 0)


def test_the_command_prints_json_and_nothing_else(commanded):
    answer = command(commanded[0], "--json", "--quiet")
    assert json.loads(answer.stdout)["scores"] == load(commanded[0]).about["scores"]
    assert not answer.stderr


def test_the_comparison_that_is_printed_names_a_folder_and_no_policy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = command("ppo")
    assert "--policies ew,init,si,./ppo --out ./ppo/comparison" in " ".join(answer.output.split()), answer.output


def test_the_curves_of_agent_and_references_are_drawn(commanded):
    out, _ = commanded
    assert {run.name for run in (out / "events").iterdir()} == {"agent", "ew", "init"}
    agent = scalars(out / "events" / "agent")
    tasks = {tag for tag in agent if tag.startswith("weights/")}
    assert len(tasks) >= 2
    assert sum(agent[tag][-1][1] for tag in tasks) <= 1 + 1e-5
    assert [step for step, _ in agent["rollout/return"]] == [8]
    scores = load(out / "last.safetensors").about["scores"]
    for tag, name in {"heldout/delta_m": "delta_m", "heldout/return": "reward"}.items():
        assert [step for step, _ in agent[tag]] == [0, 8]
        np.testing.assert_allclose([value for _, value in agent[tag]], [score[name] for score in scores], rtol=1e-5)
        for reference in ("ew", "init"):
            drawn = scalars(out / "events" / reference)[tag]
            assert [step for step, _ in drawn] == [0, 8]
            assert drawn[0][1] == drawn[1][1]


def test_the_same_command_again_does_nothing(commanded):
    out, output = commanded
    before = names(out)
    answer = command(out)
    assert answer.exit_code == 0
    assert answer.output.splitlines()[-3:] == output.splitlines()[-3:]
    assert names(out) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "1"], "`seed` should be 0, as in the training"),
        (["--rollouts-per-instance", "4"], "`rollouts_per_instance` should be 2, as in the training"),
        (["--set", "problem=yeast"], "use the option --problem"),
        (["--option", "gamma"], "of the form key=value"),
        (["--rollouts-per-instance", "3"], "`rollouts_per_instance` should divide num_envs=4"),
        (["--references", "nothing"], "`policies` should be one of"),
        (["--problem", ""], "`problem` should be one of"),
        (["--set", "vectorization_mode=sync"], "Received --set='vectorization_mode'"),
        (["--set", "settings=1"], "Received --set='settings'"),
        (["--option", "batch_size=8"], "`--option` should set batch_size once"),
    ],
)
def test_the_command_says_what_is_wrong(words, message, commanded):
    answer = command(commanded[0], *words)
    assert answer.exit_code == 2
    assert message in answer.output
    assert "Traceback" not in answer.output


# --- comparisons --------------------------------------------------------------------------------------------------------

COMPARED = {"problem": "quadratic", "train_steps": 40, "instances": 2}


def rows(out):
    with closing(sqlite3.connect(out / "results.sqlite")) as connection:
        return connection.execute("SELECT COUNT(*) FROM results").fetchone()[0]


def test_a_comparison_takes_the_path_of_an_agent(finished):
    out, agent, _ = finished
    frame = mtl_gym.compare(["ew", str(out), str(out / "last.safetensors")], **COMPARED)
    assert list(frame["policy"].unique()) == ["ew", str(out), str(out / "last.safetensors")]
    by_object = mtl_gym.compare([agent], **COMPARED)
    np.testing.assert_array_equal(by_object["value"], frame[frame["policy"] == str(out)]["value"])


def test_a_missing_path_and_a_path_of_no_agent_are_refused(tmp_path):
    (tmp_path / "table.csv").write_text("a,b")
    for path, message in {"missing/agent": "paths of existing agents", "": "complete agent file"}.items():
        with pytest.raises(ValueError, match=message):
            mtl_gym.compare(["ew", str(tmp_path / path)], out=tmp_path / "out", **COMPARED)
    with pytest.raises(ValueError, match="complete agent file"):
        mtl_gym.compare(["ew", str(tmp_path / "table.csv")], out=tmp_path / "out", **COMPARED)
    assert names(tmp_path) == {"table.csv"}


@pytest.mark.slow
def test_results_of_an_agent_are_found_again_and_not_taken_for_anothers(finished, tmp_path, monkeypatch):
    out, agent, _ = finished
    other = train(tmp_path / "other", seed=1)
    first = mtl_gym.compare({"mine": agent}, out=tmp_path, **COMPARED)
    assert rows(tmp_path) == 2
    second = mtl_gym.compare({"mine": other}, out=tmp_path, **COMPARED)
    assert rows(tmp_path) == 4
    assert not np.array_equal(first["value"], second["value"])
    monkeypatch.setattr(Agent, "predict", lambda *_, **__: pytest.fail("played again"))
    again = mtl_gym.compare({"mine": load(out)}, out=tmp_path, **COMPARED)
    np.testing.assert_array_equal(again["value"], first["value"])
    np.testing.assert_array_equal(mtl_gym.compare({"mine": other}, out=tmp_path, **COMPARED)["value"], second["value"])
    assert rows(tmp_path) == 4


def test_an_agent_of_other_parameters_or_another_environment_is_another(finished):
    _, agent, _ = finished
    moved = Agent(agent.about, {**agent.parameters, "log_std": agent.parameters["log_std"] + 1e-6})
    environment = agent.about["environment"]
    wider = {**environment, "arguments": {**environment["arguments"], "weight_range": 10.0}}
    assert len({repr(one.spec) for one in (agent, moved, Agent({**agent.about, "environment": wider}, agent.parameters))}) == 3
    assert Agent({**agent.about, "scores": []}, agent.parameters).spec == agent.spec


# --- over samples ---------------------------------------------------------------------------------------------------------

OF_SAMPLES = "mtl_gym/SampleWeighting-v0"
TINY = {
    "tasks": ["digit", "angle"],
    "train_steps": 20,
    "steps_per_action": 10,
    "hidden_sizes": [8],
    "batch_size": 16,
    "holdout_size": 16,
}
SAMPLES = {**TRAINING, **TINY, "problem": "digits", "env": OF_SAMPLES, "reward": "val_mean"}


@pytest.fixture(scope="module", params=["ppo", "recurrent-ppo"])
def of_samples(request, tmp_path_factory):
    """The folder of a short training over samples, and its agent."""
    out = tmp_path_factory.mktemp("samples")
    return out, train(out, algorithm=request.param, **SAMPLES)


def test_an_agent_over_samples_says_what_it_needs(of_samples):
    out, agent = of_samples
    requires = load(out).requires
    assert requires.env == OF_SAMPLES
    assert requires.observe == tuple(DEFAULTS[OF_SAMPLES].arguments["observe"])
    assert (requires.action, requires.steps_per_action) == ("rule", 10)
    assert requires.env_kwargs == {"features": None, "sharpness": 10.0}
    assert requires == agent.requires


@pytest.mark.parametrize(
    "sizes",
    [{}, {"batch_size": 24}, {"tasks": ["digit", "parity", "loop", "angle"]}, {"tasks": ["angle"], "batch_size": 3}],
    ids=str,
)
def test_an_agent_over_samples_plays_with_other_batches_and_numbers_of_tasks(of_samples, sizes):
    out, agent = of_samples
    given = {**TINY, **sizes}
    del given["steps_per_action"]
    frame = mtl_gym.compare({"kept": load(out), "same": agent, "uniform": "uniform"}, OF_SAMPLES, instances=2, **given)
    assert np.isfinite(frame["delta_m"]).all()
    values = {name: frame[frame["policy"] == name]["value"].tolist() for name in ("kept", "same", "uniform")}
    assert values["kept"] == values["same"] != values["uniform"]


def test_an_agent_over_samples_is_refused_where_whole_tasks_are_weighted(of_samples):
    with pytest.raises(ValueError, match=f"`env` should be '{OF_SAMPLES}', which Agent is for"):
        mtl_gym.compare([of_samples[1]], ENV, **COMPARED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *[({"algorithm": name}, "`algorithm` should be ppo or recurrent-ppo") for name in ("sac", "td3", "tqc")],
        ({"action": "quantiles"}, "`action` should be 'rule' for agents. Received action='quantiles'. Other actions weigh"),
        ({"action": "weights", "steps_per_action": 1}, "`action` should be 'rule' for agents"),
        ({"observe": ["sample_loss", "progress"]}, "`observe` should hold at least one observation of each task"),
        ({"references": ["ew"]}, "which ew is for"),
    ],
)
def test_what_does_not_fit_samples_is_refused_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "new", **{**SAMPLES, **changes})
    assert not (tmp_path / "new").exists()


def test_the_same_seed_gives_the_same_agent_over_samples(of_samples, tmp_path):
    out, agent = of_samples
    again = train(tmp_path, algorithm=agent.about["algorithm"], **SAMPLES)
    assert again.spec == agent.spec
    assert same(read(out / "checkpoint.safetensors"), read(tmp_path / "checkpoint.safetensors"))


@pytest.mark.slow
def test_the_command_trains_over_samples_and_its_next_command_runs(tmp_path):
    words = [
        "train",
        "--env",
        OF_SAMPLES,
        "--out",
        tmp_path / "mine",
        "--num-envs",
        4,
        "--rollouts-per-instance",
        2,
        "--time-steps",
        8,
    ]
    words += ["--evaluations", 1, "--instances", 2, "--option", "batch_size=4", "--option", "n_epochs=1", "--set", "reward=none"]
    settings = [word for name, value in TINY.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    answer = CliRunner().invoke(full_app(), [str(word) for word in words + settings])
    assert answer.exit_code == 0, answer.output
    assert {run.name for run in (tmp_path / "mine" / "events").iterdir()} == {"agent", "uniform", "slgrad", "oracle"}
    line = " ".join(answer.output.split()).partition("mtl-gym compare ")[2]
    follows = CliRunner().invoke(full_app(), ["compare", *shlex.split(line.partition(" --instances")[0]), "--instances", "2"])
    assert follows.exit_code == 0, follows.output


# --- environments of others -----------------------------------------------------------------------------------------------

OF_OTHERS = "acme/LearningRate-v0"


@pytest.fixture(scope="module")
def others():
    """An environment of another package, whose specification does not say which actions agents take."""
    home = "tests.learning_rate:LearningRate"
    before = gymnasium.registry.pop(OF_OTHERS, None)  # the module registers itself where another test imports it
    gymnasium.register(OF_OTHERS, entry_point=f"{home}Env", vector_entry_point=f"{home}VectorEnv")
    ENVIRONMENTS[OF_OTHERS] = f"{home}Env"
    yield OF_OTHERS
    del ENVIRONMENTS[OF_OTHERS], gymnasium.registry[OF_OTHERS]
    if before is not None:
        gymnasium.registry[OF_OTHERS] = before


@pytest.mark.parametrize("algorithm", [None, "recurrent-ppo"])
def test_an_environment_of_others_is_trained_on(algorithm, others, tmp_path):
    arguments = {"problem": "digits", "hidden_sizes": [8], "batch_size": 16, "holdout_size": 16}
    agent = train(tmp_path / "agent", env=others, algorithm=algorithm, options=ON_POLICY, **arguments)
    assert agent.about["algorithm"] == (algorithm or "ppo")
    assert agent.about["environment"]["space"] == {"low": [-1.0], "high": [1.0]}
    assert agent.requires.env_kwargs == {"largest_factor": 2.0}
    compared = {"train_steps": 40, "hidden_sizes": [8], "batch_size": 16, "holdout_size": 16}
    frame = mtl_gym.compare({"kept": load(tmp_path / "agent"), "same": agent}, others, instances=2, **compared)
    values = {name: own["value"].tolist() for name, own in frame.groupby("policy")}
    assert values["kept"] == values["same"]
    with pytest.raises(ValueError, match="The parameters should fit the policy"):  # SB3's generic policy is for this many tasks
        mtl_gym.evaluate(agent, others, instances=1, num_tasks=2, **compared)


@pytest.mark.parametrize("algorithm", ["dqn", "maskable-ppo"])
def test_algorithms_that_do_not_fit_an_environment_of_others_are_refused(algorithm, others, tmp_path):
    with pytest.raises(ValueError, match="`algorithm` should"):
        train(tmp_path / "new", env=others, algorithm=algorithm, options={}, rollouts_per_instance=1, problem="digits")
    assert not (tmp_path / "new").exists()


# --- Stable-Baselines3's evaluation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["ew", *(pytest.param(own, marks=pytest.mark.slow) for own in ("si", "uw", "dwa", "recurrent-ppo", "td3")), "ppo"]
)
def test_sb3_evaluates_heuristics_and_agents_alike(name, tmp_path):
    policy = train(tmp_path, algorithm=name) if name in OPTIONS else make_policy(name)
    required = {"observe": ["log_loss"], "action": "weights", "steps_per_action": 1}
    if name in OPTIONS:
        required = policy.requires.arguments()
    elif name in ("uw", "dwa"):  # which read the learning rate or the epoch too
        required["observe"] = list(policy.requires.observe)
    env = Monitor(gymnasium.make(ENV, problem="quadratic", train_steps=40, reward="terminal_delta_m", **required))
    returns, lengths = evaluate_policy(policy, env, n_eval_episodes=2, return_episode_rewards=True)
    assert lengths == [40 // required["steps_per_action"]] * 2
    assert np.isfinite(returns).all()
    env.close()


def test_a_refused_training_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in (".", "new"):
        with pytest.raises(ValueError, match="buffer_size"):
            agents.train(**TRAINING, out=out, algorithm="sac", options={"buffer_size": 10**12}, time_steps=8)
        assert not [*tmp_path.iterdir()]
