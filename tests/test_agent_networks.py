import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings, strategies as st
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from torch import nn

from mtl_gym.agents.algorithm import algorithm, policy_of
from mtl_gym.agents.networks import EntityLSTM, Exchangeable, Pool, exchangeable_layers
from mtl_gym.decisions.sample_rules import FEATURES
from mtl_gym.environments import LOSS_WEIGHTING, SAMPLE_WEIGHTING, specification
from mtl_gym.envs.observations import space

OBSERVATIONS = specification(SAMPLE_WEIGHTING).observations
NAMES = ("log_loss_mean", "slope", "last_weights", "cosines", "progress")
OF_SAMPLES = ("sample_loss", "sample_mean", "alignment_feature", "main_feature", *NAMES)
OVER_TASKS = ("ppo", "recurrent-ppo", "sac", "td3", "tqc")
OVER_SAMPLES = ("ppo", "recurrent-ppo")
COEFFICIENTS = 1 + len(FEATURES)


def space_of(names, num_tasks, batch_size):
    """The space of these observations."""
    return space({name: OBSERVATIONS[name] for name in names}, num_tasks, batch_size, {})


def policy(name, num_tasks, seed=0, names=NAMES, batch_size=1, coefficients=0):
    torch.manual_seed(seed)
    per_task = not set(names) & set(OF_SAMPLES[:4])
    actions = spaces.Box(-1, 1, (coefficients + num_tasks if per_task else COEFFICIENTS,), np.float32)
    chosen = policy_of(LOSS_WEIGHTING, name)
    features = algorithm(name).features(chosen, {own: OBSERVATIONS[own].size for own in names}, per_task)
    made = algorithm(name).empty_policy(chosen, space_of(names, num_tasks, batch_size), actions, {}, features)
    for parameter in made.parameters():  # SB3 begins with a head that is nearly zero
        nn.init.normal_(parameter, std=0.15)
    made.set_training_mode(False)
    return made


def observations(num_tasks, rows=3, seed=0, names=NAMES, batch_size=1):
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(max(OBSERVATIONS[name].low, -2), min(OBSERVATIONS[name].high, 2), (rows, *box.shape)).astype(np.float32)
        for name, box in space_of(names, num_tasks, batch_size).items()
    }


def permuted(values, order, samples=()):
    """The same observations with the tasks, and the samples, in another order."""
    count = len(order)
    first, second = np.triu_indices(count, 1)
    place = np.zeros((count, count), dtype=int)
    place[first, second] = place[second, first] = np.arange(len(first))
    pairs = place[order][:, order][first, second]
    cells = np.arange(len(samples) * count).reshape(len(samples), count)
    of_samples = cells[list(samples)][:, order].ravel() if len(samples) else []
    columns = {"task": order, "pair": pairs, "one": [0], "sample": of_samples}
    return {name: value[:, columns[OBSERVATIONS[name].size]] for name, value in values.items()}


def memories(actor, seed, rows=3):
    if not hasattr(actor, "lstm_hidden_state_shape"):
        return None
    shape = (1, rows, actor.lstm_hidden_state_shape[2])
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype(np.float32) for _ in range(2))


def permuted_memory(memory, order):
    if memory is None:
        return None
    return tuple(part.reshape(1, 3, len(order), -1)[:, :, order].reshape(part.shape) for part in memory)


@pytest.mark.parametrize("name", OVER_TASKS)
@given(num_tasks=st.integers(2, 6), seed=st.integers(0, 2**16))
@settings(max_examples=8, deadline=None)
def test_permuting_the_tasks_permutes_the_actions(name, num_tasks, seed):
    actor, values, order = (
        policy(name, num_tasks),
        observations(num_tasks, seed=seed),
        np.random.default_rng(seed).permutation(num_tasks),
    )
    memory = memories(actor, seed)
    actions, after = actor.predict(values, memory, np.zeros(3, dtype=bool), deterministic=True)
    others, others_after = actor.predict(
        permuted(values, order), permuted_memory(memory, order), np.zeros(3, dtype=bool), deterministic=True
    )
    np.testing.assert_allclose(others, actions[:, order], atol=1e-5)
    if memory is not None:
        for one, other in zip(permuted_memory(after, order), others_after, strict=True):
            np.testing.assert_allclose(other, one, atol=1e-5)


