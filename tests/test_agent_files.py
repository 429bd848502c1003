"""Files of agents: round trips, hostile and damaged files, full disks, kills, and what an agent refuses of its environment."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from rollouts import TRAINING, slow_unless
from safetensors.torch import save, save_file

import mtl_gym
from mtl_gym import agents
from mtl_gym.agents.agent import Agent, load
from mtl_gym.agents.compatibility import check
from mtl_gym.agents.defaults import DEFAULTS
from mtl_gym.agents.files import digest, read, write
from mtl_gym.agents.pretrained import FOLDER
from mtl_gym.environments import ENVIRONMENTS, LAYER_MERGING, LOSS_WEIGHTING, SCRIPTED, specification
from mtl_gym.envs.observations import OBSERVATIONS, Observation
from mtl_gym.evaluation.rollout import make_env
from mtl_gym.policies.grammar import make_policy

ROOT = Path(mtl_gym.__file__).parents[1]
ENV = "mtl_gym/LossWeighting-v0"
PLACES = [0, 1, 4, 7, 8, 9, 40, 500, 2000, -1, -2, -40, -1000, -9000, -20000]


@pytest.fixture(scope="session")
def agent(tmp_path_factory):
    """A PPO agent of eight decisions."""
    out = tmp_path_factory.mktemp("agent")
    return agents.train(out=out, time_steps=8, options={"batch_size": 4, "n_epochs": 1}, **TRAINING)


@pytest.fixture
def saved(agent, tmp_path):
    return agent.save(tmp_path / "agent")


@pytest.fixture
def content(agent):
    """What a file of the agent holds, free to be changed."""
    return {"about": copy.deepcopy(agent.about), "parameters": dict(agent.parameters)}


def forged(folder, content):
    """A file with a correct digest."""
    path = folder / "forged.safetensors"
    write(path, content)
    return path


def observations(rows=3, tasks=3, seed=0):
    rng = np.random.default_rng(seed)
    sizes = {"task": tasks, "one": 1}
    names = ("log_loss_mean", "slope", "gap", "meta_log_loss", "meta_slope", "last_weights", "progress")
    return {name: rng.uniform(-0.5, 1, (rows, sizes[OBSERVATIONS[name].size])).astype(np.float32) for name in names}


def same(first, second):
    """Whether two nests are equal bit for bit."""
    if isinstance(first, torch.Tensor):
        equal = first.dtype == second.dtype and first.shape == second.shape
        return equal and first.numpy().tobytes() == second.numpy().tobytes()
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and first == second


def put(content, place, value):
    """Sets an entry of a nest by its path."""
    *parents, last = place
    for name in parents:
        content = content[name]
    content[last] = value


def names(folder):
    return [file.name for file in folder.iterdir()]


def refused(path, *, match=None):
    """Loads a file that has to be refused, naming the path, and nothing is imported."""
    before = set(sys.modules)
    with pytest.raises(ValueError, match=match) as caught:
        load(path)
    assert not {name for name in set(sys.modules) - before if not name.startswith(("mtl_gym.agents", "torch", "stable_baselines3"))}
    return str(caught.value)


# --- round trips ----------------------------------------------------------------------------------------------------------


def test_a_round_trip_is_bitwise(agent, saved):
    again = load(saved)
    assert same(again.parameters, agent.parameters)
    assert again.about == agent.about
    assert again.spec == agent.spec
    assert again.requires == agent.requires


@pytest.mark.parametrize("tasks", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [1, 4])
def test_a_loaded_agent_predicts_the_same(agent, saved, tasks, rows):
    seen = observations(rows, tasks)
    expected, _ = agent.predict(seen, deterministic=True)
    found, _ = load(saved).predict(seen, deterministic=True)
    assert found.shape == (rows, tasks)
    np.testing.assert_array_equal(found, expected)


def test_one_environment_needs_no_row_axis(agent):
    rows, single = observations(1), {name: values[0] for name, values in observations(1).items()}
    answer, _ = agent.predict(single, deterministic=True)
    assert answer.shape == (3,)
    np.testing.assert_array_equal(answer, agent.predict(rows, deterministic=True)[0][0])


def test_saving_what_was_loaded_gives_the_same_content(saved, tmp_path):
    assert same(read(load(saved).save(tmp_path / "again")), read(saved))


def test_saving_makes_folders_and_returns_the_path(agent, tmp_path):
    path = agent.save(tmp_path / "new" / "folder" / "agent")
    assert path == tmp_path / "new" / "folder" / "agent.safetensors"
    assert names(path.parent) == ["agent.safetensors"]


def test_names_with_dots_are_files_of_their_own(agent, tmp_path):
    assert agent.save(tmp_path / "lr0.1") != agent.save(tmp_path / "lr0.5")


def test_an_agent_of_an_environment_that_a_script_defines_fits(content, monkeypatch):
    about = content["about"]
    about["environment"]["id"] = "mine/Own-v0"
    with pytest.raises(ValueError, match="mine/Own-v0"):
        check(about)
    monkeypatch.setitem(SCRIPTED, "mine/Own-v0", ENVIRONMENTS[ENV])
    check(about)


def test_a_folder_stands_for_its_best_agent(agent, tmp_path):
    agent.save(tmp_path / "best")
    assert load(tmp_path).spec == load(str(tmp_path)).spec == agent.spec
    assert make_policy(str(tmp_path)).spec == agent.spec


def test_loading_leaves_the_global_generators_alone(saved):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    load(saved).predict(observations(), deterministic=True)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_saving_copies_so_that_later_training_does_not_change_the_file(agent, content, tmp_path):
    path = forged(tmp_path, content)
    loaded = load(path)
    loaded.parameters["log_std"].add_(1)
    assert same(load(path).parameters, agent.parameters)


# --- damaged and hostile files ------------------------------------------------------------------------------------------


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def hostile_pickle(path, trap, agent):
    path.write_bytes(pickle.dumps(Trap(trap)))


def hostile_torch_file(path, trap, agent):
    torch.save({"about": Trap(trap), "parameters": agent.parameters}, path)


def harmless_torch_file(path, trap, agent):
    torch.save({"about": agent.about, "parameters": agent.parameters}, path)


def model_of_sb3(path, trap, agent):
    from stable_baselines3 import PPO

    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(path.with_suffix(".zip"))
    path.with_suffix(".zip").rename(path)


def foreign_tensors(path, trap, agent):
    save_file(agent.parameters, str(path))


def foreign_header(path, trap, agent):
    save_file(agent.parameters, str(path), {"format": "pt", "about": json.dumps(agent.about)})


def digest_of_another(path, trap, agent):
    text = json.dumps({"about": agent.about})
    path.write_bytes(save(agent.parameters, {"content": text, "digest": digest(text + " ", agent.parameters)}))


def content_is_no_mapping(path, trap, agent):
    path.write_bytes(save({}, {"content": "[1]", "digest": digest("[1]", {})}))


def content_is_no_json(path, trap, agent):
    text = "__import__('os')"
    path.write_bytes(save({}, {"content": text, "digest": digest(text, {})}))


def deep(text):
    def make(path, trap, agent):
        path.write_bytes(save({}, {"content": text, "digest": digest(text, {})}))

    return make


def empty(path, trap, agent):
    path.write_bytes(b"")


def huge_header(path, trap, agent):
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")


def text_file(path, trap, agent):
    path.write_text(json.dumps({"about": agent.about}))


def folder_of_the_name(path, trap, agent):
    (path / "best.safetensors").mkdir(parents=True)


HOSTILE = {
    "pickle": hostile_pickle,
    "torch": hostile_torch_file,
    "torch, harmless": harmless_torch_file,
    "sb3": model_of_sb3,
    "tensors": foreign_tensors,
    "header": foreign_header,
    "digest": digest_of_another,
    "list": content_is_no_mapping,
    "no json": content_is_no_json,
    "deep list": deep("[" * 100_000 + "]" * 100_000),
    "deep mapping": deep('{"a":' * 50_000 + "1" + "}" * 50_000),
    "rather deep": deep('{"a":' * 900 + "1" + "}" * 900),
    "long text": deep('{"about": "' + "x" * 10_000_001 + '"}'),
    "items": deep('{"$items": [[1, 2, 3]]}'),
    "unhashable": deep('{"$items": [[[], 1]]}'),
    "number": deep('{"$items": 5}'),
    "no tensor": deep('{"about": {"$tensor": "nothing"}}'),
    "tensor of tensors": deep('{"about": {"$tensor": ["nothing"]}}'),
    "empty mapping": deep("{}"),
    "nothing": empty,
    "huge header": huge_header,
    "text": text_file,
    "folder": folder_of_the_name,
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_foreign_files_are_refused_and_run_nothing(make, agent, tmp_path):
    path, trap = tmp_path / "file.safetensors", tmp_path / "trap"
    make(path, trap, agent)
    message = refused(path, match="`path` should be a complete agent file")
    assert str(path) in message or path.is_dir()
    assert len(message) < 2000
    assert not trap.exists()


@pytest.mark.parametrize("make", [hostile_pickle, hostile_torch_file, empty], ids=["pickle", "torch", "empty"])
def test_a_comparison_refuses_them_alike(make, agent, tmp_path):
    make(tmp_path / "file.safetensors", tmp_path / "trap", agent)
    with pytest.raises(ValueError, match="complete agent file"):
        mtl_gym.compare([str(tmp_path / "file.safetensors")], problem="quadratic", train_steps=40, instances=1)
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("written", [[], ["last.safetensors"], ["last.safetensors", "events"]])
def test_the_folder_of_a_training_without_an_evaluation_is_named_in_one_sentence(written, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in written:
        (folder / name).write_text("")
    told = f"{folder} holds no agent yet: its training has not reached its first evaluation. Rerun mtl-gym train --out {folder}, "
    for call in (
        lambda: load(folder),
        lambda: make_policy(str(folder)),
        lambda: mtl_gym.LossBalancer(str(folder), tasks=["a", "b"]),
    ):
        with pytest.raises(ValueError, match="holds no agent yet") as caught:
            call()
        assert str(caught.value) == f"{told}with the options with which it was begun, to go on."


def test_another_folder_is_no_training_that_has_begun(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    message = refused(tmp_path, match="`path` should be a complete agent file")
    assert message.count("`path`") == 1


@pytest.mark.parametrize("path", ["nothing", "nothing/at/all", "", "\0"])
def test_what_is_not_there_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(path, match="`path`")


def test_a_name_too_long_is_refused():
    refused("x" * 5000, match="`path`")


@pytest.mark.parametrize("place", PLACES)
def test_a_truncated_file_is_refused(saved, place):
    saved.write_bytes(saved.read_bytes()[:place])
    assert str(saved) in refused(saved, match="`path`")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bit", [1, 0x80])
def test_a_flipped_bit_is_refused_or_harmless(agent, saved, place, bit):
    data = bytearray(saved.read_bytes())
    data[place] ^= bit
    saved.write_bytes(data)
    with suppress(ValueError):
        loaded = load(saved)
        assert loaded.about == agent.about
        assert same(loaded.parameters, agent.parameters)


@pytest.mark.parametrize("more", [b"\0", b"x" * 1000])
def test_bytes_at_the_end_are_refused(saved, more):
    saved.write_bytes(saved.read_bytes() + more)
    refused(saved, match="`path`")


# --- forged files, whose digest is right --------------------------------------------------------------------------------


def dropped(content, name):
    del content["parameters"][name]


def added(content, name):
    content["parameters"]["more"] = torch.zeros(2)


def reshaped(content, name):
    content["parameters"][name] = content["parameters"][name].repeat(2)


def grown(content, name):
    content["parameters"][name] = torch.zeros(1000, 1000)


def not_a_number(content, name):
    content["parameters"][name] = torch.full_like(content["parameters"][name], torch.nan)


def infinite(content, name):
    content["parameters"][name] = torch.full_like(content["parameters"][name], -torch.inf)


def number(content, name):
    content["parameters"][name] = 1.0


def nested(content, name):
    content["parameters"] = {"parameters": content["parameters"]}


def listed(content, name):
    content["parameters"] = list(content["parameters"].values())


def none(content, name):
    content["parameters"] = None


def numbered(content, name):
    content["parameters"] = dict(enumerate(content["parameters"].values()))


def beyond_float32(content, name):
    content["parameters"][name] = torch.full((1,), 1e300, dtype=torch.float64)


def eight_bits(content, name):
    content["parameters"][name] = torch.ones(1).to(torch.float8_e4m3fn)


FORGED = [dropped, added, reshaped, grown, not_a_number, infinite, number, nested, listed, none, numbered]
FORGED += [beyond_float32, eight_bits]


@pytest.mark.parametrize("change", FORGED)
def test_parameters_that_do_not_fit_are_refused(change, content, tmp_path):
    change(content, "log_std")
    refused(forged(tmp_path, content))


HOMES = [
    "os:system",
    "some_module:Env",
    "some_module:mtl_gym/LossWeighting-v0",
    "CartPole-v1",
    "mtl_gym/Nothing-v0",
    "antigravity:A",
]
STRANGE = [None, 5, "", [], {}, ["ppo"], torch.zeros(1)]


@pytest.mark.parametrize("id", HOMES + STRANGE, ids=str)
def test_another_environment_is_refused_and_not_imported(id, content, tmp_path):
    content["about"]["environment"]["id"] = id
    refused(forged(tmp_path, content), match="`env` should be one of")
    assert not {"some_module", "antigravity"} & set(sys.modules)


ALGORITHMS = ["os:system", "mtl_gym.agents.algorithms:PPO", "stable_baselines3:PPO", "antigravity:A", "PPO", "igbv2", "../ppo"]


@pytest.mark.parametrize("name", ALGORITHMS + STRANGE, ids=str)
def test_another_algorithm_is_refused_and_not_imported(name, content, tmp_path):
    content["about"]["algorithm"] = name
    refused(forged(tmp_path, content), match="`algorithm` should be one of")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", ["recurrent-ppo", "sac", "td3", "tqc", "dqn", "maskable-ppo"])
def test_parameters_of_another_algorithm_are_refused(name, content, tmp_path):
    content["about"]["algorithm"] = name
    refused(forged(tmp_path, content))


POLICIES = [
    {"optimizer_class": "os:system"},
    {"optimizer_class": "torch.optim.SGD"},
    {"activation_fn": "torch.nn:Tanh"},
    {"activation_fn": None},
    {"log_std_init": "a"},
    {"log_std_init": [1]},
    {"optimizer_kwargs": {"lr": 1}},
    {"optimizer_kwargs": {"betas": 5}},
    {"optimizer_kwargs": {"nothing": 1}},
    {"optimizer_kwargs": "a"},
    {"unknown": 1},
    {"self": 1},
    {"observation_space": 1},
    {"": 1},
    {"features_extractor_class": "os:system"},
    {"features_extractor_kwargs": {"num_tasks": 10**9}},
    {"net_arch": "os:system"},
    {"squash_output": True},
    "os:system",
    None,
    5,
    [1, 2],
    [["log_std_init", 1]],
    {1: 2},
]


@pytest.mark.parametrize("options", POLICIES, ids=str)
def test_options_of_the_policy_that_cannot_be_are_refused(options, content, tmp_path):
    content["about"]["policy"] = options
    refused(forged(tmp_path, content))


def test_the_first_deviation_of_a_trained_policy_changes_nothing(agent, content, tmp_path):
    content["about"]["policy"] = {"log_std_init": 5.0}
    expected, _ = agent.predict(observations(), deterministic=True)
    np.testing.assert_array_equal(load(forged(tmp_path, content)).predict(observations(), deterministic=True)[0], expected)


@pytest.mark.parametrize("size", [10**12, -1, 7, 1.5, "1", None])
def test_a_memory_of_a_wrong_size_is_refused(size, content, tmp_path):
    content["about"] |= {"algorithm": "recurrent-ppo", "policy": {"lstm_hidden_size": size}}
    refused(forged(tmp_path, content))


@pytest.mark.parametrize("widths", [[10**12], [-1], {"pi": [2]}, ["a"]])
def test_dense_layers_of_a_wrong_size_are_refused(widths, content, tmp_path):
    content["about"] |= {"algorithm": "sac", "policy": {"net_arch": widths}}
    refused(forged(tmp_path, content))


NEEDED = [
    ("about",),
    ("parameters",),
    *[("about", name) for name in ("format", "algorithm", "policy", "environment", "observations", "versions")],
    ("about", "environment", "id"),
    ("about", "versions", "mtl-gym"),
    ("about", "observations", "gap"),
    ("about", "observations", "gap", "low"),
]


@pytest.mark.parametrize("place", NEEDED, ids=".".join)
def test_what_lacks_a_key_is_refused(place, content, tmp_path):
    *parents, last = place
    inner = content
    for name in parents:
        inner = inner[name]
    del inner[last]
    refused(forged(tmp_path, content))


@pytest.mark.parametrize("value", [None, 5, "a", [1], {"a": 1}], ids=str)
@pytest.mark.parametrize("place", NEEDED[2:], ids=".".join)
def test_what_holds_something_else_is_refused(place, value, content, tmp_path):
    put(content, place, value)
    refused(forged(tmp_path, content))


@pytest.mark.parametrize("value", [None, 5, "a", [1], {}, {"a": 1}, {"observe": None}], ids=str)
def test_wrong_arguments_of_the_environment_are_refused(value, content, tmp_path):
    content["about"]["environment"]["arguments"] = value
    refused(forged(tmp_path, content))


@pytest.mark.parametrize("observe", [5, "gap", ["gap"], ["nothing"], [], [5], {"gap": 1}], ids=str)
def test_an_agent_that_would_be_shown_something_else_is_refused(observe, content, tmp_path):
    content["about"]["environment"]["arguments"]["observe"] = observe
    refused(forged(tmp_path, content))


@pytest.mark.parametrize("names", [[], ["progress"], ["gap", "progress"]])
def test_an_agent_of_other_observations_is_refused(names, content, tmp_path):
    rows = content["about"]["observations"]
    content["about"]["observations"] = {name: rows[name] for name in names}
    refused(forged(tmp_path, content))


def test_another_order_of_the_observations_makes_no_other_agent(agent, content, tmp_path):
    rows = content["about"]["observations"]
    content["about"]["observations"] = dict(reversed(rows.items()))
    loaded = load(forged(tmp_path, content))
    np.testing.assert_array_equal(
        loaded.predict(observations(), deterministic=True)[0], agent.predict(observations(), deterministic=True)[0]
    )


# --- another version, other observations, another environment -----------------------------------------------------------


@pytest.mark.parametrize("version", ["0.0.9", "0.2.0", "1.1.0", "10.1.0", "nightly", ""])
def test_another_version_is_refused_and_named(version, content, tmp_path):
    content["about"]["versions"]["mtl-gym"] = version
    message = refused(forged(tmp_path, content), match="`version` should be that of the installed mtl-gym")
    assert mtl_gym.__version__ in message
    assert repr(version) in message


def test_a_later_patch_reads_the_file(saved, monkeypatch):
    monkeypatch.setattr(mtl_gym, "__version__", "0.1.99")
    assert load(saved).about["versions"]["mtl-gym"] == "0.1.0"


@pytest.mark.parametrize("format", [0, 2, "1", None])
def test_another_format_is_refused_and_named(format, content, tmp_path):
    content["about"]["format"] = format
    assert repr(format) in refused(forged(tmp_path, content), match="`format` should be 1")


@pytest.mark.parametrize(("name", "value"), [("low", -10), ("high", 21), ("size", "one")])
def test_other_observations_here_are_named(name, value, saved, monkeypatch):
    row = OBSERVATIONS["slope"]
    changed = {"size": row.size, "low": row.low, "high": row.high, "function": row.function, "meaning": row.meaning, name: value}
    monkeypatch.setitem(specification(ENV).observations, "slope", Observation(**changed))
    message = refused(saved, match="`observations` should have 'slope' as")
    assert repr(value) in message
    assert repr(getattr(row, name)) in message


def test_an_observation_that_is_gone_is_named(saved, monkeypatch):
    monkeypatch.delitem(specification(ENV).observations, "meta_slope")
    refused(saved, match="Received observations='meta_slope'")


def test_a_comparison_in_another_environment_is_refused(agent, monkeypatch):
    id = "mtl_gym/Another-v0"
    monkeypatch.setitem(ENVIRONMENTS, id, "mtl_gym.envs.loss_weighting:LossWeightingEnv")
    gymnasium.register(id, vector_entry_point="mtl_gym.envs.loss_weighting:LossWeightingVectorEnv")
    try:
        for run in (lambda: make_env(agent, id, 2, {"problem": "quadratic"}), lambda: mtl_gym.compare([agent], id, instances=1)):
            with pytest.raises(ValueError, match=f"`env` should be '{ENV}', which Agent is for. Received env='{id}'"):
                run()
    finally:
        del gymnasium.registry[id]


CONTRADICTIONS = [{"action": "weights"}, {"steps_per_action": 10}, {"weight_range": 10}, {"rule": "si"}, {"observe": ["gap"]}]


@pytest.mark.parametrize("arguments", CONTRADICTIONS, ids=str)
def test_arguments_that_contradict_the_agent_are_named(agent, arguments):
    [name] = arguments
    with pytest.raises(ValueError, match=f"`{name}` should be .*, which Agent requires"):
        mtl_gym.compare([agent], problem="quadratic", train_steps=40, instances=1, **arguments)


def test_other_observations_at_play_are_named(agent):
    shown = observations()
    del shown["gap"]
    with pytest.raises(ValueError, match="They differ in gap, lr"):
        agent.predict({**shown, "lr": np.zeros((3, 1), dtype=np.float32)})


# --- writing -------------------------------------------------------------------------------------------------------------


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_previous_file(agent, content, saved, monkeypatch):
    before = saved.read_bytes()
    content["parameters"]["log_std"] = torch.zeros(1)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        Agent(**content).save(saved)
    assert saved.read_bytes() == before
    assert names(saved.parent) == [saved.name]
    assert same(load(saved).parameters, agent.parameters)


SAVING = """
import os, signal, sys, time
from pathlib import Path
from mtl_gym.agents.files import read, write
source, target = map(Path, sys.argv[1:])
first, second = read(source), {"parameters": read(source)["parameters"]}
write(target, first)
for attempt in range(12):
    child = os.fork()
    while child == 0:
        write(target, second)
        write(target, first)
    time.sleep(0.01 + 0.007 * attempt)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(len(read(target)), flush=True)
