"""The groupings that need no look at the tasks: all in one group, and each in its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from baselines.base import Observation
from baselines.groups import GroupHeuristic


class Together(GroupHeuristic):
    """Puts all tasks in one group: what the reward is measured against, so that its return is 0."""

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """One group."""
        return np.zeros(num_tasks)


class Apart(GroupHeuristic):
    """Puts every task in a group of its own: single-task learning. If fewer groups are allowed, the last one takes the rest."""

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """As many groups as tasks."""
        return np.arange(num_tasks).clip(max=most - 1)
