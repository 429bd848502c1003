"""The base class of heuristics that merge layers by a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym import LAYER_MERGING, Requirements
from mtl_gym.baselines.base import Array, Heuristic, Observation, State

MERGE_ALL, MERGE_NONE = 0.0, 1.0


def merges(*observe: str, **env_kwargs: Any) -> Requirements:
    """Requirements of a heuristic that returns the similarity from which layers are merged; ``log_loss_mean`` determines K."""
    return Requirements(observe=("log_loss_mean", *observe), action="threshold", env=LAYER_MERGING, env_kwargs=env_kwargs)


class ThresholdHeuristic(Heuristic):
    """A heuristic whose ``act`` returns thresholds (N,) in [0, 1] for ``mtl_gym/LayerMerging-v0``: at 0 all groups are merged."""

    requires = merges()
    of_tasks = "log_loss_mean"
    threshold: float

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The same ``threshold`` at every decision."""
        return np.full(len(obs[self.of_tasks]), self.threshold), state

    def _actions(self, answer: Array) -> npt.NDArray[Any]:
        return (2 * answer[:, None] - 1).astype(np.float32)
