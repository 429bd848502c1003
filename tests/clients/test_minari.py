"""Minari: collecting with infos, recording any policy, and recovering the environment from a dataset."""

import json
import signal
import subprocess
import sys
import time

import gymnasium
import minari
import numpy as np
import pytest
from minari.namespace import list_local_namespaces
from recipes import ENV_ID, replay, run

import mtl_gym
from mtl_gym.evaluation import minari_files

SMALL = {"problem": "quadratic", "train_steps": 60}
DECISIONS = 6
IDS = [f"mtl_gym:mtl_gym/{name}-v0" for name in ("LossWeighting", "SampleWeighting", "LayerMerging", "TaskGrouping")]
ABOUT = {
    "algorithm_name": "random",
    "author": "a person",
    "author_email": "person@example.org",
    "code_permalink": "https://example.org",
}


@pytest.fixture(autouse=True)
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def collect(env, episodes=2):
    collector = minari.DataCollector(env, record_infos=True)
    collector.action_space.seed(0)
    for episode in range(episodes):
        collector.reset(seed=episode)
        over = False
        while not over:
            _, _, terminated, truncated, _ = collector.step(collector.action_space.sample())
            over = terminated or truncated
    return collector.create_dataset("tests/random-v0", **ABOUT)


def test_the_recipe_runs(empty_folder):
    names = run("Minari", empty_folder)
    assert names["dataset"].total_steps == 3 * DECISIONS
    assert names["again"].spec.id == "mtl_gym/LossWeighting-v0"


def test_episodes_are_plain_loops_and_infos_are_there():
    dataset = collect(gymnasium.make(ENV_ID, **SMALL))
    for episode in dataset:
        assert len(episode.actions) == DECISIONS
        (instance,) = set(np.asarray(episode.infos["instance"]).flatten().tolist())
        rewards, last = replay(instance, episode.actions, **SMALL)
        np.testing.assert_allclose(episode.rewards, rewards, atol=1e-6)
        for name, values in episode.observations.items():
            np.testing.assert_allclose(values[-1], last[name], atol=1e-6)
    env = dataset.recover_environment()
    assert env.spec.kwargs == SMALL
    env.reset(seed=0)


@pytest.mark.parametrize("env_id", IDS)
def test_every_environment_is_collected_with_infos(env_id):
    own = {"num_tasks": 3} if "TaskGrouping" in env_id else {"train_steps": 60}
    dataset = collect(gymnasium.make(env_id, **own))
    assert dataset.total_episodes == 2


# --- mtl_gym.record --------------------------------------------------------------------------------------------------------


POLICIES = {
    "LossWeighting": "igb,si",
    "SampleWeighting": "uniform",
    "LayerMerging": "random-merge",
    "TaskGrouping": "random-groups",
}


def read(dataset, **options):
    folder = mtl_gym.record("ew,si", dataset=dataset, instances=2, **{**SMALL, **options})
    assert folder == minari_files._folder(dataset)
    return minari.load_dataset(dataset)


def metadata(dataset):
    return list(dataset.storage.get_episode_metadata(dataset.episode_indices))


def test_the_recipe_of_recording_runs(empty_folder):
    names = run("Minari", empty_folder, page="offline")
    np.testing.assert_allclose(names["replayed"], names["episode"].rewards, atol=1e-5)
    assert len(names["dataset"]) == 8
    assert [row["policy"] for row in metadata(names["igb"])] == ["igb"] * 4


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("env_id", IDS)
def test_recorded_episodes_are_plain_loops_of_the_recovered_environment(env_id, flat):
    name = env_id.partition("/")[2].removesuffix("-v0")
    own = {"num_tasks": 3} if name == "TaskGrouping" else {"train_steps": 60}
    mtl_gym.record(
        POLICIES[name], env_id.partition(":")[2], dataset="tests/own-v0", instances=3, num_envs=2, noise=0.1, flat=flat, **own
    )
    dataset = minari.load_dataset("tests/own-v0")
    env = dataset.recover_environment()
    assert dataset.observation_space == env.observation_space
    assert isinstance(env.observation_space, gymnasium.spaces.Box) == flat
    assert dataset.action_space == env.action_space
    assert dataset.total_episodes == 3 * len(POLICIES[name].split(","))
    for episode, about in zip(dataset, metadata(dataset), strict=True):
        assert set(episode.infos["instance"].tolist()) == {int(about["options"]["instance"])}
        observation, _ = env.reset(options={"instance": int(about["options"]["instance"])})
        for step, action in enumerate(episode.actions):
            here = episode.observations[step] if flat else {key: own[step] for key, own in episode.observations.items()}
            assert env.observation_space.contains(here)
            for one, other in [(here, observation)] if flat else [(here[key], observation[key]) for key in here]:
                np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
            observation, reward, terminated, truncated, _ = env.step(action)
            assert episode.rewards[step] == pytest.approx(reward, rel=1e-3, abs=1e-4)
            assert (episode.terminations[step], episode.truncations[step]) == (terminated, truncated)
        assert terminated
        assert len(episode.infos["test"]) > 0


def test_the_metadata_say_how_it_was_made():
    dataset = read("tests/named-v0", author="a person", description="what it is")
    told = dataset.storage.metadata
    assert (told["algorithm_name"], told["author"], told["description"]) == ("ew, si", {"a person"}, "what it is")
    assert told["mtl_gym"]["requires"]["action"] == "weights"
    assert dataset.env_spec.kwargs.items() >= SMALL.items()
    assert [(row["policy"], int(row["options"]["instance"])) for row in metadata(dataset)] == [
        (policy, 2**31 + place) for policy in ("ew", "si") for place in range(2)
    ]
    assert dataset.total_steps == dataset.spec.total_steps == 4 * SMALL["train_steps"]
    assert list(minari.list_local_datasets()) == ["tests/named-v0"]


