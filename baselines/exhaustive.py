"""The best partition of all."""

from __future__ import annotations

import numpy.typing as npt

from baselines.base import Array, Observation
from baselines.groups import GroupHeuristic, places
from baselines.partitions import best_partition
from mtl_gym.arguments import number


class Exhaustive(GroupHeuristic):
    """The best of all partitions, from the true gains of all groups on the split of the reward: an upper reference, for 6 tasks.

    No policy has a larger return; 2^K - 1 trainings tell it so.

    Args:
        group_price: Price of every group beyond the first; the environment's has to be the same.

    Raises:
        ValueError, TypeError: If it is negative.
    """

    requires = places("outcomes", group_price=0.01)

    def __init__(self, group_price: float = 0.01) -> None:
        self.group_price = number("group_price", group_price, low=0.0)
        self.requires = places("outcomes", group_price=self.group_price)  # type: ignore[misc]

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """The largest mean gain, minus the price of its groups."""
        totals = seen["outcomes"].reshape(-1, num_tasks).sum(1)

        def value(members: Array) -> Array:
            masks = (members.astype(int) << range(num_tasks)).sum(1)
            found: Array = totals[masks - 1]
            return found

        return best_partition(value, num_tasks, most, self.group_price)
