"""Initial-loss normalisation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.baselines.base import Array, Heuristic, Observation, State


class Init(Heuristic):
    """Initial-loss normalisation: ``w_k = 1 / L_k(0)``, with L_k(0) the loss of the first batch at the initial weights.

    What practitioners do first; every task starts with a weighted loss of 1. No paper claims it.
    """

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """The first log loss (N, K), unknown (NaN) before the first step."""
        return {"first": np.full((len(seeds), num_tasks), np.nan)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The inverse of the first losses."""
        first = np.where(np.isnan(state["first"]), obs["log_loss"], state["first"])
        return np.exp(-first), {"first": first}
