"""Task affinity groupings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import positive_int
from mtl_gym.baselines.base import Observation
from mtl_gym.baselines.group_heuristic import GroupHeuristic, places
from mtl_gym.baselines.partition_search import best_partition, pairwise

_ALONE = 1e-6  # the authors' affinity of a task to itself


class TAG(GroupHeuristic):
    """Task affinity groupings: tasks belong together if a step along the gradient of one lowers the loss of the other.

    A task's value in a group is the mean affinity of the group's other tasks to it; alone, next to nothing. Among all partitions
    into at most ``budget`` (beyond 8 tasks: among those that joining two groups at a time finds) the one with the largest mean
    value. Fifty, Amid, Zhao, Yu, Anil and Finn, "Efficiently Identifying Task Groupings for Multi-Task Learning", NeurIPS 2021;
    their groups may overlap, these do not.

    Args:
        budget: The most groups that it makes, the paper's number of networks. Without it, small groups win.

    Raises:
        ValueError, TypeError: If it is no positive whole number.
    """

    requires = places("lookahead")

    def __init__(self, budget: int = 3) -> None:
        self.budget = positive_int("budget", budget)

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """The best partition by affinities; ``lookahead`` has those of task i (row) to task j."""
        table = seen["lookahead"].reshape(num_tasks, num_tasks).T.copy()
        np.fill_diagonal(table, _ALONE)
        return best_partition(pairwise(table), num_tasks, min(self.budget, most))
