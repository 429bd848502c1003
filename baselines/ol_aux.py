"""Online learning of the auxiliary tasks' weights."""

from __future__ import annotations

import numpy as np

from mtl_gym import choose, number, positive_int
from mtl_gym.baselines.base import Array, Integers, Observation, State, losses
from mtl_gym.baselines.sample_heuristic import SampleHeuristic, table, weighs_samples

_FLOOR = 0.02  # added to a loss before its logarithm


class OLAux(SampleHeuristic):
    """Online learning of auxiliary weights: ``w_k += lr beta sum_j <g_main(t + j), g_k(t + j)>`` after every ``window`` batches.

    This is one gradient step, in the weights, on the main task's loss after the parameter step. The main task has weight 1, and all
    samples of a task have the same weight. Weights start at 1 and are clipped at 0. With ``of="log"`` the losses are
    ``log(L_k + .02)``, so that a sample's weight is ``w_k / (L_k + .02)``.

    Lin, Baweja, Kantor and Held, "Adaptive Auxiliary Task Weighting for Reinforcement Learning", NeurIPS 2019, algorithm 1, which
    leaves the losses open. Clipping follows the authors' code (github.com/Xingyu-Lin/auxiliary-tasks-rl). Not followed: the code
    averages the gradients of four batches before it multiplies them, counts the auxiliary tasks' gradients as part of the main
    one's, and adds nothing to the main task's loss before its logarithm. The version released with SLGrad never changes its
    weights.

    Args:
        beta: Step size of the weights, in (0, 1e6]; 5, that of the authors' code. The paper tunes it for each domain.
        window: Batches between updates, N, at least 1; 5, that of the authors' code.
        of: Whether to train on the losses' logarithms, ``"log"``, as the authors' code does, or on the losses, ``"loss"``: these,
            and with them the products of gradients, become so small that the weights hardly move.
    """

    requires = weighs_samples("sample_log_loss", "cosines", "log_norms", "lr")

    def __init__(self, beta: float = 5.0, window: int = 5, of: str = "log") -> None:
        self.beta = number("beta", beta, low=0.0, high=1e6, ends="(]")
        self.window = positive_int("window", window)
        self.of = choose("of", of, {"log": "log", "loss": "loss"})

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Weights of 1 and empty sums (N, K - 1), and the number of batches (N,)."""
        rows, auxiliary = len(seeds), num_tasks - 1
        return {"weights": np.ones((rows, auxiliary)), "sums": np.zeros((rows, auxiliary)), "count": np.zeros(rows, dtype=np.int64)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Adds the batch's inner products, and updates the weights when the window is full."""
        slopes = 1 / (losses(obs) + _FLOOR) if self.of == "log" else np.ones(obs["log_loss"].shape)  # (N, K) of the losses
        norms = slopes * np.exp(obs["log_norms"].astype(np.float64))
        auxiliary = norms.shape[1] - 1
        sums = state["sums"] + obs["cosines"][:, :auxiliary] * norms[:, :1] * norms[:, 1:]
        count = state["count"] + 1
        full = (count % self.window == 0)[:, None]
        moved = np.where(full, state["weights"] + obs["lr"] * self.beta * sums, state["weights"]).clip(min=0)
        weights = np.ones_like(table(obs, "sample_log_loss")) * slopes[:, None]
        weights[:, :, 1:] *= moved[:, None]
        return weights, {"weights": moved, "sums": np.where(full, 0, sums), "count": count}
