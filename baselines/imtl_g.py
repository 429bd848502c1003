"""Impartial multi-task learning, its gradient-balancing half."""

from __future__ import annotations

from mtl_gym.baselines.gradient_heuristic import SolvedHeuristic
from mtl_gym.baselines.solvers import impartial


class IMTLG(SolvedHeuristic):
    """Impartial multi-task learning, the gradient balance (IMTL-G): ``sum_k alpha_k g_k`` projects equally on all unit gradients.

    ``alpha = D^-1 C^+ 1``, with D the norms and C the cosines of the gradients, rescaled to sum to 1 (equal weights if the sum is
    0); entries may be negative.

    Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards Impartial Multi-task Learning", ICLR 2021, section 3.1. The paper and
    LibMTL invert a matrix of differences to the first task, which is equivalent where the inverse exists; ``torchjd`` takes the
    pseudo-inverse of G, which is equivalent where G is regular. Where gradients are dependent (eigenvalues of C below 1e-6), ours
    is the least-squares solution in unit gradients.
    """

    solver = staticmethod(impartial)
