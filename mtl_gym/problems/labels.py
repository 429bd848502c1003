"""Which labels are there: of a split's samples, of an instance that keeps a fraction of them, and in each batch.

n samples, T tasks of the problem, K participating ones, H batches of B samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mtl_gym.problems.base import Problem
from mtl_gym.problems.losses import labelled

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


def labelled_samples(problem: Problem, targets: Tensor) -> Mask:
    """Whether each sample has a label of each task with which its loss has a value (n, T), from targets (n, channels, *S)."""
    pairs = zip(problem.tasks, problem.target_slices, strict=True)
    columns = [labelled(targets[:, own], joint=task.objective.joint).numpy() for task, own in pairs]
    return np.stack(columns, axis=1)


def kept_labels(known: Mask, rows: Indices, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> Mask:
    """Which labels (n, K) are kept: a fraction ``shares`` (K,) of each task's among ``rows``, but at least one if there is any.

    ``known`` (n, K) are the labels that there are. Labels outside ``rows``, which are not trained on, are not kept.
    """
    kept = np.zeros_like(known)
    for task, share in enumerate(shares):
        candidates = rng.permutation(rows[known[rows, task]])
        kept[candidates[: max(1, round(share * len(candidates)))], task] = True
    return kept


def complete_batches(order: npt.NDArray[np.int32], known: Mask, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Batches (H, B) in which every task has a label where that is possible; others keep their samples.

    A batch without a label of some task gets a random sample that has one, in place of a random sample that is not the only one
    with a label of some other task. ``known`` (n, K) are the labelled samples of each task.
    """
    order, columns = order.copy(), np.ascontiguousarray(known.T)
    counts = np.stack([own[order].sum(1) for own in columns], axis=1)  # (H, K) labels of each task in each batch
    packed = np.packbits(known, axis=1)  # (n, K / 8), as the tasks that have their only label there, below
    for task, own in enumerate(columns):
        donors = np.flatnonzero(own).astype(np.int32)
        steps = np.flatnonzero(counts[:, task] == 0) if len(donors) else np.arange(0)
        only = np.packbits(counts[steps] == 1, axis=1)
        spare: Mask = ~np.any(packed[order[steps]] & only[:, None], axis=2)  # (M, B) of M batches without a label of the task
        numbers = spare.sum(1)
        steps, spare, numbers = steps[numbers > 0], spare[numbers > 0], numbers[numbers > 0]
        # A batch's donor and place are drawn one after the other, batch by batch.
        donor, place = rng.integers(0, np.stack([np.full_like(numbers, len(donors)), numbers], axis=1)).T
        places, new = (spare.cumsum(1) > place[:, None]).argmax(1), donors[donor]
        counts[steps] += known[new].astype(np.int64) - known[order[steps, places]]
        order[steps, places] = new
    return order


def with_labels(places: Indices, known: Mask, rng: np.random.Generator) -> Indices:
    """An order (n,) of a split's samples in which those at some ``places`` (B,) have a label of every task where that is possible.

    Samples change places as in :func:`complete_batches`; B of at least K suffices where each task has a label at all.
    """
    order = np.arange(len(known))
    filled = complete_batches(places[None].astype(np.int32), known, rng)[0].astype(np.int64)
    order[places], order[filled] = filled, places
    return order
