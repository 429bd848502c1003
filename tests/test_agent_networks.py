import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from torch import nn

from agents.algorithm import algorithm
from agents.networks import EntityLSTM, Exchangeable, Pool, exchangeable_layers
from mtl_gym.envs.observations import OBSERVATIONS, space

NAMES = ("log_loss_mean", "slope", "last_weights", "cosines", "progress")
OVER_TASKS = ("ppo", "recurrent-ppo", "sac", "td3", "tqc")


def policy(name, num_tasks, seed=0, names=NAMES):
    torch.manual_seed(seed)
    actions = spaces.Box(-1, 1, (num_tasks,), np.float32)
    made = algorithm(name).empty_policy(space(names, num_tasks), actions, {})
    for parameter in made.parameters():  # SB3 begins with a head that is nearly zero
        nn.init.normal_(parameter, std=0.15)
    made.set_training_mode(False)
    return made


def observations(num_tasks, rows=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(max(OBSERVATIONS[name].low, -2), min(OBSERVATIONS[name].high, 2), (rows, *box.shape)).astype(np.float32)
        for name, box in space(NAMES, num_tasks).items()
    }


def permuted(values, order):
    """The same observations with the tasks in another order."""
    count = len(order)
    first, second = np.triu_indices(count, 1)
    place = np.zeros((count, count), dtype=int)
    place[first, second] = place[second, first] = np.arange(len(first))
    pairs = place[order][:, order][first, second]
    columns = {"task": order, "pair": pairs, "one": [0]}
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
