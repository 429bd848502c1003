"""Gradient balancing: oracles (torchjd), optimality conditions on hard matrices, properties, bad input, and whole trainings."""

from __future__ import annotations

import json
from functools import partial, partialmethod

import gymnasium
import numpy as np
import pytest
import torch
from gradients import gram_observations, jacobians, products
from hypothesis import given, settings, strategies as st
from rollouts import make_vec, slow_unless

import mtl_gym
from mtl_gym.baselines import solvers
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic, observed_gramian
from mtl_gym.baselines.pcgrad import random_orders
from mtl_gym.baselines.quadratic_programs import simplex
from mtl_gym.evaluation.plans import plan, setting
from mtl_gym.policies.finding import environment_of, policy_class
from mtl_gym.policies.grammar import make_policy

GRADIENT_METHODS = (
    "mgda",
    "pcgrad",
    "gradvac",
    "cagrad",
    "imtl-g",
    "nash-mtl",
    "aligned-mtl",
    "fairgrad",
    "upgrad",
    "config",
    "gradnorm",
    "moco",
    "db-mtl",
)
OF_THE_MATRIX = [name for name in GRADIENT_METHODS if name not in ("gradnorm", "moco", "db-mtl")]
"""Those that depend on nothing but the Gram matrix (and chance)."""
WELL = {"N": jacobians(4, 4, 20, seed=1), "common": jacobians(4, 4, 20, seed=2, common=1.0), "pair": jacobians(4, 2, 10, seed=3)}
HARD = {
    "rank deficient": jacobians(6, 5, 3, seed=4),
    "rank one": jacobians(6, 4, 1, seed=5),
    "conflicting": jacobians(6, 5, 8, seed=6) - 1.2 * jacobians(6, 5, 8, seed=6).mean(axis=1, keepdims=True),
    "badly scaled": jacobians(6, 5, 8, seed=7, spread=4.0),
    "badly scaled and rank deficient": jacobians(6, 5, 3, seed=8, spread=2.0),
}


def observed(gradients, losses=None):
    rows, tasks = gradients.shape[:2]
    losses = np.linspace(0.5, 2, rows * tasks).reshape(rows, tasks) if losses is None else losses
    return {"log_loss": np.log(losses), **gram_observations(gradients)}


def weights_of(name, gradients, memory=None):
    """Weights (N, K) of the shared parameters."""
    made = make_policy(name)
    memory = made.initial_state(np.arange(len(gradients)), gradients.shape[1]) if memory is None else memory
    obs = observed(gradients)
    return made.balance(observed_gramian(obs), obs, memory)[0]


def direction(weights, gradients):
    return np.einsum("nk,nkp->np", weights, gradients)


def cosine(one, other):
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


def gains(weights, gradients):
    """Cosines (N, K) of the step with each gradient."""
    return cosine(direction(weights, gradients)[:, None], gradients)


def test_the_table_of_gradient_methods_is_complete():
    from mtl_gym.baselines import BASELINES

    classes = {name: policy_class(name) for name in BASELINES if environment_of(name)}
    assert {name for name, made in classes.items() if issubclass(made, GradientHeuristic)} == set(GRADIENT_METHODS)


# --- golden values --------------------------------------------------------------------------------------------------------

ORTHOGONAL = np.array([[[2.0, 0.0], [0.0, 1.0]]])  # norms 2 and 1
OPPOSED = np.array([[[1.0, 0.0], [-0.5, 0.5 * 3**0.5]]])  # norms 1, at 120 degrees


@pytest.mark.parametrize(
    ("name", "orthogonal", "opposed"),
    [
        ("mgda", [0.2, 0.8], [0.5, 0.5]),
        ("pcgrad", [1, 1], [1.5, 1.5]),
        ("gradvac", [1, 1], [1.5, 1.5]),
        ("cagrad:c=0", [0.5, 0.5], [0.5, 0.5]),
        ("cagrad:c=1", [None, None], [1.0, 1.0]),
        ("imtl-g", [1 / 3, 2 / 3], [0.5, 0.5]),
        ("nash-mtl:max_norm=0", [0.5 * 17**0.25, 17**0.25], [2**0.5 * 2.5**0.25, 2**0.5 * 2.5**0.25]),
        ("aligned-mtl", [0.25, 0.5], [None, None]),
        ("fairgrad:alpha=1", [0.5, 1], [2**0.5, 2**0.5]),
        ("upgrad", [0.5, 0.5], [0.75, 0.75]),
        ("config", [0.75, 1.5], [1, 1]),
        ("gradnorm", [1, 1], [1, 1]),
        ("moco", [0.425, 0.575], [None, None]),
    ],
)
def test_golden_values(name, orthogonal, opposed):
    for gradients, expected in ((ORTHOGONAL, orthogonal), (OPPOSED, opposed)):
        found = weights_of(name, gradients)[0]
        for own, value in zip(found, expected, strict=True):
            if value is not None:
                assert own == pytest.approx(value, rel=1e-6)


