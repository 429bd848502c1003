"""What heuristics that merge layers by a threshold have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.baselines.base import Array, Heuristic
from mtl_gym.policies import Requirements
from mtl_gym.problems import LAYER_MERGING

MERGE_ALL, MERGE_NONE = 0.0, 1.0


def merges(*observe: str, **env_kwargs: Any) -> Requirements:
    """What a heuristic needs that answers with a similarity from which on layers are merged; ``log_loss_mean`` tells K."""
    return Requirements(observe=("log_loss_mean", *observe), action="threshold", env=LAYER_MERGING, env_kwargs=env_kwargs)


class ThresholdHeuristic(Heuristic):
    """A heuristic whose ``act`` returns thresholds (N,) in [0, 1] for ``mtl_gym/LayerMerging-v0``: at 0 all groups are merged."""

    requires = merges()
    of_tasks = "log_loss_mean"

    def _actions(self, answer: Array) -> npt.NDArray[Any]:
        return (2 * answer[:, None] - 1).astype(np.float32)
