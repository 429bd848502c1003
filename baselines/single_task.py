"""Single-task learning as a policy: every task has its own network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym import LAYER_MERGING, should
from mtl_gym.baselines.base import Heuristic, Observation
from mtl_gym.baselines.group_heuristic import GroupHeuristic
from mtl_gym.baselines.thresholds import MERGE_NONE, ThresholdHeuristic


class NeverMerges(ThresholdHeuristic):
    """Never merges: a network for each task, as in single-task learning with one learning rate."""

    threshold = MERGE_NONE


class OwnGroups(GroupHeuristic):
    """Puts every task in a group of its own: single-task learning. If fewer groups are allowed, the last one holds the rest."""

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """As many groups as tasks."""
        return np.arange(num_tasks).clip(max=most - 1)


def single_task(env: str = LAYER_MERGING) -> Heuristic:
    """Single-task learning: never merges, or puts every task in a group of its own.

    Args:
        env: Id of the environment; a comparison passes its own. The default is ours.

    Raises:
        ValueError: If there is no such policy for the environment.
    """
    policies: dict[str, type[Heuristic]] = {str(policy.requires.env): policy for policy in (NeverMerges, OwnGroups)}
    if env not in policies:
        raise ValueError(should("env", f"be {' or '.join(map(repr, policies))}, which single-task is for", env))
    return policies[env]()
