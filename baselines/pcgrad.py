"""Projecting conflicting gradients."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import Array, Integers, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.rlw import Seeded, normals
from mtl_gym.baselines.solvers import surgery


class PCGrad(Seeded, GradientHeuristic):
    """Projecting conflicting gradients (PCGrad): each gradient loses its part along every gradient that it conflicts with.

    For each task i, over the other tasks j in random order: if ``<g_i, g_j> < 0``, then ``g_i -= <g_i, g_j> g_j / |g_j|^2``, where
    g_i is the current and g_j the original gradient; the step is the sum. For two tasks it conflicts with neither.

    Yu, Kumar, Gupta, Levine, Hausman and Finn, "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, algorithm 1. LibMTL and
    ``torchjd`` agree. The order depends only on the instance's seed and the step.
    """

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights of the sum of the projected gradients."""
        orders = random_orders(state, gramian.shape[1])
        weights, _ = surgery(gramian, orders=orders, targets=np.zeros_like(gramian), rate=0.0)
        return weights, {"seed": state["seed"], "step": state["step"] + 1}


def random_orders(state: State, count: int) -> Integers:
    """A random order (N, K, K) of the tasks for each task, from the seeds and steps in the memory."""
    return normals(state["seed"], state["step"], count * count).reshape(-1, count, count).argsort(axis=2)
