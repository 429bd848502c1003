"""Agents over structures: scores of pairs that know neither the order nor the number of tasks, masks, and whole trainings."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings, strategies as st
from sb3_contrib import MaskablePPO
from torch import nn

import mtl_gym
from mtl_gym import agents
from mtl_gym.agents.algorithm import algorithm, policy_of
from mtl_gym.decisions.merging.structures import choices
from mtl_gym.decisions.partitions import labels, partitions, together
from mtl_gym.environments import LAYER_MERGING, TASK_GROUPING, specification
from mtl_gym.envs.observations import space

OBSERVATIONS = specification(LAYER_MERGING).observations
NAMES = specification(LAYER_MERGING).observe
SMALL = {
    "tasks": ["digit", "parity", "loop", "angle"],
    "num_tasks": 3,
    "train_steps": 12,
    "steps_per_action": 4,
    "hidden_sizes": [8, 8],
}
TRAINING = {"time_steps": 24, "num_envs": 8, "rollouts_per_instance": 2, "evaluations": 1, "instances": 2, "references": []}


def space_of(num_tasks):
    return space({name: OBSERVATIONS[name] for name in NAMES}, num_tasks, 1, {"choice": choices(num_tasks)})


def policy(num_tasks, seed=0, name="maskable-ppo"):
    torch.manual_seed(seed)
    chosen = policy_of(LAYER_MERGING, name)
    features = algorithm(name).features(chosen, {own: OBSERVATIONS[own].size for own in NAMES}, per_task=False)
    made = algorithm(name).empty_policy(chosen, space_of(num_tasks), spaces.Discrete(choices(num_tasks)), {}, features)
    for parameter in made.parameters():  # SB3 begins with a head that is nearly zero
        nn.init.normal_(parameter, std=0.3)
    made.set_training_mode(False)
    return made


def observations(num_tasks, rows=3, seed=0):
    rng = np.random.default_rng(seed)
    seen = {
        name: rng.uniform(max(OBSERVATIONS[name].low, -2), min(OBSERVATIONS[name].high, 2), (rows, *box.shape))
        for name, box in space_of(num_tasks).items()
    }
    return {name: torch.tensor(values, dtype=torch.float32) for name, values in seen.items()}


def pairs_in(order):
    """For each pair of tasks in the new order its place among the old pairs."""
    count = len(order)
    first, second = np.triu_indices(count, 1)
    place = np.zeros((count, count), dtype=int)
    place[first, second] = place[second, first] = np.arange(len(first))
    return place[order][:, order][first, second]


def actions_in(order):
    """For each action in the new order its place among the old actions."""
    if len(order) > 6:
        return np.concatenate([[0], 1 + pairs_in(order)])
    listed = partitions(len(order))
    known = {tuple(own): place for place, own in enumerate(listed.tolist())}
    back = np.argsort(order)  # task i of the new order is task order[i] of the old one
    moved = labels(together(listed)[:, back][:, :, back])
    return np.array([known[tuple(own)] for own in moved.tolist()])


def permuted(seen, order):
    columns = {"task": list(order), "pair": pairs_in(order), "one": [0], "choice": actions_in(order)}
    return {name: values[:, columns[OBSERVATIONS[name].size]] for name, values in seen.items()}


def scores(made, seen):
    with torch.no_grad():
        return made.get_distribution(seen).distribution.logits


@pytest.mark.parametrize("num_tasks", [2, 3, 4, 6, 8])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_permuting_the_tasks_permutes_the_scores_and_leaves_the_value(num_tasks, seed):
    made, seen = policy(num_tasks), observations(num_tasks, seed=seed)
    order = np.random.default_rng(seed).permutation(num_tasks)
    moved = permuted(seen, order)
    torch.testing.assert_close(scores(made, moved), scores(made, seen)[:, actions_in(order)], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.predict_values(moved), made.predict_values(seen), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_tasks", [3, 4, 8])
def test_permuting_the_tasks_permutes_the_values_of_actions(num_tasks):
    made, seen = policy(num_tasks, name="dqn"), observations(num_tasks)
    order = np.random.default_rng(0).permutation(num_tasks)
    expected = made.q_net(seen)[:, actions_in(order)]
    torch.testing.assert_close(made.q_net(permuted(seen, order)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "action_mask"])
def test_scores_or_values_depend_on_every_observation(name):
    made, seen = policy(4), observations(4)
    moved = seen | {name: seen[name].flip(0)}
    values = [(scores(made, own), made.predict_values(own)) for own in (seen, moved)]
    assert any(not torch.allclose(one, other) for one, other in zip(*values, strict=True))


def test_parameters_do_not_depend_on_the_number_of_tasks():
    shapes = [{name: tensor.shape for name, tensor in policy(count).state_dict().items()} for count in (2, 4, 6, 9)]
    assert all(own == shapes[0] for own in shapes)


def test_every_parameter_learns():
    made, seen = policy(4), observations(4)
    values, log_probabilities, entropy = made.evaluate_actions(seen, torch.tensor([1, 5, 14]))
    (values.sum() + log_probabilities.sum() + entropy.sum()).backward()
    unmoved = [name for name, parameter in made.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    # A constant that is added to the scores of all pairs, but not to all partitions alike, moves too.
    assert unmoved == []


def test_masked_actions_are_never_taken():
    made, seen = policy(4), observations(4, rows=64)
    masks = np.zeros((64, choices(4)), dtype=bool)
    masks[:, [0, 7]] = True
    for deterministic in (True, False):
        chosen, _ = made.predict({name: values.numpy() for name, values in seen.items()}, None, None, deterministic, masks)
        assert set(chosen.tolist()) <= {0, 7}


def test_maskable_ppo_of_sb3_contrib_finds_the_masks_through_the_wrappers_of_make():
    env = gymnasium.make(LAYER_MERGING, **SMALL)
    model = MaskablePPO("MultiInputPolicy", env, n_steps=6, batch_size=6, n_epochs=1, seed=0)
    model.learn(12)
    taken = model.rollout_buffer.action_masks.astype(bool)
    assert taken.any(1).all()
    assert not taken.all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Agents of two trainings, by the name of their action."""
    folder = tmp_path_factory.mktemp("structures")
    made = {
        action: agents.train("digits", env=LAYER_MERGING, out=folder / action, action=action, **SMALL, **TRAINING)
        for action in ("merge", "threshold")
    }
    options = {**TRAINING, "rollouts_per_instance": 1, "algorithm": "dqn", "options": {"learning_starts": 8}}
    return made | {"dqn": agents.train("digits", env=LAYER_MERGING, out=folder / "dqn", **SMALL, **options)}


