"""IGBv2: its schedule, its rewards by hand, and that a training depends on its own seed alone."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch

import mtl_gym
from mtl_gym.agents import PRETRAINED, online_sac
from mtl_gym.agents.igbv2 import SHARPNESS, IGBv2
from mtl_gym.agents.online_sac import EVERY, LARGEST_REWARD, LOG_LOSS_BOUND
from mtl_gym.agents.randomness import Stream, global_state
from mtl_gym.baselines.base import softmax
from mtl_gym.envs.observations import OBSERVATIONS
from mtl_gym.evaluation.rollout import make_env
from mtl_gym.policies.grammar import make_policy
from tests.rollouts import LOSS_WEIGHTING, same

SHORT = {"problem": "digits", "hidden_sizes": [8], "batch_size": 100, "holdout_size": 16}  # 8 batches in an epoch
SEEDS = np.array([7, 11])


def observation(losses, *, epoch=0, lr=1e-2):
    rows = len(losses)
    columns = {"epoch": np.full((rows, 1), epoch, np.float32), "lr": np.full((rows, 1), lr, np.float32)}
    return {"log_loss": np.log(losses).astype(np.float32), **columns}


def observations(steps, per_epoch, rows=2, tasks=3):
    rng = np.random.default_rng(0)
    return [observation(rng.uniform(0.1, 3, (rows, tasks)), epoch=step // per_epoch) for step in range(steps)]


def play(stream, policy=None, memory=None, seeds=SEEDS):
    policy = policy or IGBv2()
    actions, memory = [], memory or policy.initial_state(seeds, stream[0]["log_loss"].shape[-1])
    for obs in stream:
        action, memory = policy.predict(obs, memory)
        actions.append(action)
    return np.stack(actions), memory


def row_of(stream, row):
    return [{name: values[row : row + 1] for name, values in obs.items()} for obs in stream]


def random_actions(seed, steps, tasks=3):
    return (np.random.default_rng([seed, 1]).standard_normal((steps, tasks)) / SHARPNESS).clip(-1, 1)


def buffer(agent):
    return agent.sac.replay_buffer


# --- schedule -------------------------------------------------------------------------------------------------------------


def test_weights_are_random_through_the_fifth_epoch_and_then_the_agents():
    actions, _ = play(observations(23, per_epoch=4))
    for row, seed in enumerate(SEEDS):
        expected = random_actions(seed, 23)
        np.testing.assert_allclose(actions[:20, row], expected[:20], rtol=1e-5)
        assert np.all(np.abs(actions[20:, row] - expected[20:]) > 1e-4)
    assert np.all(np.abs(actions) <= 1)


def test_transitions_are_stored_from_the_third_epoch():
    stream = observations(10, per_epoch=4)
    memory = None
    for step, obs in enumerate(stream):
        _, memory = IGBv2().predict(obs, memory)
        for agent in memory:
            assert ("sac" in vars(agent)) == (step >= 8)  # not made before it is needed
            assert step < 8 or buffer(agent).size() == step - 7


@pytest.mark.parametrize(("per_epoch", "updates"), [(17, [0, 0, 25]), (16, [0, 25, 50])])
def test_the_agent_is_trained_at_each_fiftieth_batch_from_the_fourth_epoch(per_epoch, updates):
    """With 17 batches in an epoch, batch 50 (from 0) belongs to the third one."""
    stream = observations(101, per_epoch, rows=1)
    _, memory = play(stream[:50], seeds=SEEDS[:1])
    for part, expected in zip((stream[:0], stream[50:51], stream[51:]), updates, strict=True):
        memory = play(part, memory=memory)[1] if part else memory
        assert memory[0].sac._n_updates == expected


@pytest.mark.parametrize(("size", "updates", "batch"), [(1, 25, 128), (5_000, 37, 192), (10_000, 50, 256)])
def test_updates_and_batches_grow_with_the_buffer(size, updates, batch, monkeypatch):
    agent, calls = IGBv2().initial_state(SEEDS, 3)[0], []
    buffer(agent).pos, buffer(agent).full = size % 10_000, size == 10_000
    monkeypatch.setattr(agent.sac, "train", lambda **options: calls.append(options))
    for epoch in (2, 3):
        agent.step, agent.last = EVERY, None
        agent.act(np.zeros(3, dtype=np.float32), epoch, 1e-2)
    assert calls == [{"gradient_steps": updates, "batch_size": batch}]


def test_training_changes_what_the_agent_does(monkeypatch):
    stream = observations(60, per_epoch=9, rows=1)
    trained, memory = play(stream, seeds=SEEDS[:1])
    assert memory[0].sac._n_updates == 25
    monkeypatch.setattr(online_sac, "EVERY", 1000)
    untrained, _ = play(stream, seeds=SEEDS[:1])
    np.testing.assert_array_equal(trained[:50], untrained[:50])
    assert np.abs(trained[50:] - untrained[50:]).max() > 0.01
    assert np.ptp(untrained[50:], axis=0).min() > 0.01  # drawn, not the mean


def test_the_sac_is_the_papers():
    sac = IGBv2().initial_state(SEEDS, 3)[0].sac
    assert (sac.gamma, sac.tau, sac.target_entropy, sac.buffer_size) == (0.99, 0.005, -3, 10_000)
    assert sac.lr_schedule(1) == 3e-4
    assert sac.log_ent_coef.exp().item() == pytest.approx(0.2)
    assert [layer.out_features for layer in sac.actor.latent_pi if isinstance(layer, torch.nn.Linear)] == [128, 128]


# --- rewards --------------------------------------------------------------------------------------------------------------


def test_rewards_by_hand():
    losses = [[9, 9], [2, 8], [4, 4], [3, 3], [1, 4], [2, 2]]
    epochs, lrs = [0, 1, 1, 2, 2, 2], [0.1, 0.1, 0.1, 0.1, 0.05, 0.05]
    stream = [observation([loss], epoch=epoch, lr=lr) for loss, epoch, lr in zip(losses, epochs, lrs, strict=True)]
    actions, memory = play(stream, seeds=SEEDS[:1])
    kept = buffer(memory[0])
    # The base is (3, 6). min((4 - 3) / 3, (4 - 3) / 6); min((3 - 1) / 3, (3 - 4) / 6); twice min((1 - 2) / 3, (4 - 2) / 6)
    np.testing.assert_allclose(kept.rewards[:3, 0], [1 / 6, -1 / 6, 2 * -1 / 3], rtol=1e-5)
    np.testing.assert_allclose(kept.observations[:3, 0], losses[2:5], rtol=1e-5)
    np.testing.assert_allclose(kept.next_observations[:3, 0], losses[3:6], rtol=1e-5)
    np.testing.assert_allclose(kept.actions[:3, 0] * 1.6, actions[2:5, 0] * SHARPNESS, rtol=1e-5)
    assert kept.dones.sum() == 0


def real_run(policy, ids=(0, 1), train_steps=60, **others):
    arguments = {**SHORT, "train_steps": train_steps, **others}
    envs = make_env(policy, LOSS_WEIGHTING, len(ids), arguments)
    obs, _ = envs.reset(options={"instance": np.array(ids)})
    memory, actions = policy.initial_state(np.array(ids), 5), []
    for _ in range(train_steps):
        action, memory = policy.predict(obs, memory)
        actions.append(action)
        obs, *_ = envs.step(action)
    return envs.unwrapped.decision.trainer, memory, np.stack(actions)


def test_a_real_training_under_a_step_schedule():
    trainer, memory, _ = real_run(IGBv2(), lr_schedule="step")
    for row, agent in enumerate(memory):
        losses = trainer.losses.history[row].double().numpy()
        factor = np.where(np.arange(60) < 30, 1, np.where(np.arange(60) < 45, 10, 100))
        rewards = factor[:59] * ((losses[:-1] - losses[1:]) / losses[8:16].mean(0)).min(1)
        size = buffer(agent).size()
        assert size == 60 - 16
        np.testing.assert_allclose(buffer(agent).rewards[:size, 0], rewards[15:], rtol=1e-3, atol=1e-5)
        assert agent.sac._n_updates == 25


@pytest.mark.parametrize("reach", [1.6, SHARPNESS])
def test_the_applied_weights_are_softmaxes_over_the_losses(reach):
    trainer, memory, actions = real_run(IGBv2(reach=reach), train_steps=48)
    for row, agent in enumerate(memory):
        shares = (trainer.weights[row] * trainer.losses.history[row]).numpy()
        normals = np.random.default_rng([row, 1]).standard_normal((40, 5))
        np.testing.assert_allclose(shares[:40], 5 * softmax(normals), rtol=1e-3)
        size = buffer(agent).size()
        np.testing.assert_allclose(shares[15:47], 5 * softmax(reach * buffer(agent).actions[:size, 0]), rtol=1e-3)
        assert np.abs(buffer(agent).actions[25:size]).max() <= 1
        assert np.abs(actions[40:, row]).max() <= reach / SHARPNESS + 1e-6


# --- randomness -----------------------------------------------------------------------------------------------------------


def test_global_generators_are_neither_read_nor_written():
    stream = observations(52, per_epoch=10, rows=1)
    before = global_state()
    actions, _ = play(stream, seeds=SEEDS[:1])
    assert same(before, global_state())
    with Stream(5):
        np.testing.assert_array_equal(play(stream, seeds=SEEDS[:1])[0], actions)


def test_a_row_does_not_depend_on_the_rows_beside_it():
    stream = observations(52, per_epoch=10)
    both, _ = play(stream)
    for row in range(2):
        np.testing.assert_array_equal(both[:, row : row + 1], play(row_of(stream, row), seeds=SEEDS[row : row + 1])[0])


def test_instances_together_and_alone_are_the_same():
    arguments = {**SHORT, "train_steps": 54}
    together = mtl_gym.evaluate("igbv2", instances=2, num_envs=2, **arguments)
    alone = mtl_gym.evaluate("igbv2", instances=2, num_envs=1, **arguments)
    np.testing.assert_allclose(together["value"], alone["value"], rtol=1e-3)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_a_copy_of_the_memory_goes_on_bit_for_bit(copied):
    stream = observations(56, per_epoch=9, rows=1)
    _, memory = play(stream[:48], seeds=SEEDS[:1])
    kept = copied(memory)
    expected, _ = play(stream[48:], memory=memory)
    np.testing.assert_array_equal(play(stream[48:], memory=kept)[0], expected)


def test_an_episode_start_begins_anew_with_new_numbers():
    policy, stream = IGBv2(), observations(30, per_epoch=5)
    _, memory = play(stream, policy)
    _, again = policy.predict(stream[0], memory, episode_start=np.array([True, False]))
    assert [agent.seed for agent in again] == [9, 11]
    assert again[1] is memory[1]
    assert (again[0].step, "sac" in vars(again[0])) == (1, False)


def test_without_a_memory_rows_are_seeded_by_their_numbers():
    stream = observations(3, per_epoch=5)
    action, memory = IGBv2().predict(stream[0], episode_start=np.ones(2, dtype=bool))
    np.testing.assert_array_equal(action, play(stream[:1], seeds=np.arange(2))[0][0])
    assert [agent.seed for agent in memory] == [0, 1]


def test_one_environment_needs_no_row_axis():
    stream = row_of(observations(12, per_epoch=2), 0)
    single = [{name: values[0] for name, values in obs.items()} for obs in stream]
    expected, _ = play(stream, seeds=SEEDS[:1])
    actual, _ = play(single, seeds=SEEDS[:1])
    np.testing.assert_array_equal(actual, expected[:, 0])
    env = gymnasium.make(LOSS_WEIGHTING, train_steps=2, **IGBv2.requires.arguments())
    obs, _ = env.reset(options={"instance": 0})
    assert env.action_space.contains(IGBv2().predict(obs)[0])


# --- losses that are not finite -------------------------------------------------------------------------------------------


def test_the_bound_of_the_losses_is_the_observations():
    assert LOG_LOSS_BOUND == OBSERVATIONS["log_loss"].high == -OBSERVATIONS["log_loss"].low


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf, LOG_LOSS_BOUND])
def test_losses_that_are_not_finite_are_skipped(lost):
    stream = observations(30, per_epoch=5)
    for step in (7, 20, 29):
        stream[step]["log_loss"][0, 1] = lost
    actions, memory = play(stream)
    assert np.all(actions[[7, 20, 29], 0] == 0)
    assert np.all(np.abs(actions[[8, 21, 28], 0]) > 0)
    assert [buffer(agent).size() for agent in memory] == [17, 20]
    assert np.isfinite(buffer(memory[0]).rewards).all()
    assert np.isfinite(buffer(memory[0]).next_observations).all()
    assert memory[0].base_count == 4
    np.testing.assert_array_equal(actions[:, 1:], play(row_of(observations(30, per_epoch=5), 1), seeds=SEEDS[1:])[0])


def test_trainings_that_are_about_to_diverge_do_not_break_the_agent():
    stream = observations(120, per_epoch=8, rows=1)
    for step, obs in enumerate(stream):
        obs["log_loss"][:] = 29.9 if step % 2 else -29.9
    actions, memory = play(stream, seeds=SEEDS[:1])
    assert np.isfinite(actions).all()
    assert np.abs(buffer(memory[0]).rewards).max() <= LARGEST_REWARD


def test_a_training_that_diverges_gets_equal_weights():
    trainer, memory, actions = real_run(IGBv2(), ids=[0], train_steps=44, lr=1e20)
    steps = int(trainer.ledger.step[0])
    assert 0 < steps < 44
    assert np.all(actions[steps:] == 0)
    assert memory[0].last is None


# --- as a policy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", ["quadratic", pytest.param("digits", marks=pytest.mark.slow)])
def test_it_can_be_named_in_a_comparison(problem, tmp_path):
    arguments = {"problem": problem, "instances": 2, "train_steps": 44}
    frame = mtl_gym.compare("igbv2,igbv2:reach=6.9", out=tmp_path, **arguments)
    assert np.isfinite(frame["delta_m"]).all()
    means = frame.groupby("policy")["value"].mean()
    assert np.isclose(*means) == (problem == "digits")  # where an epoch has 12 batches, not 4
    assert PRETRAINED["igbv2"] == "mtl_gym.agents.igbv2:IGBv2"


def test_a_short_training_never_makes_the_agent():
    _, memory, _ = real_run(IGBv2(), train_steps=16)
    assert not any("sac" in vars(agent) for agent in memory)


def test_its_environment_follows_from_what_it_requires():
    assert IGBv2.requires.arguments() == {
        "observe": ["log_loss", "epoch", "lr"],
        "action": "residual",
        "steps_per_action": 1,
        "rule": "si",
        "weight_range": 1e6,
    }
    with pytest.raises(ValueError, match="`rule` should be 'si', which IGBv2 requires"):
        make_env(IGBv2(), LOSS_WEIGHTING, 1, {"rule": "init"})


def test_its_spec_is_plain_and_tells_options_apart():
    spec = IGBv2().spec
    assert json.loads(json.dumps(spec)) == spec
    assert spec["agent"] == "mtl_gym.agents.igbv2:IGBv2"
    assert spec != make_policy("igbv2:reach=1").spec


@pytest.mark.parametrize("reach", [0, -1, 7, float("nan")])
def test_a_wrong_reach_is_named(reach):
    with pytest.raises(ValueError, match="`reach` should be a finite number in"):
        IGBv2(reach=reach)


def test_a_missing_observation_is_named():
    with pytest.raises(ValueError, match="`observation` should hold"):
        IGBv2().predict({"log_loss": np.zeros((1, 2), dtype=np.float32)})


def test_listing_it_loads_neither_torch_nor_stable_baselines():
    code = "import sys, mtl_gym.agents.igbv2; print({'torch', 'stable_baselines3'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
