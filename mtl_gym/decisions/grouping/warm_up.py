"""Trains all tasks together and measures how they relate. N trainings, n samples, K tasks."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_gym.decisions.grouping.data_maps import DataMaps, squared_distances, summaries
from mtl_gym.problems.base import Problem
from mtl_gym.progress import progress_bar
from mtl_gym.training.formulas import SMALLEST_LOSS, cosines
from mtl_gym.training.measurements import learning_rates, steps_per_epoch
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.trainer import Trainer

MAP_FEATURES, MAP_DISTANCES, MAPS = "map_features", "map_distances", "maps"
COSINES, LOOKAHEAD = "gradient_cosines", "lookahead"
OF_WARM_UP = (MAP_FEATURES, MAP_DISTANCES, MAPS, COSINES, LOOKAHEAD)
"""Signals of a warm-up; see :meth:`WarmUp.run`."""
_MAPPED = {MAP_FEATURES, MAP_DISTANCES, MAPS}


@dataclass(frozen=True)
class Watching:
    """What a warm-up records.

    Attributes:
        snapshots: Number of data map snapshots, E, evenly spread over the epochs from the second to the last.
        affinity_every: Optimiser steps between measurements of affinities, from the first step on.
    """

    snapshots: int
    affinity_every: int


class WarmUp:
    """Trains all tasks of N instances together and records data maps and affinities."""

    def __init__(self, problem: Problem, recipe: Recipe, ids: Sequence[int]) -> None:
        self.problem = problem
        self._recent: deque[Tensor] = deque(maxlen=1)
        self.trainer = Trainer(problem, recipe, len(ids), recorder=self._keep)
        self.trainer.begin(range(len(ids)), ids)

    def _keep(self, losses: Tensor, labels: Tensor) -> None:
        """Keeps the losses (N, B, all tasks) of a batch's samples."""
        self._recent.append(losses)

    def run(self, watching: Watching, needs: Collection[str]) -> dict[str, Tensor]:
        """Runs the whole training with weights of 1.

        Returns:
            The needed signals by name: ``map_features`` (N, K, E, 7), :func:`~mtl_gym.decisions.grouping.data_maps.summaries` of
            the tasks' data maps at the snapshots; ``map_distances`` (N, K (K - 1) / 2), Euclidean distances of the data maps at all
            snapshots, over ``sqrt(E * n * 2)``; ``maps`` (N, K, n, 2), final confidence and variability, NaN for samples without a
            label; ``gradient_cosines`` (N, K (K - 1) / 2), mean cosines of the tasks' shared-parameter gradients; ``lookahead``
            (N, K, K), mean :meth:`lookahead`. Pairs are the upper triangle by rows.

            Where labels are missing, features are those of each task's labelled samples, distances are over the n samples with
            labels of both tasks, and cosines and looks ahead are means over the batches with labels of both. If no sample has both,
            the distance is that of the maps' means, over ``sqrt(E * 2)``.
        """
        trainer, steps = self.trainer, self.trainer.recipe.train_steps
        ones, active = torch.ones_like(trainer.ledger.scales), torch.ones_like(trainer.ledger.step, dtype=torch.bool)
        recorders = [] if _MAPPED.isdisjoint(needs) else self._recorders(watching.snapshots)
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor | int] = {}
        with progress_bar(steps, f"warm-up: {trainer.num_replicas} trainings of all tasks") as update:
            for step in range(steps):
                if step % watching.affinity_every == 0:
                    for name, (values, known) in self._measured(needs).items():
                        sums[name], counts[name] = sums.get(name, 0) + values, counts.get(name, 0) + known
                trainer.update(ones, active)
                for recorder in recorders:
                    recorder.record(step, self._recent)
                update(advance=1)
        found = {name: total / torch.as_tensor(counts[name]).clamp(min=1) for name, total in sums.items()}
        if recorders:
            maps, places = [recorder.found(needs) for recorder in recorders], torch.cat([own.rows for own in recorders]).argsort()
            found |= {name: torch.cat([own[name] for own in maps])[places] for name in maps[0]}
        self._recent.clear()
        return {name: found[name] for name in needs}

    def _recorders(self, snapshots: int) -> list[_Recorder]:
        """One for each epoch length among the trainings."""
        lengths = steps_per_epoch(self.trainer)
        self._recent = deque(maxlen=int(lengths.max()))
        return [_Recorder(self.trainer, (lengths == own).nonzero()[:, 0], own, snapshots) for own in lengths.unique().tolist()]

    def _measured(self, needs: Collection[str]) -> dict[str, tuple[Tensor, Tensor | int]]:
        """:meth:`affinities`, 0 where the batch has no label of one of the two tasks, and whether it has labels of both: 1 or 0."""
        found, losses = self.affinities(needs), self.trainer.losses
        if losses.drawn.complete or not found:
            return {name: (values, 1) for name, values in found.items()}
        present = losses.labelled()  # (N, K)
        both = (present[:, :, None] & present[:, None]).long()
        first, second = torch.triu_indices(both.shape[1], both.shape[2], offset=1)
        known = {COSINES: both[:, first, second], LOOKAHEAD: both}
        return {name: (values * known[name], known[name]) for name, values in found.items()}

    def affinities(self, needs: Collection[str]) -> dict[str, Tensor]:
        """``gradient_cosines`` and ``lookahead``, if needed, on the batch about to be trained on."""
        computed: dict[str, Callable[[Tensor], Tensor]] = {
            COSINES: lambda shared: cosines(shared @ shared.mT),
            LOOKAHEAD: self.lookahead,
        }
        wanted = {name: compute for name, compute in computed.items() if name in needs}
        if not wanted:
            return {}
        shared = self.trainer.task_gradients()[0][:, :, : self.trainer.model.num_shared]
        return {name: compute(shared) for name, compute in wanted.items()}

    def lookahead(self, gradients: Tensor) -> Tensor:
        """How a plain gradient step on task i alone changes task j's loss on the same batch (N, K, K), from gradients g (N, K, Q).

        ``1 - L_j(theta - lr g_i) / L_j(theta)``, theta being the shared parameters: positive if task i helps task j. Fifty et al.,
        "Efficiently Identifying Task Groupings for Multi-Task Learning" (TAG), NeurIPS 2021, equation 1.
        """
        trainer, replicas = self.trainer, self.trainer.replicas
        losses, rates = trainer.losses.forward().clamp(min=SMALLEST_LOSS), learning_rates(trainer)[:, None]
        table = []
        for gradient in gradients.unbind(1):
            moved = replicas.flat.clone()
            moved[:, : trainer.model.num_shared] -= rates * gradient
            table.append(1 - trainer.losses.at(replicas.views(moved), trainer.ledger.step) / losses)
        return torch.stack(table, dim=1)


