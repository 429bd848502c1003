"""Gradient vaccine."""

from __future__ import annotations

import numpy as np

from mtl_gym import number
from mtl_gym.baselines.base import Array, Integers, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.pcgrad import random_orders
from mtl_gym.baselines.rlw import Seeded
from mtl_gym.baselines.solvers import surgery


class GradVac(Seeded, GradientHeuristic):
    """Gradient vaccine (GradVac): each gradient is turned towards the others until their cosine is the average one.

    For each task i, over the other tasks j in random order, phi is the cosine of the current g_i and g_j. If it is below the target
    ``phi_ij``, a multiple of g_j is added that raises it to the target; then ``phi_ij = (1 - beta) phi_ij + beta phi``. Targets
    start at 0, where the method equals PCGrad.

    Wang, Tsvetkov, Firat and Cao, "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively Multilingual
    Models", ICLR 2021, algorithm 1, for all shared parameters together (the paper prefers separate layers, which one Gram matrix
    does not allow). As in LibMTL and ``torchjd``, a target averages cosines taken after g_i was turned by other tasks.

    Args:
        beta: Weight of a new cosine in the target, in [0, 1]; 0.5, LibMTL's and not the authors' (the paper's is 0.01, with which
            targets take hundreds of steps to move; episodes here are short). Neither is searched.
    """

    def __init__(self, beta: float = 0.5) -> None:
        self.beta = number("beta", beta, low=0.0, high=1.0)

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Seeds and counters (N,), and targets of 0 (N, K, K)."""
        return {**super().initial_state(seeds, num_tasks), "targets": np.zeros((len(seeds), num_tasks, num_tasks))}

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights of the sum of the turned gradients."""
        orders = random_orders(state, gramian.shape[1])
        weights, targets = surgery(gramian, orders=orders, targets=state["targets"], rate=self.beta)
        return weights, {"seed": state["seed"], "step": state["step"] + 1, "targets": targets}
