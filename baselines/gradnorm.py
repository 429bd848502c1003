"""Gradient normalization."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym import number
from mtl_gym.baselines.adam import MOST_LR, adam, empty_moments
from mtl_gym.baselines.base import Array, Integers, Observation, State, losses
from mtl_gym.baselines.gradient_heuristic import WholeLossHeuristic, observed_norms
from mtl_gym.baselines.quadratic_programs import totals
from mtl_gym.baselines.solvers import finite

_LEAST = 1e-3


class GradNorm(WholeLossHeuristic):
    """Gradient normalization (GradNorm): learned w that bring every norm ``w_k |g_k|`` to the mean norm times ``r_k^alpha``.

    ``r_k`` is the inverse training rate ``L_k / L_k(0)`` over its mean. Adam minimises ``sum_k |w_k |g_k| - mean r_k^alpha|`` over
    w, with the second term held fixed; then w is rescaled to a sum of K. A step uses the weights before its update. A task whose
    gradient is 0 keeps its weight, and all means are over the others; L_k(0) is the loss where its gradient is first above 0.

    Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
    Networks", ICML 2018, algorithm 1: whole losses are weighted. The paper takes norms over the last shared layer, we over all
    shared parameters; LibMTL learns softmax logits, with the first epoch's mean as L_k(0). Weights stay above 0.001, which the
    paper does not mention.

    Args:
        alpha: Strength of the pull to a common rate, in [0, 100]; 1.5, which the paper searched for on NYUv2, and LibMTL's (0.12 on
            the paper's toy problem).
        lr: Learning rate of w, in (0, 10]; the paper's 0.025.
    """

    def __init__(self, alpha: float = 1.5, lr: float = 0.025) -> None:
        self.alpha, self.lr = number("alpha", alpha, low=0.0, high=100.0), number("lr", lr, low=0.0, high=MOST_LR, ends="(]")

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Weights of 1, unknown first losses (N, K), and Adam's moments."""
        shape = (len(seeds), num_tasks)
        return {"weights": np.ones(shape), "initial": np.full(shape, np.nan), **empty_moments(*shape)}

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The current weights, then one step of Adam on those of the tasks with a gradient, which keep their sum."""
        weights, norms = state["weights"], observed_norms(obs)
        real = (norms > 0) & finite(gramian)[:, None]
        initial = np.where(np.isnan(state["initial"]) & real, losses(obs), state["initial"])
        ratios = np.where(real, losses(obs) / np.where(real, initial, 1), 0)
        rates = np.where(real, ratios / _mean(ratios, real), 0)
        weighted = weights * norms
        slope = np.where(real, norms * np.sign(weighted - _mean(weighted, real) * rates**self.alpha), 0)
        move, moments = adam(state, slope, self.lr)
        moved = np.where(real, (weights + move).clip(min=_LEAST), 0)
        rescaled = moved * _mean(weights, real) / _mean(moved, real)
        return weights, {"weights": np.where(real, rescaled, weights), "initial": initial, **moments}


def _mean(values: Array, real: npt.NDArray[np.bool_]) -> Array:
    """Means (N, 1) of values (N, K) over the tasks with a gradient; 1 if there is none."""
    count = real.sum(axis=1, keepdims=True)
    return np.where(count > 0, totals(np.where(real, values, 0)) / count.clip(min=1), 1)