class _Recorder:
    """Records the data maps of the R trainings of a warm-up with the same epoch length."""

    def __init__(self, trainer: Trainer, rows: Tensor, length: int, snapshots: int) -> None:
        self._train_steps = trainer.recipe.train_steps
        self.rows, self.length, epochs = rows, length, -(-self._train_steps // length)
        self._tasks = trainer.ledger.tasks[rows]
        self._counts = torch.tensor([len(own.rows) for own in trainer.ledger.instances if own], device=rows.device)[rows]
        self._times = torch.linspace(min(2, epochs), epochs, snapshots).round().tolist()
        order = trainer.losses.drawn.batches.order[rows, : self._train_steps]
        self._labelled = None if trainer.losses.drawn.complete else labelled_samples(trainer)[rows]
        samples = len(trainer.problem.splits["train"])
        self._maps = DataMaps(order, length, samples, trainer.recipe.num_tasks, self._labelled)
        self._features: list[Tensor] = []  # per snapshot, (R, K, 7)
        self._squares: list[Tensor] = []  # per snapshot, (R, K, K)

    def record(self, step: int, recent: Sequence[Tensor]) -> None:
        """At the end of an epoch, records its sample losses (N, B, all tasks), the last ones of ``recent``; steps count from 0."""
        if (step + 1) % self.length == 0 or step + 1 == self._train_steps:
            losses = torch.stack(list(recent)[-(step % self.length) - 1 :])  # (L, N, B, all tasks)
            if len(self.rows) != losses.shape[1]:
                losses = losses[:, self.rows]
            if self._tasks.shape[1] != losses.shape[3]:
                losses = losses.gather(3, self._tasks[:, None].expand(len(losses), -1, losses.shape[2], -1))
            self._maps.add(losses.mul_(-1 / math.log(2)).exp2_())  # exp(-losses) in half the time
            self._snap(step // self.length + 1)

    def _snap(self, epoch: int) -> None:
        """Takes the snapshots due after that many epochs."""
        if due := self._times.count(epoch):
            confidence, variability = self._maps.confidence, self._maps.variability()
            self._features += due * [summaries(confidence, variability, self._maps.counting)]
            self._squares += due * [squared_distances(confidence, variability, self._labelled)]

    def found(self, needs: Collection[str]) -> dict[str, Tensor]:
        """The needed signals by name; see :meth:`WarmUp.run`."""
        kept: dict[str, Callable[[], Tensor]] = {
            MAP_FEATURES: lambda: torch.stack(self._features, dim=2),
            MAP_DISTANCES: self._distances,
            MAPS: self._final,
        }
        return {name: compute() for name, compute in kept.items() if name in needs}

    def _final(self) -> Tensor:
        maps = torch.stack([self._maps.confidence, self._maps.variability()], dim=3)
        known = maps if self._labelled is None else maps.masked_fill(~self._labelled[:, :, :, None], torch.nan)
        return known.movedim(1, 2)

    def _distances(self) -> Tensor:
        squares = torch.stack(self._squares).mean(0)
        means = squares / (2 * self._counts)[:, None, None] if self._labelled is None else self._of_common(squares, self._labelled)
        first, second = torch.triu_indices(means.shape[1], means.shape[1], offset=1)
        return means[:, first, second].sqrt().float()

    def _of_common(self, squares: Tensor, labelled: Tensor) -> Tensor:
        """Mean squared distances (R, K, K) of the tasks' maps over their common samples; of the maps' means if there are none."""
        common = labelled.double().mT @ labelled.double()
        centres = torch.stack(self._features)[..., :2].double()  # (E, R, K, 2)
        apart = (centres[:, :, :, None] - centres[:, :, None]).square().sum(4).mean(0)
        return torch.where(common > 0, squares / common.clamp(min=1), apart) / 2


def labelled_samples(trainer: Trainer) -> Tensor:
    """Whether each sample that an instance trains on has a label of each task, its own or another sample's (N, n, K) bool."""
    data, tasks = trainer.losses.data, trainer.ledger.tasks
    known = data.known(data.train_labels(), tasks)
    used = torch.zeros(known.shape[:2], dtype=torch.bool, device=tasks.device)
    for row, instance in enumerate(trainer.ledger.instances):
        if instance is not None:
            used[row, torch.from_numpy(instance.rows)] = True
    return known & used[:, :, None]