def test_golden_values_of_db_mtl():
    obs = observed(ORTHOGONAL, np.array([[0.5, 2.0]]))
    np.testing.assert_allclose(make_policy("db-mtl").predict(obs)[0], [[2, 4, 2, 0.5]], rtol=1e-6)


def test_averages_of_db_mtl_keep_less_and_less_and_those_of_moco_the_same():
    def average(text):
        return {name: value for name, value in make_policy(text).requires.env_kwargs.items() if name != "scope"}

    assert average("db-mtl") == {"gradient_ema": 0.9, "gradient_ema_decay": 0.5}
    assert average("db-mtl:beta=0.1:decay=0") == {"gradient_ema": 0.1, "gradient_ema_decay": 0.0}
    assert average("db-mtl:beta=0") == {}
    assert average("moco") == {"gradient_ema": 0.5, "gradient_ema_decay": 0.0}
    assert average("moco:beta=0.99") == {"gradient_ema": pytest.approx(0.01), "gradient_ema_decay": 0.0}
    assert average("igb+db-mtl:beta=0.3") == {"gradient_ema": 0.3, "gradient_ema_decay": 0.5}


# --- agreement with torchjd -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aggregation():
    return pytest.importorskip("torchjd.aggregation")


def oracles(aggregation):
    """torchjd's weightings, their tolerances tightened."""
    from torchjd.linalg import QuadprogProjector

    return {
        "mgda": aggregation.MGDAWeighting(epsilon=1e-7, max_iters=4000),
        "cagrad": aggregation.CAGradWeighting(c=0.4, norm_eps=1e-12),
        "imtl-g": aggregation.IMTLGWeighting(),
        "aligned-mtl": aggregation.AlignedMTLWeighting(),
        "fairgrad:alpha=2": aggregation.FairGradWeighting(alpha=2.0),
        "upgrad": aggregation.UPGradWeighting(projector=QuadprogProjector(norm_eps=0.0, reg_eps=1e-12)),
    }


@pytest.mark.parametrize("name", ["mgda", "cagrad", "imtl-g", "aligned-mtl", "fairgrad:alpha=2", "upgrad"])
@pytest.mark.parametrize("matrices", WELL)
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_weights_agree_with_torchjd(name, matrices, aggregation, monkeypatch):
    import cvxpy

    tight = {f"tol_{kind}": 1e-12 for kind in ("gap_abs", "gap_rel", "feas")}  # of CAGrad's solver
    monkeypatch.setattr(cvxpy.Problem, "solve", partialmethod(cvxpy.Problem.solve, **tight))
    gradients, oracle = WELL[matrices], oracles(aggregation)[name]
    gradients = gradients[:1] if (name, matrices) == ("mgda", "common") else gradients  # Frank-Wolfe is too slow on the others
    theirs = np.stack([oracle(torch.tensor(gramian)).numpy() for gramian in products(gradients)])
    np.testing.assert_allclose(weights_of(name, gradients), theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("matrices", WELL)
@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
def test_directions_agree_with_torchjd(matrices, aggregation):
    gradients = WELL[matrices]
    for name, made in (
        ("config", aggregation.ConFIG),
        ("nash-mtl", lambda: aggregation.NashMTL(gradients.shape[1], optim_niter=200)),
    ):
        theirs = np.stack([made()(torch.tensor(own)).numpy() for own in gradients])
        ours = direction(weights_of(name, gradients), gradients)
        np.testing.assert_allclose(cosine(ours, theirs), 1, atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1), rtol=1e-3)


def next_tensor(values, count):
    return torch.tensor(next(values))


@pytest.mark.parametrize(("name", "oracle"), [("pcgrad", "PCGradWeighting"), ("gradvac", "GradVacWeighting")])
def test_surgery_agrees_with_torchjd_in_the_same_order(name, oracle, aggregation, monkeypatch):
    ours, theirs, memory = make_policy(name), getattr(aggregation, oracle)(), None
    for step in range(4):
        gradients = jacobians(1, 5, 6, seed=20 + step)
        memory = ours.initial_state(np.array([7]), 5) if memory is None else memory
        orders = random_orders(memory, 5)[0]
        if name == "gradvac":  # there the order is one of the other tasks
            others = [[task for task in range(5) if task != own] for own in range(5)]
            orders = [[others[own].index(task) for task in order if task != own] for own, order in enumerate(orders.tolist())]
        monkeypatch.setattr(torch, "randperm", partial(next_tensor, iter(orders)))
        expected = theirs(torch.tensor(products(gradients)[0])).numpy()
        obs = observed(gradients)
        weights, memory = ours.balance(observed_gramian(obs), obs, memory)
        np.testing.assert_allclose(weights[0], expected, rtol=1e-6, atol=1e-7)


