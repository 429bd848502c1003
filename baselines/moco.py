"""Multi-objective gradient correction."""

from __future__ import annotations

import numpy as np

from mtl_gym import number
from mtl_gym.baselines.base import Array, Integers, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic, balances_gradients
from mtl_gym.baselines.quadratic_programs import simplex


class MoCo(GradientHeuristic):
    """Multi-objective gradient correction (MoCo): ``lambda = P(lambda - gamma (G + rho I) lambda)`` of averaged gradients.

    P projects onto the simplex, so weights sum to 1. G is the Gram matrix of moving averages of the gradients, which also form the
    step (``gradient_ema``); lambda follows MGDA's solution slowly, which reduces noise. Where G is not finite, it stays unchanged.

    Fernando, Shen, Liu, Chaudhury, Murugesan and Chen, "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent
    Approach", ICLR 2023, algorithm 1. Averages keep half of their past, LibMTL's beta. LibMTL also decays beta and gamma with the
    step, scales each gradient to the norm L_k and replaces the projection by a softmax; the paper and this implementation do not,
    so gamma depends on the losses' scales.

    Args:
        gamma: Step size of lambda, in (0, 1e6]; LibMTL's 0.1.
        rho: Regularisation, in [0, 1e6]; LibMTL's 0.
    """

    requires = balances_gradients(gradient_ema=0.5)

    def __init__(self, gamma: float = 0.1, rho: float = 0.0) -> None:
        self.gamma, self.rho = number("gamma", gamma, low=0.0, high=1e6, ends="(]"), number("rho", rho, low=0.0, high=1e6)

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Equal weights (N, K) that sum to 1."""
        return {"weights": np.full((len(seeds), num_tasks), 1 / num_tasks)}

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The next lambda."""
        weights = state["weights"]
        slope = np.einsum("nij,nj->ni", gramian, weights) + self.rho * weights
        known = np.isfinite(slope).all(axis=1, keepdims=True)
        moved = np.where(known, simplex(weights - self.gamma * np.where(known, slope, 0)), weights)
        return moved, {"weights": moved}