def test_the_environment_is_recovered_in_a_process_that_has_not_imported_it():
    read("tests/ew-v0", flat=True)
    code = "import minari, sys; env = minari.load_dataset('tests/ew-v0').recover_environment(); print(env.reset(seed=0)[0].shape)"
    answer = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == str(minari.load_dataset("tests/ew-v0").observation_space.shape), answer.stderr


@pytest.mark.parametrize("name", ["ew-v0", "many/levels/ew-v0"])
def test_an_existing_data_set_is_refused_before_anything_is_run(name):
    dataset = read(name)
    with pytest.raises(ValueError, match=r"`dataset` should be new; .* Take the next version"):
        mtl_gym.record("no policy", dataset=name)
    assert len(minari.load_dataset(name)) == len(dataset)


@pytest.mark.parametrize("name", ["ew", "e/ew-v0", "../ew-v0", "", 3, None])
def test_other_ids_are_refused(name):
    with pytest.raises((ValueError, TypeError), match="`dataset` should be"):
        mtl_gym.record("ew", dataset=name)


def test_another_process_may_write_the_same_data_set_meanwhile(monkeypatch):
    read("tests/ew-v0", seed=1)
    monkeypatch.setattr(minari_files, "check_dataset", lambda dataset: None)
    with pytest.raises(ValueError, match="`dataset` should be new"):
        read("tests/ew-v0", seed=2)
    assert {int(row["options"]["instance"]) for row in metadata(minari.load_dataset("tests/ew-v0"))} == {
        2**31 + 10_000,
        2**31 + 10_001,
    }


class Broken:
    """Answers once."""

    requires = mtl_gym.LOSSES_TO_WEIGHTS

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        if not episode_start.all():
            raise RuntimeError("enough")
        return np.ones((len(observation["log_loss"]), 3)), state


def test_after_an_error_no_episode_is_left(tmp_path):
    with pytest.raises(RuntimeError, match="enough"):
        mtl_gym.record({"ew": "ew", "broken": Broken()}, dataset="tests/ew-v0", instances=2, **SMALL)
    assert not minari.list_local_datasets()
    assert [path.name for path in (tmp_path / "datasets").rglob("*")] == ["tests", "namespace_metadata.json"]


def never():
    """Batches that are not asked for."""
    raise AssertionError("the first batch was asked for")
    yield


@pytest.mark.parametrize("id", ["tests/ew-v0", "tests/levels/ew-v0"])
def test_a_namespace_that_cannot_be_made_is_refused_before_the_first_batch(id, tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "tests").touch()
    with pytest.raises(ValueError, match=r"`dataset` should have a namespace that is a folder.*move .*tests"):
        minari_files.written(id, gymnasium.make(ENV_ID, **SMALL), never(), {})
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == ["tests"]


def test_a_namespace_that_exists_is_taken_as_it_is():
    minari_files._make_namespace("tests/ew-v0")
    minari_files._make_namespace("tests/ew-v0")
    assert list_local_namespaces() == ["tests"]


def test_a_complete_recording_that_cannot_be_moved_is_kept(tmp_path):
    space, folder = gymnasium.make(ENV_ID, **SMALL), tmp_path / "datasets"

    def batches():
        (folder / "tests" / "namespace_metadata.json").unlink()
        (folder / "tests").rmdir()
        yield []

    with pytest.raises(OSError, match=r"The complete data set could not be moved to .*ew-v0: .* It is kept in .*whole\.") as caught:
        minari_files.written("tests/ew-v0", space, batches(), {})
    [kept] = folder.glob(".recording-*/whole")
    assert str(kept) in str(caught.value)
    assert (kept / "data" / "metadata.json").is_file()


def test_a_killed_recording_leaves_no_data_set(tmp_path):
    words = ["record", "--policies", "ew", "--dataset", "tests/ew-v0", "--problem", "quadratic", "--set", "train_steps=200"]
    command = [sys.executable, "-m", "mtl_gym", *words, "--instances", "2000", "--num-envs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    started = time.monotonic()
    while (
        not (files := list((tmp_path / "datasets").glob(".recording-*/whole/data/main_data.hdf5"))) or not files[0].stat().st_size
    ):
        assert process.poll() is None
        assert time.monotonic() - started < 120
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not minari.list_local_datasets()
    with pytest.raises(FileNotFoundError):
        minari.load_dataset("tests/ew-v0")
    assert len(read("tests/ew-v0")) == 4


def test_the_command_records(tmp_path):
    words = ["--policies", "ppo", "--dataset", "tests/ppo-v0", "--problem", "quadratic", "--instances", "3", "--num-envs", "2"]
    words += ["--set", "train_steps=60", "--noise", "0.1", "--flat", "--json"]
    answer = subprocess.run([sys.executable, "-m", "mtl_gym", "record", *words], capture_output=True, text=True, check=True)
    folder = str(tmp_path / "datasets" / "tests" / "ppo-v0")
    assert json.loads(answer.stdout) == {"dataset": "tests/ppo-v0", "folder": folder}
    dataset = minari.load_dataset("tests/ppo-v0")
    assert dataset.total_steps == 3 * 3
    assert dataset.storage.metadata["mtl_gym"]["noise"] == 0.1
