"""Multiple-gradient descent algorithm."""

from __future__ import annotations

from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.solvers import min_norm, solve


class MGDA(GradientHeuristic):
    """Multiple-gradient descent: ``min_alpha |sum_k alpha_k g_k|^2``, alpha >= 0, sum 1: the least norm in the convex hull.

    No gradient conflicts with that vector; it is 0 where the parameters are Pareto-stationary. A task with a small gradient gets
    a large weight.

    Desideri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", Comptes Rendus Mathematique 2012; Sener
    and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, algorithm 2, where weights act on the shared
    parameters and heads have their own loss (their code and LibMTL's default, without normalised gradients, weigh the whole loss).
    Both and ``torchjd`` stop Frank-Wolfe or a projected gradient after 100 to 250 steps, weights being off by up to .03; here the
    minimum is exact. Weights sum to 1. Equal weights (1) where all gradients are 0 or one is not finite.
    """

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The coefficients of the point of least norm."""
        return solve(min_norm, gramian), state
