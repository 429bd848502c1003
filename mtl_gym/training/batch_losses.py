"""The losses of batches: the next one of N training runs, with its graph, and others without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_gym.models.base import Tensors
from mtl_gym.problems.base import Problem
from mtl_gym.problems.instances import Instance
from mtl_gym.problems.losses import times
from mtl_gym.training.batches import Batch, Pending
from mtl_gym.training.data import TrainingData
from mtl_gym.training.drawn import Drawn
from mtl_gym.training.ledger import Ledger
from mtl_gym.training.objectives import Objectives
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.replicas import Replicas
from mtl_gym.training.state import State


class BatchLosses:
    """Losses of batches; those of the next batch are computed once and reused by the step.

    With ``by_samples`` they are computed per sample, by operations with fast forward-mode rules. ``recorder`` is called
    whenever a training pass is computed, with the samples' losses (N, B, all tasks) and labels.
    """

    def __init__(
        self,
        problem: Problem,
        recipe: Recipe,
        state: State,
        ledger: Ledger,
        replicas: Replicas,
        *,
        by_samples: bool = False,
        recorder: Callable[[Tensor, Tensor], None] | None = None,
    ) -> None:
        self.problem, self.recipe, self.ledger, self.replicas = problem, recipe, ledger, replicas
        self.by_samples, self.recorder = by_samples, recorder
        self.drawn = Drawn(problem, recipe, state)
        self.history = state.add("losses", (recipe.train_steps, recipe.num_tasks))  # (N, H, K) of each batch before its update
        self.link()

    def link(self) -> None:
        """Creates everything that is derived from the problem and the state."""
        device = self.history.device
        self.data = TrainingData(self.problem, self.recipe, self.drawn)
        missing = not self.drawn.complete
        self.objectives = Objectives(self.problem, self.recipe.tasks, device, dual=self.by_samples, missing=missing)
        self.rows = torch.arange(len(self.history), device=device)
        self.pending = Pending()  # results for the next batch

    def __getstate__(self) -> dict[str, Any]:
        # Pending results are dropped; recomputing them from the same parameters gives the same bits.
        return {name: value for name, value in self.__dict__.items() if name not in ("data", "objectives", "rows", "pending")}

    def begin(self, row: int, instance: Instance) -> None:
        """Sets a row's data to those of an instance."""
        self.drawn.begin(row, instance, self.data.holdouts)

    def forget(self) -> None:
        """Drops the results for the next batch."""
        self.pending = Pending()

    def batch(self) -> Batch:
        """The next batch to train on."""
        if self.pending.batch is None:
            self.pending.batch = batch = self._batch_at(self.ledger.step)
            if self.by_samples and not self.drawn.complete:
                batch.known = self.data.known(batch.labels, self.ledger.tasks)
        return self.pending.batch

    def _batch_at(self, step: Tensor) -> Batch:
        samples = self.drawn.batches.at(step)
        return Batch(samples, self.data.inputs("train", samples), self.data.labels("train", samples, samples))

    def forward(self) -> Tensor:
        """Losses (N, K) of the next batch; computed once and reused by the step."""
        return self.graph().detach()

    def graph(self) -> Tensor:
        """The same with the autograd graph."""
        if self.pending.losses is None:
            self.pending.losses = self.mean(self.sample_graph()) if self.by_samples else self._batch_graph()
        return self.pending.losses

    def _batch_graph(self) -> Tensor:
        outputs, self.pending.buffers = self.replicas.train_pass(self.replicas.parameters, self.batch().inputs, self.ledger.step)
        return self.of_outputs(outputs, self.batch(), self.ledger.step)

    def of_outputs(self, outputs: Tensor, batch: Batch, step: Tensor) -> Tensor:
        """Losses (N, K) from outputs (N, B, O, *S) on a batch at the replicas' step (N,)."""
        losses = self.scaled(self._mean_losses(outputs, batch.labels))
        return losses if self.drawn.complete else self._carried(losses, batch.labels, step)

    def _mean_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        if self.recorder is not None and torch.is_grad_enabled():
            losses = self.objectives.samples(outputs, labels)
            self.recorder(losses.detach(), labels)
            if self.drawn.complete:
                return losses.mean(1)
        return self.objectives.parts(outputs, labels, [outputs.shape[1]])[0]

    def at(self, parameters: Tensors, step: Tensor) -> Tensor:
        """Losses (N, K) of the batch at each replica's step (N,) with these parameters, without a graph."""
        with torch.no_grad():
            batch = self._batch_at(step)
            return self.of_outputs(self.replicas.train_pass(parameters, batch.inputs, step)[0], batch, step)

    def sample_graph(self) -> Tensor:
        """Losses (N, B, K) of the next batch's samples, with their graph; computed once and reused by the step."""
        if self.pending.of_samples is None:
            self.pending.of_samples, self.pending.buffers = self.sample_losses(self.replicas.parameters)
        return self.pending.of_samples

    def sample_losses(self, parameters: Tensors) -> tuple[Tensor, Tensors]:
        """Scaled losses (N, B, K) of the next batch's samples, 0 where unlabelled, and new buffers; stores nothing for the step."""
        batch = self.batch()
        with self.replicas.model.by_samples():
            outputs, buffers = self.replicas.train_pass(parameters, batch.inputs, self.ledger.step)
        losses = self.objectives.samples(outputs, batch.labels)
        tasks = self.ledger.tasks[:, None].expand(-1, losses.shape[1], -1)
        return times(losses.gather(2, tasks), self.ledger.scales[:, None]), buffers

    def mean(self, losses: Tensor) -> Tensor:
        """Means (N, K) of the next batch's losses (N, B, K) over labelled samples; the last known mean where none is labelled."""
        means = losses.sum(1) / self.label_counts()[:, 0]
        return means if self.batch().known is None else self._carried(means, self.batch().labels, self.ledger.step)

    def label_counts(self) -> Tensor:
        """Numbers of labelled samples (N, 1, K), or (1, 1, 1) if all are; at least 1."""
        known = self.batch().known
        if known is None:
            return torch.full((1, 1, 1), float(self.recipe.batch_size), device=self.rows.device)
        return known.sum(1, keepdim=True).clamp(min=1)

    def _carried(self, losses: Tensor, labels: Tensor, step: Tensor) -> Tensor:
        """Replaces the loss of a task without labels in a batch by its last known one (before the first, its scale), detached."""
        last = self.history[self.rows, (step - 1).clamp(min=0)].where(step[:, None] > 0, self.ledger.scales)
        return torch.where(self.data.absent(labels).gather(1, self.ledger.tasks), last, losses)

    def labelled(self) -> Tensor:
        """Whether the next batch has a label of each participating task (N, K)."""
        if self.drawn.complete:
            return torch.ones_like(self.ledger.scales, dtype=torch.bool)
        return ~self.data.absent(self.batch().labels).gather(1, self.ledger.tasks)

    def held_out(self, splits: Sequence[str]) -> dict[str, Tensor]:
        """Scaled losses (N, K) on the fixed samples of *meta* or *reward*, by split, in a single forward pass without a graph."""
        with torch.no_grad():
            outputs = self.replicas.outputs(self.data.holdout_inputs(splits))
            labels = torch.cat([self.data.holdout_labels(name) for name in splits], dim=1)
            losses = self.objectives.parts(outputs, labels, [len(self.data.holdouts[name]) for name in splits])
        return {name: self.scaled(own) for name, own in zip(splits, losses, strict=True)}

    def held_out_cost(self, splits: Sequence[str]) -> float:
        """What :meth:`held_out` costs, in forward passes over a training batch."""
        return sum(len(self.data.holdouts[name]) for name in splits) / self.recipe.batch_size

    def scaled(self, losses: Tensor) -> Tensor:
        """Scaled losses (N, K) of the participating tasks, from those of all tasks."""
        in_order = self.recipe.num_tasks == self.problem.num_tasks and self.recipe.main_task is None
        return (losses if in_order else losses.gather(1, self.ledger.tasks)) * self.ledger.scales
