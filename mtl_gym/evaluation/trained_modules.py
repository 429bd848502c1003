"""The trained network of one row as a plain module: of a training, of merged layers, or of several groups side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mtl_gym.checks import should
from mtl_gym.decisions.grouping.group_training import masks_of, members, train_groups
from mtl_gym.decisions.grouping.trainings import GroupTrainings
from mtl_gym.models.plain import Branches, joined
from mtl_gym.training.trainer import Trainer


def trained_module(decision: Any) -> nn.Module:
    """The trained network of a decision's row 0.

    Raises:
        ValueError: If it trains none that can be handed out, or a grouping has soft memberships.
    """
    trainings = decision.trainings
    if isinstance(trainings, Trainer):
        return module_of(trainings, 0)
    if not isinstance(trainings, GroupTrainings):
        raise ValueError(should("env", "train a network that can be handed out", type(decision).__name__))
    shares = trainings.memberships[0]
    if not ((shares == 0) | (shares == 1)).all():
        raise ValueError(should("policy", "put each task in one group: soft memberships mix several networks", shares.tolist()))
    masks = masks_of(trainings.labels(0))
    instance = trainings.ledger.instances[0]
    ids = [instance.id] * len(masks) if instance else []
    parts: list[nn.Module] = []
    for trainer in train_groups(trainings.problem, trainings.recipe, ids, members(masks, trainings.recipe.num_tasks)):
        parts += [module_of(trainer, row, masks[len(parts) + row]) for row in range(trainer.num_replicas)]
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Branches) for part in parts):
        return joined([part for part in parts if isinstance(part, Branches)])
    return Together(parts)


class Together(nn.Module):
    """Networks of different tasks that are no chains of stages."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        """The outputs of all networks by task."""
        return {task: own for part in self.parts for task, own in part(inputs).items()}


def module_of(trainer: Trainer, row: int, mask: int = -1) -> nn.Module:
    """The network of a row as a plain module on the CPU, in evaluation mode, with the heads of the participating tasks.

    ``mask``: the tasks of a group, a bit for each participating task; all of them by default.
    """
    problem, replicas = trainer.problem, trainer.replicas
    chosen = [task for place, task in enumerate(trainer.ledger.tasks[row].tolist()) if mask >> place & 1]
    heads = {problem.tasks[task].name: problem.output_slices[task] for task in sorted(chosen)}
    parameters = {name: own[row].detach().cpu() for name, own in replicas.parameters.items()}
    buffers = {name: own[row].cpu() for name, own in replicas.buffers.items()}
    return trainer.model.plain(parameters, buffers, heads).eval()
