"""Executors: rows do not depend on who trains them, and what is killed is made again."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rollouts import small
from typer.testing import CliRunner

import mtl_gym
from mtl_gym.cli.program import app
from mtl_gym.context import threads
from mtl_gym.environments import LAYER_MERGING, TASK_GROUPING
from mtl_gym.evaluation import executors
from mtl_gym.evaluation.comparison import run
from mtl_gym.evaluation.executors import local, make_executor
from mtl_gym.evaluation.executors.jobs import TRIES
from mtl_gym.evaluation.plans import plan
from mtl_gym.evaluation.results import Results
from mtl_gym.evaluation.suite_runs import performed, plans_of

ROOT = Path(mtl_gym.__file__).parents[1]
SMALL = {"problem": "quadratic", "train_steps": 40}
POLICIES = "ew,si,constant:w=1,2,3"
SIZES = {"instances": 5, "num_envs": 2}


class Equal:
    """A policy of equal weights."""

    requires = mtl_gym.LOSSES_TO_WEIGHTS

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.ones_like(observation["log_loss"]), state


class Deadly(Equal):
    """Kills the process that it is in, a number of times, which files count."""

    def __init__(self, folder, times):
        self.folder, self.times = folder, times
        self.home = os.getpid()

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        killed = len([*self.folder.iterdir()])
        if killed < self.times and os.getpid() != self.home:
            (self.folder / str(killed)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(observation, state)


class Wrong(Equal):
    """Answers what is no array of numbers, but not in the process that it was made in."""

    def __init__(self):
        self.home = os.getpid()

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        actions, state = super().predict(observation, state)
        return actions * (np.nan if os.getpid() != self.home else 1), state


class Unportable(Exception):
    """Cannot be told, and ends the process that pickles it if nothing is caught."""

    def __reduce__(self):
        raise SystemExit(3)

    def __str__(self):
        raise ValueError


class Ending(Equal):
    """Ends, but not in the process that it was made in."""

    def __init__(self, end):
        self.end, self.home = end, os.getpid()

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        if os.getpid() != self.home:
            self.end()
        return super().predict(observation, state)


def unportable():
    raise Unportable


class Clipped(Equal):
    """Answers weights above the bound."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.full_like(observation["log_loss"], 1e7), state


