"""From actions to groups of tasks; the only place that decides what is legal.

N rows, K tasks, C columns: groups that can be told apart. Memberships (N, K, C) are zeros of tasks that are not placed yet, and sum
to 1 of the others. Groups are numbered by first use: column 0 is that of task 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from mtl_gym.training.partitions import labels, together

NEGLIGIBLE = 1e-3
"""Soft memberships below this are 0: a group that no task belongs to is not trained, and costs nothing."""


class Grouping(ABC):
    """One mode of turning actions into groups.

    Args:
        num_tasks: K.
        max_groups: G, the groups that there may be in the end.
        sharpness: Factor of soft memberships' logits.
    """

    space: Box | Discrete
    unsuited: ClassVar[tuple[str, ...]] = ()
    """Observations that say nothing in this mode."""

    def __init__(self, num_tasks: int, max_groups: int, sharpness: float) -> None:
        self.num_tasks, self.max_groups, self.sharpness = num_tasks, max_groups, sharpness

    @property
    def columns(self) -> int:
        """C."""
        return self.max_groups

    @property
    def choices(self) -> int:
        """Length of the masks of actions, A."""
        return int(self.space.n) if isinstance(self.space, Discrete) else int(np.prod(self.space.shape))

    def start(self) -> Tensor:
        """Memberships (K, C) before the first decision."""
        return torch.zeros(self.num_tasks, self.columns)

    @abstractmethod
    def legal(self, memberships: Tensor) -> Tensor:
        """The actions that are allowed (N, A), bool."""

    @abstractmethod
    def act(self, actions: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """Memberships after legal actions (N, ...), and the share (N,) of the decisions that have been taken with them."""

    def allowed(self, actions: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """The actions with the first legal one in the place of those that are masked, and which those were (N,)."""
        if isinstance(self.space, Box):
            return actions, torch.zeros(len(actions), dtype=torch.bool)
        legal = self.legal(memberships)
        masked = ~legal.gather(1, actions[:, None])[:, 0]
        return torch.where(masked, legal.int().argmax(1), actions), masked


class Place(Grouping):
    """Task by task: each goes to a group in use, or to the next new one."""

    def __init__(self, num_tasks: int, max_groups: int, sharpness: float) -> None:
        super().__init__(num_tasks, max_groups, sharpness)
        self.space = Discrete(max_groups)

    def legal(self, memberships: Tensor) -> Tensor:
        """Groups in use, and the next one."""
        return torch.arange(self.max_groups) <= memberships.any(1).sum(1, keepdim=True)

    def act(self, actions: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """The next task is put in the group of that number; after the last one, nothing changes."""
        here = next_task(memberships)[:, :, None] * torch.nn.functional.one_hot(actions, self.max_groups)[:, None]
        placed = memberships + here
        return placed, placed.any(2).sum(1) / self.num_tasks


class Memberships(Grouping):
    """All at once: a softmax over the groups for every task."""

    unsuited = ("groups", "next_task", "action_mask")

    def __init__(self, num_tasks: int, max_groups: int, sharpness: float) -> None:
        super().__init__(num_tasks, max_groups, sharpness)
        self.space = Box(-1, 1, (num_tasks * max_groups,), np.float32)

    def legal(self, memberships: Tensor) -> Tensor:
        """All."""
        return torch.ones(len(memberships), self.choices, dtype=torch.bool)

    def act(self, actions: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """``softmax(sharpness * a)`` over the groups, without what is negligible."""
        shares = torch.softmax(self.sharpness * actions.view_as(memberships), dim=2)
        shares = torch.where(shares >= NEGLIGIBLE, shares, 0)
        return shares / shares.sum(2, keepdim=True), torch.ones(len(actions))


class Merge(Grouping):
    """From all apart: two groups are joined, or it is enough."""

    unsuited = ("next_task",)

    def __init__(self, num_tasks: int, max_groups: int, sharpness: float) -> None:
        super().__init__(num_tasks, max_groups, sharpness)
        self.space = Discrete(1 + num_tasks * (num_tasks - 1) // 2)

    @property
    def columns(self) -> int:
        """K: at first, every task is alone."""
        return self.num_tasks

    def start(self) -> Tensor:
        """All apart."""
        return torch.eye(self.num_tasks)

    def legal(self, memberships: Tensor) -> Tensor:
        """The pairs of tasks that are the first of different groups; it is enough once there are at most G groups."""
        enough = memberships.any(1).sum(1, keepdim=True) <= self.max_groups
        least = memberships.cumsum(1).mul(memberships).eq(1).any(2)  # (N, K) the first of its group
        first, second = torch.triu_indices(self.num_tasks, self.num_tasks, offset=1)
        return torch.cat([enough, least[:, first] & least[:, second]], dim=1)

    def act(self, actions: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """Action 0 ends it; the others are the pairs, by rows of the upper triangle."""
        first, second = torch.triu_indices(self.num_tasks, self.num_tasks, offset=1)
        before = together(memberships.argmax(2))
        pair = (actions - 1).clamp(min=0)
        one, other = (before[torch.arange(len(before)), tasks[pair]] for tasks in (first, second))  # their groups (N, K)
        either = (one | other) & (actions > 0)[:, None]
        own = labels(before | (either[:, :, None] & either[:, None]))
        least = own == torch.arange(self.num_tasks)
        numbers = (least.cumsum(1) - 1).gather(1, own)
        joined = torch.nn.functional.one_hot(numbers, self.num_tasks).to(memberships.dtype)
        merges = self.num_tasks - least.sum(1)
        return joined, torch.where(actions == 0, 1.0, merges / (self.num_tasks - 1))


GROUPINGS: dict[str, type[Grouping]] = {"place": Place, "memberships": Memberships, "merge": Merge}
"""Modes of actions."""


def next_task(memberships: Tensor) -> Tensor:
    """Which task (N, K) is placed next, as 0 and 1: the first without a group; none, where all have one."""
    free = ~memberships.any(2)
    return (free & (free.cumsum(1) == 1)).to(memberships.dtype)