# --- the methods' own conditions, on matrices that are hard ---------------------------------------------------------------


def worst_of_mgda(weights, gramian):
    """Duality gap of the least norm, over the largest square of a norm."""
    products = np.einsum("nij,nj->ni", gramian, weights)
    gap = (weights * products).sum(1) - products.min(1)
    return gap / gramian.max((1, 2)) + np.abs(weights.sum(1) - 1) + (-weights).clip(min=0).max(1)


def worst_of_upgrad(weights, gramian):
    """The largest conflict of the step with a gradient, over that one's norm and the largest."""
    norms = np.sqrt(np.einsum("nii->ni", gramian))
    return (-np.einsum("nij,nj->ni", gramian, weights) / norms).max(1).clip(min=0) / norms.max(1)


def worst_of_cagrad(weights, gramian):
    """How far the least gain lies below the bound of the dual problem, with the excess over the radius of the ball, 0.4 |g_0|."""
    square = gramian.mean((1, 2))
    added = weights - 1 / gramian.shape[1]
    excess = np.sqrt(np.einsum("ni,nij,nj->n", added, gramian, added).clip(min=0) / square) / 0.4 - 1
    shares = added.clip(min=0) / added.clip(min=0).sum(1, keepdims=True)
    least = np.einsum("nij,nj->ni", gramian, weights).min(1)
    norm = np.sqrt(np.einsum("ni,nij,nj->n", shares, gramian, shares).clip(min=0))
    bound = np.einsum("ni,nij->n", shares, gramian) / gramian.shape[1] + 0.4 * np.sqrt(square) * norm  # of the dual
    return (bound - least) / square + excess.clip(min=0)


def worst_of_imtl_g(weights, gramian):
    """Spread of the projections on the unit gradients, over the norm of the step."""
    projections = np.einsum("nij,nj->ni", gramian, weights) / np.sqrt(np.einsum("nii->ni", gramian))
    norm = np.sqrt(np.einsum("ni,nij,nj->n", weights, gramian, weights).clip(min=1e-30))
    return (projections.max(1) - projections.min(1)) / norm


