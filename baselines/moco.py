"""Multi-objective gradient correction."""

from __future__ import annotations

import numpy as np

from mtl_gym import number
from mtl_gym.baselines.base import Array, Integers, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic, balances_gradients, observed_norms
from mtl_gym.baselines.quadratic_programs import simplex, totals
from mtl_gym.baselines.solvers import finite


class MoCo(GradientHeuristic):
    """Multi-objective gradient correction (MoCo): ``lambda = P(lambda - gamma (G + rho I) lambda)`` of averaged gradients.

    P projects onto the simplex, so weights sum to 1. G is the Gram matrix of moving averages of the gradients, which also form the
    step (``gradient_ema``); lambda follows MGDA's solution slowly, which reduces noise. Where G is zero or not finite, it stays
    unchanged. The lambda of a task whose average is zero is put aside, and its weight is 0.

    Fernando, Shen, Liu, Chaudhury, Murugesan and Chen, "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent
    Approach", ICLR 2023, algorithm 1. A new gradient enters the averages with the weight beta. The paper allows constant and
    decreasing beta and gamma, and tunes both for each data set: the authors' scripts have a constant beta of 0.99 on NYUv2 and
    ``0.05 / t^0.5`` on Cityscapes; LibMTL has ``0.5 / t^0.5``, so that averages keep *more* and more. Here beta and gamma are
    constant. LibMTL also scales each gradient to the norm L_k and replaces the projection by a softmax; the paper's algorithm and
    this implementation do not, so gamma depends on the losses' scales.

    Args:
        gamma: Step size of lambda, in (0, 1e6]; the authors' 0.1. It depends on the losses' scales: search 0.01, 0.1
            and 1.
        rho: Regularisation, in [0, 1e6]; 0, as in the authors' code.
        beta: Weight of a new gradient in the averages, in (0, 1]; LibMTL's 0.5. 1: no averages.
    """

    requires = balances_gradients(0.5)

    def __init__(self, gamma: float = 0.1, rho: float = 0.0, beta: float = 0.5) -> None:
        self.gamma, self.rho = number("gamma", gamma, low=0.0, high=1e6, ends="(]"), number("rho", rho, low=0.0, high=1e6)
        self.beta = number("beta", beta, low=0.0, high=1.0, ends="(]")
        self.requires = balances_gradients(1 - self.beta)  # type: ignore[misc]

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Equal weights (N, K) that sum to 1."""
        return {"weights": np.full((len(seeds), num_tasks), 1 / num_tasks)}

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The next lambda, without the tasks whose averages are zero."""
        weights, real = state["weights"], observed_norms(obs) > 0
        known = (finite(gramian) & real.any(axis=1))[:, None]
        room = totals(np.where(real, weights, 0))  # what is not put aside
        start = np.where(room > 0, weights / np.where(room > 0, room, 1), 1 / real.sum(axis=1, keepdims=True).clip(min=1))
        start = np.where(real, start, 0)
        slope = np.einsum("nij,nj->ni", np.where(known[:, :, None], gramian, 0), start) + self.rho * start
        moved = simplex(np.where(real | ~known, start - self.gamma * slope, -np.inf))
        return np.where(known, moved, weights), {"weights": np.where(known & real, room * moved, weights)}
