"""How every replica is trained."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mtl_gym.models import make_model
from mtl_gym.problems.axes import AXES, Distribution
from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import Instance, draw


@dataclass(frozen=True)
class Recipe:
    """How every replica is trained: the environment arguments that concern the learner."""

    distribution: Distribution  # the range of every axis of the instances
    num_tasks: int  # number of participating tasks, K
    tasks: tuple[str, ...]  # names of the tasks that may take part, in the problem's order
    hidden_sizes: tuple[int, ...]  # widths of the trunk
    train_steps: int  # optimiser steps per run
    batch_size: int  # samples per batch
    optimizer: str  # row of ``OPTIMIZERS``
    lr: float  # initial learning rate
    lr_schedule: str  # row of ``LR_SCHEDULES``
    momentum: float  # momentum of SGD; first decay rate of Adam
    weight_decay: float  # L2 penalty (decoupled for AdamW)
    holdout_size: int  # number of fixed samples of *meta* and of *reward* on which losses are measured
    device: str  # device of the tensors
    checkpoint: str = "last"  # row of ``CHECKPOINTS``
    main_task: str | None = None  # name of the main task, which always takes part and comes first; ``None`` if there is none

    def draw(self, problem: Problem, network: str, id: int) -> Instance:
        """Draws the problem's instance with that id, for the network with that identity."""
        return draw(
            problem,
            distribution=self.distribution,
            num_tasks=self.num_tasks,
            tasks=self.tasks,
            main_task=self.main_task,
            network=network,
            id=id,
        )

    def plain(self, problem: Problem) -> dict[str, Any]:
        """All attributes, JSON-serialisable, except ``tasks`` if all may take part, ``main_task`` if ``None``, and default axes.

        Also the ``network``, identified by the model that it makes, if it is the problem's own function.
        """
        named = asdict(self) | {"distribution": {axis: own for axis, own in self.distribution.items() if own != AXES.get(axis)}}
        if not isinstance(problem.network, str):
            named["network"] = make_model(problem, self.hidden_sizes).identity
        silent = {"tasks": self.tasks if len(self.tasks) == problem.num_tasks else None, "main_task": None}
        return dict(json.loads(json.dumps({name: own for name, own in named.items() if silent.get(name, ...) != own})))