@pytest.mark.parametrize("name", ["ppo", "recurrent-ppo"])
@given(num_tasks=st.integers(2, 6), seed=st.integers(0, 2**16))
@settings(max_examples=8, deadline=None)
def test_a_rule_with_residuals_has_coefficients_for_all_tasks_and_a_number_for_each(name, num_tasks, seed):
    actor, values = policy(name, num_tasks, coefficients=3), observations(num_tasks, seed=seed)
    order, memory, starts = np.random.default_rng(seed).permutation(num_tasks), memories(actor, seed), np.zeros(3, dtype=bool)
    actions, _ = actor.predict(values, memory, starts, deterministic=True)
    others, _ = actor.predict(permuted(values, order), permuted_memory(memory, order), starts, deterministic=True)
    assert actions.shape == (3, 3 + num_tasks)
    assert actor.log_std.shape == (4,)
    np.testing.assert_allclose(others[:, :3], actions[:, :3], atol=1e-5)
    np.testing.assert_allclose(others[:, 3:], actions[:, 3:][:, order], atol=1e-5)
    assert np.ptp(actions[:, 3:]) > 1e-4


def test_each_coefficient_has_a_deviation_and_all_residuals_share_one():
    actor = policy("ppo", 5, coefficients=3)
    with torch.no_grad():
        actor.log_std.copy_(torch.tensor([-1.0, -2.0, -3.0, -4.0]))
    deviations = actor.get_distribution({name: torch.as_tensor(own) for name, own in observations(5).items()}).distribution.stddev
    torch.testing.assert_close(deviations[0].log(), torch.tensor([-1.0, -2.0, -3.0, *[-4.0] * 5]))


@pytest.mark.parametrize("name", ["sac", "td3", "tqc"])
def test_algorithms_with_an_action_per_task_refuse_a_rule_with_residuals(name):
    with pytest.raises(ValueError, match="`algorithm` should be ppo or recurrent-ppo"):
        policy(name, 4, coefficients=3)


def values_of(actor, values, actions):
    tensors = {name: torch.as_tensor(value) for name, value in values.items()}
    if hasattr(actor, "lstm_actor"):
        state = tuple(torch.zeros(1, 3, actor.lstm_hidden_state_shape[2]) for _ in range(2))
        return actor.predict_values(tensors, state, torch.zeros(3))
    if hasattr(actor, "predict_values"):
        return actor.predict_values(tensors)
    answer = actor.critic(tensors, torch.as_tensor(actions))
    return torch.cat(answer, dim=1) if isinstance(answer, tuple) else answer


@pytest.mark.parametrize("name", OVER_TASKS)
@given(num_tasks=st.integers(2, 6), seed=st.integers(0, 2**16))
@settings(max_examples=8, deadline=None)
def test_critics_do_not_know_the_order_of_the_tasks_but_know_their_actions(name, num_tasks, seed):
    critic, values, order = (
        policy(name, num_tasks),
        observations(num_tasks, seed=seed),
        np.random.default_rng(seed).permutation(num_tasks),
    )
    actions = np.random.default_rng(seed).uniform(-1, 1, (3, num_tasks)).astype(np.float32)
    with torch.no_grad():
        own = values_of(critic, values, actions)
        torch.testing.assert_close(values_of(critic, permuted(values, order), actions[:, order]), own, atol=1e-5, rtol=1e-4)
        if hasattr(critic, "critic_target"):
            assert not torch.allclose(values_of(critic, values, -actions), own)


@pytest.mark.parametrize("name", OVER_TASKS)
def test_parameters_do_not_depend_on_the_number_of_tasks(name):
    small, large = policy(name, 2), policy(name, 7, seed=1)
    shapes = [{key: tensor.shape for key, tensor in one.state_dict().items()} for one in (small, large)]
    assert shapes[0] == shapes[1]
    large.load_state_dict(small.state_dict())
    assert large.predict(observations(7), deterministic=True)[0].shape == (3, 7)


@pytest.mark.parametrize("name", OVER_TASKS)
def test_one_task_is_a_number_of_tasks_too(name):
    values = observations(2)
    own = {key: values[key][:, :1] for key in NAMES if key != "cosines"}  # of which there are none: SB3 takes no empty observation
    assert policy(name, 1, names=tuple(own)).predict(own, deterministic=True)[0].shape == (3, 1)


