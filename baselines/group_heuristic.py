"""What heuristics that divide tasks into groups have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import number, positive_int, should
from mtl_gym.baselines.base import Array, Heuristic, Observation, State
from mtl_gym.baselines.partition_search import Value, best_partition
from mtl_gym.policies import Requirements
from mtl_gym.problems import TASK_GROUPING

Labels = npt.NDArray[np.int64]


def places(*observe: str, **env_kwargs: Any) -> Requirements:
    """What a heuristic needs that puts task by task into its group; ``next_task`` tells K, and ``groups`` how many there may be."""
    return Requirements(observe=("next_task", "groups", *observe), action="place", env=TASK_GROUPING, env_kwargs=env_kwargs)


class GroupHeuristic(Heuristic):
    """A heuristic for ``mtl_gym/TaskGrouping-v0`` that knows the whole grouping at the first decision: its ``partition``.

    K is the number of tasks. The memory holds each row's seed (N,) and labels (N, K), -1 before they are known.

    Attributes:
        groups: How many groups it makes; ``None``: it finds out by itself.
    """

    requires = places()
    of_tasks = "next_task"
    groups: int | None = None

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """Seeds (N,) and unknown labels (N, K).

        Raises:
            ValueError: If it makes more groups than there are tasks.
        """
        if self.groups is not None and self.groups > num_tasks:
            raise ValueError(should("groups", f"be at most {num_tasks}, the number of tasks", self.groups))
        return {"seed": np.asarray(seeds, dtype=np.int64), "labels": np.full((len(seeds), num_tasks), -1, dtype=np.int64)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The group (N,) of the task that is placed next."""
        labels = state["labels"].copy()
        most = obs["groups"].shape[1] // labels.shape[1]
        for row in np.flatnonzero(labels[:, 0] < 0).tolist():
            seen = {name: values[row].astype(np.float64) for name, values in obs.items()}
            labels[row] = by_first_use(self.partition(seen, labels.shape[1], most, int(state["seed"][row])))
        chosen = labels[np.arange(len(labels)), obs["next_task"].argmax(1)]
        return chosen.astype(np.float64), {"seed": state["seed"], "labels": labels}

    @abstractmethod
    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """The group of each task (K,), any numbers.

        Args:
            seen: Observations of one row, without a row axis.
            num_tasks: K.
            most: Groups that there may be.
            seed: The row's.
        """

    def _actions(self, answer: Array) -> npt.NDArray[Any]:
        return answer.astype(np.int64)


class BestGroups(GroupHeuristic):
    """The best of all partitions into priced groups, if groups are worth what ``value`` says.

    Args:
        group_price: Price of every group beyond the first; the environment's has to be the same.

    Attributes:
        observed: Name of the observation that tells what groups are worth.

    Raises:
        ValueError, TypeError: If it is negative.
    """

    observed: str

    def __init_subclass__(cls) -> None:
        cls.requires = places(cls.observed, group_price=0.01)

    def __init__(self, group_price: float = 0.01) -> None:
        self.group_price = number("group_price", group_price, low=0.0)
        self.requires = places(self.observed, group_price=self.group_price)  # type: ignore[misc]

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """The largest mean value, minus the price of the groups."""
        return best_partition(self.value(seen[self.observed], num_tasks), num_tasks, most, self.group_price)

    @abstractmethod
    def value(self, observed: Array, num_tasks: int) -> Value:
        """Values of groups, summed over their tasks, from one row of what is observed."""


def by_first_use(labels: npt.ArrayLike) -> Labels:
    """The same groups (K,), numbered from 0 in the order of their first tasks."""
    values = np.asarray(labels).tolist()
    numbers = {label: number for number, label in enumerate(dict.fromkeys(values))}
    return np.array([numbers[label] for label in values], dtype=np.int64)


def number_of_groups(groups: int | None) -> int | None:
    """Returns the option ``groups`` if it is a number of groups, or ``None``.

    Raises:
        ValueError, TypeError: If it is neither.
    """
    return None if groups is None else positive_int("groups", groups)
