"""Impartial multi-task learning, its gradient-balancing half."""

from __future__ import annotations

from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.solvers import impartial, solve


class IMTLG(GradientHeuristic):
    """Impartial multi-task learning, the gradient balance (IMTL-G): ``sum_k alpha_k g_k`` projects equally on all unit gradients.

    ``alpha = D^-1 C^+ 1``, with D the norms and C the cosines of the gradients, divided so that it sums to 1; entries may be
    negative.

    Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards Impartial Multi-task Learning", ICLR 2021, section 3.1: weights act on
    the shared parameters, heads have their own loss. Paper and LibMTL invert a matrix of differences to the first task, which is
    the same where it exists; ``torchjd`` takes the pseudo-inverse of G, which is the same where G is regular. Where gradients
    depend on each other (eigenvalues of C below 1e-6), ours is the least-squares solution in unit gradients. Equal weights (1)
    where all gradients are 0, one is not finite or the sum to be divided by is 0.
    """

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """Equal projections, divided to a sum of 1."""
        return solve(impartial, gramian), state