@pytest.mark.parametrize("name", OVER_TASKS)
def test_every_parameter_learns(name):
    actor, values = policy(name, 3), observations(3)
    tensors = {key: torch.as_tensor(value) for key, value in values.items()}
    networks = [actor.actor, actor.critic] if hasattr(actor, "critic_target") else [actor]
    if name == "recurrent-ppo":
        state = tuple(torch.ones(1, 3, actor.lstm_hidden_state_shape[2]) for _ in range(2))
        value, log_prob, _ = actor.evaluate_actions(tensors, torch.zeros(3, 3), RNNStates(state, state), torch.zeros(3))
        loss = value.sum() + log_prob.sum()
    elif name == "ppo":
        value, log_prob, _ = actor.evaluate_actions(tensors, torch.zeros(3, 3))
        loss = value.sum() + log_prob.sum()
    else:
        actions = actor.actor.action_log_prob(tensors) if name != "td3" else (actor.actor(tensors), torch.zeros(1))
        loss = values_of(actor, values, np.zeros((3, 3), np.float32)).sum() + actions[0].sum() + actions[1].sum()
    loss.backward()
    for network in networks:
        still = [key for key, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()]
        assert not still


# --- over samples and tasks: the coefficients of a rule ---------------------------------------------------------------------


@pytest.mark.parametrize("name", OVER_SAMPLES)
@given(num_tasks=st.integers(1, 5), batch_size=st.integers(1, 6), seed=st.integers(0, 2**16))
@settings(max_examples=8, deadline=None)
def test_a_rule_does_not_know_the_order_of_samples_and_tasks(name, num_tasks, batch_size, seed):
    names = OF_SAMPLES if num_tasks > 1 else tuple(own for own in OF_SAMPLES if own != "cosines")
    actor = policy(name, num_tasks, names=names, batch_size=batch_size)
    values, rng = observations(num_tasks, seed=seed, names=names, batch_size=batch_size), np.random.default_rng(seed)
    order, samples = rng.permutation(num_tasks), rng.permutation(batch_size)
    moved = permuted(values, order, samples)
    memory = memories(actor, seed)
    action, after = actor.predict(values, memory, np.zeros(3, dtype=bool), deterministic=True)
    other, other_after = actor.predict(moved, permuted_memory(memory, order), np.zeros(3, dtype=bool), deterministic=True)
    assert action.shape == (3, COEFFICIENTS)
    np.testing.assert_allclose(other, action, atol=1e-5)
    if memory is not None:
        for one, another in zip(permuted_memory(after, order), other_after, strict=True):
            np.testing.assert_allclose(another, one, atol=1e-5)
    with torch.no_grad():
        critic = values_of(actor, values, None), values_of(actor, moved, None)
    torch.testing.assert_close(*critic, atol=1e-5, rtol=1e-4)


def marking(num_tasks, batch_size, main):
    """The feature that marks the main task, (3, B K)."""
    marks = -np.ones((3, batch_size, num_tasks), dtype=np.float32)
    marks[:, :, main] = 1
    return {"main_feature": marks.reshape(3, -1)}


@pytest.mark.parametrize("name", OVER_SAMPLES)
def test_a_rule_knows_the_main_task_by_its_mark_alone(name):
    actor, values = policy(name, 3, names=OF_SAMPLES, batch_size=4), observations(3, names=OF_SAMPLES, batch_size=4)
    actions = [actor.predict(values | marking(3, 4, main), deterministic=True)[0] for main in range(3)]
    assert not np.allclose(actions[0], actions[1], atol=1e-3)
    order = [1, 0, 2]
    swapped = permuted(values, order, range(4)) | marking(3, 4, 1)
    np.testing.assert_allclose(actor.predict(swapped, deterministic=True)[0], actions[0], atol=1e-5)


@pytest.mark.parametrize("name", OVER_SAMPLES)
@pytest.mark.parametrize("seen", OF_SAMPLES)
def test_a_rule_depends_on_every_observation(name, seen):
    actor, values = policy(name, 3, names=OF_SAMPLES, batch_size=4), observations(3, names=OF_SAMPLES, batch_size=4)
    others = observations(3, seed=1, names=OF_SAMPLES, batch_size=4)
    first, second = (actor.predict(own, deterministic=True)[0] for own in (values, values | {seen: others[seen]}))
    assert not np.allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("name", OVER_SAMPLES)
def test_parameters_depend_neither_on_the_number_of_tasks_nor_on_the_batch(name):
    small, large = policy(name, 2, names=OF_SAMPLES, batch_size=3), policy(name, 5, seed=1, names=OF_SAMPLES, batch_size=8)
    shapes = [{key: tensor.shape for key, tensor in one.state_dict().items()} for one in (small, large)]
    assert shapes[0] == shapes[1]
    large.load_state_dict(small.state_dict())
    assert large.predict(observations(5, names=OF_SAMPLES, batch_size=8), deterministic=True)[0].shape == (3, COEFFICIENTS)


