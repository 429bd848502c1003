"""Unconflicting projection of gradients."""

from __future__ import annotations

from mtl_gym.baselines.gradient_heuristic import SolvedHeuristic
from mtl_gym.baselines.solvers import dual_cone


class UPGrad(SolvedHeuristic):
    """Unconflicting projection of gradients (UPGrad): the mean of the gradients' projections onto their dual cone.

    Each gradient is replaced by the nearest vector that has no negative product with any gradient: ``sum_j v_j g_j`` with
    ``min v G v``, v >= e_i; so their mean conflicts with none. Linear in the scale of each gradient.

    Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, arXiv 2406.16232, for shared parameters, each head
    with its own loss. ``torchjd`` and LibMTL add 1e-4 to the diagonal of the normalized G; here 1e-10 to the cosines. The mean is
    over all tasks, also over those whose gradient is 0.
    """

    solver = staticmethod(dual_cone)
    means = True
