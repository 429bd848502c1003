"""The best partition of all."""

from __future__ import annotations

from mtl_gym.baselines.base import Array
from mtl_gym.baselines.group_heuristic import BestGroups
from mtl_gym.baselines.partition_search import Value


class Exhaustive(BestGroups):
    """The best of all partitions, from the true gains of all groups on the split of the reward: an upper bound, for up to 6 tasks.

    It needs 2^K - 1 trainings; no policy has a larger return.
    """

    observed = "outcomes"

    def value(self, observed: Array, num_tasks: int) -> Value:
        """The true gains, by the groups' bit masks."""
        totals = observed.reshape(-1, num_tasks).sum(1)

        def value(members: Array) -> Array:
            masks = (members.astype(int) << range(num_tasks)).sum(1)
            return totals[masks - 1]

        return value
