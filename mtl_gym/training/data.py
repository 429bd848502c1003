"""The data of N training runs: the splits on their device, the fixed held-out samples, and the labels, including wrong ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_gym.checks import should
from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.instances import WRONG_LABELS, Instance
from mtl_gym.problems.losses import LOSSES, labelled
from mtl_gym.training.recipe import Recipe

HOLDOUTS = ("meta", "reward")
"""Splits with fixed samples on which losses are measured."""
_RARE = 0.05  # probability of a batch without a label of some task


class TrainingData:
    """The data of a problem, for N replicas."""

    def __init__(self, problem: Problem, recipe: Recipe) -> None:
        device = torch.device(recipe.device)
        splits = problem.splits.items()
        self.splits = {name: split.to(device) for name, split in splits}
        # (n,) indices of the fixed samples, evenly spaced over their split
        self.holdouts = {name: spread(len(problem.splits[name]), recipe.holdout_size).to(device) for name in HOLDOUTS}
        held_out = [(name, self.splits[name], rows) for name, rows in self.holdouts.items()]
        self._measured = {name: Split(take(own.inputs, rows), take(own.targets, rows)) for name, own, rows in held_out}
        self._problem, self._columns = problem, problem.target_slices

    def labels(self, split: str, samples: Tensor, positions: Tensor, sources: Mapping[str, Tensor]) -> Tensor:
        """Labels (N, B, T, *S) of samples (N, B) of a split, including wrong ones.

        ``sources`` (N, n, tasks) of splits with wrong labels hold the sample whose label each sample has; ``positions`` (N, B) or
        (B,) are the samples' positions in them.
        """
        targets = self.splits[split].targets
        if split not in sources:
            return take(targets, samples)
        rows = torch.arange(len(samples), device=samples.device)[:, None]
        bearers = sources[split][rows, positions].unbind(2)  # each (N, B)
        return torch.cat([take(targets[:, own], bearer) for own, bearer in zip(self._columns, bearers, strict=True)], dim=2)

    def drawn_sources(self, split: str, instance: Instance) -> Tensor:
        """Index (n, all tasks) of the sample whose label each sample of *train*, or each held-out one, has in an instance."""
        if split == "train":
            return torch.from_numpy(instance.label_source(self._problem))
        rows = self.holdouts[split].cpu().numpy()
        return torch.from_numpy(instance.holdout_source(split, self._problem.num_tasks, rows))

    def holdout_inputs(self, names: Sequence[str]) -> list[Tensor]:
        """Inputs (n, *shape) of the splits' fixed samples."""
        return [self._measured[name].inputs for name in names]

    def holdout_labels(self, name: str, num_replicas: int, sources: Mapping[str, Tensor]) -> Tensor:
        """Labels (N, n, T, *S) of a split's fixed samples."""
        if name not in sources:
            targets = self._measured[name].targets
            return targets.expand(num_replicas, *targets.shape)
        rows = self.holdouts[name]
        return self.labels(name, rows.expand(num_replicas, -1), torch.arange(len(rows), device=rows.device), sources)

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
        return [labelled(labels[:, :, own].flatten(0, 1), joint=LOSSES[task.loss].joint).view(shape) for task, own in pairs]


def _of_tasks(parts: Sequence[Tensor], tasks: Tensor) -> Tensor:
    """The participating tasks' (N, B, K), for tasks (N, K), of those of all tasks, each (N, B)."""
    return torch.stack([*parts], dim=2).gather(2, tasks[:, None].expand(-1, parts[0].shape[1], -1))


def take(table: Tensor, rows: Tensor) -> Tensor:
    """Rows (N, B) of a table (n, ...) as (N, B, ...); faster than indexing."""
    return table.index_select(0, rows.flatten()).view(*rows.shape, *table.shape[1:])


def noisy_splits(problem: Problem, recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Shapes (n, all tasks) of the source tables that the distribution requires."""
    most = {axis: recipe.distribution[axis][1] for axis in (*WRONG_LABELS, "holdout_noise")}
    sizes = {"train": len(problem.splits["train"])} if any(most[axis] > 0 for axis in WRONG_LABELS) else {}
    if sizes and most["holdout_noise"] > 0:
        sizes |= {name: min(recipe.holdout_size, len(problem.splits[name])) for name in HOLDOUTS}
    return {name: (size, problem.num_tasks) for name, size in sizes.items()}


def check_data(problem: Problem, recipe: Recipe) -> None:
    """Checks that there are batches, and that they and the held-out samples have labels of every task that may take part.

    Raises a ValueError if the distribution's smallest training set is smaller than a batch, or the held-out samples, or more than a
    twentieth of the batches, have no label of some task.
    """
    smallest = round(len(problem.splits["train"]) * recipe.distribution["size"][0])
    if smallest < recipe.batch_size:
        raise ValueError(should("batch_size", f"be at most {smallest}, the smallest training set", recipe.batch_size))
    for name in ("train", *HOLDOUTS):
        problem.check_labelled(name, recipe.tasks)
    for task, own in zip(problem.tasks, problem.target_slices, strict=True):
        if task.name not in recipe.tasks:
            continue
        joint, splits = LOSSES[task.loss].joint, problem.splits
        known = {name: labelled(splits[name].targets[:, own], joint=joint) for name in ("train", *HOLDOUTS)}
        for name in HOLDOUTS:
            if not known[name][spread(len(known[name]), recipe.holdout_size)].any():
                condition = f"be larger: the fixed samples of {name} have no label of the task {task.name!r}"
                raise ValueError(should("holdout_size", condition, recipe.holdout_size))
        fraction = float(known["train"].float().mean())
        if (1 - fraction) ** recipe.batch_size > _RARE:
            condition = f"be larger: {fraction:.1%} of the samples have a label of the task {task.name!r}"
            raise ValueError(should("batch_size", condition, recipe.batch_size))


def spread(count: int, size: int) -> Tensor:
    """At most ``size`` indices below ``count``, evenly spaced."""
    return torch.linspace(0, count - 1, min(size, count), dtype=torch.float64).round().long()
