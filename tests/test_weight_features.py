"""The action ``rule`` of LossWeighting: oracles, properties, and what it costs."""

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from rollouts import differing, make, make_vec, play, poison, same

from mtl_gym.decisions.task_features import DEFAULT_FEATURES, LEVEL_REACH, TASK_FEATURES
from mtl_gym.decisions.task_rules import TaskWeighing
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.policies.protocol import WEIGHT_BOUND
from mtl_gym.training.loss_history import LossHistory
from mtl_gym.training.probes import GRAMIAN, META, View

ALL = tuple(TASK_FEATURES)
LOSSES = torch.tensor([[0.5, 2.0, 1.0, 7.0], [3.0, 0.1, 0.7, 0.02]])
INITIAL = torch.tensor([[5.0, 2.5, 1.0, 3.0], [2.0, 0.4, 0.7, 0.9]])
MOST = np.log(WEIGHT_BOUND)


def known(initial, seed=0, **others):
    """A view of trainings (N, K) with losses, held-out losses and gradients of random values; ``others`` replace what it says."""
    rows, tasks = initial.shape
    rng = torch.Generator().manual_seed(seed)

    def near(losses):
        return losses * torch.exp(torch.randn(rows, tasks, generator=rng))

    mean, previous, base = near(initial), near(initial), near(initial)
    history = LossHistory(initial, mean, previous, mean, mean, base, torch.zeros_like(mean))._replace(**others)
    gradients = torch.randn(rows, tasks, 5, generator=rng)
    now = {META: near(initial), GRAMIAN: gradients @ gradients.mT}
    return View(now, {META: near(initial)}, history, torch.zeros(rows))


def action(features=ALL, level=0.0, **coefficients):
    """An action (1 + F,) of coefficients in their natural units."""
    own = [coefficients.get(name, 0.0) / TASK_FEATURES[name].reach for name in features]
    return torch.tensor([level / LEVEL_REACH, *own], dtype=torch.float32)


def weights(losses=LOSSES, initial=INITIAL, view=None, features=ALL, **coefficients):
    """The weights (N, K) of one step."""
    weighing = TaskWeighing(losses.shape[1], action="rule", features=list(features))
    held = weighing.held(action(features, **coefficients).expand(len(losses), -1), view or known(initial))
    return weighing.weights(held, losses, initial)[:, 0]


# --- oracles ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [1, 3, 7, 40, 49])
def test_an_action_of_zero_is_equal_weights_to_the_bit(tasks):
    losses = torch.rand(2, tasks, generator=torch.Generator().manual_seed(1)) + 0.1
    assert same(weights(losses, 2 * losses), torch.ones(2, tasks))


def over_mean(values, dim=1):
    return values / values.mean(dim, keepdim=True)


def test_first_alone_is_init_over_its_mean():
    torch.testing.assert_close(weights(first=1), over_mean(1 / INITIAL))


def test_first_and_loss_are_si_over_its_mean():
    torch.testing.assert_close(weights(first=1, loss=1), over_mean(1 / LOSSES))


def test_residuals_multiply_the_weights_of_their_tasks():
    view, plain = known(INITIAL), action(DEFAULT_FEATURES, level=0.5, first=1, base=0.7)
    own = torch.tensor([0.5, -1.0, 0.0, 1.0])
    weighing = TaskWeighing(4, action="rule", residual_reach=0.6)
    assert weighing.space.shape == (1 + len(DEFAULT_FEATURES) + 4,)
    found = weighing.weights(weighing.held(torch.cat([plain, own]).expand(2, -1), view), LOSSES, INITIAL)[:, 0]
    without = weights(view=view, features=DEFAULT_FEATURES, level=0.5, first=1, base=0.7)
    wanted = without * torch.exp(0.6 * own)
    level = (LOSSES / INITIAL).mean(1, keepdim=True) ** -0.5
    torch.testing.assert_close(found, level * over_mean(wanted))
    zero = weighing.weights(weighing.held(torch.cat([plain, 0 * own]).expand(2, -1), view), LOSSES, INITIAL)[:, 0]
    assert same(zero, without)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "rule", "residual_reach": -0.1}, "residual_reach=-0.1"),
        ({"action": "rule", "residual_reach": 11}, "residual_reach=11"),
        ({"action": "rule", "residual_reach": "large"}, "residual_reach='large'"),
        ({"action": "softmax", "residual_reach": 0.5}, "residual_reach=0.5"),
    ],
)
def test_wrong_reaches_of_residuals_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make("quadratic", **arguments)


