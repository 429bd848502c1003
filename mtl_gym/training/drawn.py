"""What instances draw of a problem's data, as tables of N rows: their splits, the sources of their labels, and their batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtl_gym.problems.axes import WRONG_LABELS, extremes
from mtl_gym.problems.base import SPLITS, Problem
from mtl_gym.problems.instances import Instance, Mask
from mtl_gym.problems.labels import labelled_samples
from mtl_gym.training.batches import Batches
from mtl_gym.training.recipe import Recipe
from mtl_gym.training.state import State

HOLDOUTS = ("meta", "reward")
"""Splits with fixed samples on which losses are measured."""


class Drawn:
    """The tables of N rows that the distribution requires.

    Attributes:
        batches: The samples of each batch.
        sources: By split, index (N, n, all tasks) of the sample of the split whose label each sample of *train*, or each fixed one
            of another split, has; -1 where the label is missing. Empty if every sample has its own.
        members: By split, index (N, n) of each sample in the problem's pool; empty if instances have the problem's own split. They
            ascend; where labels are missing, the fixed samples of *meta* and *reward* are exchanged so that they have labels of
            every task.
        moments: Mean and deviation of *train*, (N, ...) by name; empty likewise.
        samples: ``inputs`` (N, P, *shape) and ``targets`` (N, P, T) of a family's instances; empty for other problems.
        complete: Whether all labels of the samples on which losses are computed are there.
    """

    def __init__(self, problem: Problem, recipe: Recipe, state: State) -> None:
        self._problem = problem
        self.batches = Batches(state, recipe.train_steps, recipe.batch_size)
        sizes = source_sizes(problem, recipe).items()
        self.sources = {name: state.add(f"source {name}", size, torch.int32) for name, size in sizes}
        self.members: dict[str, Tensor] = {}
        self.moments: dict[str, Tensor] = {}
        if own_splits(recipe) and problem.pool is not None:
            self.members = {name: state.add(f"members {name}", (len(problem.splits[name]),), torch.int32) for name in SPLITS}
            shapes = vars(problem.pool.moments(problem.pool.rows["train"]))
            self.moments = {name: state.add(f"moments {name}", own.shape) for name, own in shapes.items()}
        self.samples: dict[str, Tensor] = {}
        if problem.family is not None:
            count, train = family_size(problem), problem.splits["train"]
            own = {"inputs": problem.input_shape, "targets": train.targets.shape[1:]}
            self.samples = {name: state.add(f"samples {name}", (count, *shape)) for name, shape in own.items()}
        self.complete = is_complete(problem, recipe)

    def begin(self, row: int, instance: Instance, holdouts: dict[str, Tensor]) -> None:
        """Sets a row to what an instance draws; ``holdouts`` are the indices of the fixed samples of its splits."""
        problem = self._problem
        if instance.members is not None and problem.pool is not None:
            for name, members in self.members.items():
                own = instance.arranged(problem, name, holdouts[name].cpu().numpy()) if name in HOLDOUTS else instance.members[name]
                members[row] = torch.from_numpy(own)
            for name, own in vars(problem.pool.moments(instance.members["train"])).items():
                self.moments[name][row] = own
        if problem.family is not None:
            drawn = instance.samples(problem)
            for name, table in self.samples.items():
                table[row] = getattr(drawn, name)
        for split, source in self.sources.items():
            if split == "train":
                source[row] = torch.from_numpy(instance.label_source(problem))
            else:
                samples = holdouts[split].cpu().numpy()
                known = None if problem.complete else self._labelled(split, row)[:, instance.tasks]
                source[row] = torch.from_numpy(instance.holdout_source(split, problem.num_tasks, samples, known))
        self.batches.begin(row, instance, None if self.complete else self._known(row, instance))

    def _labelled(self, split: str, row: int) -> Mask:
        """Which samples of a row's split have a label of each task (n, all tasks)."""
        problem = self._problem
        if self.members and problem.pool is not None:
            return labelled_samples(problem, problem.pool.samples.targets[self.members[split][row].cpu()])
        return labelled_samples(problem, problem.splits[split].targets)

    def _known(self, row: int, instance: Instance) -> Mask:
        """Which samples that an instance trains on have a label of each participating task, their own or not (n, K)."""
        known = instance.labelled(self._problem)
        if "train" in self.sources:
            source = self.sources["train"][row].cpu().numpy()
            known = np.take_along_axis(known, source.clip(0), axis=0) & (source >= 0)
        used = np.zeros(len(known), dtype=bool)
        used[instance.rows] = True
        return known[:, instance.tasks] & used[:, None]


def own_splits(recipe: Recipe) -> bool:
    """Whether each instance draws its own splits from the problem's pool."""
    return recipe.distribution["split"][1] > 0


def family_size(problem: Problem) -> int:
    """P, the samples of an instance of a family; 0 for other problems."""
    return sum(map(len, problem.splits.values())) if problem.family is not None else 0


def is_complete(problem: Problem, recipe: Recipe) -> bool:
    """Whether the samples on which losses are computed have all labels."""
    return problem.complete and extremes(recipe.distribution, "labels")[0] == 1


def source_sizes(problem: Problem, recipe: Recipe) -> dict[str, tuple[int, int]]:
    """Shapes (n, all tasks) of the tables of sources that the distribution requires."""
    ranges = recipe.distribution
    wrong = any(extremes(ranges, axis)[1] > 0 for axis in WRONG_LABELS)
    sizes = {"train": len(problem.splits["train"])} if wrong or extremes(ranges, "labels")[0] < 1 else {}
    if wrong and ranges["holdout_noise"][1] > 0:
        sizes |= {name: min(recipe.holdout_size, len(problem.splits[name])) for name in HOLDOUTS}
    return {name: (size, problem.num_tasks) for name, size in sizes.items()}
