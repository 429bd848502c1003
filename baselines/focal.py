"""Focal loss."""

from __future__ import annotations

import numpy as np

from mtl_gym.arguments import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.sample_heuristic import SampleHeuristic, table


class Focal(SampleHeuristic):
    """Focal weights: ``w_i = (1 - p_i)^gamma``, with ``p_i = exp(-l_i)`` the probability of the true label.

    Lin, Goyal, Girshick, He and Dollár, "Focal Loss for Dense Object Detection", ICCV 2017, equation 4, without the balance of
    classes. Not followed: here the weight is not differentiated. For losses that are no cross-entropies ``exp(-l_i)`` is not a
    probability, but the same formula. With planted scales of the losses, it is of the scaled ones.

    Args:
        gamma: Focus; 0 is equal weighting. The paper's default is 2.

    Raises:
        ValueError, TypeError: If it is negative.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = number("gamma", gamma, low=0.0)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Weights of the losses."""
        return (-np.expm1(-np.exp(table(obs, "sample_log_loss")))) ** self.gamma, state
