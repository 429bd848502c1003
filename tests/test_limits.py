"""What is refused before memory is taken or anything is trained: sizes, numbers, names and policies."""

import time

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import mtl_gym
from mtl_gym.agents.files import read, write
from mtl_gym.agents.pretrained import FOLDER
from mtl_gym.checks import LARGEST_FLOAT, number, positive_int, printable, should
from mtl_gym.cli import full_app
from mtl_gym.environments import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING
from mtl_gym.evaluation.comparison import about, run
from mtl_gym.evaluation.export import export
from mtl_gym.evaluation.plans import plan, setting
from mtl_gym.policies.grammar import make_policy, names_and_policies, option_value, split_policies
from mtl_gym.problems import load_problem
from mtl_gym.problems.base import Problem, Task
from mtl_gym.training import memory
from mtl_gym.training.state import State
from tests import attempts
from tests.modules import module_problem
from tests.rollouts import IDS, make_vec, small

# --- sizes ------------------------------------------------------------------------------------------------------------------

TOO_LARGE = [
    (LOSS_WEIGHTING, "train_steps", 8 * 10**9),
    (LOSS_WEIGHTING, "hidden_sizes", [10**6, 10**6]),
    (LOSS_WEIGHTING, "hidden_sizes", [2**62]),
    (LOSS_WEIGHTING, "num_envs", 10**6),
    (SAMPLE_WEIGHTING, "num_envs", 10**6),
    (LAYER_MERGING, "num_envs", 10**6),
    (LAYER_MERGING, "transfer_steps", 10**9),
    (TASK_GROUPING, "train_steps", 8 * 10**9),
    (TASK_GROUPING, "num_envs", 10**8),
    (TASK_GROUPING, "snapshots", 10**9),
]


@pytest.mark.parametrize(("env_id", "name", "value"), TOO_LARGE)
def test_a_size_beyond_the_memory_is_refused_before_it_is_taken(env_id, name, value):
    found = attempts.attempt_env(env_id, small(env_id=env_id, num_envs=2) | {name: value})
    assert (found.outcome, found.fault) == ("refused", "")
    with pytest.raises(
        ValueError, match=rf"`{name}` should be (smaller: .* GB of memory would be taken|at most).*Received {name}="
    ):
        attempts.make_env(env_id, small(env_id=env_id, num_envs=2) | {name: value})


def test_references_beyond_the_memory_are_refused_when_the_environment_is_made():
    arguments = small("quadratic", num_envs=1, train_steps=4 * 10**6, batch_size=8)
    assert attempts.attempt_env(LOSS_WEIGHTING, arguments | {"reward": "val_mean"}).outcome == "made"
    with pytest.raises(ValueError, match=r"`train_steps` should be smaller"):
        attempts.make_env(LOSS_WEIGHTING, arguments | {"reward": "gain"})


@pytest.mark.parametrize(("policies", "id"), [("ew", LOSS_WEIGHTING), ("uniform,slgrad", SAMPLE_WEIGHTING)])
def test_a_comparison_beyond_the_memory_is_refused_before_anything_is_trained(policies, id):
    arguments = {"problem": "quadratic", "train_steps": 10**6, "batch_size": 8}
    plan(policies, id, instances=1, num_envs=10**6, **arguments)  # one training at once
    with pytest.raises(ValueError, match=r"`num_envs` should be smaller: .* GB of memory.*Received num_envs=10000\."):
        plan(policies, id, instances=10_000, num_envs=10**6, **arguments)


def test_references_beyond_the_memory_are_refused_before_a_comparison():
    steps = int(memory.allowed_bytes() / 600)  # of three tasks, a step takes 296 bytes for an instance, 1472 for eight
    arguments = {"problem": "quadratic", "train_steps": steps, "batch_size": 8}
    plan("ew", instances=1, num_envs=1, **arguments)
    with pytest.raises(ValueError, match=r"`train_steps` should be smaller: .* GB of memory"):
        plan("ew", instances=8, num_envs=1, **arguments)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("name", ["num_envs", "train_steps", "batch_size"])
