"""Higher-order approximation: groups from what pairs of tasks reach."""

from __future__ import annotations

from mtl_gym.baselines.base import Array
from mtl_gym.baselines.group_heuristic import BestGroups
from mtl_gym.baselines.partition_search import Value, pairwise


class HOA(BestGroups):
    """Higher-order approximation: a task's gain in a group is the mean of its gains in pairs with the group's other tasks.

    It trains every pair and every single task: K (K + 1) / 2 trainings. It takes the partition with the largest mean gain minus the
    price of its groups, among all partitions up to 8 tasks, beyond that among those that greedy merging finds. Standley, Zamir,
    Chen, Guibas, Malik and Savarese, "Which Tasks Should Be Learned Together in Multi-task Learning?", ICML 2020; their groups may
    overlap, ours do not.
    """

    observed = "pair_gains"

    def value(self, observed: Array, num_tasks: int) -> Value:
        """Larger groups are estimated from pairs."""
        return pairwise(observed.reshape(num_tasks, num_tasks))
