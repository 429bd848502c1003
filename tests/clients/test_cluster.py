"""Comparisons and trainings on a Ray cluster of two nodes: the same rows, also after a worker or the own process is killed."""

import os

os.environ["RAY_AUTH_MODE"] = "disabled"  # else ray writes a file of credentials
os.environ["OMP_NUM_THREADS"] = "1"

import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import ray
from ray.cluster_utils import Cluster

import mtl_gym
from mtl_gym import Held, agents, make_executor
from mtl_gym.evaluation.results import Results

SETTING = {"problem": "digits", "instances": 6, "num_envs": 2, "train_steps": 120}


class Deadly:
    """Equal weights; kills the process that it is in, a number of times, which files count."""

    requires = mtl_gym.LOSSES_TO_WEIGHTS

    def __init__(self, folder, times):
        self.folder, self.times, self.home = folder, times, os.getpid()

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        killed = len([*self.folder.iterdir()])
        if killed < self.times and os.getpid() != self.home:
            (self.folder / str(killed)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.ones_like(observation["log_loss"]), state


class Wrong(Deadly):
    """Answers NaN, but not in the process that it was made in."""

    def __init__(self):
        self.home = os.getpid()

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.full_like(observation["log_loss"], 1.0 if os.getpid() == self.home else np.nan), state


@pytest.fixture(scope="module")
def cluster():
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A function that gives each comparison a cache of its own, so that references are trained too."""
    return lambda name: monkeypatch.setenv("MTL_GYM_CACHE", str(tmp_path / f"cache-{name}"))


def test_rows_are_those_of_one_process(cluster, own_cache, tmp_path):
    found = {}
    for name, options in {"here": {"workers": 1}, "ray": {"executor": "ray", "address": cluster.address}}.items():
        own_cache(name)
        found[name] = mtl_gym.compare("ew,si,igb", out=tmp_path / name, **options, **SETTING)
    pd.testing.assert_frame_equal(found["here"], found["ray"], check_exact=True)
    rows = [{(own.policy, own.instance): own for own in Results(tmp_path / name / "results.sqlite").latest()[2]} for name in found]
    assert rows[0] == rows[1]


def test_a_batch_whose_worker_is_killed_is_tried_again(cluster, own_cache, tmp_path):
    folder = tmp_path / "kills"
    folder.mkdir()
    own_cache("here")
    policies = {"deadly": Deadly(folder, 2), "si": "si"}
    alone = mtl_gym.compare(policies, workers=1, **SETTING)
    own_cache("ray")
    found = mtl_gym.compare(policies, executor="ray", address=cluster.address, **SETTING)
    assert len([*folder.iterdir()]) == 2
    pd.testing.assert_frame_equal(alone, found, check_exact=True)


def test_a_batch_whose_workers_are_always_killed_is_named(cluster, tmp_path):
    folder = tmp_path / "kills"
    folder.mkdir()
    with pytest.raises(ChildProcessError, match="deadly on the instances 0, 1 was tried 3 times"):
        mtl_gym.compare({"deadly": Deadly(folder, 99)}, executor="ray", address=cluster.address, **{**SETTING, "instances": 2})
    assert len([*folder.iterdir()]) == 3


def test_an_error_in_a_worker_is_that_of_the_policy(cluster):
    with pytest.raises(ValueError, match="They are those of the policy 'wrong'"):
        mtl_gym.compare({"wrong": Wrong()}, executor="ray", address=cluster.address, **SETTING)


SCRIPT = """
import sys, mtl_gym
setting = {"problem": "digits", "instances": 6, "num_envs": 2, "train_steps": 600}
options = {"executor": "ray", "address": sys.argv[2]} if sys.argv[2] else {"workers": 1}
mtl_gym.compare("ew,si,igb,dwa", out=sys.argv[1], **options, **setting)
"""


def started(folder, address=""):
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "MTL_GYM_CACHE": str(folder / "cache")}
    with open(folder / "log.txt", "ab") as log:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder / "out"), address], env=environment, stderr=log)


def rows(folder):
    """The number of rows that a folder holds."""
    file = folder / "out" / "results.sqlite"
    try:
        return len(Results(file).latest()[2]) if file.exists() else 0
    except ValueError:  # none yet
        return 0


def test_a_comparison_that_is_killed_goes_on(cluster, tmp_path):
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    assert started(alone).wait() == 0, (alone / "log.txt").read_text()
    for least in (1, 9):
        process = started(killed, cluster.address)
        while rows(killed) < least:
            time.sleep(0.1)
            assert process.poll() is None, (killed / "log.txt").read_text()
        process.kill()
        process.wait()
        assert least <= rows(killed) < 24
    assert started(killed, cluster.address).wait() == 0, (killed / "log.txt").read_text()
    assert (alone / "out" / "results.csv").read_bytes() == (killed / "out" / "results.csv").read_bytes()


TRAINING = {"problem": "quadratic", "train_steps": 40, "num_envs": 4, "rollouts_per_instance": 2, "instances": 2, "references": []}
TRAINING |= {"time_steps": 24, "evaluations": 3, "options": {"batch_size": 4, "n_epochs": 1}}


def test_a_training_on_a_cluster_is_that_of_local_workers(cluster, tmp_path):
    agents.train(out=tmp_path / "here", workers=2, **TRAINING)
    agents.train(out=tmp_path / "ray", workers=2, executor="ray", address=cluster.address, **TRAINING)
    for name in ("last", "best", "checkpoint"):
        assert (tmp_path / "here" / f"{name}.safetensors").read_bytes() == (tmp_path / "ray" / f"{name}.safetensors").read_bytes()


class Counted:
    """Counts its calls; ends its process."""

    def __init__(self, count):
        self.count = count

    def more(self):
        self.count += 1
        return self.count, os.getpid()

    def end(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_objects_live_in_actors_until_these_end(cluster):
    with make_executor("ray", 2, cluster.address).hold() as holders:
        held = [Held(own, "counted", f"object {count}", Counted, count) for count, own in enumerate(holders)]
        assert [own.receive() for own in held] == [None, None]
        for own in held * 2:
            own.send("more")
        counts, processes = zip(*(own.receive() for own in held * 2), strict=True)
        assert counts == (1, 2, 2, 3)
        assert len({*processes, os.getpid()}) == 3
        held[1].send("end")
        with pytest.raises(ChildProcessError, match=r"`workers` should be fewer.*holds object 1 was ended.*Received workers=2"):
            held[1].receive()
        held[0].send("more")
        assert held[0].receive()[0] == 3


def test_more_workers_than_cores_are_refused(cluster, tmp_path):
    with pytest.raises(ValueError, match="`workers` should be at most 2, the number of cores of the cluster"):
        agents.train(out=tmp_path / "out", workers=3, executor="ray", address=cluster.address, **{**TRAINING, "num_envs": 6})
    assert not (tmp_path / "out").exists()


def test_another_cluster_than_the_connected_one_is_refused(cluster):
    ray.init(address=cluster.address)
    try:
        with pytest.raises(ValueError, match=rf"`address` should be '{cluster.address}', or left out.*ray.shutdown"):
            mtl_gym.compare("ew", executor="ray", address="10.1.2.3:6379", **SETTING)
        with make_executor("ray", 1, cluster.address).hold() as holders:
            assert len(holders) == 1
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_a_new_cluster_leaves_the_environment_as_it_was(cluster, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with make_executor("ray", 1).hold():
        assert ray.get_runtime_context().gcs_address != cluster.address
    assert "RAY_AUTH_MODE" not in os.environ
    assert not ray.is_initialized()