def test_the_estimate_grows_with_every_size(env_id, name):
    base = small(env_id=env_id, num_envs=2, reward="none")
    more = base | {name: 8 * base[name]}
    few, many = (attempts.make_env(env_id, arguments).estimated_bytes for arguments in (base, more))
    assert memory.FIXED < few < many


@pytest.mark.parametrize("env_id", IDS)
def test_an_episode_takes_no_more_than_the_estimate(env_id):
    env = make_vec(env_id=env_id, num_envs=40, reward="none")
    assert attempts.step_env(env) == ""


def test_a_module_that_a_dry_run_cannot_follow_is_estimated_from_its_parameters(monkeypatch):
    problem = module_problem()
    model = problem.network(problem, (8,))
    assert memory.pass_bytes(model, problem)[1] > 0

    class Stubborn(type(model)):
        def forward(self, *given, **named):
            raise RuntimeError("it computes with values")

    model.__class__ = Stubborn
    monkeypatch.setattr(memory, "_counted", {})  # the first model has the same identity
    assert memory.pass_bytes(model, problem) == (4 * model.size, 4 * model.size, problem.outputs)


def test_registering_large_state_takes_no_time():
    memory_before, begun = attempts.Memory(), time.process_time()
    state = State(2)
    tables = [state.add(str(dtype), (2**26,), dtype) for dtype in (torch.float32, torch.int32, torch.int64)]  # 2 GiB
    assert time.process_time() - begun < 0.2
    assert memory_before.peak() < 2**28
    assert not any(table[:, :: 2**20].any() for table in tables)
    assert [table.dtype for table in tables] == [torch.float32, torch.int32, torch.int64]


def test_the_free_memory_is_that_of_the_machine():
    assert 2**26 < memory.free_bytes() < 2**50
    assert memory.allowed_bytes() <= memory.free_bytes() / 3


def test_a_buffer_or_batch_beyond_the_memory_is_refused_before_anything_is_written(tmp_path):
    given = {"train_steps": 40, "num_envs": 2, "evaluations": 1, "instances": 2, "references": []}
    with pytest.raises(ValueError, match=r"`buffer_size` should be smaller: .* GB .*Received buffer_size=1000000000000"):
        mtl_gym.agents.train("quadratic", out=tmp_path / "new", algorithm="sac", options={"buffer_size": 10**12}, **given)
    with pytest.raises(ValueError, match=r"`batch_size` should be smaller: .* GB .*Received batch_size=10000000000"):
        mtl_gym.agents.train("quadratic", out=tmp_path / "new", algorithm="sac", options={"batch_size": 10**10}, **given)
    assert not (tmp_path / "new").exists()


def test_more_instances_than_there_are_held_out_are_refused(tmp_path):
    given = {"train_steps": 40, "num_envs": 2, "evaluations": 1, "references": []}
    with pytest.raises(ValueError, match=r"`instances` should be at most 10000. Received instances=10000000000"):
        mtl_gym.agents.train("quadratic", out=tmp_path / "new", instances=10**10, **given)
    assert not (tmp_path / "new").exists()


def test_more_instances_for_training_than_a_table_can_hold_are_refused(tmp_path):
    words = ["groupings", "yeast", "--out", str(tmp_path / "table.npz"), "--training", "1000000000000"]
    refused = CliRunner().invoke(full_app(), words)
    assert refused.exit_code == 2
    assert "'--training'" in refused.output
    assert "1000000" in refused.output
    assert not (tmp_path / "table.npz").exists()


