"""Agents trained with workers: the same rows, errors, kills, interruptions and arguments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from rollouts import TRAINING, differing
from test_agent_training import ON_POLICY, OPTIONS, OWN, ROOT, own_problem
from test_executors import gone
from typer.testing import CliRunner

from mtl_gym import agents, make_executor
from mtl_gym.agents.defaults import with_defaults
from mtl_gym.agents.files import read
from mtl_gym.agents.remote import remote_rows, shares
from mtl_gym.agents.rows import make_envs
from mtl_gym.agents.settings import Settings, check_settings
from mtl_gym.cli import full_app
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING

LONG = {**TRAINING, "time_steps": 24, "evaluations": 3, "options": ON_POLICY}
WORDS = ["train", "--problem", "quadratic", "--set", "train_steps=40", "--time-steps", "8", "--num-envs", "4", "--references", ""]
SCRIPT = """
import json, sys
from mtl_gym import agents

def on_progress(steps, known):
    print("step", flush=True)

agents.train(out=sys.argv[2], workers=2, on_progress=on_progress, **{**json.loads(sys.argv[1]), "time_steps": 10**6})
"""


def settings(*problems, env=LOSS_WEIGHTING, num_envs=4, algorithm="ppo", reward_floor=None, **arguments):
    first, *others = (with_defaults(env, {"problem": name, "train_steps": 40, **arguments}) for name in problems or ["quadratic"])
    given = {"env": env, "arguments": first, "others": others, "algorithm": algorithm, "options": {}, "reward_floor": reward_floor}
    sizes = {"time_steps": 8, "seed": 0, "num_envs": num_envs, "rollouts_per_instance": 2}
    return check_settings(Settings(**given, **sizes, evaluations=1, instances=2, references=[]))


@pytest.fixture(scope="module")
def holders():
    """Two workers that the tests share."""
    with make_executor(workers=2).hold() as made:
        yield made


def played(envs, steps=5):
    """What a VecEnv returns for random actions; the seconds of episodes are left out."""
    rng = np.random.default_rng(0)
    envs.seed(7)
    yield envs.reset(), list(envs.unwrapped.reset_infos)
    for _ in range(steps):
        actions = rng.uniform(-0.5, 0.5, (envs.num_envs, *envs.action_space.shape)).astype(np.float32)
        observations, rewards, dones, infos = envs.step(actions)
        for info in infos:
            info.get("episode", {}).pop("t", None)
        yield observations, rewards, dones, infos, list(envs.unwrapped.reset_infos)


def close(first, second):
    """Whether nests hold the same numbers within float tolerance."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(own, second[name]) for name, own in first.items())
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(close, first, second))
    return np.allclose(first, second, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("sources", "families", "workers"), [(1, 8, 1), (1, 8, 3), (3, 4, 2), (2, 3, 4), (3, 2, 6)])
def test_families_are_cut_into_equal_pieces_in_order(sources, families, workers):
    cut = [shares(source, sources, families, workers) for source in range(sources)]
    assert [sum(own.values()) for own in cut] == [families] * sources
    order = [worker for own in cut for worker in own]
    assert order == sorted(order)
    held = sum(map(Counter, cut), Counter())
    assert [*held] == [*range(workers)]
    assert max(held.values()) - min(held.values()) <= 1


