"""Adversarial labels: those of the most similar sample that has another label."""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt
import torch

from mtl_gym.problems.base import Problem

_CHUNK = 512  # samples whose distances are computed at once
_known: weakref.WeakKeyDictionary[Problem, dict[int, npt.NDArray[np.int32]]] = weakref.WeakKeyDictionary()


def opposites(problem: Problem, task: int) -> npt.NDArray[np.int32]:
    """For each training sample the nearest one (Euclidean, in the inputs) whose label of a task differs: (n,).

    Labels that tell similar samples apart and unite different ones ask the trunk for the opposite of what the other tasks need.
    Classes differ if they are not the same; numbers, vectors and images, if their root mean square distance is at least the
    deviation of the labels. A sample without such a partner, or without a label, keeps its own. Computed once for each problem.

    Args:
        problem: The problem.
        task: Number of the task.
    """
    own = _known.setdefault(problem, {})
    if task not in own:
        own[task] = _opposites(problem, task)
    return own[task]


def _opposites(problem: Problem, task: int) -> npt.NDArray[np.int32]:
    split = problem.splits["train"]
    inputs, labels = split.inputs.flatten(1), split.targets[:, problem.target_slices[task]].flatten(1)
    known = ~torch.isnan(labels).any(1)
    labels = labels.nan_to_num()
    least = 0.0 if problem.tasks[task].loss in ("cross_entropy", "bce") else float(labels[known].std(0).square().mean().sqrt())
    found = []
    for rows in torch.arange(len(split)).split(_CHUNK):
        apart = torch.cdist(labels[rows], labels) / labels.shape[1] ** 0.5
        partner = known[None] & known[rows, None] & (apart > 0) & (apart >= least)
        distances = torch.cdist(inputs[rows], inputs).masked_fill(~partner, torch.inf)
        nearest, place = distances.min(1)
        found.append(torch.where(torch.isfinite(nearest), place, rows))
    return torch.cat(found).numpy().astype(np.int32)