@pytest.mark.parametrize(("name", "value"), [("snapshots", 10**6), ("snapshots", 10**15)])
def test_a_hostile_agent_is_refused_before_anything_is_built(name, value, tmp_path):
    content = read(FOLDER / "ppo_groups.safetensors")
    content["about"]["environment"]["arguments"][name] = value
    write(tmp_path / "agent.safetensors", content)
    begun = time.process_time()
    with pytest.raises(ValueError, match=r"`lengths` should be from 0 to .*, twice the number of parameters"):
        mtl_gym.agents.load(tmp_path / "agent.safetensors")
    assert time.process_time() - begun < 5


# --- numbers ----------------------------------------------------------------------------------------------------------------

NO_COUNTS = [True, np.True_, 1.0, "1", None, np.array(1), np.array([1]), torch.ones(1), torch.tensor(1), b"1", 1j]


@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
def test_what_is_no_whole_number_is_no_count(value):
    with pytest.raises(TypeError, match=r"`count` should be a whole number. Received count="):
        positive_int("count", value)


@pytest.mark.parametrize("value", [*NO_COUNTS[:2], *NO_COUNTS[3:]], ids=repr)
def test_what_is_no_number_is_none(value):
    with pytest.raises(TypeError, match=r"`rate` should be a number. Received rate="):
        number("rate", value)


@pytest.mark.parametrize("value", [2**63, 10**400, 10**5000], ids=["int64", "float64", "digits"])
def test_a_count_beyond_int64_is_refused(value):
    with pytest.raises(ValueError, match=rf"`count` should be at most {2**63 - 1}. Received count="):
        positive_int("count", value)


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 1e39, -1e39, 1e308, 1e-320, np.float64(1e300)], ids=lambda own: str(own)[:9]
)
def test_a_number_that_float32_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match=r"`rate` should be a finite number in .* that float32 can hold. Received rate="):
        number("rate", value)
    assert number("rate", LARGEST_FLOAT) == LARGEST_FLOAT
    assert number("rate", np.float32(0.5)) == 0.5


WRONG_NUMBERS = [
    (LOSS_WEIGHTING, "lr", 10**400),
    (LOSS_WEIGHTING, "lr", np.True_),
    (LOSS_WEIGHTING, "lr", 1e-320),
    (LOSS_WEIGHTING, "weight_decay", 1e39),
    (LOSS_WEIGHTING, "distribution", {"scale": [1e39, 1e39]}),
    (LOSS_WEIGHTING, "distribution", {"scale": [1, 1e30]}),
    (LOSS_WEIGHTING, "num_envs", 2**63),
    (LOSS_WEIGHTING, "num_envs", np.array(3)),
    (LOSS_WEIGHTING, "num_envs", torch.tensor(3)),
    (LOSS_WEIGHTING, "num_tasks", np.array([2])),
    (LOSS_WEIGHTING, "hidden_sizes", [8] * 101),
    (LOSS_WEIGHTING, "hidden_sizes", b"ab"),
    (LOSS_WEIGHTING, "hidden_sizes", range(10**30)),
    (LOSS_WEIGHTING, "tasks", ["digit"] * 10**6),
    (LOSS_WEIGHTING, "device", None),
    (LOSS_WEIGHTING, "device", "hpu"),
    (LOSS_WEIGHTING, "device", "meta"),
    (LOSS_WEIGHTING, "device", "cpu:3"),
    (LOSS_WEIGHTING, "device", 0),
    (LOSS_WEIGHTING, "render_mode", np.array(["rgb_array", "human"])),
    (LOSS_WEIGHTING, "optimizer", "a" * 10**6),
    (SAMPLE_WEIGHTING, "sharpness", 1e39),
    (LAYER_MERGING, "alignment", 1e300),
    (LAYER_MERGING, "parameter_price", 1e300),
    (TASK_GROUPING, "sharpness", 1e39),
    (TASK_GROUPING, "group_price", 1e300),
    (TASK_GROUPING, "action", ["place"]),
]


