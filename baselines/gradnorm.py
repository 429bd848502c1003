"""Gradient normalisation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import number
from mtl_gym.baselines.adam import adam, empty_moments
from mtl_gym.baselines.base import Array, Observation, State, losses
from mtl_gym.baselines.gradient_heuristic import WholeLossHeuristic, observed_norms
from mtl_gym.baselines.solvers import finite

_LEAST = 1e-3


class GradNorm(WholeLossHeuristic):
    """Gradient normalisation (GradNorm): learned w that bring every norm ``w_k |g_k|`` to the mean norm times ``r_k^alpha``.

    ``r_k`` is the inverse training rate ``L_k / L_k(0)`` over its mean. w descends ``sum_k |w_k |g_k| - mean r_k^alpha|``, whose
    second term is held fixed, by Adam; then it is divided to a sum of K. Weights of a step are those before its update.

    Chen, Badrinarayanan, Lee and Rabinovich, "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
    Networks", ICML 2018, algorithm 1: whole losses are weighted. The paper's norms are of the last shared layer, ours of all shared
    parameters; LibMTL learns logits of a softmax, and L_k(0) is the first epoch's mean there. Weights stay above 0.001, of which
    the paper says nothing.

    Args:
        alpha: Strength of the pull to a common rate; 1.5, the paper's for NYUv2 and LibMTL's.
        lr: Learning rate of w; the paper's 0.025.

    Raises:
        ValueError, TypeError: If one of them is no number, or lr not positive.
    """

    def __init__(self, alpha: float = 1.5, lr: float = 0.025) -> None:
        self.alpha, self.lr = number("alpha", alpha), number("lr", lr, low=0.0, ends="(]")

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """Weights of 1, unknown first losses (N, K), and Adam's moments."""
        shape = (len(seeds), num_tasks)
        return {"weights": np.ones(shape), "initial": np.full(shape, np.nan), **empty_moments(*shape)}

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The current weights, then one step of Adam on them, along nothing where the matrix is not finite."""
        weights, norms = state["weights"], observed_norms(obs)
        initial = np.where(np.isnan(state["initial"]), losses(obs), state["initial"])
        ratios = losses(obs) / initial
        rates = ratios / ratios.mean(axis=1, keepdims=True)
        weighted = weights * norms
        known = finite(gramian)[:, None]
        slope = known * norms * np.sign(weighted - weighted.mean(axis=1, keepdims=True) * rates**self.alpha)
        move, moments = adam(state, slope, self.lr)
        moved = (weights + move).clip(min=_LEAST)
        return weights, {"weights": moved / moved.mean(axis=1, keepdims=True), "initial": initial, **moments}
