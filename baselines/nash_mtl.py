"""Multi-task learning as a bargaining game."""

from __future__ import annotations

import numpy as np

from mtl_gym.arguments import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import WholeLossHeuristic
from mtl_gym.baselines.solvers import balanced_gains, solve


class NashMTL(WholeLossHeuristic):
    """Multi-task learning as a bargaining game (Nash-MTL): ``G alpha = 1 / alpha``, alpha > 0, the Nash bargaining solution.

    It maximises the sum of the logs of the losses' declines within a ball, and does not depend on the losses' scales.

    Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik and Fetaya, "Multi-Task Learning as a Bargaining Game", ICML 2022, claim
    3.1. As in the authors' code, alpha is that of ``G / |G|`` (Frobenius) and weighs the whole losses; the step of the shared
    parameters is shortened to ``max_norm``. Code and LibMTL shorten that gradient alone, ``torchjd`` and this divide the weights.
    They solve a sequence of at most 20 convex programs that begin at the last step's alpha; here the equation is solved as the
    minimum of ``alpha G alpha / 2 - sum_k log alpha_k``, exactly and anew at every step. Equal weights (1) where all gradients are
    0 or one is not finite; near Pareto-stationary parameters, where there is no solution, weights grow.

    Args:
        max_norm: Largest norm of the step; the authors' 1. 0 does not shorten.

    Raises:
        ValueError, TypeError: If it is negative or no number.
    """

    def __init__(self, max_norm: float = 1.0) -> None:
        self.max_norm = number("max_norm", max_norm, low=0.0)

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The solution for the normalised matrix, shortened."""
        largest = np.nan_to_num(np.abs(gramian).max(axis=(1, 2), keepdims=True)).clip(min=1e-300)
        frobenius = np.linalg.norm(np.nan_to_num(gramian / largest), axis=(1, 2))
        weights = solve(balanced_gains, gramian) * np.sqrt(np.where(frobenius > 0, frobenius, 1))[:, None]
        if not self.max_norm:
            return weights, state
        length = np.sqrt(np.einsum("ni,nij,nj->n", weights, np.nan_to_num(gramian), weights).clip(min=0))[:, None]
        return weights * np.minimum(1, self.max_norm / length.clip(min=1e-300)), state
