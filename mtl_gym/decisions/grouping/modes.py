"""Maps actions to groups of tasks; only this module decides which actions are valid.

N rows, K tasks, C columns (possible groups). Memberships (N, K, C) are 0 for tasks not placed yet and sum to 1 for the others.
Groups are numbered by first use: column 0 is that of task 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from mtl_gym.decisions.partitions import labels, together

NEGLIGIBLE = 1e-3
"""Smaller soft memberships become 0: a group without members is not trained and costs nothing."""


class Grouping(ABC):
    """One mode of mapping actions to at most ``max_groups`` groups; ``sharpness`` is the factor of soft memberships' logits."""

    space: Box | Discrete
    unsuited: ClassVar[tuple[str, ...]] = ()
    """Observations that are meaningless in this mode."""

    def __init__(self, num_tasks: int, max_groups: int, sharpness: float) -> None:
        self.num_tasks, self.max_groups, self.sharpness = num_tasks, max_groups, sharpness

    @property
    def columns(self) -> int:
        """C."""
        return self.max_groups

    @property
    def choices(self) -> int:
        """Length of action masks, A."""
        return int(self.space.n) if isinstance(self.space, Discrete) else int(np.prod(self.space.shape))

    def start(self) -> Tensor:
        """Memberships (K, C) before the first decision."""
        return torch.zeros(self.num_tasks, self.columns)

    @abstractmethod
    def valid(self, memberships: Tensor) -> Tensor:
        """The valid actions (N, A), bool."""

    @abstractmethod
    def act(self, actions: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """Memberships after valid actions (N, ...), and the completed fraction (N,) of the decisions."""

    def checked(self, actions: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """The actions, with masked ones replaced by the first valid one, and which were masked (N,)."""
        if isinstance(self.space, Box):
            return actions, torch.zeros(len(actions), dtype=torch.bool)
        valid = self.valid(memberships)
        masked = ~valid.gather(1, actions[:, None])[:, 0]
        return torch.where(masked, valid.int().argmax(1), actions), masked


class Place(Grouping):
    """Task by task: each joins an existing group or the next new one."""

    def __init__(self, num_tasks: int, max_groups: int, sharpness: float) -> None:
        super().__init__(num_tasks, max_groups, sharpness)
        self.space = Discrete(max_groups)

    def valid(self, memberships: Tensor) -> Tensor:
        """Existing groups and the next one."""
        return torch.arange(self.max_groups) <= memberships.any(1).sum(1, keepdim=True)

    def act(self, actions: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """Assigns the next task to that group; after the last task, nothing changes."""
        here = next_task(memberships)[:, :, None] * torch.nn.functional.one_hot(actions, self.max_groups)[:, None]
        placed = memberships + here
        return placed, placed.any(2).sum(1) / self.num_tasks


class Memberships(Grouping):
    """All tasks at once: a softmax over the groups for each."""

    unsuited = ("groups", "next_task", "action_mask")

    def __init__(self, num_tasks: int, max_groups: int, sharpness: float) -> None:
        super().__init__(num_tasks, max_groups, sharpness)
        self.space = Box(-1, 1, (num_tasks * max_groups,), np.float32)

    def valid(self, memberships: Tensor) -> Tensor:
        """All."""
        return torch.ones(len(memberships), self.choices, dtype=torch.bool)

    def act(self, actions: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """``softmax(sharpness * a)`` over the groups, without negligible entries."""
        shares = torch.softmax(self.sharpness * actions.view_as(memberships), dim=2)
        shares = torch.where(shares >= NEGLIGIBLE, shares, 0)
        return shares / shares.sum(2, keepdim=True), torch.ones(len(actions))


class Merge(Grouping):
    """Starting from single tasks, merges two groups or stops."""

    unsuited = ("next_task",)

    def __init__(self, num_tasks: int, max_groups: int, sharpness: float) -> None:
        super().__init__(num_tasks, max_groups, sharpness)
        self.space = Discrete(1 + num_tasks * (num_tasks - 1) // 2)

    @property
    def columns(self) -> int:
        """K, since every task starts alone."""
        return self.num_tasks

    def start(self) -> Tensor:
        """Every task alone."""
        return torch.eye(self.num_tasks)

    def valid(self, memberships: Tensor) -> Tensor:
        """Pairs of tasks that are the first of different groups; stopping, once there are at most G groups."""
        enough = memberships.any(1).sum(1, keepdim=True) <= self.max_groups
        least = memberships.cumsum(1).mul(memberships).eq(1).any(2)  # (N, K) the first of its group
        first, second = torch.triu_indices(self.num_tasks, self.num_tasks, offset=1)
        return torch.cat([enough, least[:, first] & least[:, second]], dim=1)

    def act(self, actions: Tensor, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """Action 0 stops; the others are the pairs, by rows of the upper triangle."""
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
    """1 for the task to place next, the first without a group, else 0 (N, K)."""
    free = ~memberships.any(2)
    return (free & (free.cumsum(1) == 1)).to(memberships.dtype)