def test_each_action_has_its_algorithm(trained):
    assert [agent.about["algorithm"] for agent in trained.values()] == ["maskable-ppo", "ppo", "dqn"]


@pytest.mark.parametrize("action", ["merge", "threshold", "dqn"])
@pytest.mark.parametrize(("problem", "num_tasks"), [("digits", 2), ("digits", 5), ("river_flow", 8)])
def test_a_loaded_agent_plays_other_numbers_of_tasks_and_takes_nothing_forbidden(trained, tmp_path, action, problem, num_tasks):
    agent = agents.load(trained[action].save(tmp_path / "agent"))
    envs = gymnasium.make_vec(
        LAYER_MERGING,
        num_envs=2,
        vectorization_mode="vector_entry_point",
        problem=problem,
        num_tasks=num_tasks,
        train_steps=16,
        **agent.requires.arguments(),
    )
    seen, _ = envs.reset(seed=0)
    for _ in range(4):
        actions, _ = agent.predict(seen, deterministic=False)
        seen, _, _, _, infos = envs.step(actions)
        assert action == "dqn" or not infos.get("final_info", infos)["invalid_action"].any()


def test_what_an_agent_cannot_do_with_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="`observe` should hold 'action_mask'"):
        agents.train(env=LAYER_MERGING, out=tmp_path / "a", observe=["log_loss_mean", "frontier_cka"], **SMALL, **TRAINING)
    with pytest.raises(ValueError, match="`scope` should be 'all' for agents"):
        agents.train(out=tmp_path / "b", scope="shared", num_tasks=3, train_steps=40, **TRAINING)
    assert not list(tmp_path.iterdir())


def test_pairs_need_no_observation_of_pairs(tmp_path):
    agent = agents.train(env=LAYER_MERGING, out=tmp_path, observe=["log_loss_mean", "action_mask"], **SMALL, **TRAINING)
    assert agent.about["algorithm"] == "maskable-ppo"


@pytest.mark.parametrize("action", ["merge", "threshold"])
def test_agents_are_compared_beside_heuristics(trained, tmp_path, action):
    path = trained[action].save(tmp_path / "agent")
    policies = ["mtsl", str(path)]
    frame = mtl_gym.compare(policies, LAYER_MERGING, instances=2, tasks=["digit", "angle"], hidden_sizes=[8, 8], train_steps=40)
    assert set(frame["policy"]) == set(policies)
    assert frame["parameter_fraction"].between(0, 1).all()


# --- masks of others' agents -------------------------------------------------------------------------------------------


class LastAction:
    """Always wants the last action, which is masked at first."""

    def __init__(self, env):
        self.requires = mtl_gym.Requirements(env=env)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        action_mask = observation["action_mask"]
        return np.full(len(action_mask), action_mask.shape[1] - 1), state


class LastAllowed(LastAction):
    """The last of the masks that it is handed."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
        assert (action_masks == observation["action_mask"]).all()
        assert action_masks.dtype == bool
        return action_masks.shape[1] - 1 - action_masks[:, ::-1].argmax(1), state


@pytest.mark.parametrize("env", [LAYER_MERGING, TASK_GROUPING])
def test_masks_are_handed_to_who_takes_them_and_masked_actions_are_told(env, tmp_path):
    small = {"train_steps": 40, "num_tasks": 3, "hidden_sizes": [8], "instances": 2, "out": tmp_path}
    frame = mtl_gym.compare({"knows": LastAllowed(env), "does not": LastAction(env)}, env, **small)
    invalid_actions = frame.groupby("policy")["invalid_actions"].max()
    assert invalid_actions["knows"] == 0
    assert 0 < invalid_actions["does not"] <= 1
    assert mtl_gym.summarize(frame)["policies"]["does not"]["invalid_actions"]["mean"] == invalid_actions["does not"]


@pytest.mark.parametrize("env", [LAYER_MERGING, TASK_GROUPING])
def test_a_plain_maskable_ppo_is_played_with_masks(env):
    own = MaskablePPO(
        "MultiInputPolicy", gymnasium.make(env, train_steps=40, num_tasks=3, hidden_sizes=[8]), n_steps=8, batch_size=8, seed=0
    )
    frame = mtl_gym.compare({"own": own}, env, train_steps=40, num_tasks=3, hidden_sizes=[8], instances=2)
    assert frame["invalid_actions"].max() == 0