CASES = {
    "one problem": settings(),
    "standardised": settings(reward_floor=0.01),
    "three problems": settings(
        *["quadratic"] * 3, num_envs=6, observe=["pooled_log_loss", "progress"], action="rule", reward="quality", decisions=2
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_in_workers_are_those_of_this_process(case, holders):
    (here, length), (there, same_length) = make_envs(CASES[case]), make_envs(CASES[case], holders)
    assert length == same_length
    assert (there.observation_space, there.action_space) == (here.observation_space, here.action_space)
    for own, other in zip(played(here), played(there), strict=True):
        assert close(own, other), differing(own, other)
    assert [info["instance"] for info in here.unwrapped.reset_infos] == [info["instance"] for info in there.unwrapped.reset_infos]


def test_other_rows_replace_the_first_ones_in_the_same_workers(holders):
    first, _ = make_envs(settings(), holders)
    before = list(played(first))
    first.step_async(np.zeros((4, *first.action_space.shape), dtype=np.float32))
    first.step_wait()
    second, _ = make_envs(settings(), holders)
    assert differing(before, list(played(second))) == []


def test_attributes_and_methods_reach_the_workers(holders):
    envs, _ = make_envs(settings(), holders)
    assert [own.observe for own in envs.get_attr("arguments")] == [make_envs(settings())[0].get_attr("arguments")[0].observe] * 4
    assert not envs.has_attr("action_masks")
    assert envs.env_is_wrapped(object) == [False] * 4
    envs.set_attr("max_episode_steps", 1)
    assert envs.get_attr("max_episode_steps", [0, 3]) == [1, 1]
    envs.reset()
    _, _, dones, _ = envs.step(np.zeros((4, *envs.action_space.shape), dtype=np.float32))
    assert dones.all()
    with pytest.raises(ValueError, match="`indices` should be None"):
        envs.set_attr("max_episode_steps", 1, indices=[0])


def test_an_error_in_a_worker_is_that_of_the_environment(holders):
    envs, _ = make_envs(settings(), holders[:1])  # the other would still have an answer
    envs.reset()
    with pytest.raises(ValueError, match="`actions` should") as caught:
        envs.step(np.full((4, *envs.action_space.shape), np.nan, dtype=np.float32))
    assert "In a worker" in caught.value.__notes__[0]


@pytest.mark.slow
def test_masks_come_from_the_workers(holders):
    own = settings("digits", env=LAYER_MERGING, algorithm="maskable-ppo", hidden_sizes=[4, 4], batch_size=8, holdout_size=8)
    found = []
    for workers in ((), holders):
        envs, _ = make_envs(own, workers)
        envs.seed(3)
        envs.reset()
        first = np.stack(envs.env_method("action_masks"))
        envs.step(np.arange(4))
        found.append((first, np.stack(envs.env_method("action_masks"))))
    assert np.array_equal(*found)
    assert found[0][0].sum() < found[0][1].sum()


def test_what_cannot_be_copied_is_refused(holders):
    own = settings()
    own.arguments["problem"] = threading.Lock()
    with pytest.raises(TypeError, match=r"`workers` should be left out with the rows 0 to 3 of mine, which cannot be copied"):
        remote_rows("mine", gymnasium.spec(LOSS_WEIGHTING), own.arguments, None, [(holders[0], 4)])


@pytest.fixture
def children():
    """A function that lists this process's child processes that the test has started."""

    def listed():
        return {int(own) for own in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}

    before = listed()
    return lambda: listed() - before


# --- trainings ------------------------------------------------------------------------------------------------------------


def trained(out, **changes):
    return agents.train(out=out, **{**LONG, **changes})


def returns(folder):
    return [score["reward"] for score in read(folder / "checkpoint.safetensors")["scores"]]


@pytest.mark.slow
def test_a_training_with_workers_ends_as_one_without(children, tmp_path):
    trained(tmp_path / "one")
    trained(tmp_path / "two", workers=2)
    assert returns(tmp_path / "two") == pytest.approx(returns(tmp_path / "one"), rel=1e-3)
    alone, both = (read(tmp_path / name / "last.safetensors")["parameters"] for name in ("one", "two"))
    assert all(np.allclose(alone[name], both[name], atol=1e-4) for name in alone)
    assert not children()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_an_error_after_which_the_training_resumes(workers, children, tmp_path):
    def kill(steps, known):
        if steps == 16:
            os.kill(min(children()), signal.SIGKILL)

    message = r"`workers` should be fewer.*holds the rows . to . of quadratic was ended \(signal 9\).*Received workers=2.*resume"
    with pytest.raises(ChildProcessError, match=message):
        trained(tmp_path, workers=2, on_progress=kill)
    assert not children()
    assert read(tmp_path / "checkpoint.safetensors")["steps"] in (8, 16)
    trained(tmp_path, workers=workers)
    assert read(tmp_path / "checkpoint.safetensors")["steps"] == 24


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_an_interrupted_training_with_workers_ends_as_a_whole_one(algorithm, children, tmp_path):
    def stop(steps, known):
        if steps == 16:
            raise KeyboardInterrupt

    own = {"algorithm": algorithm, "options": OPTIONS[algorithm], "workers": 2}
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "a", on_progress=stop, **own)
    assert not children()
    for name in "ab":
        trained(tmp_path / name, **own)
    for name in ("last", "best", "checkpoint"):
        assert (tmp_path / "a" / f"{name}.safetensors").read_bytes() == (tmp_path / "b" / f"{name}.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_worker_outlives_the_training(kind, tmp_path):
    words = [sys.executable, "-c", SCRIPT, json.dumps(LONG), str(tmp_path / "out")]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, cwd=ROOT, start_new_session=True, **streams) as process:
        assert process.stdout.readline() == b"step\n"
        os.killpg(process.pid, kind) if kind == signal.SIGINT else process.send_signal(kind)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert gone(process.pid)


@pytest.mark.slow
def test_a_problem_of_ones_own_is_copied_into_workers(tmp_path):
    agent = trained(tmp_path, problem=own_problem(), workers=2, **OWN)
    assert agent.about["environment"]["arguments"]["problem"] == "of my own"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "`workers` should be at least 1"),
        ({"workers": None}, "`workers` should be a whole number"),
        ({"workers": 3}, r"`workers` should be at most 2: num_envs=4 rows in groups of 2\. Received workers=3\. Take a larger"),
        ({"executor": "rya"}, "`executor` should be one of local, ray"),
        ({"address": "auto"}, "`address` should be given with executor"),
    ],
    ids=str,
)
def test_wrong_workers_are_named_before_anything_is_trained(options, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        trained(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_takes_workers(tmp_path):
    sizes = ["--rollouts-per-instance", "2", "--evaluations", "1", "--instances", "2", "--quiet", "--option", "batch_size=4"]
    done = CliRunner().invoke(full_app(), [*WORDS, *sizes, "--workers", "2", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    wrong = CliRunner().invoke(full_app(), [*WORDS, *sizes, "--workers", "3", "--out", str(tmp_path / "other")])
    assert wrong.exit_code == 2