class Drawing(Equal):
    """Draws weights from a generator of its own."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.generator.uniform(0.5, 1.5, observation["log_loss"].shape), state


class Held(Equal):
    """Cannot be copied."""

    def __init__(self):
        self.lock = threading.Lock()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """References are trained in each test."""
    monkeypatch.setenv("MTL_GYM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rows(path):
    return Results(path / "results.sqlite").latest()[2]


def alike(one, other):
    """Whether results are the same, bit for bit, in whatever order they were written."""
    return sorted(one, key=lambda own: (own.policy, own.instance)) == sorted(other, key=lambda own: (own.policy, own.instance))


def test_workers_and_this_process_give_the_same_rows(tmp_path, monkeypatch):
    found = {}
    for workers in (1, 2):
        monkeypatch.setenv("MTL_GYM_CACHE", str(tmp_path / f"cache-{workers}"))
        found[workers] = mtl_gym.compare(POLICIES, workers=workers, out=tmp_path / str(workers), **SIZES, **SMALL)
    pd.testing.assert_frame_equal(found[1], found[2], check_exact=True)
    assert alike(rows(tmp_path / "1"), rows(tmp_path / "2"))
    assert (tmp_path / "1" / "results.csv").read_bytes() == (tmp_path / "2" / "results.csv").read_bytes()
    assert sorted(map(len, {tuple(own.batch) for own in rows(tmp_path / "2")})) == [1, 2, 2]


@pytest.mark.slow
def test_each_batch_begins_with_a_fresh_copy_of_its_policy(own_cache, monkeypatch):
    policy, given = Drawing(), {"instances": [0, 1, 2], "num_envs": 1, **SMALL}
    first = mtl_gym.compare({"drawing": policy}, workers=1, **given)
    alone = mtl_gym.compare({"drawing": policy}, workers=1, **{**given, "instances": [2]})
    pd.testing.assert_frame_equal(first[first["instance"] == 2].reset_index(drop=True), alone, check_exact=True)
    pd.testing.assert_frame_equal(first, mtl_gym.compare({"drawing": policy}, workers=2, **given), check_exact=True)
    monkeypatch.setattr(local, "PATIENCE", 0.0)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    pd.testing.assert_frame_equal(first, mtl_gym.compare({"drawing": policy}, **given), check_exact=True)


@pytest.mark.slow
def test_what_lasts_longer_than_a_moment_is_handed_to_workers(own_cache, monkeypatch):
    alone = run(plan(POLICIES, **SIZES, **SMALL))
    begun, start = [], local._Worker.__init__
    monkeypatch.setattr(local, "PATIENCE", 0.0)
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    monkeypatch.setattr(local._Worker, "__init__", lambda self, inbox: (begun.append(self), start(self, inbox))[0])
    assert run(plan(POLICIES, **SIZES, **SMALL)) == alone
    assert len(begun) == 2


@pytest.mark.slow
def test_all_steps_are_told_once(own_cache):
    told, checked = [], plan("ew,si", **SIZES, **SMALL)
    run(checked, executor=make_executor(workers=2), on_progress=lambda label, steps: told.append((label, steps)))
    assert sum(steps for _, steps in told) == checked.steps
    labels = list(dict.fromkeys(label for label, _ in told))
    assert labels == ["single-task references", "ew", "si"][: len(labels)]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(own_cache, tmp_path):
    folder = tmp_path / "kills"
    folder.mkdir()
    told, checked = [], plan({"deadly": Deadly(folder, 2), "ew": "ew"}, **SIZES, **SMALL)
    found = run(checked, executor=make_executor(workers=2), on_progress=lambda label, steps: told.append(steps))
    assert len([*folder.iterdir()]) == 2
    assert sum(told) == checked.steps
    assert found == run(checked, executor=make_executor(workers=1))


@pytest.mark.slow
def test_a_batch_whose_workers_are_always_killed_is_named(own_cache, tmp_path):
    folder = tmp_path / "kills"
    folder.mkdir()
    out = tmp_path / "out"
    with pytest.raises(ChildProcessError, match=rf"deadly on the instances 0, 1 was tried {TRIES} times.*signal 9"):
        mtl_gym.compare({"ew": "ew", "deadly": Deadly(folder, 99)}, instances=2, workers=2, out=out, **SMALL)
    assert {own.policy for own in rows(out)} == {"ew"}


@pytest.mark.slow
def test_an_error_in_a_worker_is_that_of_the_policy(own_cache):
    with pytest.raises(ValueError, match=r"finite.*They are those of the policy 'wrong'") as caught:
        mtl_gym.compare({"wrong": Wrong()}, workers=2, **SIZES, **SMALL)
    assert "In a worker" in caught.value.__notes__[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "error", "message"),
    [
        (functools.partial(sys.exit, 3), RuntimeError, "SystemExit: 3"),
        (unportable, RuntimeError, "Unportable: "),
        (functools.partial(os._exit, 3), ChildProcessError, r"ending on the instances 0, 1 was tried.*exit status 3(?!.*memory)"),
    ],
)
def test_how_a_policy_ends_its_worker_is_told(own_cache, end, error, message):
    with pytest.raises(error, match=message) as caught:
        mtl_gym.compare({"ending": Ending(end)}, workers=2, instances=2, **SMALL)
    assert error is ChildProcessError or "In a worker" in caught.value.__notes__[0]


@pytest.mark.slow
def test_warnings_of_workers_are_given_once(own_cache):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mtl_gym.compare({"clipped": Clipped()}, workers=2, **SIZES, **SMALL)
    [text] = [str(own.message) for own in caught if "clipped" in str(own.message)]
    assert text.startswith("`actions` should be within")


def test_what_cannot_be_copied_is_trained_here_or_refused(own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "PATIENCE", 0.0)
    given = {"policies": {"held": Held()}, **SIZES, **SMALL}
    assert len(mtl_gym.compare(**given)["instance"].unique()) == 5
    with pytest.raises(TypeError, match=r"`workers` should be left out with the policy 'held'.*Received workers=2.*workers=1"):
        mtl_gym.compare(**given, workers=2, out=tmp_path / "out")


@pytest.mark.slow
def test_a_policy_in_a_file_is_copied_as_it_was_checked(own_cache, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def mine(losses):\n    return 1 / losses\n")
    frame = mtl_gym.compare(f"{file}:mine", workers=2, **SIZES, **SMALL)
    assert frame["delta_m"].notna().all()


PROBLEM = """
import torch
from mtl_gym import Problem

