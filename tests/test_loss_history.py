import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from rollouts import make_vec, same

from mtl_gym.training.loss_history import LossHistory, second_epoch_mean

NAMES = LossHistory._fields


def plain_history(losses, decisions, length):
    """What the history says after so many decisions, from a plain list of the losses (H, K) of a loop's batches."""
    losses = np.asarray(losses, dtype=np.float64)
    initial = losses[0]
    windows = [losses[start : start + steps] for start, steps in decisions]
    means = [initial, initial, *(window.mean(0) for window in windows)]
    taken = sum(steps for _, steps in decisions)
    return {
        "initial": initial,
        "mean": means[-1],
        "previous_mean": means[-2],
        "first": windows[-1][0] if windows else initial,
        "last": windows[-1][-1] if windows else initial,
        "base": losses[length : 2 * length].mean(0) if taken >= 2 * length else initial,
        "noise": around_a_line(windows[-1]) if windows else np.zeros_like(initial),
    }


def around_a_line(losses):
    """The unbiased deviation (K,) of losses (steps, K) from the line of least squares through them, over their mean."""
    if len(losses) < 3:
        return np.zeros(losses.shape[1])
    table = np.stack([np.ones(len(losses)), np.arange(len(losses))], axis=1)
    rest = losses - table @ np.linalg.lstsq(table, losses, rcond=None)[0]
    return np.sqrt((rest**2).sum(0) / (len(losses) - 2)) / losses.mean(0)


def fed(losses, steps, length):
    """The histories after each decision of a loop of one training that has its losses as numbers."""
    table = torch.tensor(losses)[None]  # (1, H, K)
    history = LossHistory.begin(table[:, 0])
    yield history
    for step in range(steps, table.shape[1] + 1, steps):
        base = second_epoch_mean(history.base, table, torch.tensor([step]), torch.tensor([length]), steps)
        history = history.extended(table[:, step - steps : step], base)
        yield history


def test_a_history_begins_with_the_losses_of_the_first_batch():
    losses = torch.tensor([[0.5, 2.0]])
    history = LossHistory.begin(losses)
    assert all(same(getattr(history, name), losses) for name in NAMES if name != "noise")
    assert same(history.noise, torch.zeros(1, 2))


def test_a_history_is_of_the_last_two_decisions_and_the_first_batch():
    history = LossHistory.begin(torch.tensor([[4.0, 8.0]]))
    first = history.extended(torch.tensor([[[4.0, 8.0], [2.0, 6.0]]]))
    second = first.extended(torch.tensor([[[1.0, 5.0], [0.0, 1.0]]]))
    assert [getattr(first, name).tolist() for name in NAMES] == [
        [[4.0, 8.0]],
        [[3.0, 7.0]],
        [[4.0, 8.0]],
        [[4.0, 8.0]],
        [[2.0, 6.0]],
        [[4.0, 8.0]],
        [[0.0, 0.0]],  # two losses have no deviation from a line
    ]
    assert [getattr(second, name).tolist() for name in NAMES] == [
        [[4.0, 8.0]],
        [[0.5, 3.0]],
        [[3.0, 7.0]],
        [[1.0, 5.0]],
        [[0.0, 1.0]],
        [[4.0, 8.0]],
        [[0.0, 0.0]],
    ]
    assert history.mean.tolist() == [[4.0, 8.0]]  # the past is not changed


@settings(max_examples=60, deadline=None)
@given(steps=st.integers(1, 5), decisions=st.integers(1, 6), length=st.integers(1, 8), seed=st.integers(0, 100))
def test_a_loop_of_plain_numbers_feeds_it(steps, decisions, length, seed):
    losses = np.random.default_rng(seed).exponential(size=(steps * decisions, 3)).astype(np.float32)
    for count, history in enumerate(fed(losses.tolist(), steps, length)):
        expected = plain_history(losses, [(number * steps, steps) for number in range(count)], length)
        for name in NAMES:
            np.testing.assert_allclose(getattr(history, name)[0], expected[name], rtol=1e-5, atol=1e-6)


def test_noise_is_the_deviation_from_a_trend_over_the_mean():
    falling = torch.tensor([4.0, 3.0, 2.0, 1.0])
    table = torch.stack([falling, 10 * falling, falling + torch.tensor([0.1, -0.1, -0.1, 0.1]), 0 * falling], dim=1)[None]
    noise = LossHistory.begin(table[:, 0]).extended(table).noise
    torch.testing.assert_close(noise, torch.tensor([[0.0, 0.0, (0.04 / 2) ** 0.5 / 2.5, 0.0]]), atol=1e-6, rtol=1e-5)
    largest = torch.full((1, 5, 1), 1e30)
    assert LossHistory.begin(largest[:, 0]).extended(largest).noise.item() < 1e-6


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_base_changes_once_in_each_row_when_its_second_epoch_is_complete(seed):
    rng = np.random.default_rng(seed)
    losses, length, steps = torch.tensor(rng.exponential(size=(4, 12, 2))), torch.tensor(rng.integers(1, 8, 4)), 3
    base = initial = losses[:, 0]
    for step in range(steps, 13, steps):
        previous, base = base, second_epoch_mean(base, losses, torch.full((4,), step), length, steps)
        for row, own in enumerate(length.tolist()):
            if step - steps < 2 * own <= step:
                torch.testing.assert_close(base[row], losses[row, own : 2 * own].mean(0))
            else:
                assert same(base[row], previous[row])
            assert (step >= 2 * own) or same(base[row], initial[row])


@pytest.mark.parametrize("steps", [1, 3])
def test_a_trainings_row_is_what_a_loop_of_its_numbers_gives(steps):
    env = make_vec(
        num_envs=3,
        batch_size=150,
        train_steps=12,
        steps_per_action=steps,
        observe=["gap", "slope"],
        distribution={"size": (0.4, 1.0)},
    )
    env.reset(seed=0, options={"instance": [3, 4, 5]})
    seen = [env.view.losses]
    lengths = [len(instance.rows) // 150 for instance in env.decision.trainings.ledger.instances]
    assert len(set(lengths)) > 1
    actions = np.random.default_rng(0).uniform(-1, 1, (12 // steps, *env.action_space.shape)).astype(np.float32)
    for action in actions[:-1]:  # the last would begin other trainings
        env.step(action)
        seen.append(env.view.losses)
    table = env.decision.trainings.losses.history
    for row, length in enumerate(lengths):
        numbers = table[row, : (len(seen) - 1) * steps].tolist()
        for own, alone in zip(seen, fed(numbers, steps, length), strict=True):
            for name in NAMES:
                torch.testing.assert_close(getattr(own, name)[row], getattr(alone, name)[0], rtol=1e-6, atol=1e-7)
    assert any(not torch.equal(seen[-1].base[row], seen[-1].initial[row]) for row in range(3))
