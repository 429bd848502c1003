"""Random groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.baselines.base import Observation
from mtl_gym.baselines.group_heuristic import GroupHeuristic, number_of_groups


class RandomGroups(GroupHeuristic):
    """Puts every task in one of so many groups, all with the same probability; a group may stay empty.

    The groups of a row depend only on its seed, not on batching or resuming.

    Args:
        groups: Number of groups, at most K; by default, which is ours, drawn too, from 1 to the largest allowed number.
    """

    def __init__(self, groups: int | None = None) -> None:
        self.groups = number_of_groups(groups)

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """Numbers drawn from a generator with the row's seed."""
        rng = np.random.default_rng(seed)
        drawn = int(rng.integers(1, most + 1))
        return rng.integers(0, drawn if self.groups is None else min(self.groups, most), num_tasks)
