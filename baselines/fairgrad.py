"""Fair resource allocation."""

from __future__ import annotations

import numpy as np

from mtl_gym.arguments import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.solvers import balanced_gains, solve


class FairGrad(GradientHeuristic):
    """Fair resource allocation (FairGrad): ``G w = w^(-1 / alpha)``, w > 0, which is alpha-fair in the losses' declines ``G w``.

    Alpha 1 is proportional fairness (Nash-MTL's equation), 2 the least potential delay, infinity max-min fairness.

    Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024, equation 4: weights act on the shared parameters,
    heads have their own loss (LibMTL weighs the whole losses). The authors' code multiplies the step by K and then shortens it to a
    norm of 1; not followed. They solve the equation by bounded least squares from equal weights, which may stop elsewhere; here it
    is the minimum of a convex function, by Newton's method. It depends on the scale of the losses. Equal weights (1) where all
    gradients are 0 or one is not finite; near Pareto-stationary parameters, where there is no solution, weights grow.

    Args:
        alpha: Fairness, above 0; 2 in the scripts of all the authors' studies (LibMTL's default is 1).

    Raises:
        ValueError, TypeError: If it is not positive or no number.
    """

    def __init__(self, alpha: float = 2.0) -> None:
        self.alpha = number("alpha", alpha, low=0.0, ends="(]")

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The solution for gradients of norm 1 at most, scaled back."""
        largest = np.abs(gramian).max(axis=(1, 2))
        scale = np.where(np.isfinite(largest) & (largest > 0), largest, 1) ** (-self.alpha / (1 + self.alpha))
        return solve(balanced_gains, gramian, power=1 / self.alpha) * scale[:, None], state
