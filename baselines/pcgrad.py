"""Projecting conflicting gradients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic
from mtl_gym.baselines.rlw import normals
from mtl_gym.baselines.solvers import solve, surgery


class PCGrad(GradientHeuristic):
    """Projecting conflicting gradients (PCGrad): each gradient loses its part along every gradient that it conflicts with.

    For each task i, over the other tasks j in random order: if ``<g_i, g_j> < 0``, then ``g_i -= <g_i, g_j> g_j / |g_j|^2``, g_i
    being what it has become and g_j the original; the step is the sum. For two tasks it conflicts with neither.

    Yu, Kumar, Gupta, Levine, Hausman and Finn, "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, algorithm 1: for shared
    parameters; heads have their own loss. LibMTL and ``torchjd`` agree. The order depends on the instance's seed and the step
    alone. Equal weights (1) where all gradients are 0 or one is not finite.
    """

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """Seeds and counters (N,)."""
        return {"seed": np.asarray(seeds, dtype=np.int64), "step": np.zeros(len(seeds), dtype=np.int64)}

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights of the sum of the projected gradients."""
        count, nothing = gramian.shape[1], np.zeros_like(gramian)
        orders = random_orders(state, count)
        weights = solve(lambda norms, cosines: surgery(norms, cosines, orders=orders, targets=nothing, rate=0.0)[0], gramian)
        return weights, {"seed": state["seed"], "step": state["step"] + 1}


def random_orders(state: State, count: int) -> npt.NDArray[np.int64]:
    """A random order (N, K, K) of the tasks for each task, of the seeds and steps in the memory."""
    return normals(state["seed"], state["step"], count * count).reshape(-1, count, count).argsort(axis=2)
