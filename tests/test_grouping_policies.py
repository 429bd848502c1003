"""Agents that group tasks: scores of groups that know neither the order nor the number of tasks, masks, and whole trainings."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings, strategies as st
from torch import nn

import mtl_gym
from mtl_gym import agents
from mtl_gym.agents.algorithm import algorithm, policy_of
from mtl_gym.agents.compatibility import lengths
from mtl_gym.environments import TASK_GROUPING, specification
from mtl_gym.envs.observations import space

OBSERVATIONS = specification(TASK_GROUPING).observations
NAMES = (*specification(TASK_GROUPING).observe, "lookahead", "layer_cka", "pair_gains")
CHOSEN = policy_of(TASK_GROUPING, "maskable-ppo")
HERE = {"id": TASK_GROUPING, "arguments": {}}
SMALL = {"problem": "digit_tasks", "num_tasks": 3, "train_steps": 12, "hidden_sizes": [8]}
TRAINING = {"time_steps": 24, "num_envs": 8, "rollouts_per_instance": 2, "evaluations": 1, "instances": 2, "references": []}


def space_of(num_tasks, num_groups, names=NAMES):
    sizes = lengths(HERE, num_tasks) | {"member": num_tasks * num_groups, "choice": num_groups}
    return space({name: OBSERVATIONS[name] for name in names}, num_tasks, 1, sizes)


def features(names=NAMES):
    return algorithm("maskable-ppo").features(CHOSEN, {name: OBSERVATIONS[name].size for name in names}, per_task=False)


def policy(num_tasks, num_groups=None, seed=0):
    torch.manual_seed(seed)
    groups = num_groups or num_tasks
    made = algorithm("maskable-ppo").empty_policy(CHOSEN, space_of(num_tasks, groups), spaces.Discrete(groups), {}, features())
    for parameter in made.parameters():  # SB3 begins with a head that is nearly zero
        nn.init.normal_(parameter, std=0.3)
    made.set_training_mode(False)
    return made


def observations(num_tasks, num_groups=None, *, rows=3, seed=0, placed=None):
    rng, groups = np.random.default_rng(seed), num_groups or num_tasks
    seen = {
        name: rng.uniform(max(OBSERVATIONS[name].low, -1), min(OBSERVATIONS[name].high, 1), (rows, *box.shape))
        for name, box in space_of(num_tasks, groups).items()
    }
    placed = rng.integers(0, num_tasks) if placed is None else placed
    order = rng.permutation(num_tasks)
    seen["next_task"] = np.tile(np.eye(num_tasks)[order[placed]], (rows, 1))
    members = np.zeros((rows, num_tasks, groups))
    for row in range(rows):
        members[row, order[:placed], rng.integers(0, groups, placed)] = 1
    seen["groups"] = members.reshape(rows, -1)
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in seen.items()}


def permuted(seen, order):
    """The same tasks in another order."""
    count = len(order)
    first, second = np.triu_indices(count, 1)
    place = np.zeros((count, count), dtype=int)
    place[first, second] = place[second, first] = np.arange(len(first))

    def moved(name, values):
        kind = OBSERVATIONS[name].size
        if kind in ("map", "task", "member"):
            return values.unflatten(1, (count, -1))[:, order].flatten(1)
        if kind == "pair":
            return values[:, place[order][:, order][first, second]]
        return values.unflatten(1, (count, count))[:, order][:, :, order].flatten(1) if kind == "square" else values

    return {name: moved(name, values) for name, values in seen.items()}


def scores(made, seen):
    with torch.no_grad():
        return made.get_distribution(seen).distribution.logits


@pytest.mark.parametrize("num_tasks", [2, 3, 6, 9])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_permuting_the_tasks_changes_neither_scores_nor_values(num_tasks, seed):
    made, seen = policy(num_tasks), observations(num_tasks, seed=seed)
    moved = permuted(seen, np.random.default_rng(seed).permutation(num_tasks))
    torch.testing.assert_close(scores(made, moved), scores(made, seen), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.predict_values(moved), made.predict_values(seen), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("num_tasks", "num_groups"), [(4, 4), (6, 3)])
def test_permuting_the_groups_permutes_the_scores(num_tasks, num_groups):
    made, seen = policy(num_tasks, num_groups), observations(num_tasks, num_groups, placed=num_tasks - 1)
    order = np.random.default_rng(1).permutation(num_groups)
    moved = seen | {"groups": seen["groups"].unflatten(1, (num_tasks, -1))[:, :, order].flatten(1)}
    torch.testing.assert_close(scores(made, moved), scores(made, seen)[:, order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.predict_values(moved), made.predict_values(seen), rtol=1e-4, atol=1e-5)


def test_all_groups_that_are_not_in_use_have_the_same_score():
    found = scores(policy(5), observations(5, placed=0))
    torch.testing.assert_close(found, found[:, :1].expand_as(found))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "action_mask"])
def test_scores_or_values_depend_on_every_observation(name):
    made, seen = policy(4), observations(4, placed=2)
    other = observations(4, placed=3 if name in ("groups", "next_task") else 2, seed=1)
    values = [(scores(made, own), made.predict_values(own)) for own in (seen, seen | {name: other[name]})]
    assert any(not torch.allclose(one, changed) for one, changed in zip(*values, strict=True))


def test_parameters_do_not_depend_on_the_numbers_of_tasks_and_groups():
    made = [policy(*sizes) for sizes in ((2, 2), (4, 4), (9, 3), (30, 30))]
    shapes = [{name: tensor.shape for name, tensor in own.state_dict().items()} for own in made]
    assert all(own == shapes[0] for own in shapes)


def test_every_parameter_learns():
    made, seen = policy(4), observations(4, placed=2)
    values, log_probabilities, entropy = made.evaluate_actions(seen, torch.tensor([1, 0, 3]))
    (values.sum() + log_probabilities.sum() + entropy.sum()).backward()
    unmoved = [name for name, parameter in made.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert unmoved in ([], ["action_net.score.bias"])  # a constant that is added to all scores moves nothing


def test_features_stay_finite_where_all_pairs_are_alike():
    made, seen = policy(3), observations(3, placed=1)
    seen |= {name: torch.full_like(seen[name], 0.5) for name in ("map_distances", "gradient_cosines", "lookahead")}
    assert torch.isfinite(scores(made, seen)).all()


@pytest.mark.parametrize(
    "names", [("map_features", "action_mask", "next_task"), (*specification(TASK_GROUPING).observe, "outcomes")]
)
def test_what_the_policy_cannot_read_is_refused(names):
    sizes = space_of(3, 3, names)
    with pytest.raises(ValueError, match="`observe` should hold 'groups' and 'next_task'"):
        algorithm("maskable-ppo").empty_policy(CHOSEN, sizes, spaces.Discrete(3), {}, features(names))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An agent of a training."""
    return agents.train(env=TASK_GROUPING, out=tmp_path_factory.mktemp("groups"), **(SMALL | TRAINING))


