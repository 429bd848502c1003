"""Nearest flips: the labels of the most similar sample with another label."""

from __future__ import annotations

import weakref

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtl_gym.problems.base import Problem
from mtl_gym.problems.inputs import features
from mtl_gym.problems.splits import Split

_CHUNK = 512  # samples whose distances are computed at once
_known: weakref.WeakKeyDictionary[Problem, dict[int, npt.NDArray[np.int32]]] = weakref.WeakKeyDictionary()


def opposites(problem: Problem, task: int) -> npt.NDArray[np.int32]:
    """For each training sample the nearest one (Euclidean, in the inputs) with a different label of a task: indices (n,).

    Labels that separate similar samples and unite different ones require the opposite of what other tasks need from the trunk.
    Classes differ if they are not equal; numbers, vectors and images if their root mean square distance, over the pixels that both
    have, is at least the labels' standard deviation. A sample without such a partner, or without a label, keeps its own. Computed
    once per problem.
    """
    own = _known.setdefault(problem, {})
    if task not in own:
        own[task] = opposites_in(problem.splits["train"], problem, task)
    return own[task]


def opposites_in(split: Split, problem: Problem, task: int) -> npt.NDArray[np.int32]:
    """The same among the samples of any split; computed anew."""
    inputs, labels = features(split.inputs), split.targets[:, problem.target_slices[task]].flatten(1)
    known, labels = (~torch.isnan(labels)).to(labels.dtype), labels.nan_to_num()
    are_classes = labels.shape[1] == 1 and problem.tasks[task].objective.labels in ("classes", "binary")
    least = 0.0 if are_classes else _deviation(labels, known)
    found = []
    for rows in torch.arange(len(split)).split(_CHUNK):
        apart, shared = _apart(labels, known, rows)
        partner = (shared > 0) & (apart > 0) & (apart >= least)
        distances = torch.cdist(inputs[rows], inputs).masked_fill(~partner, torch.inf)
        nearest, place = distances.min(1)
        found.append(torch.where(torch.isfinite(nearest), place, rows))
    return torch.cat(found).numpy().astype(np.int32)


def _apart(labels: Tensor, known: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square distances (R, n) of the labels of ``rows`` (R,) to all, over the values that both have, and their number."""
    shared = known[rows] @ known.T
    squares = labels.square()
    total = squares[rows] @ known.T - 2 * labels[rows] @ labels.T + known[rows] @ squares.T
    return (total.clamp(min=0) / shared.clamp(min=1)).sqrt(), shared


def _deviation(labels: Tensor, known: Tensor) -> float:
    """Root of the mean variance of labels (n, V), over the known ones."""
    counts = known.sum(0)
    centred = (labels - labels.sum(0) / counts.clamp(min=1)) * known
    return float((centred.square().sum(0) / (counts - 1).clamp(min=1)).mean().sqrt())
