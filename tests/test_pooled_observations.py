"""Observations that do not depend on the number of tasks."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings, strategies as st
from rollouts import make, make_vec, random_actions
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from mtl_gym.envs.observations import OBSERVATIONS, SIZES, observe, space
from mtl_gym.training.loss_history import LossHistory
from mtl_gym.training.probes import BASE, EPOCH, GRAMIAN, LR, META, View

POOLED = [name for name, row in OBSERVATIONS.items() if row.size == "pooled"]
OF_ROWS = {  # what a pooled observation is of, where that is an observation of its own
    "pooled_log_loss": "log_loss_mean",
    "pooled_cosine": "cosines",
    **{f"pooled_{name}": name for name in ("slope", "meta_log_loss", "meta_slope", "overfit", "overfit_slope", "noise")},
}
WHOLE = [*POOLED, "log_lr", "log_num_tasks", "progress", "log_epoch"]


def of(*values):
    """Mean, standard deviation, minimum and maximum of the values (..., K)."""
    return np.stack([np.mean(values, -1), np.std(values, -1), np.min(values, -1), np.max(values, -1)], axis=-1)


def view(tasks=4, rows=3, scales=1.0, seed=0):
    """A view of trainings with random losses, times their ``scales`` (K,)."""
    rng = torch.Generator().manual_seed(seed)
    parts = [torch.exp(torch.randn(rows, tasks, generator=rng)) * scales for _ in range(8)]
    gradients = torch.randn(rows, tasks, 6, generator=rng) * torch.as_tensor(scales).expand(tasks)[:, None]
    history = LossHistory(*parts[:6], torch.rand(rows, tasks, generator=rng))
    now = {META: parts[6], GRAMIAN: gradients @ gradients.mT, LR: torch.full((rows,), 0.01), EPOCH: torch.full((rows,), 3)}
    return View(now, {META: parts[7]}, history, torch.full((rows,), 0.5))


def seen(names, own):
    return observe([(name, OBSERVATIONS[name]) for name in names], own)


def test_there_is_a_pooled_row_for_everything_that_is_relative():
    assert sorted(POOLED) == sorted([*OF_ROWS, "pooled_gap", "pooled_first"])
    assert SIZES["pooled"][1](1, 1) == SIZES["pooled"][1](40, 64) == 4


@pytest.mark.parametrize(("name", "row"), OF_ROWS.items())
def test_a_pooled_observation_is_of_what_its_row_shows(name, row):
    env = make_vec(distribution="varied", observe=[name, row], train_steps=24, steps_per_action=6)
    env.reset(seed=0)
    for action in random_actions(env.action_space, 3):
        seen = env.step(action)[0]
        np.testing.assert_allclose(seen[name], of(*seen[row]), rtol=1e-4, atol=1e-6)
    assert np.ptp(seen[name]) > 0


def test_the_other_two_are_logarithms():
    own = view()
    gaps = np.log((own.losses.mean / own.losses.base).numpy())
    first = np.log(own.losses.initial.numpy())
    found = seen(["pooled_gap", "pooled_first"], own)
    np.testing.assert_allclose(found["pooled_gap"], of(*gaps), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["pooled_first"], of(*(first - first.mean(1, keepdims=True))), rtol=1e-4, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 100), st.randoms(use_true_random=False))
def test_neither_the_number_nor_the_order_of_tasks_shows_in_their_lengths_and_values(tasks, seed, random):
    own = view(tasks, seed=seed)
    order = list(range(tasks))
    random.shuffle(order)
    now = own.now | {META: own[META][:, order], GRAMIAN: own[GRAMIAN][:, order][:, :, order]}
    other = View(now, {META: own.previous[META][:, order]}, LossHistory(*(part[:, order] for part in own.losses)), own.progress)
    first, second = seen(WHOLE, own), seen(WHOLE, other)
    boxes = space({name: OBSERVATIONS[name] for name in WHOLE}, tasks, 64, {})
    for name, values in first.items():
        np.testing.assert_allclose(values, second[name], rtol=1e-4, atol=1e-5)
        assert values.shape[1:] == boxes[name].shape == ((4,) if name in POOLED else (1,))
        assert all(boxes[name].contains(row) for row in values)
    assert first["log_num_tasks"][0, 0] == pytest.approx(np.log(tasks))
    assert first["log_lr"][0, 0] == pytest.approx(np.log(0.01))


def test_scales_of_losses_stay_hidden_but_for_how_different_they_are():
    names = [name for name in POOLED if name != "pooled_first"]
    plain, common, apart = (view(scales=torch.tensor(own)) for own in ([1.0] * 4, [7.0] * 4, [0.01, 1.0, 30.0, 5.0]))
    for other in (common, apart):
        for name, values in seen(names, plain).items():
            np.testing.assert_allclose(seen(names, other)[name], values, rtol=1e-3, atol=1e-4)
    first = [seen(["pooled_first"], own)["pooled_first"] for own in (plain, common, apart)]
    np.testing.assert_allclose(first[0], first[1], rtol=1e-4, atol=1e-5)
    assert (np.abs(first[2] - first[0])[:, 1:] > 0.1).all()


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, np.inf, np.nan])
def test_they_are_finite_whatever_the_losses_are_and_rows_do_not_mix(value):
    own, spoilt = view(), view()
    for table in (spoilt.losses.initial, spoilt.losses.mean, spoilt[META], spoilt[GRAMIAN], spoilt.losses.noise):
        table[1, 1] = value
    plain, found = seen(WHOLE, own), seen(WHOLE, spoilt)
    for name, values in found.items():
        assert np.isfinite(values).all()
        assert np.array_equal(values[[0, 2]], plain[name][[0, 2]])


def test_tasks_without_labels_are_no_reason_for_nan():
    env = make_vec(distribution={"labels": [0.02, 0.1]}, observe=WHOLE, train_steps=24, steps_per_action=6, action="rule")
    answers = [env.reset(seed=1), *(env.step(own) for own in random_actions(env.action_space, 4))]
    for answer in answers:
        assert all(np.isfinite(values).all() for values in answer[0].values())
        assert env.observation_space.contains(answer[0])


@pytest.mark.parametrize("checker", [check_env, check_env_of_sb3], ids=["gymnasium", "sb3"])
@pytest.mark.parametrize("num_tasks", [1, 5])
def test_the_checkers_take_the_rule_with_all_of_them(checker, num_tasks):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker(make(observe=WHOLE, action="rule", num_tasks=num_tasks).unwrapped, skip_render_check=True)


def test_spaces_are_the_same_for_any_number_of_tasks():
    few, many = (make(observe=WHOLE, action="rule", num_tasks=count) for count in (2, 5))
    assert few.observation_space == many.observation_space
    assert few.action_space == many.action_space
    assert isinstance(few.observation_space, gymnasium.spaces.Dict)


def test_what_costs_gradients_or_needs_the_second_epoch_says_so():
    assert OBSERVATIONS["pooled_cosine"].needs == (GRAMIAN,)
    assert OBSERVATIONS["pooled_gap"].needs == (BASE,)
    assert OBSERVATIONS["pooled_overfit"].needs == (META,)
    assert all(GRAMIAN not in OBSERVATIONS[name].needs for name in WHOLE if name != "pooled_cosine")
