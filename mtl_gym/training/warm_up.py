"""The training of all tasks together, and what it shows of how the tasks relate. N trainings, n samples, K tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_gym.training.data_maps import FEATURES, DataMaps, squared_distances, summaries
from mtl_gym.training.learner import Learner
from mtl_gym.training.signals import SMALLEST_LOSS, cosines

MAP_FEATURES, MAP_DISTANCES, MAPS = "map_features", "map_distances", "maps"
COSINES, LOOKAHEAD = "gradient_cosines", "lookahead"
OF_WARM_UP = (MAP_FEATURES, MAP_DISTANCES, MAPS, COSINES, LOOKAHEAD)
"""What a warm-up can show; see :meth:`WarmUpLearner.run`."""


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
        """Trains from the beginning to the horizon, with weights of 1.

        Args:
            watching: How often to look.
            needs: Names of what is wanted.

        Returns:
            By name: ``map_features`` (N, K, E, 7), :func:`~mtl_gym.training.data_maps.summaries` of the tasks' data maps at the
            snapshots; ``map_distances`` (N, K (K - 1) / 2), Euclidean distances of the data maps at all snapshots, over
            ``sqrt(E * n * 2)``; ``maps`` (N, K, n, 2), confidence and variability at the end; ``gradient_cosines``
            (N, K (K - 1) / 2), means of the cosines of the tasks' gradients of the shared parameters; ``lookahead`` (N, K, K),
            means of :meth:`lookahead`. Pairs are the upper triangle by rows.
        """
        ones, active = torch.ones_like(self.replicas.scales), torch.ones_like(self._rows, dtype=torch.bool)
        recorder = _Recorder(self, watching.snapshots)
        sums: dict[str, Tensor] = {}
        for step in range(self.recipe.horizon):
            if step % watching.affinity_every == 0:
                for name, values in self.affinities(needs).items():
                    sums[name] = sums.get(name, 0) + values
            self.update(ones, active)
            if not {MAP_FEATURES, MAP_DISTANCES, MAPS}.isdisjoint(needs):
                recorder.record(step)
        looks = -(-self.recipe.horizon // watching.affinity_every)
        found = {name: total / looks for name, total in sums.items()} | recorder.found()
        self._recent.clear()
        return {name: found[name] for name in needs}

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
    """Keeps the data maps of a warm-up: epoch by epoch, since a sample comes once an epoch."""

    def __init__(self, learner: WarmUpLearner, snapshots: int) -> None:
        self._learner, self._snapshots = learner, snapshots
        self._groups: dict[int, Tensor | slice]
        count, num_tasks = len(learner.problem.splits["train"]), learner.recipe.num_tasks
        device = learner.replicas.parameters.device
        self._maps = DataMaps(learner.num_replicas, count, num_tasks, device)
        self._features = torch.zeros(learner.num_replicas, num_tasks, snapshots, FEATURES, device=device)
        self._squares = torch.zeros(learner.num_replicas, num_tasks, num_tasks, dtype=torch.float64, device=device)
        lengths = learner.steps_per_epoch()
        self._groups = {length: (lengths == length).nonzero()[:, 0] for length in lengths.unique().tolist()}
        if len(self._groups) == 1:
            self._groups = dict.fromkeys(self._groups, slice(None))
        learner._recent = deque(maxlen=max(self._groups))

    def record(self, step: int) -> None:
        """Takes in what the update of that step has shown, where an epoch has ended with it."""
        horizon = self._learner.recipe.horizon
        for length, rows in self._groups.items():
            if (step + 1) % length == 0 or step + 1 == horizon:
                epoch = step // length
                self._add(rows, slice(epoch * length, step + 1))
                self._snap(rows, epoch + 1, -(-horizon // length))

    def _add(self, rows: Tensor | slice, steps: slice) -> None:
        replicas, count = self._learner.replicas, steps.stop - steps.start
        recent = list(self._learner._recent)[-count:]
        losses = torch.stack(recent, dim=1).flatten(1, 2)[rows]  # (R, S B, all tasks)
        if losses.shape[2] != replicas.tasks.shape[1]:
            losses = losses.gather(2, replicas.tasks[rows][:, None].expand(-1, losses.shape[1], -1))
        samples = replicas.order[rows, steps].flatten(1).long()
        self._maps.add(rows, samples, losses.neg_().exp_())

    def _snap(self, rows: Tensor | slice, epoch: int, epochs: int) -> None:
        """Takes the snapshots that are due after that many of the ``epochs``."""
        times = torch.linspace(min(2, epochs), epochs, self._snapshots).round().tolist()
        due = [place for place, time in enumerate(times) if time == epoch]
        if due:
            confidence, variability = self._maps.confidence[rows], self._maps.variability()[rows]
            features = summaries(confidence, variability, self._maps.visits[rows] > 0)
            for place in due:
                self._features[rows, :, place] = features
            self._squares[rows] += len(due) * squared_distances(confidence, variability)

    def found(self) -> dict[str, Tensor]:
        """What there is at the end, by name."""
        sizes = [len(instance.rows) for instance in self._learner.instances if instance]
        counts = torch.tensor(sizes, device=self._squares.device)[:, None]
        first, second = torch.triu_indices(self._squares.shape[1], self._squares.shape[1], offset=1)
        distances = (self._squares[:, first, second] / (2 * self._snapshots * counts)).sqrt()
        maps = torch.stack([self._maps.confidence, self._maps.variability()], dim=3).movedim(1, 2)
        return {MAP_FEATURES: self._features, MAP_DISTANCES: distances.float(), MAPS: maps}
