"""Partitions of K tasks, as labels (K,): each task's label is the lowest task of its block."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
    """Labels (K,) by the rule of MTSL's paper: the partition with the fewest blocks whose mean affinity reaches the threshold.

    A task's affinity is its mean similarity with its block, 0 if alone (Gurulingan, Zonooz and Arani, "Multi-Task Structural
    Learning using Local Task Similarity induced Neuron Creation and Removal", ICML 2023). Ties are broken by the largest mean
    affinity; if no partition qualifies, all tasks are alone. Beyond 8 tasks, only the partitions of average linkage are searched.

    Args:
        similarity: (K, K), symmetric; negative and non-finite values count as 0.
        threshold: In [0, 1]; at 1, all are alone, at 0, all together.
    """
    candidates, affinities = _candidates(similarity)
    means, blocks = affinities.mean(-1), _blocks(candidates)
    enough = means >= threshold
    if threshold >= 1 or not enough.any():
        return torch.arange(len(similarity))
    score = torch.where(enough, means - 2 * blocks, -torch.inf)  # means lie within [0, 1]
    return candidates[int(score.argmax())]


def exceeding(similarity: Tensor, threshold: float) -> Tensor:
    """Labels (K,) by the rule of MTSL's code: the blocks whose own mean affinity exceeds the threshold; all other tasks are alone.

    The blocks are those of the partition of :func:`coarsest`; if no partition reaches the threshold, those of the partition into at
    most K - 1 blocks with the largest mean affinity. So two similar tasks are merged even if all others are dissimilar, and a
    dissimilar block is not merged because others are similar. Arguments are as for :func:`coarsest`.

    The code is ``create_selection`` and ``fusion_phase`` of github.com/NeurAI-Lab/MTSL; ties apart, it gave the same answers for
    1,240 random matrices of 2 to 6 tasks.
    """
    count = len(similarity)
    if threshold <= 0 or threshold >= 1 or count < 2:
        return torch.zeros(count, dtype=torch.int64) if threshold <= 0 else torch.arange(count)
    candidates, affinities = _candidates(similarity)
    means, blocks = affinities.mean(-1), _blocks(candidates)
    enough = (means >= threshold) & (blocks < count)
    most = blocks[enough].min() if enough.any() else count - 1
    best = int(torch.where(blocks <= most, means, -torch.inf).argmax())
    own = together(candidates[best]).double()
    merged = (own @ affinities[best]) / own.sum(-1) > threshold
    return torch.where(merged, candidates[best], torch.arange(count))


@dataclass(frozen=True)
class Rule:
    """A rule that divides tasks into blocks by a threshold of their similarity.

    Attributes:
        divide: Maps similarities (K, K) and a threshold to labels (K,).
        rest: Whether the tasks that it leaves alone, where others are merged, can be merged with each other later.
    """

    divide: Callable[[Tensor, float], Tensor]
    rest: bool


RULES = {"code": Rule(exceeding, rest=True), "paper": Rule(coarsest, rest=False)}
"""MTSL's rules, as released and as published."""


def _candidates(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """The partitions (P, K) that are searched, and each task's affinity in each of them (P, K)."""
    count, similarity = len(similarity), similarity.nan_to_num(0.0, 0.0, 0.0)
    candidates = partitions(count) if count <= MOST_SEARCHED else _linked(similarity)
    pairs = together(candidates).double() * (1 - torch.eye(count))
    return candidates, (pairs * similarity.double().clamp(0, 1)).sum(-1) / pairs.sum(-1).clamp(min=1)


def _blocks(candidates: Tensor) -> Tensor:
    """Number of blocks (P,) of partitions (P, K)."""
    return (candidates == torch.arange(candidates.shape[1])).sum(-1)


def _linked(similarity: Tensor) -> Tensor:
    """The partitions (K, K) of average linkage, one per number of blocks."""
    distances = 1 - similarity.double().clamp(0, 1).numpy()
    np.fill_diagonal(distances, 0)
    trees = torch.from_numpy(cut_tree(linkage(squareform(distances, checks=False), "average"))).T  # (K levels, K)
    return labels(together(trees))