CONDITIONS = {
    "mgda": (worst_of_mgda, tuple(HARD), 1e-8),
    "upgrad": (worst_of_upgrad, tuple(HARD), 1e-5),
    "cagrad": (worst_of_cagrad, tuple(HARD), 1e-5),
    "imtl-g": (worst_of_imtl_g, ("badly scaled",), 1e-6),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_optimality_conditions_hold_at_least_as_well_as_torchjds(name, aggregation):
    worst, families, tolerance = CONDITIONS[name]
    for family in families:
        gramian = products(HARD[family])
        ours = worst(weights_of(name, HARD[family]), gramian)
        assert (ours <= tolerance).all(), family
        theirs = []
        for own in gramian:
            try:
                theirs.append(oracles(aggregation)[name](torch.tensor(own)).numpy())
            except Exception:  # its solvers give up on some of these
                theirs.append(np.full(len(own), np.nan))
        others = np.nan_to_num(worst(np.stack(theirs), gramian), nan=np.inf)
        assert (ours <= others + tolerance).all(), family


@pytest.mark.parametrize("power", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("gradients", [*WELL.values(), HARD["badly scaled"]])
def test_balanced_gains_solve_their_equation(gradients, power):
    gramian = products(gradients)
    gramian /= gramian.max((1, 2), keepdims=True)
    weights = solvers.solve(solvers.balanced_gains, gramian, power=power)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", gramian, weights) * weights**power, 1, rtol=1e-6)


def test_fairgrad_solves_its_equation_at_any_scale():
    for scale in (1e-8, 1.0, 1e8):
        gradients = scale * WELL["N"]
        weights = weights_of("fairgrad:alpha=2", gradients)
        np.testing.assert_allclose(np.einsum("nij,nj->ni", products(gradients), weights) * weights**0.5, 1, rtol=1e-5)


@pytest.mark.parametrize("family", HARD)
def test_aligned_gradients_have_equal_singular_values(family):
    gramian = products(HARD[family])
    norms, cosines, _ = solvers.factors(gramian)
    rank = np.linalg.matrix_rank(HARD[family] / np.linalg.norm(HARD[family], axis=2, keepdims=True))
    weights = solvers.aligned(norms, cosines)
    left, values, _ = np.linalg.svd(HARD[family], full_matrices=False)
    for row in range(len(gramian)):
        own, basis = values[row, : rank[row]], left[row][:, : rank[row]]
        np.testing.assert_allclose(weights[row], basis @ (own[-1] / own * basis.mean(0)), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_nonnegative_minima_fulfil_the_conditions(count):
    rng = np.random.default_rng(count)
    gradients = rng.normal(size=(6, count, count + 3))
    matrix = products(gradients / np.linalg.norm(gradients, axis=2, keepdims=True))
    linear = rng.normal(size=(6, 4, count))
    found = solvers.nonnegative(matrix, linear)
    slack = found @ matrix - linear
    assert (found >= 0).all()
    assert (slack >= -1e-8).all()
    np.testing.assert_allclose(found * slack, 0, atol=1e-8)


@pytest.mark.parametrize("size", [300, 99, 50, 2])
def test_a_hundred_tasks_are_solved(size):
    gradients = jacobians(2, 100, size, seed=size)
    gramian = products(gradients)
    assert (worst_of_mgda(weights_of("mgda", gradients), gramian) < 1e-3).all()
    assert (worst_of_upgrad(weights_of("upgrad", gradients), gramian) < 1e-2).all()
    for name in GRADIENT_METHODS:
        assert np.isfinite(weights_of(name, gradients)).all()


def test_the_nearest_point_of_the_simplex():
    points = np.array([[0.2, 0.3, 0.5], [2.0, 0.0, 0.0], [-1.0, -1.0, -1.0], [0.6, 0.6, -5.0]])
    expected = [[0.2, 0.3, 0.5], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]
    np.testing.assert_allclose(simplex(points), expected, atol=1e-12)


# --- properties that the methods claim ------------------------------------------------------------------------------------

SETS = [*WELL.values(), HARD["conflicting"], HARD["badly scaled"]]


@pytest.mark.parametrize("name", [name for name in OF_THE_MATRIX if name not in ("pcgrad", "gradvac")])
@pytest.mark.parametrize("gradients", SETS)
def test_weights_follow_a_permutation_of_the_tasks(name, gradients):
    order = np.random.default_rng(0).permutation(gradients.shape[1])
    expected = weights_of(name, gradients)[:, order]
    np.testing.assert_allclose(weights_of(name, gradients[:, order]), expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["mgda", "upgrad", "nash-mtl", "fairgrad", "config", "cagrad:c=1"])
@pytest.mark.parametrize("gradients", [*WELL.values(), HARD["badly scaled"]])
def test_the_step_conflicts_with_no_gradient(name, gradients):
    assert (gains(weights_of(name, gradients), gradients) >= -1e-6).all()


@pytest.mark.parametrize("name", ["pcgrad", "gradvac"])
def test_surgery_on_two_tasks_conflicts_with_neither(name):
    assert (gains(weights_of(name, WELL["pair"]), WELL["pair"]) >= -1e-9).all()


@pytest.mark.parametrize("name", ["nash-mtl", "imtl-g", "config"])
def test_the_direction_does_not_depend_on_the_scales_of_the_losses(name):
    gradients = WELL["N"]
    scaled = gradients * np.array([1e-3, 1.0, 50.0, 1e3])[:, None]
    one, other = (direction(weights_of(name, own), own) for own in (gradients, scaled))
    np.testing.assert_allclose(np.abs(cosine(one, other)), 1, atol=1e-8)


def test_upgrad_is_linear_under_scaling():
    scales = np.array([0.1, 1.0, 3.0, 10.0])
    step = lambda own: direction(weights_of("upgrad", own), own)  # noqa: E731
    one, two = (step(WELL["N"] * own[:, None]) for own in (scales, 1 / scales))
    np.testing.assert_allclose(step(WELL["N"] * (2 * scales + 3 / scales)[:, None]), 2 * one + 3 * two, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["mgda", "cagrad", "imtl-g", "nash-mtl", "aligned-mtl", "upgrad", "config"])
def test_weights_do_not_depend_on_the_scale_of_all_losses_together(name):
    small, large = (weights_of(f"{name}:max_norm=0" if name == "nash-mtl" else name, scale * WELL["N"]) for scale in (1e-4, 1e4))
    np.testing.assert_allclose(small, large, rtol=1e-6)


def test_gradnorm_raises_the_weight_of_a_task_that_lags_behind():
    policy, memory = make_policy("gradnorm"), None
    gradients = np.eye(3)[None] * np.array([1.0, 1.0, 1.0])
    for step in range(20):
        losses = np.array([[1.0, 1.0, 0.9**step]])
        action, memory = policy.predict(observed(gradients, losses), memory)
    assert action[0, 0] > 1 > action[0, 2]
    np.testing.assert_allclose(action[0, :3].sum(), 3, rtol=1e-6)
    np.testing.assert_array_equal(action[0, :3], action[0, 3:])


def test_moco_goes_towards_the_least_norm():
    gradients = WELL["common"][:1]
    policy, memory = make_policy("moco:gamma=0.02"), None
    for _ in range(2000):
        action, memory = policy.predict(observed(gradients), memory)
    np.testing.assert_allclose(action[:, :4], weights_of("mgda", gradients), atol=1e-3)


# --- gradients of zero ----------------------------------------------------------------------------------------------------

OF_MEANS = ("cagrad", "aligned-mtl", "upgrad")
"""Methods that average over all tasks, also over one whose gradient is zero."""
UNLABELLED = np.array([[[1.0, 0.0], [0.3, 1.0], [0.0, 0.0]]])


def with_zero(gradients, place):
    return np.insert(gradients, place, 0, axis=1)


@pytest.mark.parametrize(
    ("name", "expected"), [("imtl-g", [0.511, 0.489, 0]), ("aligned-mtl", [0.254, 0.241, 0]), ("mgda", [None, None, 0])]
)
def test_a_gradient_of_zero_does_not_take_the_weight(name, expected):
    found = weights_of(name, UNLABELLED)[0]
    assert found[2] == 0
    for own, value in zip(found, expected, strict=True):
        assert value is None or own == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize("name", ["imtl-g", "aligned-mtl", "fairgrad:alpha=2", "upgrad"])
@pytest.mark.parametrize("matrices", WELL)
def test_gradients_of_zero_are_weighted_as_by_torchjd(name, matrices, aggregation):
    gradients = with_zero(WELL[matrices], 1)
    theirs = np.stack([oracles(aggregation)[name](torch.tensor(gramian)).numpy() for gramian in products(gradients)])
    ours = weights_of(name, gradients)
    kept = np.arange(gradients.shape[1]) != 1  # theirs of the zero is arbitrary
    np.testing.assert_allclose(ours[:, kept], theirs[:, kept], atol=1e-4 * np.abs(theirs[:, kept]).max())


@pytest.mark.parametrize("name", GRADIENT_METHODS)
@given(seed=st.integers(0, 2**32 - 1), tasks=st.integers(2, 4), place=st.integers(0, 4), spread=st.floats(0, 2))
@settings(max_examples=25, deadline=None)
def test_a_task_whose_gradient_is_zero_does_not_count(name, seed, tasks, place, spread):
    tasks = 2 if name in ("pcgrad", "gradvac") else tasks  # of two, the order does not matter
    place = min(place, tasks)
    policies, memories = [make_policy(name), make_policy(name)], [None, None]
    rng = np.random.default_rng(seed)
    for step in range(3):
        gradients, losses = jacobians(2, tasks, 6, seed=seed + step, spread=spread), rng.uniform(0.1, 3, (2, tasks))
        larger = observed(with_zero(gradients, place), np.insert(losses, place, 0.9, axis=1))
        (own, memories[0]), (whole, memories[1]) = (
            policy.predict(obs, memory)
            for policy, obs, memory in zip(policies, (observed(gradients, losses), larger), memories, strict=True)
        )
        own, whole = own[:, :tasks].astype(np.float64), whole[:, : tasks + 1].astype(np.float64)
        others = np.delete(whole, place, axis=1)
        own *= tasks / (tasks + 1) if name in OF_MEANS else 1
        np.testing.assert_allclose(others, own, rtol=1e-4, atol=1e-5 * np.abs(own).max())
        assert name == "gradnorm" or (whole[:, place] == 0).all()


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_rows_with_other_zeros_do_not_disturb_each_other(name):
    gradients = np.stack([WELL["N"][0], WELL["N"][1] * [[0], [1], [1], [0]], WELL["N"][2] * [[1], [0], [0], [0]], WELL["N"][3]])
    together = make_policy(name).predict(observed(gradients, np.ones((4, 4))))[0]
    policy = make_policy(name)
    for row in range(4):
        alone, _ = policy.predict(observed(gradients[row : row + 1], np.ones((1, 4))), policy.initial_state(np.array([row]), 4))
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-6)
    assert name == "gradnorm" or (together[:, :4][(gradients == 0).all(2)] == 0).all()


def test_surgery_keeps_the_target_of_a_gradient_that_is_zero_for_a_while():
    policy, memory = make_policy("gradvac"), None
    _, memory = policy.predict(observed(WELL["common"]), memory)
    targets = memory["targets"]
    zeroed = WELL["common"] * np.array([1, 0, 1, 1])[:, None]
    action, memory = policy.predict(observed(zeroed), memory)
    np.testing.assert_array_equal(memory["targets"][:, 1], targets[:, 1])
    np.testing.assert_array_equal(memory["targets"][:, :, 1], targets[:, :, 1])
    assert (targets[:, 0, 1] > 0.1).any()  # so that a zero gradient would be turned to, were it not skipped
    assert np.abs(action).max() < 10


def test_moco_puts_the_share_of_a_zero_average_aside():
    policy, memory = make_policy("moco:gamma=0.01"), None
    for _ in range(3):
        action, memory = policy.predict(observed(with_zero(WELL["common"], 1)), memory)
        np.testing.assert_allclose(action[:, :5].sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(memory["weights"][:, 1], 0.2)
    np.testing.assert_allclose(memory["weights"].sum(1), 1, rtol=1e-6)


def test_gradnorm_takes_the_first_loss_of_a_task_when_it_has_a_gradient():
    policy, memory = make_policy("gradnorm"), None
    zeroed = observed(with_zero(WELL["N"][:1], 0), np.array([[7.0, 1, 2, 3, 4]]))
    _, memory = policy.predict(zeroed, memory)
    assert np.isnan(memory["initial"][0, 0])
    _, memory = policy.predict(observed(jacobians(1, 5, 20), np.array([[0.5, 1, 1, 1, 1]])), memory)
    np.testing.assert_allclose(memory["initial"], [[0.5, 1, 2, 3, 4]], rtol=1e-6)


@pytest.mark.parametrize("name", ["mgda", "imtl-g", "nash-mtl", "aligned-mtl", "config", "moco", "db-mtl"])
def test_a_task_without_labels_in_a_batch_has_no_weight_in_a_training(name):
    policy = make_policy(name)
    arguments = {**policy.requires.arguments(), "observe": [*policy.requires.observe, "labelled"]}
    tasks = {"problem": "yeast", "tasks": ["class_1", "class_2", "class_3"], "distribution": {"labels": [0.1, 0.1]}}
    env = make_vec(num_envs=4, batch_size=2, train_steps=20, reward="none", **tasks, **arguments)
    observations, _ = env.reset(options={"instance": np.arange(4)})
    left_out = 0
    for _ in range(10):
        action, _ = policy.predict(observations)
        absent = (observations["labelled"] == 0) & (observations["labelled"] > 0).any(axis=1, keepdims=True)
        assert (action[:, :3][absent] == 0).all()
        assert (action[:, :3][observations["labelled"] > 0] != 0).any()
        left_out += absent.sum()
        observations, *_ = env.step(action)
    assert left_out > 0  # two samples cannot have labels of three tasks that rarely have one


def test_a_task_without_labels_in_a_batch_keeps_its_averaged_gradient():
    tasks = {"problem": "yeast", "tasks": ["class_1", "class_2", "class_3"], "distribution": {"labels": [0.1, 0.1]}}
    steps = {"train_steps": 20, "steps_per_action": 1, "batch_size": 2}
    env = make_vec(num_envs=4, gradient_ema=0.5, observe=["cosines", "labelled"], reward="none", **steps, **tasks)
    observations, _ = env.reset(options={"instance": np.arange(4)})
    trainer = env.unwrapped.decision.trainer
    for _ in range(10):
        before, there = trainer.averages.clone(), torch.from_numpy(observations["labelled"] > 0)
        observations, *_ = env.step(np.zeros(env.action_space.shape, dtype=np.float32))
        moved = (trainer.averages != before).any(2)
        assert not moved[~there].any()
        assert moved[there].all()


# --- bad input ------------------------------------------------------------------------------------------------------------

BAD = {
    "zero": np.zeros((2, 3, 3)),
    "NaN": np.full((2, 3, 3), np.nan),
    "one infinite": np.where(np.eye(3) > 0, np.inf, 0.0) * np.ones((2, 1, 1)),
}


@pytest.mark.parametrize("solver", [solvers.min_norm, solvers.dual_cone, solvers.impartial, solvers.conflict_free, solvers.aligned])
@pytest.mark.parametrize("matrix", BAD)
def test_solvers_fall_back_to_equal_weights(solver, matrix):
    mixed = np.concatenate([BAD[matrix], products(jacobians(1, 3, 5))])
    weights = solvers.solve(solver, mixed)
    np.testing.assert_array_equal(weights[:2], 1)
    np.testing.assert_allclose(weights[2:], solvers.solve(solver, mixed[2:]))


@pytest.mark.parametrize("name", GRADIENT_METHODS)
@pytest.mark.filterwarnings("error")
def test_every_answer_is_finite(name):
    rank_one = np.ones((1, 3, 1)) * np.array([1.0, -2.0, 3.0])[:, None]
    for gradients in (
        np.zeros((1, 3, 4)),
        rank_one,
        1e12 * jacobians(1, 3, 5),
        1e-12 * jacobians(1, 3, 5),
        np.eye(3)[None] * [0, 1, 1e9],
    ):
        obs = observed(np.asarray(gradients, dtype=np.float64))
        policy, memory = make_policy(name), None
        for _ in range(3):
            action, memory = policy.predict(obs, memory)
            assert np.isfinite(action).all()


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_a_training_whose_gradients_are_not_finite_disturbs_no_other(name):
    good = {key: value.astype(np.float32) for key, value in observed(WELL["N"][:2]).items()}
    bad = {key: value.copy() for key, value in good.items()}
    bad["cosines"][0], bad["log_norms"][0, 1] = [1, 0.3, 1, -0.9, 1, -1], 30  # as observed where a gradient is not a number
    (action, _), (expected, _) = (make_policy(name).predict(obs) for obs in (bad, good))
    assert np.isfinite(action).all()
    np.testing.assert_array_equal(action[1], expected[1])


@pytest.mark.parametrize("norm", [np.nan, np.inf, -np.inf, 30.0, -30.0])
@pytest.mark.parametrize("name", GRADIENT_METHODS)
@pytest.mark.filterwarnings("error")
def test_norms_that_are_no_numbers_are_answered_and_forgotten(name, norm):
    good = {key: value.astype(np.float32) for key, value in observed(WELL["N"][:2]).items()}
    bad = {key: value.copy() for key, value in good.items()}
    bad["log_norms"][0, 1] = norm
    policy, memory = make_policy(name), None
    for obs in (bad, bad, good):
        action, memory = policy.predict(obs, memory)
        assert np.isfinite(action).all()
    assert all(np.isfinite(value).all() for value in memory.values() if np.asarray(value).dtype.kind == "f")


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[[1.0, 0.5], [-0.5, 1.0]]], "symmetric"),
        ([[[-1.0, 0.0], [0.0, -1.0]]], "semi-definite"),
        ([[[1.0, 2.0], [2.0, 1.0]]], r"semi-definite.*gramian\[0\]"),
        ([[1.0, 2.0], [2.0, 1.0]], "shape"),
    ],
)
def test_a_matrix_that_is_no_gram_matrix_is_an_error(matrix, message):
    with pytest.raises(ValueError, match=message):
        solvers.solve(solvers.min_norm, matrix)


