"""Online learning of the auxiliary tasks' weights."""

from __future__ import annotations

import numpy as np

from mtl_gym import number, positive_int
from mtl_gym.baselines.base import Array, Integers, Observation, State
from mtl_gym.baselines.sample_heuristic import SampleHeuristic, table, weighs_samples


class OLAux(SampleHeuristic):
    """Online learning of auxiliary weights: ``w_k += lr beta sum_j <g_main(t + j), g_k(t + j)>`` after every ``window`` batches.

    This is one gradient step, in the weights, on the main task's loss after the parameter step. The main task has weight 1, and all
    samples of a task have the same weight. Weights start at 1 and are clipped at 0.

    Lin, Baweja, Kantor and Held, "Adaptive Auxiliary Task Weighting for Reinforcement Learning", NeurIPS 2019, algorithm 1, with
    N = 5. The paper tunes beta for each of its domains (1 is our choice) and does not mention clipping at 0. The version released
    with SLGrad never changes its weights.

    Args:
        beta: Step size of the weights, in (0, 1e6].
        window: Batches between updates, N, at least 1.
    """

    requires = weighs_samples("sample_log_loss", "cosines", "log_norms", "lr")

    def __init__(self, beta: float = 1.0, window: int = 5) -> None:
        self.beta = number("beta", beta, low=0.0, high=1e6, ends="(]")
        self.window = positive_int("window", window)

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Weights of 1 and empty sums (N, K - 1), and the number of batches (N,)."""
        rows, auxiliary = len(seeds), num_tasks - 1
        return {"weights": np.ones((rows, auxiliary)), "sums": np.zeros((rows, auxiliary)), "count": np.zeros(rows, dtype=np.int64)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Adds the batch's inner products, and updates the weights when the window is full."""
        norms = np.exp(obs["log_norms"].astype(np.float64))
        auxiliary = norms.shape[1] - 1
        sums = state["sums"] + obs["cosines"][:, :auxiliary] * norms[:, :1] * norms[:, 1:]
        count = state["count"] + 1
        full = (count % self.window == 0)[:, None]
        moved = np.where(full, state["weights"] + obs["lr"] * self.beta * sums, state["weights"]).clip(min=0)
        weights = np.ones_like(table(obs, "sample_log_loss"))
        weights[:, :, 1:] = moved[:, None]
        return weights, {"weights": moved, "sums": np.where(full, 0, sums), "count": count}
