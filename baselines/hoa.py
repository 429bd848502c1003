"""Higher-order approximation: groups from what pairs of tasks reach."""

from __future__ import annotations

import numpy.typing as npt

from baselines.base import Observation
from baselines.groups import GroupHeuristic, places
from baselines.partitions import best_partition, pairwise
from mtl_gym.arguments import number


class HOA(GroupHeuristic):
    """Higher-order approximation: a task's gain in a group is the mean of its gains in pairs with the group's other tasks.

    Needs a training of every pair, and of every task alone: K (K + 1) / 2. Among all partitions (beyond 8 tasks: among those that
    joining two groups at a time finds) the one with the largest mean gain, minus ``group_price`` for each group. Standley, Zamir,
    Chen, Guibas, Malik and Savarese, "Which Tasks Should Be Learned Together in Multi-task Learning?", ICML 2020; their groups may
    overlap, these do not.

    Args:
        group_price: Price of every group beyond the first; the environment's has to be the same.

    Raises:
        ValueError, TypeError: If it is negative.
    """

    requires = places("pair_gains", group_price=0.01)

    def __init__(self, group_price: float = 0.01) -> None:
        self.group_price = number("group_price", group_price, low=0.0)
        self.requires = places("pair_gains", group_price=self.group_price)  # type: ignore[misc]

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """The best partition, as far as pairs tell."""
        table = seen["pair_gains"].reshape(num_tasks, num_tasks)
        return best_partition(pairwise(table), num_tasks, most, self.group_price)
