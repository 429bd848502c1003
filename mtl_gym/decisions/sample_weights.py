"""Which samples help the main task: a weight for every sample and task of a batch. N rows, B samples, K tasks, main one first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_gym.decisions.base import TrainingDecision
from mtl_gym.decisions.sample_rules import ALIGNMENT, COSINE, LABELLED, LOSS, MAIN, MEAN, RIGHT, SampleWeighing, mean, separation
from mtl_gym.training.alignments import align, cosines
from mtl_gym.training.probes import Probe, Reading, View
from mtl_gym.training.trainer import Trainer

_KNOWN = "samples"  # cached for the next batch


class SampleWeights(TrainingDecision):
    """Sample weights for the next ``steps`` optimiser steps; the trainer has losses ``by_samples``.

    Attributes:
        sums: (N, n, K) sums of each training sample's losses in the batches so far.
        visits: (N, n) numbers of those batches.
    """

    def __init__(self, trainer: Trainer, steps: int, weighing: SampleWeighing) -> None:
        super().__init__(trainer, steps)
        self.weighing, self.space, self.needs = weighing, weighing.space, weighing.needs
        samples, state = len(trainer.problem.splits["train"]), trainer.state
        self.sums = state.add("SampleWeights.sums", (samples, trainer.recipe.num_tasks))
        self.visits = state.add("SampleWeights.visits", (samples,))
        self._rows = torch.arange(trainer.num_replicas, device=state.device)
        self._clipped = self._skipped = torch.zeros(trainer.num_replicas, dtype=torch.int64)
        self.traces = {}

    def begin(self, rows: Sequence[int]) -> None:
        """Resets infos and traces."""
        super().begin(rows)
        for counts in (self._clipped, self._skipped):
            counts[list(rows)] = 0
        for table in self.traces.values():
            table[list(rows)] = torch.nan

    def probes(self) -> list[Probe]:
        """The measurements of the next batch's samples; then those of any training, which reuse the pass."""
        return [Probe((LOSS, MEAN, ALIGNMENT, COSINE, RIGHT, LABELLED, MAIN), self.observe), *super().probes()]

    def observe(self, names: Collection[str]) -> Reading:
        """Measurements of the next batch, computed once and reused by the step.

        Returns:
            By name, all but the last (N, B, K) and including the instances' loss scales: ``loss`` of each sample; ``mean`` of each
            sample's losses in all batches up to this one; ``alignment``, the dot product of the sample's gradient with the unit
            gradient of the main task's *meta* loss, both with respect to the shared parameters; ``cosine`` of the two; ``right``,
            1 if the label is correct, else 0; ``labelled``, 1 if there is a label, correct or not, else 0; ``main`` (N,), the main
            task's *meta* loss.
        """
        known: dict[str, Tensor] = self.trainer.losses.pending.notes.setdefault(_KNOWN, {})
        forward: float | Tensor = 0.0
        backward: float | Tensor = 0.0
        if not {ALIGNMENT, COSINE, MAIN}.isdisjoint(names) and ALIGNMENT not in known:
            found = align(self.trainer)
            known |= {ALIGNMENT: found.products, MAIN: found.main}
            forward, backward = found.forward, found.backward
        known[LOSS] = self.trainer.losses.sample_graph().detach()
        if COSINE in names and COSINE not in known:
            known[COSINE], passes = cosines(self.trainer, known[ALIGNMENT])
            backward = backward + passes
        computed: dict[str, Callable[[], Tensor]] = {MEAN: self._means, RIGHT: self._right, LABELLED: self._labelled}
        known |= {name: compute() for name, compute in computed.items() if name in names and name not in known}
        return Reading({name: known[name] for name in names}, forward, backward)

    def apply(self, actions: Tensor, active: Tensor, view: View) -> None:
        """Trains with the actions' weights."""
        self._clipped, total = self.weighing.clipped(actions), torch.zeros_like(self.last_weights)
        self._skipped = torch.zeros_like(self._clipped)
        for step in range(self.steps):
            last = step == self.steps - 1
            values, forward, backward = self.observe({*self.needs, *((RIGHT,) if last else ())})
            self.trainer.ledger.charge(active, forward, backward)
            weights = self.weighing.weights(actions, values)
            if last:
                self.traces = separation(weights, values[RIGHT], values[LABELLED])
            losses, samples = self.trainer.losses.sample_graph().detach(), self._samples()
            self.trainer.update_samples(weights, active)
            self._remember(losses, samples, active)
            self._skipped += (weights == 0).flatten(1).all(1)
            total += mean(weights, values[LABELLED], (1,))
        self.last_weights.copy_(torch.where(active[:, None], total / self.steps, self.last_weights))

    def infos(self, view: View) -> dict[str, Any]:
        """Entries on a bound, steps with all weights 0, and how well the main task's weights separate correct and wrong labels."""
        missing = torch.full_like(self.visits[:, :1], torch.nan, dtype=torch.float64)
        names = {"right_weight": "right", "wrong_weight": "wrong", "auc": "auc"}
        of_main = {info: self.traces.get(name, missing)[:, 0].double() for info, name in names.items()}
        return {"clipped": self._clipped, "skipped": self._skipped, **of_main}

    def _samples(self) -> Tensor:
        return self.trainer.losses.batch().samples.long()

    def _means(self) -> Tensor:
        samples, rows = self._samples(), self._rows[:, None]
        sums, visits = self.sums[rows, samples], self.visits[rows, samples]
        return (sums + self.trainer.losses.sample_graph().detach()) / (visits + 1)[:, :, None]

    def _remember(self, losses: Tensor, samples: Tensor, active: Tensor) -> None:
        """Adds a batch's losses (N, B, K) to the sums of its samples (N, B), in the active rows."""
        places = (self._rows[:, None] * self.visits.shape[1] + samples).flatten()
        counts = active.to(self.visits.dtype)[:, None].expand_as(samples)
        self.sums.view(-1, losses.shape[2]).index_add_(0, places, torch.where(active[:, None, None], losses, 0).flatten(0, 1))
        self.visits.view(-1).index_add_(0, places, counts.flatten())

    def _right(self) -> Tensor:
        """1 where the batch's labels are the samples' own, else 0 (N, B, K); an unlabelled sample has none that could be right."""
        batch, data = self.trainer.losses.batch(), self.trainer.losses.data
        own = data.own_labels("train", batch.samples)
        same = (own == batch.labels) | (own.isnan() & batch.labels.isnan())  # of a dense label, some pixels may be missing
        same = same.flatten(3).all(3) if own.ndim > 3 else same
        return data.by_task(same, self.trainer.ledger.tasks) * self._labelled()

    def _labelled(self) -> Tensor:
        """1 where the batch's samples have a label, their own or not, else 0 (N, B, K)."""
        known = self.trainer.losses.batch().known
        return torch.ones_like(self.trainer.losses.sample_graph().detach()) if known is None else known.to(self.sums.dtype)
