"""Conflict-averse gradient descent."""

from __future__ import annotations

from mtl_gym.arguments import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.solvers import conflict_averse, solve


class CAGrad(GradientHeuristic):
    """Conflict-averse gradient descent (CAGrad): the d that maximises ``min_k <g_k, d>`` within ``|d - g_0| <= c |g_0|``.

    g_0 is the mean gradient. By duality ``d = g_0 + c |g_0| g_w / |g_w|``, ``g_w = sum_k w_k g_k`` with w of the simplex minimising
    ``<g_w, g_0> + c |g_0| |g_w|``; so ``alpha_k = 1 / K + c |g_0| w_k / |g_w|``.

    Liu, Liu, Jin, Stone and Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, algorithm 1: weights act
    on the shared parameters, heads have their own loss. The authors' code and LibMTL divide d by ``1 + c^2``; paper, ``torchjd``
    and this do not. Where ``g_w`` vanishes, ``torchjd`` returns 0; here the d of the maximum is followed there too. Equal weights
    (1) where all gradients are 0 or one is not finite.

    Args:
        c: Radius of the ball; 0.4 is the authors' choice for NYUv2 (LibMTL's default is 0.5). 0 is the mean gradient.

    Raises:
        ValueError, TypeError: If it is negative or no number.
    """

    def __init__(self, c: float = 0.4) -> None:
        self.c = number("c", c, low=0.0)

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights of the maximum."""
        return solve(conflict_averse, gramian, radius=self.c), state