@pytest.mark.parametrize("name", ["mgda", "igb+cagrad"])
def test_an_environment_without_the_gram_matrix_is_told_what_to_add(name):
    env = make_vec(observe=["log_loss", "epoch"], action="weights", steps_per_action=1)
    observations, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=r"scope='shared'.*observe=.*cosines.*log_norms"):
        make_policy(name).predict(observations)


def test_weights_apart_on_an_environment_that_takes_none_are_told_the_argument():
    env = make_vec(observe=["log_loss", "cosines", "log_norms"], action="weights", steps_per_action=1)
    observations, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match='scope="shared"'):
        env.step(make_policy("mgda").predict(observations)[0])


# --- composition ----------------------------------------------------------------------------------------------------------


def test_a_composition_sees_the_gram_matrix_of_the_scaled_losses():
    obs = observed(WELL["N"]) | {"epoch": np.zeros((4, 1))}
    scales = np.exp(-obs["log_loss"])
    action, _ = make_policy("si+cagrad").predict(obs)
    expected = scales * weights_of("cagrad", WELL["N"] * scales[:, :, None])
    np.testing.assert_allclose(action, np.concatenate([expected, scales], axis=1), rtol=1e-5)


def test_a_composition_with_equal_weights_is_the_method_alone():
    obs = observed(WELL["N"])
    for name in GRADIENT_METHODS:
        np.testing.assert_allclose(make_policy(f"ew+{name}").predict(obs)[0], make_policy(name).predict(obs)[0], rtol=1e-6)