def test_an_environment_has_its_problem_and_algorithm(tmp_path):
    agent = agents.train(env=TASK_GROUPING, out=tmp_path, num_tasks=2, train_steps=8, **TRAINING)
    assert agent.about["environment"]["arguments"]["problem"] == "digit_tasks"
    assert agent.about["algorithm"] == "maskable-ppo"


@pytest.mark.parametrize(("num_tasks", "max_groups"), [(2, None), (5, 2), (9, None)])
def test_a_loaded_agent_plays_other_numbers_of_tasks_and_takes_nothing_forbidden(trained, tmp_path, num_tasks, max_groups):
    agent = agents.load(trained.save(tmp_path / "agent"))
    envs = gymnasium.make_vec(
        TASK_GROUPING,
        num_envs=2,
        vectorization_mode="vector_entry_point",
        num_tasks=num_tasks,
        max_groups=max_groups,
        problem="yeast",
        train_steps=8,
        **agent.requires.arguments(),
    )
    seen, _ = envs.reset(seed=0)
    for _ in range(num_tasks):
        actions, _ = agent.predict(seen, deterministic=False)
        seen, _, ended, _, infos = envs.step(actions)
        assert not infos.get("final_info", infos)["invalid_action"].any()
    assert ended.all()


def test_an_agent_is_compared_beside_heuristics(trained, tmp_path):
    path = trained.save(tmp_path / "agent")
    policies = ["joint", "stg-mtl", str(path)]
    frame = mtl_gym.compare(policies, TASK_GROUPING, instances=2, reward="gain_over_joint", **SMALL)
    assert set(frame["policy"]) == set(policies)
    assert frame["num_groups"].between(1, 3).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "merge"}, "`action` should be 'place' for agents"),
        ({"action": "memberships"}, "`action` should be 'place' for agents"),
        (
            {"algorithm": "dqn", "rollouts_per_instance": 1},
            f"`algorithm` should be one that has a policy for {TASK_GROUPING}: maskable-ppo",
        ),
        ({"algorithm": "ppo"}, f"`algorithm` should be one that has a policy for {TASK_GROUPING}: maskable-ppo"),
        ({"problem": "digits"}, "`problem`"),
    ],
)
def test_what_agents_do_not_take_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        agents.train(env=TASK_GROUPING, out=tmp_path / "out", **(SMALL | TRAINING | options))
    assert not (tmp_path / "out").exists()