def test_with_base_and_a_level_of_one_they_are_those_of_stch_over_their_start():
    view = known(INITIAL)
    base = view.losses.base
    relative = LOSSES / base
    stch = 4 * torch.softmax(relative.log(), dim=1) / LOSSES  # with a smoothing of 1, as baselines/stch.py has it
    direction = weights(view=view, first=1, base=1)
    torch.testing.assert_close(direction, over_mean(stch))
    course = weights(view=view, first=1, base=1, level=1)
    torch.testing.assert_close(course, direction / (LOSSES / INITIAL).mean(1, keepdim=True))


def test_a_level_is_a_power_of_the_mean_relative_loss():
    expected = weights(first=0.5, loss=1.5) * (LOSSES / INITIAL).mean(1, keepdim=True) ** -0.3
    torch.testing.assert_close(weights(first=0.5, loss=1.5, level=0.3), expected)


@pytest.mark.parametrize("initial", [1e-30, 1e-3])
def test_a_first_loss_that_is_missing_or_zero_does_not_stop_a_training(initial):
    losses, first = torch.tensor([[10.0, 1.0]]), torch.tensor([[initial, 1.0]])
    found = weights(losses, first, level=1)  # the first task counts as ten times its first value, whatever that was
    torch.testing.assert_close(found, torch.full((1, 2), 2 / 11))


def test_every_feature_is_what_its_name_says():
    view = known(INITIAL)
    history, log = view.losses, torch.log
    norms = view[GRAMIAN].diagonal(dim1=1, dim2=2).sqrt()
    cosines = view[GRAMIAN] / norms[:, :, None] / norms[:, None]
    changed = log(view[META] / view.previous[META])
    expected = {
        "first": -log(INITIAL),
        "loss": -log(LOSSES / INITIAL),
        "base": -log(history.base / INITIAL),
        "slope": log(history.mean / history.previous_mean),
        "gap": log(history.mean / history.base),
        "overfit": log(view[META] / history.mean),
        "overfit_slope": changed - log(history.mean / history.previous_mean),
        "norm": -log(norms),
        "cosine": (cosines.sum(2) - 1) / 3,
    }
    assert expected.keys() == TASK_FEATURES.keys()
    for name, values in expected.items():
        reach = TASK_FEATURES[name].reach
        softmax = 4 * torch.softmax(0.25 * reach * values, dim=1)
        torch.testing.assert_close(weights(view=view, **{name: 0.25 * reach}), softmax, rtol=1e-4, atol=1e-6)


def test_the_reach_belongs_to_an_action_of_one():
    weighing, view = TaskWeighing(4, action="rule", features=["loss"]), known(INITIAL)
    held = weighing.held(torch.tensor([[0.0, 1.0]]).expand(2, -1), view)
    torch.testing.assert_close(weighing.weights(held, LOSSES, INITIAL)[:, 0], over_mean((LOSSES / INITIAL) ** -2))
    assert all(np.log2(row.reach) % 1 == 0 for row in TASK_FEATURES.values())  # natural units become actions exactly