def test_a_composition_scales_by_zero_and_negative_weights():
    obs = observed(WELL["N"])
    action, _ = make_policy("constant:w=0,-1,1,2+mgda").predict(obs)
    assert (action[:, 0] == 0).all()
    flipped = WELL["N"][:, 1:] * np.array([-1.0, 1.0, 2.0])[:, None]
    np.testing.assert_allclose(action[:, 1:4], weights_of("mgda", flipped) * [-1, 1, 2], rtol=1e-4)


@pytest.mark.parametrize("second", GRADIENT_METHODS)
def test_scales_make_no_gradient_of_zero_or_infinity_a_number(second):
    obs = observed(WELL["N"])
    obs["log_norms"][0, 1], obs["log_norms"][1, 2] = -30, 30
    scaled = make_policy(f"constant:w=1,100,0.01,1+{second}").predict(obs)[0][:, :4]
    lower = make_policy(f"constant:w=1,1,1,1+{second}").predict(obs)[0][:, :4]
    assert scaled[0, 1] == (0 if second != "gradnorm" else 100)
    np.testing.assert_allclose(scaled[1] / [1, 100, 0.01, 1], lower[1])  # as where a gradient is not finite


@pytest.mark.parametrize(("second", "options"), [("imtl-g", ""), ("db-mtl", ""), ("mgda", ""), ("upgrad", "")])
def test_a_composition_leaves_out_gradients_of_zero(second, options):
    gradients, losses = with_zero(WELL["common"], 2), np.full((4, 5), 0.7)
    weights = make_policy(f"constant:w=3,1,50,2,5+{second}").predict(observed(gradients, losses))[0][:, :5]
    alone = make_policy(f"constant:w=3,1,2,5+{second}").predict(observed(WELL["common"], losses[:, :4]))[0][:, :4]
    np.testing.assert_allclose(np.delete(weights, 2, axis=1), alone * (0.8 if second in OF_MEANS else 1), rtol=1e-5)
    assert (weights[:, 2] == 0).all()