"""


@pytest.mark.slow
def test_a_kill_while_saving_leaves_a_whole_file(saved, tmp_path):
    command = [sys.executable, "-c", SAVING, str(saved), str(tmp_path / "target.safetensors")]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.split()) == 12
    assert set(answer.stdout.split()) <= {"1", "2"}


DTYPES = ["bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64", "complex64"]
NESTS = {
    "numbers as keys": {"state": {0: {"step": 1}, 7: {"step": 2}, -1: None}},
    "texts and numbers": {1: "number", "1": "text", None: 4, 2.5: 5, False: 6},
    "dollars": {"$tensor": "a", "$items": [[1, 2]], "$": {"$": {"$x": []}}, "plain": {"$tensor": {"$tensor": torch.ones(1)}}},
    "lists": {"a": [[], [1, [2, [3.5]]], [None, True, False, ""]], "b": {}},
    "texts": {"": "", "ä": "\u2028\ud800", "a/b": "/", "/": "//"},
    "numbers": {"a": -0.0, "b": 1e308, "c": 5e-324, "d": 2**80, "e": -(2**63)},
    "tensors": {"a": torch.zeros(0), "b": torch.zeros(0, 3), "c": torch.tensor(2.0), "d": [torch.arange(3), {1: torch.ones(2, 2)}]},
    "strange tensors": {
        "a": torch.tensor([torch.nan, -torch.inf, -0.0]),
        "b": torch.tensor([1e-45]),
        "c": torch.ones(2, dtype=torch.bfloat16),
    },
    "the same names": {"a": {"b": torch.zeros(1)}, "c": [torch.ones(1)], "c/1": torch.ones(2)},
    "__metadata__": {"__metadata__": torch.ones(1)},
}


def bits(value):
    """A nest with views of integers in the place of bfloat16, which numpy lacks."""
    if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
        return value.view(torch.int16)
    return {key: bits(item) for key, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("nest", NESTS.values(), ids=NESTS)
def test_a_nest_comes_back_as_it_was(nest, tmp_path):
    write(tmp_path / "file.safetensors", nest)
    assert same(bits(read(tmp_path / "file.safetensors")), bits(nest))


COLLISIONS = {
    "number and text": {1: torch.zeros(1), "1": torch.ones(1)},
    "slash": {"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}},
    "place": {"a": [torch.zeros(1)], "a/0": torch.ones(1)},
}


@pytest.mark.parametrize("nest", COLLISIONS.values(), ids=COLLISIONS)
def test_tensors_do_not_take_each_others_places(nest, tmp_path):
    write(tmp_path / "file.safetensors", nest)
    assert same(read(tmp_path / "file.safetensors"), nest)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3,), (0,), (2, 0), (2, 3)], ids=str)
def test_arrays_come_back_as_tensors(dtype, shape, tmp_path):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    write(tmp_path / "file.safetensors", {"a": array, "b": array.T, "c": array[..., ::-1]})
    found = read(tmp_path / "file.safetensors")
    for name, expected in {"a": array, "b": array.T, "c": array[..., ::-1]}.items():
        assert found[name].numpy().dtype == dtype
        np.testing.assert_array_equal(found[name].numpy(), expected)


def test_an_array_without_axes_keeps_its_shape(tmp_path):
    write(tmp_path / "file.safetensors", {"a": np.array(2.0)})
    assert read(tmp_path / "file.safetensors")["a"].shape == ()


def test_tuples_and_numpys_numbers_become_plain(tmp_path):
    write(
        tmp_path / "file.safetensors",
        {"a": (1, (2.5,)), "b": np.float32(0.5), "c": np.int64(3), "d": np.bool_(True), "e": np.str_("x")},
    )
    assert read(tmp_path / "file.safetensors") == {"a": [1, [2.5]], "b": 0.5, "c": 3, "d": True, "e": "x"}


def test_tensors_that_share_memory_or_want_gradients_are_copied(tmp_path):
    base = torch.arange(6.0, requires_grad=True)
    nest = {"a": base, "b": base[:3], "c": base.view(2, 3).T, "d": base.expand(2, 6), "e": torch.nn.Parameter(torch.ones(1))}
    write(tmp_path / "file.safetensors", nest)
    for name, tensor in read(tmp_path / "file.safetensors").items():
        assert torch.equal(tensor, nest[name].detach())
        assert not tensor.requires_grad


LEAVES = [
    object(),
    {1, 2},
    b"bytes",
    1j,
    np.array(["a"]),
    np.array([object()]),
    np.datetime64("2020"),
    Path("a"),
    len,
    torch.float32,
]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: type(leaf).__name__)
@pytest.mark.parametrize("wrap", [lambda leaf: leaf, lambda leaf: [torch.zeros(1), {"b": leaf}]], ids=["plain", "nested"])
def test_a_leaf_that_is_neither_is_refused_and_nothing_is_written(leaf, wrap, tmp_path):
    write(tmp_path / "file.safetensors", {"a": 1})
    with pytest.raises(TypeError):
        write(tmp_path / "file.safetensors", {"a": wrap(leaf)})
    with pytest.raises(TypeError):
        write(tmp_path / "new" / "file.safetensors", {"a": wrap(leaf)})
    assert names(tmp_path) == ["file.safetensors"]
    assert read(tmp_path / "file.safetensors") == {"a": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("-inf")])
def test_numbers_that_are_no_json_are_refused_and_nothing_is_written(value, tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "file.safetensors", {"a": [value]})
    assert not names(tmp_path)


@pytest.mark.parametrize("key", [np.int64(1), b"a", (1, 2)])
def test_keys_that_cannot_come_back_are_refused(key, tmp_path):
    with pytest.raises(TypeError):
        write(tmp_path / "file.safetensors", {"a": {key: 1}})
    assert not names(tmp_path)


def test_a_nest_within_itself_is_refused(tmp_path):
    nest = {}
    nest["a"] = nest
    with pytest.raises(RecursionError):
        write(tmp_path / "file.safetensors", nest)
    assert not names(tmp_path)


@pytest.fixture
def always_warned():
    """Has torch warn at each occasion, not at a process's first one."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


