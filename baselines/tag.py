"""Task affinity groupings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym import positive_int
from mtl_gym.baselines.base import Observation
from mtl_gym.baselines.group_heuristic import GroupHeuristic, places
from mtl_gym.baselines.partition_search import best_partition, pairwise

_ALONE = -1e6
"""The authors' value of a task alone."""


class TAG(GroupHeuristic):
    """Task affinity groupings: tasks belong together if a step along the gradient of one lowers the loss of the other.

    A task's value in a group is the mean affinity of the group's other tasks to it; alone, -1e6, so that no task is alone. It takes
    the partition into at most ``budget`` groups with the largest mean value, among all partitions up to 8 tasks, beyond that among
    those that greedy merging finds. Fifty, Amid, Zhao, Yu, Anil and Finn, "Efficiently Identifying Task Groupings for Multi-Task
    Learning", NeurIPS 2021; the value of a task alone is that of the authors' code (github.com/google-research/google-research,
    tag). Not followed: their groups may overlap, ours do not.

    Args:
        budget: Maximum number of groups, at least 1: the paper's number of networks. 3, that of the authors' code.
    """

    requires = places("lookahead")

    def __init__(self, budget: int = 3) -> None:
        self.budget = positive_int("budget", budget)

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """The best partition by affinity; ``lookahead`` holds the affinity of task i (row) to task j."""
        table = seen["lookahead"].reshape(num_tasks, num_tasks).T.copy()
        np.fill_diagonal(table, _ALONE)
        return best_partition(pairwise(table), num_tasks, min(self.budget, most))
