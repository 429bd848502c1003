"""Random groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.baselines.base import Observation
from mtl_gym.baselines.group_heuristic import GroupHeuristic, number_of_groups


class RandomGroups(GroupHeuristic):
    """Puts every task in one of so many groups, all with the same probability; a group may stay empty.

    The groups of a row depend on its seed alone, not on batching or resuming.

    Args:
        groups: Their number; by default it is drawn too, from 1 to as many as there may be.

    Raises:
        ValueError, TypeError: If it is no number of groups, or more than there are tasks.
    """

    def __init__(self, groups: int | None = None) -> None:
        self.groups = number_of_groups(groups)

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """Numbers drawn from a generator of the seed."""
        rng = np.random.default_rng(seed)
        drawn = int(rng.integers(1, most + 1))
        return rng.integers(0, drawn if self.groups is None else min(self.groups, most), num_tasks)