def drawn():
    inputs = torch.rand(400, 3, generator=torch.Generator().manual_seed({seed}))
    return Problem.from_arrays(inputs, {{"a": inputs.sum(1), "b": inputs[:, 0]}}, name="drawn")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "same"), [("0", True), ("torch.seed()", False)])
def test_a_problem_that_is_another_in_workers_is_refused(own_cache, tmp_path, seed, same):
    (tmp_path / "mine.py").write_text(PROBLEM.format(seed=seed))
    given = {"problem": f"{tmp_path / 'mine.py'}:drawn", "train_steps": 40, "workers": 2, "out": tmp_path / "out", **SIZES}
    if same:
        assert len(mtl_gym.compare("ew", **given)["instance"].unique()) == 5
        return
    with pytest.raises(ValueError, match=r"`problem` should be the same in every process.*mine\.py:drawn.*Seed"):
        mtl_gym.compare("ew", **given)


def test_threads_are_set_for_the_time_of_a_comparison(own_cache, tmp_path):
    before, others = torch.get_num_threads(), torch.get_num_threads() + 1
    with threads(others):
        mtl_gym.compare("ew", out=tmp_path / "here", instances=1, **SMALL)
        assert torch.get_num_threads() == others
        mtl_gym.compare("ew", out=tmp_path / "own", instances=1, workers=1, **SMALL)
    assert torch.get_num_threads() == before
    assert {own.kernels["threads"] for own in rows(tmp_path / "here")} == {1}
    assert {own.kernels["threads"] for own in rows(tmp_path / "own")} == {others}