def test_the_weights_that_are_shown_reveal_no_scale():
    weighing, scales = TaskWeighing(4, action="rule", features=ALL), torch.tensor([[100.0, 1.0, 0.01, 5.0]])
    own = action(first=1, loss=0.7, base=0.5, slope=3, gap=1, overfit=-1, overfit_slope=2, cosine=4, norm=1, level=1).expand(2, -1)
    shown = []
    for factor in (torch.ones(1, 4), scales):
        view, held_out = known(INITIAL), known(INITIAL)
        history = LossHistory(*(part * factor for part in view.losses[:6]), view.losses.noise)
        now = {META: held_out[META] * factor, GRAMIAN: view[GRAMIAN] * factor[:, :, None] * factor[:, None]}
        scaled = View(now, {META: view.previous[META] * factor}, history, view.progress)
        held = weighing.held(own, scaled)
        shown.append(weighing.shown(held, LOSSES * factor, INITIAL * factor))
        assert not torch.allclose(shown[-1], weighing.weights(held, LOSSES * factor, INITIAL * factor)[:, 0], rtol=0.1)
    torch.testing.assert_close(*shown, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(shown[0].mean(1), torch.ones(2))


# --- properties ---------------------------------------------------------------------------------------------------------------

positive = st.floats(1e-3, 1e3)
units = st.floats(-1, 1, width=32)


@st.composite
def situations(draw):
    """Losses and L(0) (2, K), a view, and an action (2, 1 + F) for all features."""
    count, seed = draw(st.integers(1, 40)), draw(st.integers(0, 1000))
    rng = torch.Generator().manual_seed(seed)
    losses, initial = (torch.exp(2 * torch.randn(2, count, generator=rng)) for _ in range(2))
    own = draw(st.lists(units, min_size=1 + len(ALL), max_size=1 + len(ALL)))
    return losses, initial, known(initial, seed), torch.tensor([own, own[::-1]])


def reordered(view, order):
    """The view with its tasks in another order."""
    now = {META: view[META][:, order], GRAMIAN: view[GRAMIAN][:, order][:, :, order]}
    history = LossHistory(*(part[:, order] for part in view.losses))
    return View(now, {META: view.previous[META][:, order]}, history, view.progress)


@settings(max_examples=60, deadline=None)
@given(situations(), st.randoms(use_true_random=False))
def test_weights_follow_a_permutation_of_the_tasks(situation, random):
    losses, initial, view, own = situation
    order = list(range(losses.shape[1]))
    random.shuffle(order)
    weighing = TaskWeighing(losses.shape[1], action="rule", features=ALL)
    plain = weighing.weights(weighing.held(own, view), losses, initial)
    moved = weighing.weights(weighing.held(own, reordered(view, order)), losses[:, order], initial[:, order])
    torch.testing.assert_close(moved, plain[..., order], rtol=1e-4, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(situations())
def test_weights_average_the_level_for_any_number_of_tasks(situation):
    losses, initial, view, own = situation
    weighing = TaskWeighing(losses.shape[1], action="rule", features=ALL)
    assert weighing.space.shape == (1 + len(ALL),)
    flat = own.clone()
    flat[:, 0] = 0
    found = weighing.weights(weighing.held(flat, view), losses, initial)
    torch.testing.assert_close(found.mean(2), torch.ones(2, 1), rtol=1e-4, atol=1e-5)
    leveled = weighing.weights(weighing.held(own, view), losses, initial)
    torch.testing.assert_close(leveled, found * leveled.mean(2, keepdim=True), rtol=1e-3, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-2, 2), st.floats(-2, 2))
def test_a_scale_of_a_loss_changes_what_the_formula_says(scale, first, loss):
    scales = torch.tensor([[scale, 1, 1, 1]])
    plain, scaled = (weights(LOSSES * own, INITIAL * own, first=first, loss=loss) for own in (torch.ones(1, 4), scales))
    torch.testing.assert_close(scaled, over_mean(plain * scales**-first), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30, 3e38, np.inf, np.nan])
