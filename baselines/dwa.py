"""Dynamic weight average."""

from __future__ import annotations

import numpy as np

from mtl_gym import number
from mtl_gym.baselines.base import HAS_LABEL, Array, Heuristic, Integers, Observation, State, observes, softmax
from mtl_gym.baselines.epochs import empty_epochs, follow_epochs


class DWA(Heuristic):
    """Dynamic weight average: ``w = K softmax(r / T)``, ``r_k`` the ratio of task k's mean losses of the last two epochs.

    Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019. Weights are 1 in the first two epochs.

    Args:
        temperature: T, above 0; 2, the authors' in paper and code.
    """

    requires = observes("epoch", HAS_LABEL)

    def __init__(self, temperature: float = 2.0) -> None:
        self.temperature = number("temperature", temperature, low=0.0, ends="(]")

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """No mean losses yet."""
        return empty_epochs(len(seeds), num_tasks)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The softmax of the ratios, once two epochs are complete."""
        state, _ = follow_epochs(obs, state)
        known = np.isfinite(state["before_last"])
        rates = np.where(known, state["last"] / np.where(known, state["before_last"], 1), 1)
        return np.where(known, rates.shape[1] * softmax(rates / self.temperature), 1), state