def test_the_free_memory_limits_the_workers(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 64)
    monkeypatch.setattr(local, "free_bytes", lambda: 8 * 2**30)
    work = executors.jobs.Work([], [], lambda job, steps: None, bytes=2**30)
    assert local._room(work) == 3
    monkeypatch.setattr(local, "free_bytes", lambda: 2**30)
    assert local._room(work) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "rya"}, "`executor` should be one of local, ray.*Did you mean 'ray'"),
        ({"workers": 0}, "`workers` should be at least 1"),
        ({"workers": 2.5}, "`workers` should be a whole number"),
        ({"address": "auto"}, "`address` should be given with executor"),
    ],
)
def test_wrong_executors_are_named_before_anything_is_run(options, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        mtl_gym.compare("ew", out=tmp_path / "out", **options, **SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is there")
def test_a_missing_package_is_named_with_its_extra(tmp_path):
    with pytest.raises(ModuleNotFoundError, match=r"'ray', which is not installed.*mtl-gym\[cluster\]"):
        mtl_gym.compare("ew", executor="ray", **SMALL)


@pytest.mark.slow
def test_the_command_takes_workers(own_cache, tmp_path):
    words = ["compare", "--problem", "quadratic", "--policies", "ew,si", "--instances", "2", "--set", "train_steps=40"]
    done = CliRunner().invoke(app, [*words, "--workers", "2", "--out", str(tmp_path / "out"), "--quiet"])
    assert done.exit_code == 0, done.output
    wrong = CliRunner().invoke(app, [*words, "--address", "auto", "--out", str(tmp_path / "other")])
    assert wrong.exit_code == 2


def test_references_of_a_batch_that_was_written_in_part_are_the_same(own_cache):
    checked = plan("ew", instances=8, **SMALL)
    whole = [own.references for own in run(checked)]
    files = sorted((own_cache / "instances").iterdir())
    for file in files[::2]:
        file.unlink()
    assert [own.references for own in run(checked)] == whole
    assert sorted((own_cache / "instances").iterdir()) == files


@pytest.mark.slow
@pytest.mark.parametrize("env", [LAYER_MERGING, TASK_GROUPING])
def test_rows_of_other_environments_are_the_same(env, tmp_path, monkeypatch):
    policies = {LAYER_MERGING: "shared,single-task,branch", TASK_GROUPING: "joint,random-groups,tag,exhaustive"}[env]
    found = []
    for workers in (1, 2):
        monkeypatch.setenv("MTL_GYM_CACHE", str(tmp_path / f"cache-{workers}"))
        found.append(mtl_gym.compare(policies, env, workers=workers, instances=4, num_envs=2, **small("yeast", env)))
    pd.testing.assert_frame_equal(*found, check_exact=True)


@pytest.mark.slow
def test_workers_take_batches_of_all_studies(tmp_path, monkeypatch):
    from test_suites import PAIR

    found = []
    for workers in (1, 2):
        monkeypatch.setenv("MTL_GYM_CACHE", str(tmp_path / f"cache-{workers}"))
        plans = plans_of(PAIR, "ew,si", num_envs=4)
        found.append(performed(plans, tmp_path / str(workers), executor=make_executor(workers=workers)))
    assert {name: done[0] for name, done in found[0].items()} == {name: done[0] for name, done in found[1].items()}
    for name in found[0]:
        assert (tmp_path / "2" / name / "report.html").is_file()


SCRIPT = """
import sys, mtl_gym
mtl_gym.compare("ew,si,dwa", problem="digits", instances=6, num_envs=2, train_steps=120, out=sys.argv[1], workers=int(sys.argv[2]))
"""


def started(folder, workers):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MTL_GYM_CACHE": str(folder / "cache")}
    words = [sys.executable, "-c", SCRIPT, str(folder / "out"), str(workers)]
    folder.mkdir(exist_ok=True)
    with open(folder / "log.txt", "ab") as log:
        return subprocess.Popen(words, env=environment, start_new_session=True, stderr=log)


def gone(group, seconds=30.0):
    """Whether all processes of a group have ended within some seconds."""
    for _ in range(int(seconds * 10)):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_is_killed_and_goes_on_gives_the_same_table(tmp_path):
    begun = time.perf_counter()
    alone = started(tmp_path / "alone", 1)
    assert alone.wait() == 0, (tmp_path / "alone" / "log.txt").read_text()
    seconds, rng = time.perf_counter() - begun, random.Random(0)
    kills = 0
    for _ in range(3):
        process = started(tmp_path / "killed", 2)
        try:
            process.wait(rng.uniform(0.4, 1.2) * seconds)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        assert gone(process.pid)  # with its workers
    last = started(tmp_path / "killed", 2)
    assert last.wait() == 0, (tmp_path / "killed" / "log.txt").read_text()
    assert kills
    tables = [(tmp_path / name / "out" / "results.csv").read_bytes() for name in ("alone", "killed")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_an_interruption_ends_the_workers(tmp_path):
    process = started(tmp_path, 2)
    while not (tmp_path / "out" / "results.sqlite").exists():
        time.sleep(0.1)
        assert process.poll() is None
    time.sleep(2)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() != 0
    assert "KeyboardInterrupt" in (tmp_path / "log.txt").read_text()
    assert gone(process.pid)
