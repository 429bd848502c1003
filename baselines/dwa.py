"""Dynamic weight average."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import number
from mtl_gym.baselines.base import Array, Heuristic, Observation, State, softmax
from mtl_gym.baselines.epochs import empty_epochs, follow_epochs
from mtl_gym.policies import LOSSES_TO_WEIGHTS, Requirements


class DWA(Heuristic):
    """Dynamic weight average: ``w = K softmax(r / T)``, ``r_k`` the ratio of task k's mean losses of the last two epochs.

    Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019. Weights are 1 in the first two epochs.

    Args:
        temperature: T; the paper's 2.
    """

    requires: ClassVar[Requirements] = replace(LOSSES_TO_WEIGHTS, observe=("log_loss", "epoch"))

    def __init__(self, temperature: float = 2.0) -> None:
        self.temperature = number("temperature", temperature, low=0.0, ends="(]")

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """No epoch's means."""
        return empty_epochs(len(seeds), num_tasks)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The softmax of the rates of descent, once two epochs are complete."""
        state, _ = follow_epochs(obs, state)
        known = np.isfinite(state["before_last"])
        rates = np.where(known, state["last"] / np.where(known, state["before_last"], 1), 1)
        return np.where(known, rates.shape[1] * softmax(rates / self.temperature), 1), state
