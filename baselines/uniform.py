"""Equal weights for all samples, of all tasks or of the main task."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.sample_heuristic import SampleHeuristic, table


class Uniform(SampleHeuristic):
    """Every sample of every task alike: ``w_ik = 1``, equal weighting."""

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Ones."""
        return np.ones_like(table(obs, "sample_log_loss")), state


class Main(SampleHeuristic):
    """The main task alone: ``w_i0 = 1``, and 0 for the auxiliary tasks. Single-task learning."""

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Ones for the first task."""
        weights = np.zeros_like(table(obs, "sample_log_loss"))
        weights[:, :, 0] = 1
        return weights, state