@pytest.mark.parametrize("text", ["cagrad+igb", "igb+si", "igb+cagrad+mgda", "slgrad+cagrad"])
def test_compositions_that_make_no_sense_are_errors(text):
    with pytest.raises(ValueError, match="policies"):
        make_policy(text)


def test_a_plus_in_a_number_divides_no_policies():
    assert make_policy("constant:w=1e+1,+2").w.tolist() == [10, 2]


def test_functions_and_options_compose():
    made = make_policy("cagrad:c=0.2").after(mtl_gym.policy(lambda losses: 1 / losses))
    expected, _ = make_policy("si+cagrad:c=0.2").predict(observed(WELL["N"]))
    np.testing.assert_allclose(made.predict(observed(WELL["N"]))[0], expected, rtol=1e-4)
    assert made.spec is not None


# --- whole trainings ------------------------------------------------------------------------------------------------------


SOLVED, SEEDED, LEARNED, AVERAGED, CHAINED = "nash-mtl", "gradvac", "gradnorm", "db-mtl", "igb+cagrad"


@pytest.mark.parametrize(
    "name", slow_unless((SOLVED, SEEDED, LEARNED, AVERAGED, CHAINED).__contains__, [*GRADIENT_METHODS, CHAINED, "uw+gradvac"])
)
def test_comparisons_run_and_do_not_depend_on_the_rows_beside(name):
    settings = {
        "problem": "digits",
        "hidden_sizes": [8],
        "train_steps": 12,
        "batch_size": 16,
        "num_tasks": 3,
        "distribution": "varied",
    }
    together = mtl_gym.compare([name], instances=3, num_envs=3, **settings)
    alone = mtl_gym.compare([name], instances=[1], num_envs=1, **settings)
    own = together[together["instance"] == 1]
    np.testing.assert_allclose(own["value"].to_numpy(), alone["value"].to_numpy(), rtol=1e-3, atol=1e-3)
    assert (together["backward"] == 3 * 13).all()  # K for each step and for what is observed after the last


