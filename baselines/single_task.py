"""Single-task learning as a policy: every task has a network of its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import choose
from mtl_gym.baselines.base import Array, Heuristic, Observation, State
from mtl_gym.baselines.group_heuristic import GroupHeuristic
from mtl_gym.baselines.thresholds import MERGE_NONE, ThresholdHeuristic
from mtl_gym.problems import LAYER_MERGING, TASK_GROUPING


class NeverMerges(ThresholdHeuristic):
    """Never merges: a network for each task, as in single-task learning with one learning rate."""

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Ones."""
        return np.full(len(obs[self.of_tasks]), MERGE_NONE), state


class OwnGroups(GroupHeuristic):
    """Puts every task in a group of its own: single-task learning. If fewer groups are allowed, the last one takes the rest."""

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """As many groups as tasks."""
        return np.arange(num_tasks).clip(max=most - 1)


def single_task(env: str = LAYER_MERGING) -> Heuristic:
    """Single-task learning: never merges, or puts every task in a group of its own.

    Args:
        env: Id of the environment that it is for; a comparison gives its own.

    Raises:
        ValueError: If there is none for it.
    """
    policies: dict[str, type[Heuristic]] = {LAYER_MERGING: NeverMerges, TASK_GROUPING: OwnGroups}
    return choose("env", env, policies)()
