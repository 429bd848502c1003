"""The data of N training runs: the splits on their device, the fixed held-out samples, and the labels, including wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from mtl_gym.checks import should
from mtl_gym.problems.base import Problem
from mtl_gym.problems.drawn_splits import check_drawable
from mtl_gym.problems.families import rows_of
from mtl_gym.problems.inputs import Inputs, concatenated, each
from mtl_gym.problems.labels import labelled_samples
from mtl_gym.problems.losses import labelled
from mtl_gym.problems.splits import Split
from mtl_gym.training.drawn import HOLDOUTS, Drawn, own_splits
from mtl_gym.training.ledger import Ledger
from mtl_gym.training.recipe import Recipe


class TrainingData:
    """The data of a problem, for N replicas: the problem's own splits, or what each replica's instance has drawn.

    Positions are indices of samples in a split.
    """

    def __init__(self, problem: Problem, recipe: Recipe, drawn: Drawn) -> None:
        device = torch.device(recipe.device)
        self._problem, self._columns, self._drawn = problem, problem.target_slices, drawn
        self._num_replicas = len(drawn.batches.order)
        self._pool, self._members = _pool(problem, drawn, device)
        self._splits = {} if self._pool else {name: split.to(device) for name, split in problem.splits.items()}
        # (n,) positions of the fixed samples, evenly spaced over their split
        self.holdouts = {name: spread(len(problem.splits[name]), recipe.holdout_size).to(device) for name in HOLDOUTS}
        held_out = [(name, own, self.holdouts[name]) for name, own in self._splits.items() if name in HOLDOUTS]
        self._measured = {name: own[rows] for name, own, rows in held_out}
        self._every = {name: torch.arange(len(split), device=device) for name, split in problem.splits.items()}

    @property
    def apart(self) -> bool:
        """Whether replicas have samples of their own, so that targets have a replica axis."""
        return self._pool is not None

    # --- inputs --------------------------------------------------------------------------------------------------------------

    def inputs(self, split: str, positions: Tensor, rows: Tensor | None = None) -> Inputs:
        """Inputs (N, B, *shape) of samples (N, B) of a split; of some rows (R,), if they are given, (R, B, *shape) of (R, B)."""
        if self._pool is None:
            alike = len(positions) > 1 and torch.equal(positions, positions[:1].expand_as(positions))
            read = positions[:1] if alike else positions  # reading shared rows once is faster
            found = each(lambda own: take(own, read), self._splits[split].inputs)
            return each(lambda own: own.expand(len(positions), *own.shape[1:]), found) if alike else found
        chosen = slice(None) if rows is None else rows
        members = self._members[split][chosen].gather(1, positions.long())
        found = each(lambda own: take(own, members), self._pool.inputs)
        if not self._drawn.moments or not isinstance(found, Tensor) or not found.is_floating_point():
            return found  # which nothing scales
        mean, deviation = (self._drawn.moments[f"input_{name}"][chosen, None] for name in _MOMENTS)
        return found.sub_(mean).div_(deviation)

    def fixed_inputs(self, split: str, positions: Tensor) -> Inputs:
        """Inputs (N, B, *shape) of the same samples (B,) of a split in all rows; no memory is taken where they are the same."""
        if self._pool is None:
            return each(lambda own: self._everywhere(own[positions]), self._splits[split].inputs)
        return self.inputs(split, positions.expand(self._num_replicas, -1))

    def holdout_inputs(self, names: Sequence[str]) -> Inputs:
        """Inputs (N, n, *shape) of the splits' fixed samples, one split after another."""
        if self._pool is None:
            return each(self._everywhere, concatenated([self._measured[name].inputs for name in names], dim=0))
        return concatenated([self.fixed_inputs(name, self.holdouts[name]) for name in names], dim=1)

    def chunks(self, split: str, size: int) -> Iterator[Inputs]:
        """Inputs (N, at most ``size``, *shape) of a whole split."""
        for positions in self._every[split].split(size):
            yield self.fixed_inputs(split, positions)

    def _everywhere(self, shared: Tensor) -> Tensor:
        return shared.expand(self._num_replicas, *shared.shape)

    # --- labels --------------------------------------------------------------------------------------------------------------

    def own_labels(self, split: str, positions: Tensor, columns: slice = slice(None)) -> Tensor:
        """The labels (N, B, T, *S) of samples (N, B) of a split themselves, before any are replaced or removed.

        ``columns`` are those of the T that are wanted.
        """
        if self._pool is None:
            return take(self._splits[split].targets[:, columns], positions)
        found = take(self._pool.targets[:, columns], self._members[split].gather(1, positions.long()))
        if not self._drawn.moments:
            return found
        moments = (self._drawn.moments[f"target_{name}"][:, columns] for name in _MOMENTS)
        mean, deviation = (own.reshape(len(found), 1, -1, *[1] * (found.ndim - 3)) for own in moments)
        return found.sub_(mean).div_(deviation)

    def labels(self, split: str, samples: Tensor, places: Tensor) -> Tensor:
        """Labels (N, B, T, *S) of samples (N, B) of a split as they are trained on: wrong ones included, NaN where missing.

        ``places`` (N, B) or (B,) are the samples' places in the split's table of sources.
        """
        sources = self._drawn.sources
        if split not in sources:
            return self.own_labels(split, samples)
        rows = torch.arange(len(samples), device=samples.device)[:, None]
        bearers = sources[split][rows, places].unbind(2)  # each (N, B)
        return torch.cat([self._borne(split, own, bearer) for own, bearer in zip(self._columns, bearers, strict=True)], dim=2)

    def _borne(self, split: str, columns: slice, bearers: Tensor) -> Tensor:
        """A task's labels of the samples (N, B), NaN where they are -1."""
        found = self.own_labels(split, bearers if self._drawn.complete else bearers.clamp(min=0), columns)
        if self._drawn.complete:
            return found
        return found.masked_fill((bearers < 0).view(*bearers.shape, *[1] * (found.ndim - 2)), torch.nan)

    def holdout_labels(self, name: str) -> Tensor:
        """Labels (N, n, T, *S) of a split's fixed samples."""
        if name not in self._drawn.sources and self._pool is None:
            return self._everywhere(self._measured[name].targets)
        rows = self.holdouts[name]
        return self.labels(name, rows.expand(self._num_replicas, -1), torch.arange(len(rows), device=rows.device))

    def targets(self, split: str) -> Tensor:
        """The own labels of a whole split: (n, T, *S), or (N, n, T, *S) where rows have their own splits."""
        if self._pool is None:
            return self._splits[split].targets
        return self.own_labels(split, self._every[split].expand(self._num_replicas, -1))

    def train_labels(self) -> Tensor:
        """Labels (N, n, T, *S) of all training samples as they are trained on."""
        every = self._every["train"]
        if "train" not in self._drawn.sources and self._pool is None:
            return self._everywhere(self._splits["train"].targets)
        return self.labels("train", every.expand(self._num_replicas, -1), every)

    # --- which labels are there ----------------------------------------------------------------------------------------------

    def known(self, labels: Tensor, tasks: Tensor) -> Tensor:
        """Whether each sample has a label of each participating task, with which its loss has a value (N, B, K).

        ``labels`` are (N, B, T, *S).
        """
        return _of_tasks(self._known(labels), tasks)

    def by_task(self, channels: Tensor, tasks: Tensor) -> Tensor:
        """Whether all channels of a task are true (N, B, K), from (N, B, T), for tasks (N, K)."""
        return _of_tasks([channels[:, :, own].all(2) for own in self._columns], tasks)

    def absent(self, labels: Tensor) -> Tensor:
        """Whether a batch's labels (N, B, T, *S) contain none of a task (N, all tasks)."""
        return torch.stack([~known.any(1) for known in self._known(labels)], dim=1)

    def _known(self, labels: Tensor) -> list[Tensor]:
        """Whether each sample has a label of each of all tasks, each (N, B)."""
        shape, pairs = labels.shape[:2], zip(self._problem.tasks, self._columns, strict=True)
        return [labelled(labels[:, :, own].flatten(0, 1), joint=task.objective.joint).view(shape) for task, own in pairs]


