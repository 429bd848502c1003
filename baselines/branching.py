"""Structures that ignore all observations: one shared trunk, or one up to a fixed stage."""

from __future__ import annotations

import numpy as np

from mtl_gym import positive_int
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.thresholds import MERGE_ALL, MERGE_NONE, ThresholdHeuristic, merges


class Shared(ThresholdHeuristic):
    """Always merges: all tasks share stage after stage, one at each decision, up to the heads (hard parameter sharing)."""

    threshold = MERGE_ALL


class Branch(ThresholdHeuristic):
    """Merges all tasks up to a fixed branch point, one stage at each decision, and leaves the rest to each task.

    Args:
        stage: Number of shared stages, at least 1; 1 is ours.
    """

    requires = merges("shared_stages")

    def __init__(self, stage: int = 1) -> None:
        self.stage = positive_int("stage", stage)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Zeros before the branch point, ones from there on."""
        shared = obs["shared_stages"].min(axis=1)
        return np.where(shared < self.stage, MERGE_ALL, MERGE_NONE), state
