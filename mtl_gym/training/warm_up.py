"""The training of all tasks together, and what it shows of how the tasks relate. N trainings, n samples, K tasks."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_gym.training.data_maps import DataMaps, squared_distances, summaries
from mtl_gym.training.learner import Learner
from mtl_gym.training.signals import SMALLEST_LOSS, cosines

MAP_FEATURES, MAP_DISTANCES, MAPS = "map_features", "map_distances", "maps"
COSINES, LOOKAHEAD = "gradient_cosines", "lookahead"
OF_WARM_UP = (MAP_FEATURES, MAP_DISTANCES, MAPS, COSINES, LOOKAHEAD)
"""What a warm-up can show; see :meth:`WarmUpLearner.run`."""
_MAPPED = {MAP_FEATURES, MAP_DISTANCES, MAPS}


@dataclass(frozen=True)
class Watching:
    """How a warm-up is watched.

    Attributes:
        snapshots: Times at which data maps are taken, E: evenly spread over the epochs from the second on, the last at the end.
        affinity_every: Optimiser steps between measurements of affinities, from the first step on.
    """

    snapshots: int
    affinity_every: int


class WarmUpLearner(Learner):
    """N trainings of all tasks together that show data maps and affinities; see :class:`Learner`."""

    _recent: deque[Tensor]

    def _link(self) -> None:
        super()._link()
        self._recent = deque(maxlen=1)

    def _mean_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        if not torch.is_grad_enabled():  # a look ahead
            return super()._mean_losses(outputs, labels)
        losses = self._objectives.samples(outputs, labels)
        if self.problem.complete:
            self._recent.append(losses.detach())
            return losses.mean(1)
        known = torch.stack([~torch.isnan(labels[:, :, own]).flatten(2).all(2) for own in self.problem.target_slices], dim=2)
        self._recent.append(losses.detach().masked_fill(~known, torch.inf))  # without a label, no probability
        return super()._mean_losses(outputs, labels)

    def run(self, watching: Watching, needs: Collection[str]) -> dict[str, Tensor]:
        """Trains from the first step to the last, with weights of 1.

        Args:
            watching: How often to probe.
            needs: Names of what is wanted.

        Returns:
            By name: ``map_features`` (N, K, E, 7), :func:`~mtl_gym.training.data_maps.summaries` of the tasks' data maps at the
            snapshots; ``map_distances`` (N, K (K - 1) / 2), Euclidean distances of the data maps at all snapshots, over
            ``sqrt(E * n * 2)``; ``maps`` (N, K, n, 2), confidence and variability at the end; ``gradient_cosines``
            (N, K (K - 1) / 2), means of the cosines of the tasks' gradients of the shared parameters; ``lookahead`` (N, K, K),
            means of :meth:`lookahead`. Pairs are the upper triangle by rows.
        """
        ones, active = torch.ones_like(self.replicas.scales), torch.ones_like(self._rows, dtype=torch.bool)
        recorders = [] if _MAPPED.isdisjoint(needs) else self._recorders(watching.snapshots)
        sums: dict[str, Tensor] = {}
        for step in range(self.recipe.train_steps):
            if step % watching.affinity_every == 0:
                for name, values in self.affinities(needs).items():
                    sums[name] = sums.get(name, 0) + values
            self.update(ones, active)
            for recorder in recorders:
                recorder.record(step, self._recent)
        probes = -(-self.recipe.train_steps // watching.affinity_every)
        found = {name: total / probes for name, total in sums.items()}
        if recorders:
            maps, places = [recorder.found(needs) for recorder in recorders], torch.cat([own.rows for own in recorders]).argsort()
            found |= {name: torch.cat([own[name] for own in maps])[places] for name in maps[0]}
        self._recent.clear()
        return {name: found[name] for name in needs}

    def _recorders(self, snapshots: int) -> list[_Recorder]:
        """One for the trainings of each length of an epoch."""
        lengths = self.steps_per_epoch()
        self._recent = deque(maxlen=int(lengths.max()))
        return [_Recorder(self, (lengths == own).nonzero()[:, 0], own, snapshots) for own in lengths.unique().tolist()]

    def affinities(self, needs: Collection[str]) -> dict[str, Tensor]:
        """``gradient_cosines`` and ``lookahead``, of those that are needed, on the batch that is about to be trained on."""
        computed: dict[str, Callable[[Tensor], Tensor]] = {
            COSINES: lambda shared: cosines(shared @ shared.mT),
            LOOKAHEAD: self.lookahead,
        }
        wanted = {name: compute for name, compute in computed.items() if name in needs}
        if not wanted:
            return {}
        shared = self._task_gradients(torch.zeros_like(self._rows, dtype=torch.bool))[:, :, : self._shared]
        return {name: compute(shared) for name, compute in wanted.items()}

    def lookahead(self, gradients: Tensor) -> Tensor:
        """How a step of plain gradient descent along task i's gradient alone changes task j's loss, on the same batch (N, K, K).

        ``1 - L_j(theta - lr g_i) / L_j(theta)``, theta the shared parameters: positive where task i helps task j. Fifty et al.,
        "Efficiently Identifying Task Groupings for Multi-Task Learning" (TAG), NeurIPS 2021, equation 1.

        Args:
            gradients: g (N, K, Q) of the shared parameters.
        """
        losses, own, rates = self.forward().clamp(min=SMALLEST_LOSS), self._parameters, self.lr()[:, None]
        table = []
        for gradient in gradients.unbind(1):
            moved = self.replicas.parameters.clone()
            moved[:, : self._shared] -= rates * gradient
            self._parameters = self._views(moved)
            with torch.no_grad():
                table.append(1 - self._batch_losses(self.replicas.step) / losses)
        self._parameters = own
        return torch.stack(table, dim=1)


class _Recorder:
    """Keeps the data maps of those trainings of a warm-up, R, whose epochs have the same length."""

    def __init__(self, learner: WarmUpLearner, rows: Tensor, length: int, snapshots: int) -> None:
        replicas, self._train_steps = learner.replicas, learner.recipe.train_steps
        self.rows, self.length, epochs = rows, length, -(-self._train_steps // length)
        self._tasks = replicas.tasks[rows]
        self._counts = torch.tensor([len(own.rows) for own in learner.instances if own], device=rows.device)[rows]
        self._times = torch.linspace(min(2, epochs), epochs, snapshots).round().tolist()
        order = replicas.order[rows, : self._train_steps]
        self._maps = DataMaps(order, length, len(learner.problem.splits["train"]), learner.recipe.num_tasks)
        self._features: list[Tensor] = []  # of each snapshot, (R, K, 7)
        self._squares: list[Tensor] = []  # of each snapshot, (R, K, K)

    def record(self, step: int, recent: Sequence[Tensor]) -> None:
        """Takes in what the last updates have shown, up to that step's, where an epoch has ended with it.

        Args:
            step: From 0.
            recent: Losses (N, B, all tasks) of the samples of the last batches.
        """
        if (step + 1) % self.length == 0 or step + 1 == self._train_steps:
            losses = torch.stack(list(recent)[-(step % self.length) - 1 :])  # (L, N, B, all tasks)
            if len(self.rows) != losses.shape[1]:
                losses = losses[:, self.rows]
            if self._tasks.shape[1] != losses.shape[3]:
                losses = losses.gather(3, self._tasks[:, None].expand(len(losses), -1, losses.shape[2], -1))
            self._maps.add(losses.mul_(-1 / math.log(2)).exp2_())  # exp(-losses) in half the time
            self._snap(step // self.length + 1)

    def _snap(self, epoch: int) -> None:
        """Takes the snapshots that are due after that many epochs."""
        if due := self._times.count(epoch):
            confidence, variability = self._maps.confidence, self._maps.variability()
            self._features += due * [summaries(confidence, variability, self._maps.visits > 0)]
            self._squares += due * [squared_distances(confidence, variability)]

    def found(self, needs: Collection[str]) -> dict[str, Tensor]:
        """What is needed, by name; see :meth:`WarmUpLearner.run`."""
        kept = {MAP_FEATURES: self._stacked, MAP_DISTANCES: self._distances, MAPS: self._last}
        return {name: compute() for name, compute in kept.items() if name in needs}

    def _stacked(self) -> Tensor:
        return torch.stack(self._features, dim=2)

    def _distances(self) -> Tensor:
        means = torch.stack(self._squares).mean(0) / (2 * self._counts)[:, None, None]
        first, second = torch.triu_indices(means.shape[1], means.shape[1], offset=1)
        return means[:, first, second].sqrt().float()

    def _last(self) -> Tensor:
        return torch.stack([self._maps.confidence, self._maps.variability()], dim=3).movedim(1, 2)