_MOMENTS = ("mean", "deviation")


def _pool(problem: Problem, drawn: Drawn, device: torch.device) -> tuple[Split | None, Mapping[str, Tensor]]:
    """The samples in which replicas have their own rows, and these rows (N, n) of each split; ``None`` where all share the splits.

    They are those of the problem's pool or, of a family, those of all replicas, one after the other.
    """
    if drawn.samples:
        inputs, targets = (drawn.samples[name] for name in ("inputs", "targets"))
        first = torch.arange(len(inputs), device=device)[:, None] * inputs.shape[1]
        rows = rows_of({name: len(split) for name, split in problem.splits.items()})
        members = {name: first + torch.from_numpy(own).to(device) for name, own in rows.items()}
        return Split(inputs.flatten(0, 1), targets.flatten(0, 1)), members
    if drawn.members and problem.pool is not None:
        return problem.pool.samples.to(device), drawn.members
    return None, {}


def _of_tasks(parts: Sequence[Tensor], tasks: Tensor) -> Tensor:
    """The participating tasks' (N, B, K), for tasks (N, K), of those of all tasks, each (N, B)."""
    return torch.stack([*parts], dim=2).gather(2, tasks[:, None].expand(-1, parts[0].shape[1], -1))


def take(table: Tensor, rows: Tensor) -> Tensor:
    """Rows (N, B) of a table (n, ...) as (N, B, ...); faster than indexing."""
    return table.index_select(0, rows.flatten()).view(*rows.shape, *table.shape[1:])


