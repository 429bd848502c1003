"""How every replica is trained."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import Distribution, Instance, draw


@dataclass(frozen=True)
class Recipe:
    """How every replica is trained; the arguments of an environment that are the learner's.

    Attributes:
        distribution: The range of every axis of the instances.
        num_tasks: Tasks that take part, K.
        tasks: Names of the tasks that may take part, in the problem's order.
        hidden: Widths of the trunk.
        horizon: Optimiser steps of a training.
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
    hidden: tuple[int, ...]
    horizon: int
    batch_size: int
    optimizer: str
    lr: float
    lr_schedule: str
    momentum: float
    weight_decay: float
    holdout_size: int
    device: str

    def draw(self, problem: Problem, id: int) -> Instance:
        """Draws the instance of the problem with that id; the network is part of what it is."""
        return draw(
            problem,
            distribution=self.distribution,
            num_tasks=self.num_tasks,
            tasks=self.tasks,
            network=f"{problem.network}{list(self.hidden)}",
            id=id,
        )

    def plain(self, problem: Problem) -> dict[str, Any]:
        """All of it, JSON-plain; ``tasks`` only where some of the problem's may not take part, so that naming all is no change."""
        named = {name: value for name, value in asdict(self).items() if name != "tasks" or len(value) < problem.num_tasks}
        return dict(json.loads(json.dumps(named)))
