"""Multi-task learning as a bargaining game."""

from __future__ import annotations

import numpy as np

from mtl_gym import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import WholeLossHeuristic
from mtl_gym.baselines.solvers import balanced_gains, solve


class NashMTL(WholeLossHeuristic):
    """Multi-task learning as a bargaining game (Nash-MTL): ``G alpha = 1 / alpha``, alpha > 0, the Nash bargaining solution.

    It maximises the sum of the logs of the losses' declines within a ball and does not depend on the losses' scales. Near
    Pareto-stationary parameters, where the equation has no solution, weights grow.

    Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik and Fetaya, "Multi-Task Learning as a Bargaining Game", ICML 2022, claim
    3.1. As in the authors' code, alpha solves the equation for ``G / |G|`` (Frobenius) and weights the whole losses, and the step
    of the shared parameters is clipped to ``max_norm``. Their code and LibMTL clip only that gradient, ``torchjd`` and this
    implementation the weights. They solve a sequence of at most 20 convex programs from the last step's alpha; here the minimum of
    ``alpha G alpha / 2 - sum_k log alpha_k`` is computed exactly at every step.

    Args:
        max_norm: Largest norm of the step, in [0, 1e6]; 1, the authors' in their code and LibMTL's. 0 turns clipping off.
    """

    def __init__(self, max_norm: float = 1.0) -> None:
        self.max_norm = number("max_norm", max_norm, low=0.0, high=1e6)

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The solution for the normalized matrix, clipped."""
        largest = np.nan_to_num(np.abs(gramian).max(axis=(1, 2), keepdims=True)).clip(min=1e-300)
        frobenius = np.linalg.norm(np.nan_to_num(gramian / largest), axis=(1, 2))
        weights = solve(balanced_gains, gramian) * np.sqrt(np.where(frobenius > 0, frobenius, 1))[:, None]
        if not self.max_norm:
            return weights, state
        length = np.sqrt(np.einsum("ni,nij,nj->n", weights, np.nan_to_num(gramian), weights).clip(min=0))[:, None]
        return weights * np.minimum(1, self.max_norm / length.clip(min=1e-300)), state
