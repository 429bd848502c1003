"""Gradient vaccine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.pcgrad import random_orders
from mtl_gym.baselines.solvers import factors, or_equal, surgery


class GradVac(GradientHeuristic):
    """Gradient vaccine (GradVac): each gradient is turned towards the others until their cosine is the average one.

    For each task i, over the other tasks j in random order, with ``phi`` the cosine of what g_i has become and g_j: if it is below
    the target ``phi_ij``, a multiple of g_j is added that raises it to the target; then ``phi_ij = (1 - beta) phi_ij + beta phi``.
    Targets begin at 0, with which it is PCGrad.

    Wang, Tsvetkov, Firat and Cao, "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively Multilingual
    Models", ICLR 2021, algorithm 1, for all shared parameters together (the paper prefers layers apart, which no Gram matrix of the
    whole allows); heads have their own loss. The target's average takes in the cosine after turns by other tasks, as in LibMTL and
    ``torchjd``. Equal weights (1) where all gradients are 0 or one is not finite.

    Args:
        beta: Share of a new cosine in the target; LibMTL's 0.5 (the paper's is 0.01 for thousands of steps).

    Raises:
        ValueError, TypeError: If it is not in [0, 1] or no number.
    """

    def __init__(self, beta: float = 0.5) -> None:
        self.beta = number("beta", beta, low=0.0, high=1.0)

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """Seeds and counters (N,), and targets of 0 (N, K, K)."""
        rows = len(seeds)
        targets = np.zeros((rows, num_tasks, num_tasks))
        return {"seed": np.asarray(seeds, dtype=np.int64), "step": np.zeros(rows, dtype=np.int64), "targets": targets}

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights of the sum of the turned gradients."""
        orders = random_orders(state, gramian.shape[1])
        norms, cosines, good = factors(gramian)
        weights, targets = surgery(norms, cosines, orders=orders, targets=state["targets"], rate=self.beta)
        kept = np.where(good[:, None, None], targets, state["targets"])
        return or_equal(weights, good), {"seed": state["seed"], "step": state["step"] + 1, "targets": kept}
