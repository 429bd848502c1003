"""Initial-loss normalization."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import HAS_LABEL, Array, Heuristic, Integers, Observation, State, observes


class Init(Heuristic):
    """Initial-loss normalization: ``w_k = 1 / L_k(0)``, with L_k(0) the loss of the first batch at the initial weights.

    If that batch has no label of a task, L_k(0) is the loss of the first one that has. Common practice without a paper; every task
    starts with a weighted loss of 1.
    """

    requires = observes(HAS_LABEL)

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """The first log loss (N, K), unknown (NaN) before the first step."""
        return {"first": np.full((len(seeds), num_tasks), np.nan)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The inverse of the first losses."""
        unknown = np.isnan(state["first"])
        first = np.where(unknown, obs["log_loss"], state["first"])
        return np.exp(-first), {"first": np.where(unknown & (obs[HAS_LABEL] == 0), np.nan, first)}