def test_gradient_balancing_leaves_the_heads_their_own_losses():
    name, settings = "mgda", {"reward": "none", "autoreset_mode": "Disabled", "optimizer": "sgd", "momentum": 0.0}
    made = make_policy(name)
    env = make_vec(num_envs=2, **settings, **made.requires.arguments())
    twin = make_vec(num_envs=2, **settings, action="weights", steps_per_action=1)
    observations, _ = env.reset(options={"instance": [3, 4]})
    twin.reset(options={"instance": [3, 4]})
    env.step(made.predict(observations)[0])
    twin.step(np.ones(twin.action_space.shape, dtype=np.float32))
    one, other = (list(own.unwrapped.decision.trainer.replicas.parameters.values()) for own in (env, twin))
    torch.testing.assert_close(one[-2:], other[-2:], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(one[0], other[0])


def test_the_scopes_are_an_argument_of_the_environment():
    for scope, count in (("all", 5), ("shared", 10)):
        assert gymnasium.make("mtl_gym/LossWeighting-v0", scope=scope).action_space.shape == (count,)
    with pytest.raises(ValueError, match="scope"):
        gymnasium.make("mtl_gym/LossWeighting-v0", scope="heads")
    for wrong in ({"gradient_ema": 1.0}, {"gradient_ema": 0.5, "gradient_ema_decay": -1}, {"gradient_ema_decay": 0.5}):
        with pytest.raises(ValueError, match=f"`{[*wrong][-1]}` should be"):
            gymnasium.make("mtl_gym/LossWeighting-v0", **wrong)


def test_results_are_identified_by_how_gradients_are_averaged():
    settings = {"problem": "quadratic", "train_steps": 20, "instances": 1}
    plans = [plan("si", gradient_ema=0.5, **settings), plan("si", gradient_ema=0.5, gradient_ema_decay=0.5, **settings)]
    assert len({json.dumps(setting(own), sort_keys=True) for own in plans}) == 2
    assert make_policy("db-mtl").spec == make_policy("db-mtl:decay=0.5").spec != make_policy("db-mtl:decay=0").spec
    frame = mtl_gym.compare("db-mtl,db-mtl:decay=0,db-mtl:beta=0", **settings)
    values = frame.groupby("policy")["value"].sum()
    assert values.nunique() == 3
