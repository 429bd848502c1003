"""Higher-order approximation: groups from what pairs of tasks reach."""

from __future__ import annotations

from mtl_gym.baselines.base import Array
from mtl_gym.baselines.group_heuristic import BestGroups
from mtl_gym.baselines.partition_search import Value, pairwise


class HOA(BestGroups):
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

    observed = "pair_gains"

    def value(self, observed: Array, num_tasks: int) -> Value:
        """What pairs tell of larger groups."""
        return pairwise(observed.reshape(num_tasks, num_tasks))
