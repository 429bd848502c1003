"""Initial-loss normalization."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import Array, Heuristic, Integers, Observation, State


class Init(Heuristic):
    """Initial-loss normalization: ``w_k = 1 / L_k(0)``, with L_k(0) the loss of the first batch at the initial weights.

    Common practice without a paper; every task starts with a weighted loss of 1.
    """

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """The first log loss (N, K), unknown (NaN) before the first step."""
        return {"first": np.full((len(seeds), num_tasks), np.nan)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The inverse of the first losses."""
        first = np.where(np.isnan(state["first"]), obs["log_loss"], state["first"])
        return np.exp(-first), {"first": first}