@pytest.mark.parametrize(("env_id", "name", "value"), WRONG_NUMBERS, ids=lambda own: str(own)[:30])
def test_a_wrong_number_is_refused_when_the_environment_is_made(env_id, name, value):
    with pytest.raises((ValueError, TypeError), match=rf"`{name}.*` should .*Received {name}"):
        attempts.make_env(env_id, small(env_id=env_id, num_envs=2) | {name: value})


def test_the_largest_sharpness_gives_finite_memberships():
    env = make_vec(
        env_id=TASK_GROUPING, action="memberships", sharpness=1e6, reward="none", observe=["progress"], autoreset_mode="Disabled"
    )
    env.reset(seed=0)
    env.step(np.tile([1, -1, 0.5, 0.5], (3, 1)).astype(np.float32))
    assert env.decision.trainings.memberships.tolist() == [[[1, 0], [0.5, 0.5]]] * 3


def test_a_message_cuts_long_values_off():
    assert len(should("name", "be short", "a" * 10**6)) < 1200
    assert should("count", "be small", 10**5000) == "`count` should be small. Received count=<int>."
    assert should("x", "be one", torch.zeros(30, 3)) == "`x` should be one. Received x=<Tensor of shape (30, 3)>."
    assert should("model", "be a class", torch.nn.Sequential(torch.nn.ReLU())).endswith("Received model=<Sequential>.")


# --- names ------------------------------------------------------------------------------------------------------------------

WRONG_NAMES = [3, None, b"digits", "", " ", "\0", "a\nb", "\ud800", "a" * 1001, "\x1b[31m"]


@pytest.mark.parametrize("name", WRONG_NAMES, ids=ascii)
def test_names_of_problems_tasks_and_policies_can_be_printed(name):
    problem = load_problem("quadratic")
    with pytest.raises((ValueError, TypeError), match=r"`name` should be .*Received name="):
        Problem(name, problem.tasks, problem.splits)
    with pytest.raises((ValueError, TypeError), match=r"`name` should be .*Received name="):
        Task(name, "mse", ("rmse",))
    with pytest.raises((ValueError, TypeError), match=r"`policies` should be .*Received policies="):
        names_and_policies({name: "ew"})
    assert printable("name", "=SUM(A1) é 数") == "=SUM(A1) é 数"


@pytest.mark.slow
def test_a_table_for_spreadsheets_holds_no_formulas(tmp_path):
    labels = {"=1+1": "ew", "+a": "ew", "-a": "ew", "@a": "ew", "a=b": "ew"}
    planned = plan(labels, instances=1, problem="quadratic", train_steps=4, batch_size=16, holdout_size=16)
    results = run(planned)
    export(results, about(setting(planned), results), tmp_path)
    rows = {line.split(",")[0] for line in (tmp_path / "results.csv").read_text().splitlines()[1:]}
    assert rows == {"'=1+1", "'+a", "'-a", "'@a", "a=b"}


# --- policies ---------------------------------------------------------------------------------------------------------------

WRONG_POLICIES = [
    "uw:lr=1e9",
    "imtl-l:lr=1e9",
    "dwa:temperature=1e-320",
    "stch:mu=1e-320",
    "uw-so:temperature=1e-320",
    "cagrad:c=1e308",
    "cagrad:c=1:c=0.5",
    "fairgrad:alpha=1e-30",
    "gradnorm:alpha=1e30",
    "gradnorm:alpha=-5",
    "moco:gamma=1e30",
    "ol-aux:beta=1e30",
    "famo:gamma=1e30",
    "mtsl:alignment=1e300",
    "hoa:group_price=1e300",
    "constant:w=1,1e9",
    "constant:w=" + "9" * 5000,
    "constant:w=" + "[" * 3000,
    "tag:budget=" + "9" * 30,
    "a" * 300,
    "a" * 5000,
    "a/" * 2500,
    "ew\0",
    "ew+" * 1000 + "ew",
]


@pytest.mark.parametrize("text", WRONG_POLICIES, ids=lambda text: text[:30])
def test_a_wrong_policy_is_refused_when_it_is_made(text):
    found = attempts.attempt_policy(text)
    assert (found.outcome, found.fault) == ("refused", "")


