"""How every replica is trained."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import AXES, Distribution, Instance, draw


@dataclass(frozen=True)
class Recipe:
    """How every replica is trained; the arguments of an environment that are the learner's.

    Attributes:
        distribution: The range of every axis of the instances.
        num_tasks: Tasks that take part, K.
        tasks: Names of the tasks that may take part, in the problem's order.
        main_task: Name of the main task, which always takes part and comes first; ``None``: no task is above the others.
        hidden_sizes: Widths of the trunk.
        train_steps: Optimiser steps of a training.
        batch_size: Samples of a batch.
        optimizer: Row of ``OPTIMIZERS``.
        lr: Initial learning rate.
        lr_schedule: Row of ``LR_SCHEDULES``.
        momentum: Of SGD; first decay rate of Adam.
        weight_decay: L2 penalty (decoupled for AdamW).
        holdout_size: Fixed samples of *meta* and of *reward* that losses are measured on.
        device: Of the tensors.
    """

    distribution: Distribution
    num_tasks: int
    tasks: tuple[str, ...]
    hidden_sizes: tuple[int, ...]
    train_steps: int
    batch_size: int
    optimizer: str
    lr: float
    lr_schedule: str
    momentum: float
    weight_decay: float
    holdout_size: int
    device: str
    main_task: str | None = None

    def draw(self, problem: Problem, id: int) -> Instance:
        """Draws the instance of the problem with that id; the network is part of what it is."""
        return draw(
            problem,
            distribution=self.distribution,
            num_tasks=self.num_tasks,
            tasks=self.tasks,
            main_task=self.main_task,
            network=f"{problem.network}{list(self.hidden_sizes)}",
            id=id,
        )

    def plain(self, problem: Problem) -> dict[str, Any]:
        """All of it, JSON-plain, but for what says nothing: ``tasks`` where all may take part, no main task, silent axes."""
        named = asdict(self) | {"distribution": {axis: own for axis, own in self.distribution.items() if own != AXES[axis]}}
        silent = {"tasks": self.tasks if len(self.tasks) == problem.num_tasks else None, "main_task": None}
        return dict(json.loads(json.dumps({name: own for name, own in named.items() if silent.get(name, ...) != own})))
