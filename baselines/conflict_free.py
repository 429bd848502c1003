"""Conflict-free inverse gradients."""

from __future__ import annotations

from mtl_gym.baselines.gradient_heuristic import SolvedHeuristic
from mtl_gym.baselines.solvers import conflict_free


class ConFIG(SolvedHeuristic):
    """Conflict-free inverse gradients (ConFIG): ``d = U^+ 1`` of the unit gradients U, with the length ``sum_k <g_k, d / |d|>``.

    Where the unit gradients are independent, d projects equally on all of them: the direction of IMTL-G, with another length.

    Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025, equation 2. The
    paper's networks have no heads; here weights act on the shared parameters, as in ``torchjd``'s usage. Where gradients are
    dependent (eigenvalues of the cosines below 1e-6), ``U^+ 1`` is the least-squares solution, as in the authors' code.
    """

    solver = staticmethod(conflict_free)
