"""Conflict-averse gradient descent."""

from __future__ import annotations

from mtl_gym import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.solvers import conflict_averse, solve


class CAGrad(GradientHeuristic):
    """Conflict-averse gradient descent (CAGrad): the d that maximises ``min_k <g_k, d>`` within ``|d - g_0| <= c |g_0|``.

    g_0 is the mean gradient. By duality ``d = g_0 + c |g_0| g_w / |g_w|``, ``g_w = sum_k w_k g_k``, where w minimises
    ``<g_w, g_0> + c |g_0| |g_w|`` on the simplex; so ``alpha_k = 1 / K + c |g_0| w_k / |g_w|``.

    Liu, Liu, Jin, Stone and Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, algorithm 1. The
    authors' code and LibMTL divide d by ``1 + c^2``; the paper, ``torchjd`` and this implementation do not. Where ``g_w`` vanishes,
    ``torchjd`` returns 0; here d is still the maximiser. A zero gradient enters g_0, but not the minimum, which it would keep at 0.

    Args:
        c: Radius of the ball, in [0, 1e6]; 0.4, which the authors found by search on NYUv2 (they search it for each data set;
            LibMTL's default is 0.5). 0 is the mean gradient.
    """

    def __init__(self, c: float = 0.4) -> None:
        self.c = number("c", c, low=0.0, high=1e6)

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights of the maximiser."""
        return solve(conflict_averse, gramian, means=True, radius=self.c), state
