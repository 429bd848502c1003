"""Independent component alignment."""

from __future__ import annotations

from mtl_gym.baselines.gradient_heuristic import SolvedHeuristic
from mtl_gym.baselines.solvers import aligned


class AlignedMTL(SolvedHeuristic):
    """Independent component alignment (Aligned-MTL): ``alpha = sqrt(lambda_min) G^(-1/2) 1 / K``.

    The matrix of gradients is replaced by the nearest one whose singular values all equal its own smallest; lambda_min is the
    smallest positive eigenvalue of the Gram matrix G. The step is the mean of its rows.

    Senushkin, Patakin, Kuznetsov and Konushin, "Independent Component Alignment for Multi-Task Learning", CVPR 2023, algorithm 1.
    LibMTL sums the rows, which makes weights K times larger; the mean follows the paper and ``torchjd``'s default, and is over all
    tasks, also over those whose gradient is 0. The rank, which determines lambda_min, is that of the cosines with a threshold of
    1e-6, so it does not depend on the gradients' norms.
    """

    solver = staticmethod(aligned)
    means = True
