"""Fair resource allocation."""

from __future__ import annotations

import numpy as np

from mtl_gym import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.solvers import balanced_gains, solve


class FairGrad(GradientHeuristic):
    """Fair resource allocation (FairGrad): ``G w = w^(-1 / alpha)``, w > 0, which is alpha-fair in the losses' declines ``G w``.

    Alpha 1 is proportional fairness (Nash-MTL's equation), 2 the least potential delay, infinity max-min fairness.

    Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024, equation 4. LibMTL weights the whole losses; here
    heads have their own loss. Not followed: the authors' code multiplies the step by K and then clips it to a norm of 1. They solve
    the equation by bounded least squares from equal weights, which may stop elsewhere; here it is solved as the minimum of a convex
    function, by Newton's method. The solution depends on the losses' scales. Near Pareto-stationary parameters, where the equation
    has no solution, weights grow.

    Args:
        alpha: Fairness, in [0.1, 100]; 2, the authors' in the scripts of all their experiments (LibMTL's default is 1).
    """

    def __init__(self, alpha: float = 2.0) -> None:
        self.alpha = number("alpha", alpha, low=0.1, high=100.0)

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The solution for gradients of norm at most 1, scaled back."""
        largest = np.abs(gramian).max(axis=(1, 2))
        scale = np.where(np.isfinite(largest) & (largest > 0), largest, 1) ** (-self.alpha / (1 + self.alpha))
        return solve(balanced_gains, gramian, power=1 / self.alpha) * scale[:, None], state
