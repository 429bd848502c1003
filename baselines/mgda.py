"""Multiple-gradient descent algorithm."""

from __future__ import annotations

from mtl_gym.baselines.gradient_heuristic import SolvedHeuristic
from mtl_gym.baselines.solvers import min_norm


class MGDA(SolvedHeuristic):
    """Multiple-gradient descent: ``min_alpha |sum_k alpha_k g_k|^2``, alpha >= 0, sum 1: the least norm in the convex hull.

    No gradient conflicts with that vector; it is 0 where the parameters are Pareto-stationary. Weights sum to 1; a task with a
    small gradient gets a large weight.

    Desideri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", Comptes Rendus Mathematique 2012; Sener
    and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, algorithm 2 (their code and LibMTL's default,
    without normalized gradients, weight the whole loss). Both and ``torchjd`` stop Frank-Wolfe or a projected gradient after 100 to
    250 steps, with weights off by up to .03; here the minimum is exact.
    """

    solver = staticmethod(min_norm)