def test_an_option_that_stands_twice_is_named():
    with pytest.raises(ValueError, match=r"`policies` should give the option 'c' once. Received policies='cagrad:c=1:c=0.5'"):
        make_policy("cagrad:c=1:c=0.5")


def test_long_lists_are_split_in_a_moment():
    begun = time.process_time()
    assert len(split_policies("a," + "1" * 10**5 + "x,b")) == 3
    assert len(split_policies("a," + "1" * 10**5 + " " * 10**5 + "+" + " " * 10**5 + "1,b")) == 3
    assert len(split_policies("a" + ",1+b" * 10**5)) == 1
    assert option_value("9" * 5000) == float("inf")
    assert option_value("[" * 10**5) == "[" * 10**5
    assert time.process_time() - begun < 5


EXTREME = [
    *(
        "uw",
        "uw:lr=10",
        "imtl-l:lr=10",
        "imtl-l:lr=1e-30",
        "dwa:temperature=1e-37",
        "dwa:temperature=1e38",
        "stch:mu=1e-37:warmup=0",
    ),
    *("stch:mu=1e38", "uw-so:temperature=1e-37", "famo:lr=10:gamma=1", "famo:lr=10:gamma=0", "cov", "gls", "igb", "si", "init"),
    *("cagrad:c=1e6", "cagrad:c=1e-37", "fairgrad:alpha=0.1", "fairgrad:alpha=100", "gradnorm:alpha=100:lr=10", "gradnorm:alpha=0"),
    *("moco:gamma=1e6:rho=1e6", "nash-mtl:max_norm=1e6", "gradvac:beta=1", "db-mtl", "config", "aligned-mtl", "mgda", "upgrad"),
    *("focal:gamma=3e38", "self-paced:growth=3e38", "small-loss:ramp=9223372036854775807", "ohem:keep=1e-37", "ol-aux:beta=1e6"),
    *("ol-aux:window=9223372036854775807", "slgrad", "l2rw", "gcs"),
]


@pytest.mark.parametrize("text", EXTREME)
def test_every_option_that_is_taken_gives_finite_weights_for_every_observation(text):
    """Of whatever a space holds: the largest and the smallest numbers, and others, in any order."""
    policy = make_policy(text)
    env = attempts.make_env(policy.requires.env, small(env_id=policy.requires.env, num_envs=4, **policy.requires.arguments()))
    space, state, rng = env.single_observation_space, None, np.random.default_rng(0)
    for step in range(12):
        rows = [{name: _drawn(box, rng, epoch=step // 2) for name, box in space.items()} for _ in range(4)]
        batch = {name: np.stack([row[name] for row in rows]) for name in space}
        if "cosines" in batch and "log_norms" in batch:  # of vectors, as cosines always are
            batch["cosines"] = np.ones_like(batch["cosines"])
        actions, state = policy.predict(batch, state)
        assert np.isfinite(actions).all()
        assert all(env.single_action_space.contains(action) for action in actions)


def _drawn(box, rng, epoch):
    if box.high.flat[0] == 1e6 and box.low.flat[0] == 0:  # an epoch or a rate
        return np.full(box.shape, float(epoch), dtype=np.float32)
    kind = rng.integers(3)
    inner = rng.uniform(box.low, box.high)
    return np.where(rng.random(box.shape) < 0.5, box.low, box.high if kind else inner).astype(np.float32)


def test_files_that_a_container_keeps_in_memory_count_as_free(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_available", lambda: 2**40)
    (tmp_path / "memory.max").write_text(f"{8 * 2**30}\n")
    (tmp_path / "memory.current").write_text(f"{8 * 2**30 - 2**20}\n")
    assert memory.free_bytes() == 2**20
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {5 * 2**30}\n")
    assert memory.free_bytes() == 5 * 2**30 + 2**20
