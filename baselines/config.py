"""Conflict-free inverse gradients."""

from __future__ import annotations

from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.solvers import conflict_free, solve


class ConFIG(GradientHeuristic):
    """Conflict-free inverse gradients (ConFIG): ``d = U^+ 1`` of the unit gradients U, with the length ``sum_k <g_k, d / |d|>``.

    d has the same positive projection on all unit gradients, where these are independent: the direction of IMTL-G, with another
    length.

    Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025, equation 2. The
    paper's networks have no heads; weights act on the shared parameters here, as in ``torchjd``'s use. Where gradients depend on
    each other (eigenvalues of the cosines below 1e-6) ``U^+ 1`` is the least-squares solution, as in the authors' code. Equal
    weights (1) where all gradients are 0 or one is not finite.
    """

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The coefficients of the conflict-free direction."""
        return solve(conflict_free, gramian), state
