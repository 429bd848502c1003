"""Every row of BASELINES: the contract, golden values, properties, and independent oracles (torchjd, autograd)."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gradients import gram_observations
from hypothesis import given, settings, strategies as st
from rollouts import MADE_FOR_GROUPING, slow_unless

from mtl_gym import baselines
from mtl_gym.baselines import BASELINES
from mtl_gym.baselines.base import softmax
from mtl_gym.baselines.cov import CoV
from mtl_gym.baselines.dwa import DWA
from mtl_gym.baselines.famo import FAMO
from mtl_gym.baselines.gls import GLS
from mtl_gym.baselines.igb import IGB
from mtl_gym.baselines.imtl_l import IMTLL
from mtl_gym.baselines.rlw import RLW, normals
from mtl_gym.baselines.rule import Rule
from mtl_gym.baselines.si import SI
from mtl_gym.baselines.stch import STCH
from mtl_gym.baselines.uw import UW
from mtl_gym.decisions.partitions import partitions
from mtl_gym.decisions.task_features import TASK_FEATURES
from mtl_gym.environments import LAYER_MERGING, TASK_GROUPING, specification
from mtl_gym.envs.arguments import supported_problems
from mtl_gym.policies.grammar import make_policy
from mtl_gym.problems import PROBLEMS

ENV = "mtl_gym/LossWeighting-v0"
OF_SAMPLES = "mtl_gym/SampleWeighting-v0"
NAMES = [f"{name}:w=1,2,3" if name == "constant" else name for name in BASELINES]
HOMES = {name: make_policy(name).requires.env for name in NAMES}
PARTS = {name: 2 if make_policy(name).requires.env_kwargs.get("scope") == "shared" else 1 for name in NAMES}
RANDOM = ("rlw", "pcgrad", "gradvac", "random-merge", "random-groups")
MERGERS = [name for name in NAMES if HOMES[name] == LAYER_MERGING]
GROUPERS = [name for name in NAMES if HOMES[name] == TASK_GROUPING]  # more of them in test_grouping_baselines.py
OF_TRAININGS = [name for name in NAMES if name not in MERGERS + GROUPERS]
WEIGHERS = [name for name in OF_TRAININGS if make_policy(name).requires.action == "weights"]
PERMUTABLE = [name for name in WEIGHERS if not name.startswith("constant") and name not in RANDOM]
BATCH, TASKS, STAGES = 5, 3, 2
LOSSES = np.array([[0.5, 2.0, 1.0], [3.0, 0.1, 0.7]])
SHORTER = {  # whole trainings are played by benchmarks/clipping.py
    **{name: {"train_steps": 50} for name in ("digits", "river_flow", "yeast", "tox21")},
    "quadratic": {"train_steps": 20},
    **{name: {"train_steps": 8} for name in ("multimnist", "stereo")},
    "census": {"train_steps": 50, "batch_size": 32},
}


def observation(losses, *, epoch=0, lr=1e-2):
    """What all baselines may see; the samples' losses, alignments and labels are drawn around those of the tasks (N, K)."""
    rows, tasks = losses.shape
    rng = np.random.default_rng(int(1e6 * np.abs(losses).sum()) % 2**32)
    spread = rng.normal(size=(rows, BATCH, tasks))
    samples = {
        "sample_log_loss": np.log(losses)[:, None] + spread,
        "alignment": spread,
        "label_right": spread > -1,
        "sample_labelled": spread < 1,
        **gram_observations(rng.normal(size=(rows, tasks, 8)) * np.exp(rng.normal(size=(rows, tasks, 1)))),
    }
    return {
        "log_loss": np.log(losses).astype(np.float32),
        "epoch": np.full((rows, 1), epoch, dtype=np.float32),
        "lr": np.full((rows, 1), lr, dtype=np.float32),
        "log_loss_after": np.log(0.9 * losses + 0.01).astype(np.float32),
        "log_loss_mean": np.log(losses).astype(np.float32),
        "shared_stages": rng.integers(0, STAGES + 1, (rows, tasks * (tasks - 1) // 2)).astype(np.float32),
        "action_mask": (rng.uniform(size=(rows, len(partitions(tasks)))) < 0.5).astype(np.float32),
        "next_task": np.eye(tasks, dtype=np.float32)[np.full(rows, epoch % tasks)],
        "groups": np.zeros((rows, tasks * tasks), dtype=np.float32),
        "map_distances": rng.uniform(0.5, 1, (rows, tasks * (tasks - 1) // 2)).astype(np.float32),
        "gradient_cosines": rng.uniform(-1, 1, (rows, tasks * (tasks - 1) // 2)).astype(np.float32),
        **{name: rng.normal(size=(rows, tasks * tasks)).astype(np.float32) for name in ("lookahead", "pair_gains")},
        "outcomes": rng.normal(size=(rows, (2**tasks - 1) * tasks)).astype(np.float32),
        **{name: values.reshape(rows, -1).astype(np.float32) for name, values in samples.items()},
    }


def stream(steps=12, tasks=3, rows=2, per_epoch=3):
    """Observations of a few epochs."""
    rng = np.random.default_rng(0)
    return [observation(rng.uniform(0.1, 3, (rows, tasks)), epoch=step // per_epoch) for step in range(steps)]


def play(policy, observations):
    memory, actions = None, []
    for obs in observations:
        action, memory = policy.predict(obs, memory)
        actions.append(action)
    return np.stack(actions)


def test_every_file_of_a_heuristic_has_a_row():
    homes = {row.split(":")[0].rsplit(".", 1)[1] for row in BASELINES.values()}
    for path in Path(baselines.__file__).parent.glob("*.py"):
        classes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        acts = any(
            isinstance(item, ast.FunctionDef) and item.name in ("act", "slope", "balance", "partition")
            for node in classes
            for item in node.body
        )
        if acts and path.stem not in ("base", "learned_scales", "gradient_heuristic", "group_heuristic", "thresholds"):
            assert path.stem in homes


def optional(name):
    """The options of a row that have a default, by name."""
    parameters = inspect.signature(pkgutil.resolve_name(BASELINES[name])).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}


def described(docstring):
    """The descriptions of a docstring's arguments, by name."""
    section = re.search(r"^Args:\n((?: .*\n?)+)", docstring, re.MULTILINE)
    entries = re.split(r"^    (?=\S)", section[1], flags=re.MULTILINE) if section else []
    return dict(entry.split(": ", 1) for entry in entries if entry)


@pytest.mark.parametrize("name", [*filter(optional, BASELINES)])
def test_the_docstring_of_an_option_says_what_its_default_is_and_where_it_comes_from(name):
    made = pkgutil.resolve_name(BASELINES[name])
    docstrings = [inspect.cleandoc(home.__doc__ or "") for home in reversed(getattr(made, "__mro__", [made]))]
    found = {option: text for docstring in docstrings for option, text in described(docstring).items()}
    for option, default in optional(name).items():
        text = found.get(option, "")
        assert re.search(r"\b(ours|the paper|the authors|LibMTL|searched)\b", text, re.IGNORECASE), option
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            assert re.search(rf"(?<![\d.]){default:g}(?!\.?\d)", text), option


@pytest.mark.parametrize("name", WEIGHERS)
def test_actions_are_finite_float32_of_the_shape_of_the_losses(name):
    actions = play(make_policy(name), stream())
    assert actions.dtype == np.float32
    assert actions.shape == (12, 2, BATCH * TASKS if HOMES[name] == OF_SAMPLES else TASKS * PARTS[name])
    assert np.isfinite(actions).all()
    assert HOMES[name] == ENV or (actions >= 0).all()


@pytest.mark.parametrize("name", MERGERS)
def test_mergers_answer_with_one_action_of_the_space(name):
    space = gymnasium.make(LAYER_MERGING, tasks=["digit", "parity", "angle"], **make_policy(name).requires.arguments()).action_space
    actions = play(make_policy(name), stream())
    assert (actions.dtype, actions.shape) == (space.dtype, (12, 2, *space.shape))
    assert all(space.contains(action) for action in actions.reshape(24, *space.shape))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_the_rows_beside_it(name):
    both = play(make_policy(name), stream())
    alone = play(make_policy(name), [{key: value[:1] for key, value in obs.items()} for obs in stream()])
    np.testing.assert_array_equal(both[:, :1], alone)


@pytest.mark.parametrize("name", NAMES)
def test_one_environment_needs_no_row_axis(name):
    rows = [{key: value[:1] for key, value in obs.items()} for obs in stream()]
    single = [{key: value[0] for key, value in obs.items()} for obs in stream()]
    np.testing.assert_array_equal(play(make_policy(name), rows)[:, 0], play(make_policy(name), single))


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_not_changed_in_place(name):
    policy, memory = make_policy(name), None
    for obs in stream():
        _, memory = policy.predict(obs, memory)
        kept = {key: value.copy() for key, value in memory.items()}
        again = policy.predict(obs, memory)[0]
        np.testing.assert_array_equal(again, policy.predict(obs, memory)[0])
        for key, value in kept.items():
            np.testing.assert_array_equal(value, memory[key])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RANDOM])
def test_an_episode_start_forgets(name):
    policy, memory = make_policy(name), None
    for obs in stream():
        _, memory = policy.predict(obs, memory)
    first = observation(LOSSES)
    restarted, _ = policy.predict(first, memory, episode_start=np.array([True, False]))
    fresh, _ = policy.predict(first)
    np.testing.assert_array_equal(restarted[0], fresh[0])


def permuted(obs, order, samples=slice(None)):
    """The same observations with tasks and samples in another order."""
    first, second = np.triu_indices(TASKS, 1)
    pairs = [
        next(n for n in range(TASKS) if {first[n], second[n]} == {order[i], order[j]}) for i, j in zip(first, second, strict=True)
    ]
    moved = {"log_loss": order, "log_loss_after": order, "log_norms": order, "cosines": pairs}
    of_samples = {
        name: rearranged(obs[name], order, samples) for name in ("sample_log_loss", "alignment", "label_right", "sample_labelled")
    }
    return obs | {name: obs[name][:, own] for name, own in moved.items()} | of_samples


def rearranged(values, order, samples=slice(None)):
    """Values (..., B K), or (..., K), with tasks and samples in another order."""
    if values.shape[-1] in (TASKS, 2 * TASKS):
        parts = values.reshape(*values.shape[:-1], -1, TASKS)
        return parts[..., order].reshape(values.shape)
    return values.reshape(*values.shape[:-1], BATCH, TASKS)[..., samples, :][..., order].reshape(values.shape)


@pytest.mark.parametrize("name", PERMUTABLE)
def test_weights_follow_a_permutation_of_the_tasks(name):
    order = [0, 2, 1] if HOMES[name] == OF_SAMPLES else [2, 0, 1]  # the main task stays the first
    moved = [permuted(obs, order) for obs in stream()]
    expected = rearranged(play(make_policy(name), stream()), order)
    np.testing.assert_allclose(play(make_policy(name), moved), expected, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if HOMES[name] == OF_SAMPLES])
def test_weights_follow_a_permutation_of_the_samples(name):
    samples = [3, 1, 4, 0, 2]
    moved = [permuted(obs, [0, 1, 2], samples) for obs in stream()]
    expected = rearranged(play(make_policy(name), stream()), [0, 1, 2], samples)
    np.testing.assert_allclose(play(make_policy(name), moved), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["init", "si", "si-mean", "gls", "dwa", "igb", "stch", "cov"])
@given(scale=st.floats(1e-2, 1e2))
@settings(max_examples=10, deadline=None)
def test_weighted_losses_do_not_depend_on_loss_scales(name, scale):
    scales = np.array([scale, 1.0, 1.0])
    scaled = [{**obs, "log_loss": obs["log_loss"] + np.log(scales).astype(np.float32)} for obs in stream()]
    plain, moved = play(make_policy(name), stream()), play(make_policy(name), scaled)
    if name == "gls":  # the geometric mean itself is multiplied by the geometric mean of the scales
        moved = moved / scale ** (1 / 3)
    if name == "si-mean":  # weights average 1, whatever the scales are
        moved = moved / (plain / scales).mean(-1, keepdims=True) ** -1
    expected = plain if name in ("dwa", "cov") else plain / scales
    np.testing.assert_allclose(moved, expected, rtol=2e-3)


def test_golden_values():
    obs = [observation(LOSSES)]
    golden = {"ew": 1.0, "constant:w=1,2,3": [1, 2, 3], "init": 1 / LOSSES, "si": 1 / LOSSES, "uw": 0.5, "imtl-l": 1.0, "dwa": 1.0}
    golden["gls"] = np.prod(LOSSES, axis=1, keepdims=True) ** (1 / 3) / (3 * LOSSES)
    golden["si-mean"] = 1 / LOSSES / (1 / LOSSES).mean(axis=1, keepdims=True)
    golden |= {"igb": 1 / LOSSES, "stch": 1 / LOSSES, "cov": 1.0}
    golden["famo"] = 1 / LOSSES / (1 / LOSSES).sum(axis=1, keepdims=True)
    golden["uw-so:temperature=1"] = 3 * softmax(1 / LOSSES)
    golden["uw-so"] = 3 * softmax(0.01 / LOSSES)
    for name, expected in golden.items():
        np.testing.assert_allclose(play(make_policy(name), obs)[0], np.broadcast_to(expected, LOSSES.shape), rtol=1e-5)


def test_rule_answers_with_its_coefficients_over_their_reach():
    policy = make_policy("rule:first=0.5:slope=-8:level=1:decisions=20")
    assert play(policy, [observation(LOSSES)])[0].tolist() == [[0.5, 0.25, -0.5]] * 2
    required = policy.requires.arguments()
    assert required.pop("env_kwargs", None) is None
    assert required == {"observe": ["log_loss"], "action": "rule", "decisions": 20, "features": ["first", "slope"]}
    assert make_policy("rule").requires.arguments()["steps_per_action"] == 1  # how long decisions are makes no difference there
    assert play(make_policy("rule:first=0"), [observation(LOSSES)])[0].tolist() == [[0.0, 0.0]] * 2


def test_rule_has_an_option_for_every_feature_within_its_reach():
    parameters = inspect.signature(Rule).parameters
    assert [*parameters] == [*TASK_FEATURES, "level", "decisions"]
    for name, row in TASK_FEATURES.items():
        low, high = (play(Rule(**{"first": 0, name: sign * row.reach}), [observation(LOSSES)])[0, 0] for sign in (-1, 1))
        assert [low.tolist(), high.tolist()] == [[0.0, -1.0], [0.0, 1.0]]
        with pytest.raises(ValueError, match=rf"`{name}` should be a finite number in \[-{row.reach:g}, {row.reach:g}\]"):
            Rule(**{name: 1.01 * row.reach})


@pytest.mark.parametrize(("option", "value"), [("level", 2.5), ("level", "1"), ("decisions", 1), ("decisions", 1.5), ("loss", "a")])
def test_a_wrong_option_of_rule_is_named(option, value):
    with pytest.raises((ValueError, TypeError), match=f"`{option}` should"):
        Rule(**{option: value})


def test_uw_so_does_not_collapse_on_a_task_that_is_nearly_solved():
    weights = play(make_policy("uw-so"), [observation(np.array([[0.01, 1.0, 0.5]]))])[0, 0]
    assert weights.max() / weights.min() < np.e


def test_igb_takes_its_base_from_the_second_epoch():
    observations = stream(steps=12, per_epoch=3)
    losses = np.exp(np.stack([obs["log_loss"] for obs in observations]).astype(np.float64))
    actions = play(IGB(), observations)
    base = losses[3:6].mean(0)
    np.testing.assert_allclose(actions[:6], 1 / losses[:6], rtol=1e-5)
    np.testing.assert_allclose(actions[6:], 3 * softmax(losses[6:] / base) / losses[6:], rtol=1e-5)


def test_init_keeps_the_first_losses():
    actions = play(make_policy("init"), stream())
    np.testing.assert_array_equal(actions, np.broadcast_to(actions[0], actions.shape))


def test_rlw_is_seeded_by_the_instance_alone():
    together, alone = RLW(), RLW()
    obs = stream()
    memory, own = together.initial_state(np.array([5, 9]), 3), alone.initial_state(np.array([9]), 3)
    for step in obs:
        actions, memory = together.predict(step, memory)
        action, own = alone.predict({key: value[1:] for key, value in step.items()}, own)
        np.testing.assert_array_equal(actions[1:], action)


def test_rlw_numbers_are_standard_normal():
    import scipy.stats

    numbers = normals(np.arange(200), np.full(200, 7), 50).ravel()
    assert scipy.stats.kstest(numbers, "norm").pvalue > 1e-3
    assert len(np.unique(numbers)) == numbers.size


# --- tasks without labels in a batch ----------------------------------------------------------------------------------------


def with_gaps(observations, gaps):
    """The observations, and those of a training in which the first task has no label at some steps: its last known loss is seen."""
    full, seen = [], []
    for step, obs in enumerate(observations):
        labelled, log_loss = np.ones_like(obs["log_loss"]), obs["log_loss"].copy()
        if step in gaps:
            labelled[:, 0], log_loss[:, 0] = 0, seen[-1]["log_loss"][:, 0] if seen else 0
        seen.append({**obs, "log_loss": log_loss, "labelled": labelled})
        full.append(obs)
    return full, seen


def test_init_waits_for_the_first_label():
    full, seen = with_gaps(stream(steps=4), gaps=(0, 1))
    actions = play(make_policy("init"), seen)
    np.testing.assert_allclose(actions[2:, :, 0], np.exp(-np.stack([full[2]["log_loss"][:, 0]] * 2)), rtol=1e-6)
    np.testing.assert_allclose(actions[:, :, 1:], play(make_policy("init"), full)[:, :, 1:])


@pytest.mark.parametrize("name", ["dwa", "igb", "stch"])
def test_means_of_epochs_are_over_batches_with_labels(name):
    full, seen = with_gaps(stream(steps=12, per_epoch=3), gaps=(1, 4))
    alike = [obs["log_loss"].copy() for obs in full]
    for step in (1, 4):  # a loss in the gap that leaves the mean as it is
        others = np.stack([alike[step - 1][:, 0], alike[step + 1][:, 0]])
        alike[step][:, 0] = np.log(np.exp(others.astype(np.float64)).mean(0))
    same = [{**obs, "log_loss": log_loss} for obs, log_loss in zip(full, alike, strict=True)]
    np.testing.assert_allclose(play(make_policy(name), seen)[6:], play(make_policy(name), same)[6:], rtol=1e-5)


@pytest.mark.parametrize("name", ["igb", "stch"])
def test_a_base_is_taken_later_if_its_epoch_has_no_label(name):
    _, seen = with_gaps(stream(steps=15, per_epoch=3), gaps=range(6))
    losses = np.exp(np.stack([obs["log_loss"] for obs in seen]).astype(np.float64))
    memory, policy = None, make_policy(name)
    for obs in seen:
        _, memory = policy.predict(obs, memory)
    base = memory["base" if name == "igb" else "nadir"]
    np.testing.assert_allclose(base[:, 0], losses[6:9, :, 0].mean(0), rtol=1e-6)
    np.testing.assert_allclose(base[:, 1:], losses[3:6, :, 1:].mean(0), rtol=1e-6)


def test_cov_counts_only_batches_with_labels():
    _, seen = with_gaps(stream(steps=10), gaps=(0, 3, 4, 7))
    policy, memory = CoV(), None
    for obs in seen:
        _, memory = policy.predict(obs, memory)
    losses = np.exp(
        np.stack([obs["log_loss"][:, 0] for step, obs in enumerate(seen) if step not in (0, 3, 4, 7)]).astype(np.float64)
    )
    ratios = np.stack([losses[step] / (losses[:step].mean(0) if step else losses[0]) for step in range(len(losses))])
    assert memory["count"].tolist() == [[6, 10, 10]] * 2
    np.testing.assert_allclose(memory["ratio"][:, 0], ratios.mean(0), rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(memory["squares"][:, 0] / 6), ratios.std(0), rtol=1e-6)
    first = play(CoV(), with_gaps(stream(steps=4), gaps=(0, 1, 2))[1])
    np.testing.assert_allclose(first[3].mean(1), 1, rtol=1e-6)
    np.testing.assert_allclose(first[3, :, 0], 1, rtol=1e-6)  # the mean of the others


def test_famo_takes_no_decline_from_a_task_without_labels():
    policy, memory, observations = FAMO(gamma=0.0), None, stream(steps=4)
    for step, obs in enumerate(observations):
        labelled = np.ones_like(obs["log_loss"])
        labelled[:, 0] = step != 2
        before = memory
        _, memory = policy.predict({**obs, "labelled": labelled}, memory)
    slope = (memory["first"] - 0.9 * before["first"]) / 0.1  # of the last update, after the batch without a label of the first task
    shares = softmax(before["logits"])[:, 1:]
    decline = (observations[2]["log_loss"] - observations[3]["log_loss_after"])[:, 1:]
    expected = shares * (decline - (shares * decline).sum(1, keepdims=True) / shares.sum(1, keepdims=True))
    np.testing.assert_allclose(slope[:, 0], 0, atol=1e-9)
    np.testing.assert_allclose(slope[:, 1:], expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["init", "dwa", "igb", "stch", "cov", "famo"])
def test_without_the_observation_all_batches_count_as_labelled(name):
    full, _ = with_gaps(stream(), gaps=())
    shown = [{**obs, "labelled": np.ones_like(obs["log_loss"])} for obs in full]
    np.testing.assert_array_equal(play(make_policy(name), full), play(make_policy(name), shown))
    assert "labelled" in make_policy(name).requires.observe


# --- oracles --------------------------------------------------------------------------------------------------------------


def oracle_weights(scalarizer, losses):
    """The derivative of a torchjd scalarization with respect to the losses."""
    values = torch.tensor(losses, dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(scalarizer(values), values)[0].numpy()


@pytest.fixture(scope="module")
def scalarization():
    return pytest.importorskip("torchjd.scalarization")


def test_gls_agrees_with_torchjd(scalarization):
    ours = GLS().predict(observation(LOSSES))[0]
    theirs = np.stack([oracle_weights(scalarization.GeometricMean(), row) for row in LOSSES])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(("policy", "oracle"), [(UW, "UW"), (IMTLL, "IMTLL")])
def test_learned_scales_agree_with_torchjd_and_adam(policy, oracle, scalarization):
    scalarizer = getattr(scalarization, oracle)(3).double()
    optimizer = torch.optim.Adam(scalarizer.parameters(), lr=1e-2)
    rng, memory, ours = np.random.default_rng(1), None, policy()
    for _ in range(30):
        losses = rng.uniform(0.1, 5, (1, 3)).astype(np.float32).astype(np.float64)
        action, memory = ours.predict(observation(losses), memory)
        values = torch.tensor(losses[0], requires_grad=True)
        optimizer.zero_grad()
        scalarizer(values).backward()
        optimizer.step()
        np.testing.assert_allclose(action[0], values.grad.numpy(), rtol=1e-5)


def test_dwa_agrees_with_torchjd(scalarization):
    scalarizer, ours, memory = scalarization.DWA(), DWA(), None
    for step, obs in enumerate(stream(steps=15, rows=1)):
        if step and step % 3 == 0:
            scalarizer.step()
        action, memory = ours.predict(obs, memory)
        theirs = oracle_weights(scalarizer, np.exp(obs["log_loss"][0].astype(np.float64)))
        np.testing.assert_allclose(action[0], theirs, rtol=1e-5)


def test_famo_agrees_with_torchjd(scalarization):
    scalarizer, ours, memory = scalarization.FAMO(3).double(), FAMO(), None
    for obs in stream(rows=1, steps=30):
        before, after = (np.exp(obs[name][0].astype(np.float64)) for name in ("log_loss", "log_loss_after"))
        if memory is not None:
            scalarizer.update(torch.tensor(after))
        action, memory = ours.predict(obs, memory)
        np.testing.assert_allclose(action[0], oracle_weights(scalarizer, before), rtol=1e-4)


def test_stch_is_the_gradient_of_the_smooth_maximum_of_relative_log_losses():
    observations = stream(steps=12, per_epoch=3)
    losses = np.exp(np.stack([obs["log_loss"] for obs in observations]).astype(np.float64))
    actions = play(STCH(mu=0.5), observations)
    np.testing.assert_allclose(actions[:6], 1 / losses[:6], rtol=1e-5)
    values = torch.tensor(losses[6:], requires_grad=True)
    relative = (values / torch.tensor(losses[3:6].mean(0))).log()
    smooth = 3 * 0.5 * torch.logsumexp(relative / 0.5, dim=2)
    np.testing.assert_allclose(actions[6:], torch.autograd.grad(smooth.sum(), values)[0].numpy(), rtol=1e-4)


def test_cov_weighs_by_the_deviation_of_the_loss_ratios_over_their_mean():
    observations = stream(steps=8)
    losses = np.exp(np.stack([obs["log_loss"] for obs in observations]).astype(np.float64))
    actions = play(CoV(), observations)
    ratios = np.stack([losses[step] / (losses[:step].mean(0) if step else losses[0]) for step in range(7)])
    variation = ratios.std(0) / ratios.mean(0)
    np.testing.assert_allclose(actions[:2], 1)
    np.testing.assert_allclose(actions[7], 3 * variation / variation.sum(1, keepdims=True), rtol=1e-5)


def test_rlw_agrees_with_torchjd_given_the_same_normals(scalarization, monkeypatch):
    numbers = normals(np.array([4]), np.array([0]), 3)[0]
    monkeypatch.setattr(torch, "randn", lambda *args, **kwargs: torch.tensor(numbers))
    theirs = oracle_weights(scalarization.Random(), LOSSES[0])
    policy = RLW()
    ours = policy.predict(observation(LOSSES[:1]), policy.initial_state(np.array([4]), 3))[0][0]
    np.testing.assert_allclose(ours, 3 * theirs, rtol=1e-5)  # ours sum to K, theirs to 1


def test_si_follows_autograd_on_the_sum_of_logs_step_for_step():
    envs = gymnasium.make_vec(
        ENV,
        num_envs=2,
        problem="digits",
        hidden_sizes=[16],
        train_steps=20,
        reward="none",
        **SI.requires.arguments(),
        vectorization_mode="vector_entry_point",
    )
    observations, _ = envs.reset(seed=0)
    trainer = envs.unwrapped.decision.trainer
    twin = gymnasium.make_vec(
        ENV, num_envs=2, problem="digits", hidden_sizes=[16], train_steps=20, reward="none", vectorization_mode="vector_entry_point"
    )
    twin.reset(seed=0)
    oracle = twin.unwrapped.decision.trainer
    policy, memory, active = SI(), None, torch.ones(2, dtype=torch.bool)
    for _ in range(19):
        actions, memory = policy.predict(observations, memory)
        observations, *_ = envs.step(actions)
        losses = oracle.losses.forward().requires_grad_()
        slopes = torch.autograd.grad(losses.log().sum(), losses)[0]
        oracle.update(slopes, active)
        torch.testing.assert_close(trainer.replicas.flat, oracle.replicas.flat, rtol=1e-4, atol=1e-5)


# --- the interface does not decide who wins -------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", slow_unless(lambda name: name == "quadratic", sorted(PROBLEMS.keys() - MADE_FOR_GROUPING)))
@pytest.mark.parametrize("name", [name for name in BASELINES if name != "constant" and name in OF_TRAININGS])
def test_no_baseline_is_clipped_on_a_varied_problem(name, problem):
    policy = make_policy(name)
    if problem not in supported_problems(specification(policy.requires.env)):
        pytest.skip(f"{policy.requires.env} does not support {problem}")
    envs = gymnasium.make_vec(
        policy.requires.env,
        num_envs=2,
        problem=problem,
        distribution="varied",
        reward="none",
        autoreset_mode="Disabled",
        vectorization_mode="vector_entry_point",
        **SHORTER.get(problem, {}),
        **policy.requires.arguments(),
    )
    observations, _ = envs.reset(options={"instance": np.arange(2)})
    memory, clipped, entries = None, 0, 0
    while not envs.unwrapped.finished.all():
        actions, memory = policy.predict(observations, memory)
        observations, _, _, _, infos = envs.step(actions)
        clipped, entries = clipped + int(infos["clipped"].sum()), entries + actions.size
    assert clipped <= 1e-3 * entries


@pytest.mark.parametrize(
    "problem", slow_unless(("digits", "river_flow").__contains__, supported_problems(specification(LAYER_MERGING)))
)
@pytest.mark.parametrize("name", MERGERS)
def test_no_merger_takes_what_is_forbidden(name, problem):
    envs = gymnasium.make_vec(
        LAYER_MERGING,
        num_envs=2,
        problem=problem,
        distribution="varied",
        train_steps=8,
        steps_per_action=2,
        transfer_steps=1,
        reward="none",
        autoreset_mode="Disabled",
        vectorization_mode="vector_entry_point",
        **make_policy(name).requires.arguments(),
    )
    observations, _ = envs.reset(options={"instance": np.arange(2)})
    policy, memory = make_policy(name), None
    for _ in range(4):
        actions, memory = policy.predict(observations, memory)
        observations, _, _, _, infos = envs.step(actions)
        assert not infos["invalid_action"].any()


# --- bad input ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("constant:w=1,nan", "w"),
        ("constant:w=a", "w"),
        ("dwa:temperature=0", "temperature"),
        ("uw:lr=-1", "lr"),
        ("uw-so:temperature=0", "temperature"),
        ("famo:lr=0", "lr"),
        ("famo:gamma=-1", "gamma"),
        ("stch:mu=0", "mu"),
        ("stch:warmup=-1", "warmup"),
        ("branch:stage=0", "stage"),
        ("mtsl:threshold=1.5", "threshold"),
        ("mtsl:alignment=-1", "alignment"),
        ("conflict:threshold=-1", "threshold"),
        ("cagrad:c=-1", "c"),
        ("nash-mtl:max_norm=-1", "max_norm"),
        ("fairgrad:alpha=0", "alpha"),
        ("gradvac:beta=2", "beta"),
        ("gradnorm:lr=0", "lr"),
        ("moco:gamma=0", "gamma"),
        ("moco:rho=-1", "rho"),
        ("moco:beta=0", "beta"),
        ("db-mtl:beta=1", "beta"),
        ("db-mtl:decay=-1", "decay"),
        ("igb:temperature=2", "igb"),
        ("constant", "w"),
        ("ew:3", "name:option=value"),
    ],
)
def test_wrong_options_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        make_policy(text)


def test_a_missing_observation_is_named():
    with pytest.raises(ValueError, match="epoch"):
        IGB().predict({"log_loss": np.zeros((1, 3), dtype=np.float32)})


def test_constant_needs_one_weight_for_each_task():
    with pytest.raises(ValueError, match="3 tasks"):
        make_policy("constant:w=1,2").predict(observation(LOSSES))


def test_extreme_losses_give_finite_weights_without_warnings():
    for name in OF_TRAININGS:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            actions = play(make_policy(name), [observation(np.exp([[-30.0, 30.0, 0.0]]), epoch=epoch) for epoch in (0, 1, 2, 3)])
        assert np.isfinite(actions).all()