def check_data(problem: Problem, recipe: Recipe) -> None:
    """Checks that there are batches, and that the splits and the held-out samples have labels of every task that may take part.

    Raises a ValueError if the distribution's smallest training set is smaller than a batch, or a split or its fixed held-out
    samples have no label of some task; of splits that instances draw, if such are too rare, or there are too few fixed samples.
    """
    smallest = round(len(problem.splits["train"]) * recipe.distribution["size"][0])
    if smallest < recipe.batch_size:
        raise ValueError(should("batch_size", f"be at most {smallest}, the smallest training set", recipe.batch_size))
    if own_splits(recipe):
        _check_own_splits(problem, recipe)
        return
    for name in ("train", *HOLDOUTS):
        problem.check_labelled(name, recipe.tasks)
    for task, own in zip(problem.tasks, problem.target_slices, strict=True):
        for name in HOLDOUTS if task.name in recipe.tasks else ():
            known = labelled(problem.splits[name].targets[:, own], joint=task.objective.joint)
            if not known[spread(len(known), recipe.holdout_size)].any():
                condition = f"be larger: the fixed samples of {name} have no label of the task {task.name!r}"
                raise ValueError(should("holdout_size", condition, recipe.holdout_size))


def check_first_losses(ledger: Ledger, losses: Tensor, wanted: Tensor) -> None:
    """Raises a ValueError if one of the wanted losses (N, K) is not finite before the first step, which the data or the loss itself
    may cause, but neither the learning rate nor a policy.

    Args:
        ledger: Of the runs.
        losses: (N, C), those of the C first of the participating tasks.
        wanted: (N, C) bool.
    """
    wrong = wanted & ~torch.isfinite(losses)
    if not wrong.any():
        return
    row, column = wrong.nonzero()[0].tolist()
    problem, task = ledger.problem, ledger.problem.tasks[int(ledger.tasks[row, column])]
    condition = (
        f"have finite losses at the initial weights: {task.loss_name!r} of the task {task.name!r} is {losses[row, column].item()}"
    )
    largest, scale = problem.splits["train"].inputs.abs().max().item(), ledger.scales[row, column].item()
    remedy = f"Inputs in train are at most {largest:g} in size, and the instance's scale of this loss is {scale:g}."
    raise ValueError(
        should("problem", condition, problem, f"{remedy} If these are usual sizes, look at mtl_gym.problems.losses.LOSSES.")
    )


def _check_own_splits(problem: Problem, recipe: Recipe) -> None:
    """Checks that splits can be drawn, and that there is room among the fixed samples for a label of every task."""
    check_drawable(problem)
    needed = max(min(recipe.num_tasks, len(problem.splits[name])) for name in HOLDOUTS)
    if problem.pool is None or problem.complete or recipe.holdout_size >= needed:
        return
    if not labelled_samples(problem, problem.pool.samples.targets).all():
        condition = f"be at least {needed}, so that the fixed samples can have a label of every task: some are missing in the pool"
        raise ValueError(should("holdout_size", condition, recipe.holdout_size))


def spread(count: int, size: int) -> Tensor:
    """At most ``size`` indices below ``count``, evenly spaced."""
    return torch.linspace(0, count - 1, min(size, count), dtype=torch.float64).round().long()
