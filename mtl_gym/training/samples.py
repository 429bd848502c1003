"""The samples that a learner reads: the splits on its device, the fixed hold-out samples, and the labels that samples bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtl_gym.arguments import should
from mtl_gym.problems.base import Problem, Split
from mtl_gym.problems.instances import WRONG_LABELS
from mtl_gym.training.recipe import Recipe

HOLDOUTS = ("meta", "reward")
"""Splits that losses are measured on, on fixed samples."""


_RARE = 0.05  # probability of a batch without a label of some task


class Samples:
    """The data of a problem, for N replicas.

    Args:
        problem: The problem.
        recipe: Gives the device and the number of hold-out samples.

    Attributes:
        splits: The splits, on the device.
        holdouts: (n,) the fixed samples of *meta* and *reward*, evenly spread over the split.
    """

    def __init__(self, problem: Problem, recipe: Recipe) -> None:
        device = torch.device(recipe.device)
        splits = problem.splits.items()
        self.splits = {name: Split(split.inputs.to(device), split.targets.to(device)) for name, split in splits}
        self.holdouts = {name: spread(len(problem.splits[name]), recipe.holdout_size).to(device) for name in HOLDOUTS}
        self._measured = {
            name: Split(*(take(part, rows) for part in (self.splits[name].inputs, self.splits[name].targets)))
            for name, rows in self.holdouts.items()
        }
        self._columns = problem.target_slices

    def labels(self, split: str, samples: Tensor, positions: Tensor, sources: Mapping[str, Tensor]) -> Tensor:
        """Labels (N, B, T, *S) that samples bear, the wrong ones included.

        Args:
            split: Name of the split.
            samples: (N, B) rows of the split.
            positions: (N, B) or (B,) the samples' places in the table of sources.
            sources: For each split with wrong labels (N, n, tasks): the sample whose label each one bears.
        """
        targets = self.splits[split].targets
        if split not in sources:
            return take(targets, samples)
        rows = torch.arange(len(samples), device=samples.device)[:, None]
        bearers = sources[split][rows, positions].unbind(2)  # each (N, B)
        return torch.cat([take(targets[:, own], bearer) for own, bearer in zip(self._columns, bearers, strict=True)], dim=2)

    def holdout_inputs(self, names: Sequence[str]) -> list[Tensor]:
        """Inputs (n, *shape) of the fixed samples of these splits."""
        return [self._measured[name].inputs for name in names]

    def holdout_labels(self, name: str, num_replicas: int, sources: Mapping[str, Tensor]) -> Tensor:
        """Labels (N, n, T, *S) of the fixed samples of a split."""
        if name not in sources:
            targets = self._measured[name].targets
            return targets.expand(num_replicas, *targets.shape)
        rows = self.holdouts[name]
        return self.labels(name, rows.expand(num_replicas, -1), torch.arange(len(rows), device=rows.device), sources)

    def known(self, labels: Tensor, tasks: Tensor) -> Tensor:
        """Whether each sample has a label of each task that takes part (N, B, K), from labels (N, B, T, *S)."""
        known = ~torch.isnan(labels)
        pixels = known.flatten(3).any(3) if known.ndim > 3 else known
        return self.by_task(pixels, tasks)

    def by_task(self, channels: Tensor, tasks: Tensor) -> Tensor:
        """Whether all channels of a task are true (N, B, K), from (N, B, T), for the tasks (N, K) that take part."""
        all_tasks = torch.stack([channels[:, :, own].all(2) for own in self._columns], dim=2)
        return all_tasks.gather(2, tasks[:, None].expand(-1, channels.shape[1], -1))

    def absent(self, labels: Tensor) -> Tensor:
        """Whether a batch's labels (N, B, T, *S) have none of a task (N, all tasks)."""
        missing = torch.isnan(labels).flatten(3).all(3) if labels.ndim > 3 else torch.isnan(labels)  # (N, B, T)
        return torch.stack([missing[:, :, own].all(2).all(1) for own in self._columns], dim=1)


def take(table: Tensor, rows: Tensor) -> Tensor:
    """Rows (N, B) of a table (n, ...): (N, B, ...); faster than an index."""
    return table.index_select(0, rows.flatten()).view(*rows.shape, *table.shape[1:])


def noisy_splits(problem: Problem, recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Shapes (n, all tasks) of the tables of sources that the distribution needs."""
    most = {axis: recipe.distribution[axis][1] for axis in (*WRONG_LABELS, "holdout_noise")}
    sizes = {"train": len(problem.splits["train"])} if any(most[axis] > 0 for axis in WRONG_LABELS) else {}
    if sizes and most["holdout_noise"] > 0:
        sizes |= {name: min(recipe.holdout_size, len(problem.splits[name])) for name in HOLDOUTS}
    return {name: (size, problem.num_tasks) for name, size in sizes.items()}


def check_labels(problem: Problem, recipe: Recipe) -> None:
    """Sees to it that batches and hold-outs have labels of every task that may take part: one without any has no loss to weigh.

    Raises:
        ValueError: If a hold-out has no label of some task, or more than a twentieth of the batches.
    """
    for task, own in zip(problem.tasks, problem.target_slices, strict=True):
        if task.name not in recipe.tasks:
            continue
        known = {name: _labelled(problem.splits[name].targets[:, own]) for name in ("train", *HOLDOUTS)}
        for name in HOLDOUTS:
            if not known[name][spread(len(known[name]), recipe.holdout_size)].any():
                raise ValueError(
                    should("holdout_size", f"be larger: {name} has no label of the task {task.name!r}", recipe.holdout_size)
                )
        share = float(known["train"].float().mean())
        if (1 - share) ** recipe.batch_size > _RARE:
            condition = f"be larger: {share:.1%} of the samples have a label of the task {task.name!r}"
            raise ValueError(should("batch_size", condition, recipe.batch_size))


def _labelled(targets: Tensor) -> Tensor:
    """Whether each sample (n,) has a label."""
    return (~torch.isnan(targets)).flatten(1).any(1)


def spread(count: int, size: int) -> Tensor:
    """``size`` rows of ``count``, evenly spread (all of them, if they are fewer)."""
    return torch.linspace(0, count - 1, min(size, count), dtype=torch.float64).round().long()