@pytest.mark.parametrize("where", ["losses", "initial", "meta", "mean", "base", "gradients"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_weights_are_finite_and_other_rows_keep_their_bits(value, where, sign):
    losses, initial = LOSSES.clone(), INITIAL.clone()
    view = known(INITIAL)
    own = sign * torch.ones(1 + len(ALL)).expand(2, -1)
    weighing = TaskWeighing(4, action="rule", features=ALL)
    expected = weighing.weights(weighing.held(own, view), losses, initial)
    tables = {"losses": losses, "initial": initial, "meta": view[META], "mean": view.losses.mean, "base": view.losses.base}
    tables["gradients"] = view[GRAMIAN]
    tables[where][0, 1] = value
    held = weighing.held(own, view)
    found = weighing.weights(held, losses, initial)
    assert torch.isfinite(found).all()
    assert (found >= 0).all()
    assert (found.max() <= 4 * WEIGHT_BOUND * 1.001).all()
    assert torch.isfinite(weighing.shown(held, losses, initial)).all()
    assert same(found[1], expected[1])


# --- in the environment -------------------------------------------------------------------------------------------------------


def played_weights(**others):
    """An environment after two decisions of an action, and the weights (N, H, K) of its steps."""
    env = make_vec(action="rule", autoreset_mode="Disabled", **{"train_steps": 12, "steps_per_action": 3, **others})
    env.reset(options={"instance": [1, 2, 3]})
    return env


def test_the_environment_descends_the_rules_weights():
    env = played_weights(features=["first", "loss"])
    own = action(("first", "loss"), first=1, loss=1, level=1).numpy()
    env.step(np.tile(own, (3, 1)))
    trainer = env.decision.trainer
    losses = trainer.losses.history[:, :3].double()
    expected = over_mean(1 / losses, 2) / (losses / losses[:, :1]).mean(2, keepdim=True)
    torch.testing.assert_close(trainer.weights[:, :3].double(), expected, rtol=1e-5, atol=0)


def test_features_of_the_batch_are_new_for_each_batch_and_the_others_are_held():
    env = played_weights(features=["slope", "loss"])
    for _ in range(2):
        env.step(np.tile(action(("slope", "loss"), loss=1).numpy(), (3, 1)))
    assert not torch.equal(env.decision.trainer.weights[:, 3], env.decision.trainer.weights[:, 4])
    env.step(np.tile(action(("slope", "loss"), slope=8).numpy(), (3, 1)))
    own = env.decision.trainer.weights
    assert torch.equal(own[:, 6], own[:, 7])
    assert not torch.equal(own[:, 6], own[:, 5])


def test_the_default_features_cost_what_held_out_losses_cost():
    costs = {}
    for features in (["first", "loss"], None, list(ALL)):
        env = played_weights(features=features, observe=["progress"], reward="none")
        info = [env.step(np.zeros(env.action_space.shape, np.float32)) for _ in range(4)][-1][-1]
        costs[str(features)] = info["forward"][0], info["backward"][0]
    assert DEFAULT_FEATURES == ("first", "loss", "base", "slope", "gap", "overfit", "overfit_slope")
    assert costs[str(["first", "loss"])] == (12, 12)
    assert costs["None"] == (12 + 5, 12)  # a held-out batch of 16 at the start and after each decision
    assert costs[str(list(ALL))] == (12 + 5, 12 + 5 * 5)  # K backward passes likewise


@pytest.mark.parametrize("num_tasks", [1, 3])
def test_paid_features_cost_a_tenth_at_most_where_decisions_are_long_enough(num_tasks):
    steps = max(20, 10 * num_tasks)
    features = {"features": [name for name, row in TASK_FEATURES.items() if row.paid], "observe": ["progress"], "reward": "none"}
    env = played_weights(problem="quadratic", num_tasks=num_tasks, steps_per_action=steps, train_steps=2 * steps, **features)
    info = [env.step(np.zeros(env.action_space.shape, np.float32)) for _ in range(2)][-1][-1]
    assert (info["forward"] == 2 * steps).all()
    assert (info["backward"] == 2 * steps + 3 * num_tasks).all()
    assert (info["forward"] + info["backward"] <= 1.1 * 4 * steps).all()


@pytest.mark.parametrize("features", [None, list(ALL)])
def test_a_state_in_the_middle_of_an_episode_continues_to_the_bit(features):
    env = played_weights(features=features, distribution="varied", observe=["last_weights", "pooled_overfit"])
    rng = np.random.default_rng(0)
    actions = [rng.uniform(-1, 1, env.action_space.shape).astype(np.float32) for _ in range(4)]
    env.step(actions[0])
    state = env.state()
    first = [env.step(own) for own in actions[1:]]
    env.restore(state)
    assert not differing(first, [env.step(own) for own in actions[1:]])


def test_a_diverged_row_leaves_the_others_as_they_are():
    answers = []
    for spoilt in (False, True):
        env = played_weights(features=list(ALL), num_envs=3, observe=["last_weights", "pooled_slope", "pooled_cosine"])
        own = np.full(env.action_space.shape, 0.3, np.float32)
        env.step(own)
        if spoilt:
            poison(env.decision.trainer, 1, float("nan"))
        answers.append([env.step(own)[0] for _ in range(3)])
    for plain, other in zip(*answers, strict=True):
        for name, values in plain.items():
            assert same(values[[0, 2]], other[name][[0, 2]])
            assert np.isfinite(other[name]).all()


def test_a_task_without_labels_keeps_its_last_loss():
    env = played_weights(distribution={"labels": [0.02, 0.3]}, batch_size=16, features=["loss"], train_steps=24)
    for _ in range(8):
        env.step(np.tile(action(("loss",), loss=1, level=1).numpy(), (3, 1)))
    assert torch.isfinite(env.decision.trainer.weights).all()


@pytest.mark.parametrize("num_tasks", [1, 2, 5, 40])
def test_agents_have_the_same_actions_for_any_number_of_tasks(num_tasks):
    actions = specification(LOSS_WEIGHTING).actions
    assert actions({"action": "rule"}, num_tasks, None) == gymnasium.spaces.Box(-1, 1, (8,), np.float32)
    own = {"action": "rule", "features": ["loss", "norm"], "scope": "all"}
    assert actions(own, num_tasks, None).shape == (3,)
    assert actions({"action": "residual"}, num_tasks, None).shape == (num_tasks,)
    with pytest.raises(ValueError, match="`scope` should be 'all'"):
        actions({**own, "scope": "shared"}, num_tasks, None)


def test_the_space_of_the_environment_is_that_of_agents():
    for num_tasks in (1, 4):
        env = make(action="rule", num_tasks=num_tasks)
        assert env.action_space == specification(LOSS_WEIGHTING).actions({"action": "rule"}, num_tasks, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": "rule", "scope": "shared"}, r"`scope` should be 'all' with action='rule'. Received scope='shared'"),
        ({"features": ["loss"]}, r"`features` should be left out with action='softmax'. Received features=\['loss'\]"),
        ({"action": "rule", "features": ["los"]}, r"`features` should be one of first, .*Received features='los'.*mean 'loss'"),
        ({"action": "rule", "features": []}, r"`features` should name at least one feature, each once"),
        ({"action": "rule", "features": ["loss", "loss"]}, r"`features` should name at least one feature, each once"),
        ({"action": "rule", "features": "loss"}, r"`features` should be a list"),
    ],
)
def test_what_does_not_fit_the_rule_is_refused_by_name(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(**arguments)


def test_the_order_of_features_is_that_of_the_numbers():
    answers = []
    for features in (["first", "loss"], ["loss", "first"]):
        env = played_weights(features=features)
        env.step(np.tile(action(features, first=1, loss=-0.5, level=0.5).numpy(), (3, 1)))
        answers.append(env.decision.trainer.weights[:, :3])
    torch.testing.assert_close(*answers, rtol=1e-6, atol=0)


def test_whole_episodes_of_the_rule_repeat():
    rollouts = [play(played_weights(distribution="varied"), [np.full((3, 8), 0.5, np.float32)] * 3, seed=2) for _ in range(2)]
    assert not differing(*rollouts)
