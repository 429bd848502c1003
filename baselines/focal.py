"""Focal loss."""

from __future__ import annotations

import numpy as np

from mtl_gym import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.sample_heuristic import SampleHeuristic, table


class Focal(SampleHeuristic):
    """Focal weights: ``w_i = (1 - p_i)^gamma``, with ``p_i = exp(-l_i)`` the probability of the true label.

    Lin, Goyal, Girshick, He and Dollár, "Focal Loss for Dense Object Detection", ICCV 2017, equation 4, without class balancing.
    Not followed: here the weight is not differentiated. For losses other than cross-entropies, ``exp(-l_i)`` is not a probability,
    but the formula is the same. With planted loss scales, l_i is the scaled loss.

    Args:
        gamma: Focus, at least 0, which is equal weighting; the paper's 2.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = number("gamma", gamma, low=0.0)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Weights of the losses."""
        return (-np.expm1(-np.exp(table(obs, "sample_log_loss")))) ** self.gamma, state
