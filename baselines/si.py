"""The scale-invariant loss, also with weights that average 1."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import Array, Heuristic, Observation, State, softmax


class SI(Heuristic):
    """Scale-invariant loss: ``sum_k log L_k``, whose gradient weights each loss by ``w_k = 1 / L_k`` of the current batch.

    Dai, Fei and Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023, section 3.1; independent studies find it hard to
    beat. It is the gradient of the sum of logs only because it sets the weights at every step, from the batch of that step.
    """

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The inverse of the losses."""
        return np.exp(-obs["log_loss"].astype(np.float64)), state


class SIMean(Heuristic):
    """Scale-invariant loss at a mean weight of 1: ``w_k = (1 / L_k) / mean_j (1 / L_j)`` of the current batch.

    The direction of ``si``, without its level, which rises as losses fall, as if the learning rate did. Ours.
    """

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The inverse of the losses over its mean."""
        logs = obs["log_loss"].astype(np.float64)
        return logs.shape[1] * softmax(-logs), state
