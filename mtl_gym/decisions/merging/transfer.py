"""Merges the parameters when one copy of a stage replaces several. N trainings, S stages, K tasks, R rows that change."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from mtl_gym.checks import choose
from mtl_gym.decisions.merging.adapters import ADAPTERS
from mtl_gym.decisions.merging.imitation import Lesson, imitate
from mtl_gym.decisions.partitions import together
from mtl_gym.models.branched import ASSIGN, BranchedModel
from mtl_gym.training.trainer import Trainer

TRANSFERS = ("imitate", "average", "none")
ADAPTER = "affine"
"""Default row of ``ADAPTERS``."""


class Transfer:
    """Replaces structures by coarser ones, with a new copy for every group that starts to share a stage.

    Args:
        trainer: The trainings of a :class:`BranchedModel`.
        kind: ``"average"``: the new copy is the mean of its tasks' copies; ``"imitate"``: it then learns to reproduce each task's
            features (:func:`~mtl_gym.decisions.merging.imitation.imitate`), with the training's learning rate before the schedule;
            ``"none"``: it takes the training's initial values.
        adapters: Row of ``ADAPTERS``, for imitations.
        steps: Training batches of an imitation.
        average_moments: Whether the new copy's moments and number of updates are its tasks' means instead of 0.
    """

    def __init__(self, trainer: Trainer, *, kind: str, steps: int, average_moments: bool, adapters: str = ADAPTER) -> None:
        self._kind = choose("transfer", kind, {name: name for name in TRANSFERS})
        self._adapter = choose("adapters", adapters, ADAPTERS)
        self._trainer, self._steps, self._average_moments = trainer, steps, average_moments

    @property
    def model(self) -> BranchedModel:
        """The model; raises ``TypeError`` if it is no :class:`BranchedModel`."""
        model = self._trainer.model
        if not isinstance(model, BranchedModel):
            raise TypeError("layers can only be merged in a BranchedModel")
        return model

    def merge(self, assign: Tensor) -> None:
        """Replaces the structures by ``assign`` (N, S, K), in which shared stages stay shared."""
        replicas = self._trainer.replicas
        for stage in range(self.model.num_stages):
            changed = self._changed(stage, assign)
            rows = changed.any(1).nonzero()[:, 0]
            if len(rows):
                lesson = self._lesson(stage, rows, changed, assign[:, stage]) if self._kind == "imitate" else None
                self._replace(stage, assign[:, stage], changed)
                if lesson:
                    own, rates = replicas.parameters[f"stage{stage}"].detach(), replicas.learning_rates[rows].tolist()
                    own[rows] = imitate(lesson, own[rows], rates=rates, batch_size=self._trainer.recipe.batch_size)
                self._trainer.restructured()

    def _changed(self, stage: int, assign: Tensor) -> Tensor:
        """The new copies (N, K) of a stage: those with tasks that did not share it before."""
        before, after = together(self._trainer.replicas.buffers[ASSIGN][:, stage]), together(assign[:, stage])
        grown = (before != after).any(2)  # tasks (N, K) with a new companion
        counts = torch.zeros_like(assign[:, stage]).scatter_add(1, assign[:, stage], grown.long())  # CUDA scatters no bools
        return counts > 0

    def _replace(self, stage: int, after: Tensor, changed: Tensor) -> None:
        """Writes the new copies of a stage, and zeros in unused ones."""
        replicas, num_tasks, sizes = self._trainer.replicas, self.model.num_tasks, self.model.copy_sizes
        before = replicas.buffers[ASSIGN][:, stage].clone()
        members = (after[:, None] == torch.arange(num_tasks, device=after.device)[:, None]).float()  # (N, copies, K)
        shares = members / members.sum(2, keepdim=True).clamp(min=1)
        gone = ~members.any(2)
        start = sum(sizes[:stage]) * num_tasks
        place = slice(start, start + sizes[stage] * num_tasks)

        def renew(table: Tensor, new: Tensor | None) -> None:  # (N, K, ...), one entry per copy
            shape = (-1, num_tasks, *[1] * (table.ndim - 2))
            own = table.gather(1, before.view(shape).expand_as(table)).flatten(2)
            means = (shares @ own).view_as(table) if new is None else new
            table.copy_(torch.where(changed.view(shape), means, torch.where(gone.view(shape), 0, table)))

        def view(table: Tensor) -> Tensor:
            return table[:, place].unflatten(1, (num_tasks, -1))

        renew(view(replicas.flat), view(self._initial()) if self._kind == "none" else None)
        nothing = torch.zeros_like(view(replicas.flat))
        for moment in replicas.moments.unbind(1):
            renew(view(moment), None if self._average_moments else nothing)
        updates = replicas.updates[:, stage * num_tasks : (stage + 1) * num_tasks, None]
        renew(updates, None if self._average_moments else torch.zeros_like(updates))
        replicas.buffers[ASSIGN][:, stage] = after

    def _initial(self) -> Tensor:
        initial = self._trainer.replicas.flat.clone()
        for row, instance in enumerate(self._trainer.ledger.instances):
            if instance:
                initial[row] = torch.from_numpy(self.model.init(instance.stream("parameters"), instance.tasks)[0])
        return initial

    def _lesson(self, stage: int, rows: Tensor, changed: Tensor, after: Tensor) -> Lesson:
        """What the new copies of a stage learn in some rows (R,), on their next training batches.

        Each batch counts as four forward passes (the targets, learning, and two to compare) and one backward pass.
        """
        trainer, replicas, model = self._trainer, self._trainer.replicas, self.model
        order, step = trainer.losses.drawn.batches.order, trainer.ledger.step
        trainer.ledger.passes[rows] += self._steps * torch.tensor([4.0, 1.0], device=rows.device)
        window = (step[rows, None] + torch.arange(self._steps, device=rows.device)) % order.shape[1]
        samples = order[rows[:, None], window].long().flatten(1)
        inputs = trainer.losses.data.inputs("train", samples, rows)
        with torch.no_grad():
            own = [part[rows] for part in [*replicas.parameters.values()][: stage + 1]]
            features = model.trace(own, inputs, replicas.buffers[ASSIGN][rows, : stage + 1]).features
        entering = inputs[:, None].expand(-1, model.num_tasks, *inputs.shape[1:]) if stage == 0 else features[stage - 1]
        users = after[rows]
        return Lesson(
            run=partial(model.run, stage),
            inputs=entering,
            targets=features[stage],
            users=users,
            learning=changed[rows].gather(1, users),
            adapter=self._adapter,
            adapters=self._adapters(stage, rows, channels=features[stage].shape[3]),
        )

    def _adapters(self, stage: int, rows: Tensor, *, channels: int) -> list[Tensor]:
        """Initial parameters (R, K, ...) of the tasks' adapters of a stage in some rows (R,), drawn for each instance."""
        instances = [self._trainer.ledger.instances[row] for row in rows.tolist()]
        streams = [instance.stream("parameters").spawn(stage + 1)[stage] for instance in instances if instance]
        drawn = [self._adapter.init(stream, self.model.num_tasks, channels) for stream in streams]
        return [torch.from_numpy(np.stack(own)).to(rows.device) for own in zip(*drawn, strict=True)]
