"""How much each task's loss counts. N rows, K tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_gym.decisions.base import TrainingDecision
from mtl_gym.decisions.task_rules import TaskWeighing
from mtl_gym.training.probes import View
from mtl_gym.training.trainer import Trainer


class TaskWeights(TrainingDecision):
    """Weights of the tasks' losses for the next ``steps`` optimiser steps."""

    def __init__(self, trainer: Trainer, steps: int, weighing: TaskWeighing) -> None:
        super().__init__(trainer, steps)
        self.weighing, self.space, self.needs = weighing, weighing.space, weighing.needs
        self._clipped = torch.zeros(trainer.num_replicas, dtype=torch.int64)

    def begin(self, rows: Sequence[int]) -> None:
        """Resets infos."""
        super().begin(rows)
        self._clipped[list(rows)] = 0

    def apply(self, actions: Tensor, active: Tensor, view: View) -> None:
        """Trains with the actions' weights."""
        self._clipped = self.weighing.clipped(actions)
        held, initial = self.weighing.held(actions, view), view.losses.initial
        for _ in range(self.steps):
            losses = self.trainer.losses.forward()
            weights = self.weighing.weights(held, losses, initial)  # (N, S, K)
            if self.weighing.scope == 1:
                self.trainer.update(weights[:, 0], active)
            else:
                self.trainer.update_apart(weights[:, 0], weights[:, 1], active)
        shown = self.weighing.shown(held, losses, initial)
        self.last_weights.copy_(torch.where(active[:, None], shown, self.last_weights))

    def infos(self, view: View) -> dict[str, Tensor]:
        """``clipped``: number of action entries on a bound."""
        return {"clipped": self._clipped}
