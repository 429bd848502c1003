"""Which labels are there: of a split's samples, of an instance that keeps a fraction of them, and in each batch.

n samples, T tasks of the problem, K participating ones, H batches of B samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mtl_gym.problems.base import Problem
from mtl_gym.problems.losses import LOSSES, labelled

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


def labelled_samples(problem: Problem, targets: Tensor) -> Mask:
    """Whether each sample has a label of each task with which its loss has a value (n, T), from targets (n, channels, *S)."""
    pairs = zip(problem.tasks, problem.target_slices, strict=True)
    columns = [labelled(targets[:, own], joint=LOSSES[task.loss].joint).numpy() for task, own in pairs]
    return np.stack(columns, axis=1)


def labelled_tasks(problem: Problem, targets: Tensor) -> Mask:
    """Whether any sample has one (T,)."""
    return np.asarray(labelled_samples(problem, targets).any(0))


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
    order = order.copy()
    for task in range(known.shape[1]):
        donors = np.flatnonzero(known[:, task]).astype(np.int32)
        for step in np.flatnonzero(~known[order, task].any(1)) if len(donors) else ():
            batch = known[order[step]]  # (B, K)
            spare = np.flatnonzero(~(batch & (batch.sum(0) == 1)).any(1))
            if len(spare):
                order[step, rng.choice(spare)] = rng.choice(donors)
    return order