@pytest.mark.parametrize("name", OVER_SAMPLES)
def test_a_batch_that_comes_twice_over_gives_the_same_rule(name):
    small, large = (policy(name, 3, names=OF_SAMPLES, batch_size=size) for size in (4, 8))
    values = observations(3, names=OF_SAMPLES, batch_size=4)
    kinds = {key: OBSERVATIONS[key].size for key in values}
    doubled = {key: np.tile(value, (1, 2)) if kinds[key] == "sample" else value for key, value in values.items()}
    actions = small.predict(values, deterministic=True)[0], large.predict(doubled, deterministic=True)[0]
    np.testing.assert_allclose(*actions, atol=1e-5)


@pytest.mark.parametrize("name", OVER_SAMPLES)
def test_every_parameter_of_a_rule_learns(name):
    actor, values = policy(name, 3, names=OF_SAMPLES, batch_size=4), observations(3, names=OF_SAMPLES, batch_size=4)
    tensors, actions = {key: torch.as_tensor(value) for key, value in values.items()}, torch.zeros(3, COEFFICIENTS)
    if name == "recurrent-ppo":
        state = tuple(torch.ones(1, 3, actor.lstm_hidden_state_shape[2]) for _ in range(2))
        value, log_prob, _ = actor.evaluate_actions(tensors, actions, RNNStates(state, state), torch.zeros(3))
    else:
        value, log_prob, _ = actor.evaluate_actions(tensors, actions)
    (value.sum() + log_prob.sum()).backward()
    assert not [key for key, parameter in actor.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert actor.log_std.shape == (COEFFICIENTS,)


@pytest.mark.parametrize("name", sorted(set(OVER_TASKS) - set(OVER_SAMPLES)))
@pytest.mark.parametrize("num_tasks", [2, COEFFICIENTS])
def test_algorithms_whose_actions_are_of_tasks_refuse_samples(name, num_tasks):
    with pytest.raises(ValueError, match=r"`algorithm` should be ppo or recurrent-ppo.*Received algorithm="):
        policy(name, num_tasks, names=OF_SAMPLES, batch_size=4)


# --- layers -----------------------------------------------------------------------------------------------------------------


@given(samples=st.integers(1, 5), tasks=st.integers(1, 4), seed=st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_layers_over_samples_and_tasks_are_equivariant_on_both_axes(samples, tasks, seed):
    torch.manual_seed(seed)
    layers, entities = exchangeable_layers(3, (8, 8), axes=2), torch.randn(2, samples, tasks, 3)
    rows, columns = torch.randperm(samples), torch.randperm(tasks)
    moved = entities[:, rows][:, :, columns]
    torch.testing.assert_close(layers(moved), layers(entities)[:, rows][:, :, columns], atol=1e-5, rtol=1e-4)
    pool = Pool(axes=2)
    torch.testing.assert_close(pool(moved), pool(entities), atol=1e-5, rtol=1e-4)
    assert pool(entities).shape == (2, 6)


def test_a_layer_sees_each_entity_and_what_is_pooled_over_every_subset_of_the_axes():
    layer, entities = Exchangeable(2, 5, axes=2), torch.arange(24.0).view(4, 3, 2)
    parts = [entities]
    for places in ((0,), (1,), (0, 1)):
        parts += [entities.mean(places, keepdim=True).expand(4, 3, 2), entities.amax(places, keepdim=True).expand(4, 3, 2)]
    by_hand = torch.cat(parts, dim=-1) @ layer.linear.weight.T + layer.linear.bias
    torch.testing.assert_close(layer(entities), by_hand)


def test_the_shared_lstm_is_a_plain_lstm_for_each_entity():
    shared = EntityLSTM(3, 4, 5)
    flat, state = torch.randn(6, 2, 15), tuple(torch.randn(1, 2, 20) for _ in range(2))
    outputs, after = shared(flat, state)
    for task in range(5):
        own = tuple(part.view(1, 2, 5, 4)[:, :, task].contiguous() for part in state)
        plain, memory = shared.lstm(flat.view(6, 2, 5, 3)[:, :, task], own)
        torch.testing.assert_close(outputs.view(6, 2, 5, 4)[:, :, task], plain)
        torch.testing.assert_close(after[1].view(1, 2, 5, 4)[:, :, task], memory[1])
