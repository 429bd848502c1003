"""Independent component alignment."""

from __future__ import annotations

from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.solvers import aligned, solve


class AlignedMTL(GradientHeuristic):
    """Independent component alignment (Aligned-MTL): ``alpha = sqrt(lambda_min) G^(-1/2) 1 / K``.

    The matrix of gradients is replaced by the nearest one with equal singular values, the least of its own, lambda_min being the
    least positive eigenvalue of the Gram matrix G; the mean of its rows is the step.

    Senushkin, Patakin, Kuznetsov and Konushin, "Independent Component Alignment for Multi-Task Learning", CVPR 2023, algorithm 1:
    weights act on the shared parameters, heads have their own loss. LibMTL adds the rows up, which makes weights larger by a factor
    of K; the mean is the paper's and ``torchjd``'s default. The rank, which lambda_min depends on, is that of the cosines, with a
    threshold of 1e-6: it does not depend on the gradients' norms. Equal weights (1) where all gradients are 0 or one is not finite.
    """

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """Means of the aligned gradients."""
        return solve(aligned, gramian), state