def test_an_array_that_cannot_be_written_to_is_written_without_a_warning(tmp_path, always_warned):
    array = np.arange(3)
    array.flags.writeable = False
    write(tmp_path / "file.safetensors", {"a": array})
    assert read(tmp_path / "file.safetensors")["a"].tolist() == [0, 1, 2]


def test_an_array_of_another_byte_order_comes_back_in_the_native_one(tmp_path):
    array = np.arange(3, dtype=">f4")
    write(tmp_path / "file.safetensors", {"a": array})
    assert read(tmp_path / "file.safetensors")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("env", "action"),
    slow_unless(
        lambda row: row[0] in (LOSS_WEIGHTING, LAYER_MERGING),
        [(env, action) for env, row in DEFAULTS.items() for action in row.pretrained],
    ),
)
def test_a_shipped_agent_plays_its_environment(env, action):
    name = f"ppo:action={action}"
    shipped = make_policy(name, env)
    assert (shipped.about["environment"]["id"], shipped.requires.action) == (env, action)
    assert (FOLDER / f"{DEFAULTS[env].pretrained[action]}.md").read_text().startswith("# `ppo")
    problem = {"mtl_gym/TaskGrouping-v0": "census"}.get(env, "digits")
    frame = mtl_gym.compare({"agent": name}, env=env, problem=problem, num_tasks=3, train_steps=300, instances=2)
    assert len(frame["instance"].unique()) == 2
    assert np.isfinite(frame["delta_m"]).all()


def test_an_action_without_a_shipped_agent_is_refused():
    with pytest.raises(ValueError, match=r"`action` should be one of merge, threshold\. Received action='place'"):
        make_policy("ppo:action=place", "mtl_gym/LayerMerging-v0")
