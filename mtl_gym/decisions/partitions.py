"""Partitions of K tasks, as labels (K,): each task's label is the lowest task of its block."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

MOST_LISTED = 6
"""Largest number of tasks for which all partitions are listed: 203 for 6 tasks."""
MOST_SEARCHED = 8
"""Largest number of tasks for which all partitions are searched: 4,140 for 8 tasks."""


@functools.cache
def partitions(num_tasks: int) -> Tensor:
    """All partitions (P, K), those with the most blocks first: from every task alone (row 0) to one block."""
    rows = sorted(_labels(num_tasks), key=lambda row: (-len(set(row)), row))
    return torch.tensor(rows)


def _labels(num_tasks: int) -> Iterator[tuple[int, ...]]:
    if num_tasks == 0:
        yield ()
        return
    for head in _labels(num_tasks - 1):
        for label in sorted({*head, num_tasks - 1}):
            yield (*head, label)


def together(labels: Tensor) -> Tensor:
    """Whether two tasks are in the same block (..., K, K), from labels (..., K)."""
    return labels[..., :, None] == labels[..., None, :]


def labels(pairs: Tensor) -> Tensor:
    """Labels (..., K) of the partition in which the given pairs (..., K, K) bool are together."""
    return pairs.int().argmax(-1)  # the first of the largest


def joined(labels: Tensor, first: int, second: int) -> Tensor:
    """The labels (K,) after joining the blocks of two tasks."""
    low, high = sorted((int(labels[first]), int(labels[second])))
    return torch.where(labels == high, low, labels)


def refines(finer: Tensor, coarser: Tensor) -> Tensor:
    """Whether every block of ``finer`` lies within a block of ``coarser`` (...), from labels (..., K)."""
    return (together(coarser) | ~together(finer)).flatten(-2).all(-1)


def coarsest(similarity: Tensor, threshold: float) -> Tensor:
    """Labels (K,) of MTSL's grouping: the partition with the fewest blocks whose mean affinity reaches the threshold.

    A task's affinity is its mean similarity with its block, 0 if alone (Gurulingan, Zonooz and Arani, "Multi-Task Structural
    Learning using Local Task Similarity induced Neuron Creation and Removal", ICML 2023). Ties are broken by the largest mean
    affinity; if no partition qualifies, all tasks are alone. Beyond 8 tasks, only the partitions of average linkage are searched.

    Args:
        similarity: (K, K), symmetric; negative and non-finite values count as 0.
        threshold: In [0, 1]; at 1, all are alone.
    """
    count, similarity = len(similarity), similarity.nan_to_num(0.0, 0.0, 0.0)
    candidates = partitions(count) if count <= MOST_SEARCHED else _linked(similarity)
    pairs = together(candidates).double() * (1 - torch.eye(count))
    affinities = (pairs * similarity.double().clamp(0, 1)).sum(-1) / pairs.sum(-1).clamp(min=1)
    means = affinities.mean(-1)
    blocks = (candidates == torch.arange(count)).sum(-1)
    enough = means >= threshold
    if threshold >= 1 or not enough.any():
        return torch.arange(count)
    score = torch.where(enough, means - 2 * blocks, -torch.inf)  # means lie within [0, 1]
    return candidates[int(score.argmax())]


def _linked(similarity: Tensor) -> Tensor:
    """The partitions (K, K) of average linkage, one per number of blocks."""
    distances = 1 - similarity.double().clamp(0, 1).numpy()
    np.fill_diagonal(distances, 0)
    trees = torch.from_numpy(cut_tree(linkage(squareform(distances, checks=False), "average"))).T  # (K levels, K)
    return labels(together(trees))
