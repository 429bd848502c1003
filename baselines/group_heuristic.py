"""The base classes of heuristics that divide tasks into groups."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from mtl_gym import TASK_GROUPING, Requirements, number, positive_int, should
from mtl_gym.baselines.base import Array, Heuristic, Integers, Observation, State
from mtl_gym.baselines.partition_search import Value, best_partition


def places(*observe: str, **env_kwargs: Any) -> Requirements:
    """Requirements of a heuristic that places one task at a time; ``next_task`` determines K, ``groups`` the most groups."""
    return Requirements(observe=("next_task", "groups", *observe), action="place", env=TASK_GROUPING, env_kwargs=env_kwargs)


class GroupHeuristic(Heuristic):
    """A heuristic for ``mtl_gym/TaskGrouping-v0`` that fixes the whole grouping at the first decision: its ``partition``.

    The memory holds each row's seed (N,) and labels (N, K), -1 before they are known. ``groups`` is the number of groups, at most
    K; ``None`` lets the heuristic choose it.
    """

    requires = places()
    of_tasks = "next_task"
    groups: int | None = None

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Seeds (N,) and unknown labels (N, K). Raises ValueError if there are more groups than tasks."""
        if self.groups is not None and self.groups > num_tasks:
            raise ValueError(should("groups", f"be at most {num_tasks}, the number of tasks", self.groups))
        return {"seed": np.asarray(seeds, dtype=np.int64), "labels": np.full((len(seeds), num_tasks), -1, dtype=np.int64)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The group (N,) of the next task."""
        labels = state["labels"].copy()
        most = obs["groups"].shape[1] // labels.shape[1]
        for row in np.flatnonzero(labels[:, 0] < 0).tolist():
            seen = {name: values[row].astype(np.float64) for name, values in obs.items()}
            labels[row] = by_first_use(self.partition(seen, labels.shape[1], most, int(state["seed"][row])))
        chosen = labels[np.arange(len(labels)), obs["next_task"].argmax(1)]
        return chosen.astype(np.float64), {"seed": state["seed"], "labels": labels}

    @abstractmethod
    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """The group of each task (K,), any numbers, at most ``most`` different ones.

        ``seen`` are the observations of one row, without a row axis, and ``seed`` is the row's.
        """

    def _actions(self, answer: Array) -> npt.NDArray[Any]:
        return answer.astype(np.int64)


class BestGroups(GroupHeuristic):
    """The best of all partitions into priced groups, where ``value`` estimates groups from the observation named ``observed``.

    Args:
        group_price: Price of every group beyond the first, in [0, 1e6]; must match the environment's, whose default is ours, 0.01.
    """

    observed: str

    def __init_subclass__(cls) -> None:
        cls.requires = places(cls.observed, group_price=0.01)

    def __init__(self, group_price: float = 0.01) -> None:
        self.group_price = number("group_price", group_price, low=0.0, high=1e6)
        self.requires = places(self.observed, group_price=self.group_price)  # type: ignore[misc]

    def partition(self, seen: Observation, num_tasks: int, most: int, seed: int) -> npt.ArrayLike:
        """The partition with the largest mean value minus the price of its groups."""
        return best_partition(self.value(seen[self.observed], num_tasks), num_tasks, most, self.group_price)

    @abstractmethod
    def value(self, observed: Array, num_tasks: int) -> Value:
        """Values of groups, summed over their tasks, from one row of the observation."""


def by_first_use(labels: npt.ArrayLike) -> Integers:
    """The same groups (K,), numbered from 0 in the order of their first tasks."""
    values = np.asarray(labels).tolist()
    numbers = {label: number for number, label in enumerate(dict.fromkeys(values))}
    return np.array([numbers[label] for label in values], dtype=np.int64)


def number_of_groups(groups: int | None) -> int | None:
    """Returns the option ``groups`` if it is a positive whole number or ``None``; else raises ValueError or TypeError."""
    return None if groups is None else positive_int("groups", groups)
