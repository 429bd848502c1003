"""Finds groups of tasks: a search over partitions, clustering, and the number of clusters."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

import mtl_gym
from mtl_gym.baselines.base import Array, Integers

MOST_CLUSTERS = 10
"""Largest number of clusters that is tried where none is given."""

Value = Callable[[Array], Array]
"""Maps groups, given as members (M, K), to their values (M,), summed over their tasks."""


def best_partition(value: Value, num_tasks: int, most: int, group_price: float = 0.0) -> Integers:
    """The labels (K,) of the partition into at most ``most`` groups with the largest mean value minus a price for each group.

    Up to 8 tasks, all partitions are tried. Beyond that, a greedy search starts with single tasks and merges the two groups that
    gain the most, until there are at most ``most`` groups and no merge gains anything.
    """
    if num_tasks > mtl_gym.MOST_SEARCHED:
        return _joined(value, num_tasks, most, group_price)
    labels, blocks = _listed(num_tasks)
    masks = np.arange(1 << num_tasks)
    values = np.concatenate([[0.0], value((masks[1:, None] >> np.arange(num_tasks) & 1).astype(np.float64))])
    counts = (blocks > 0).sum(1)
    scores = values[blocks].sum(1) / num_tasks - group_price * counts
    return np.asarray(labels[np.where(counts <= most, scores, -np.inf).argmax()])


@functools.cache
def _listed(num_tasks: int) -> tuple[Integers, Integers]:
    """All partitions: labels (P, K), and the bit masks (P, K) of their groups, padded with 0."""
    labels = mtl_gym.partitions(num_tasks).numpy()
    own = labels[:, None, :] == np.arange(num_tasks)[:, None]  # (P, groups, K)
    return labels, (own << np.arange(num_tasks)).sum(2)


def _joined(value: Value, num_tasks: int, most: int, group_price: float) -> Integers:
    members = np.eye(num_tasks)
    values = value(members)
    gains = np.full((num_tasks, num_tasks), -np.inf)  # of merging two groups, indexed by their first tasks
    first, second = np.triu_indices(num_tasks, 1)
    gains[first, second] = value(members[first] + members[second]) - values[first] - values[second]
    alive = list(range(num_tasks))
    while len(alive) > 1:
        one, other = divmod(int(gains.argmax()), num_tasks)
        if len(alive) <= most and gains[one, other] / num_tasks + group_price <= 0:
            break
        members[one] += members[other]
        values[one] += values[other] + gains[one, other]
        gains[other], gains[:, other] = -np.inf, -np.inf
        alive.remove(other)
        rest = np.array([task for task in alive if task != one], dtype=np.int64)
        if len(rest):
            changed = value(members[rest] + members[one]) - values[rest] - values[one]
            gains[np.minimum(rest, one), np.maximum(rest, one)] = changed
    return members[alive].argmax(0)


def pairwise(table: Array) -> Value:
    """Values each task of a group by the mean of its values with the others: ``table`` (K, K) of task i (row) with j; i alone."""
    others, alone = table - np.diag(table.diagonal()), table.diagonal()

    def value(members: Array) -> Array:
        sizes = members.sum(1)
        together = ((members @ others) * members).sum(1) / np.maximum(sizes - 1, 1)
        return np.where(sizes > 1, together, members @ alone)

    return value


def points_of(distances: Array) -> Array:
    """Points (K, K - 1) with these Euclidean distances (K, K): classical multidimensional scaling, exact if there are such points.

    Torgerson, "Multidimensional Scaling: I. Theory and Method", Psychometrika 1952.
    """
    count = len(distances)
    centre = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-centre @ distances**2 @ centre / 2)
    return np.asarray((vectors * np.sqrt(values.clip(min=0)))[:, 1:])  # one of the values is zero


def clusters_found(cluster: Callable[[int], npt.ArrayLike], distances: Array, most: int) -> int:
    """The number of clusters, from 2 to 10, with the largest silhouette; 1 if there are two tasks or all are identical.

    ``cluster`` maps a number of clusters, at most ``most``, to labels (K,) of points with these distances (K, K). Rousseeuw,
    "Silhouettes: A Graphical Aid to the Interpretation and Validation of Cluster Analysis", 1987.
    """
    from sklearn.metrics import silhouette_score  # here, so that listing the policies stays light

    counts = range(2, min(most, len(distances) - 1, different(distances), MOST_CLUSTERS) + 1)
    scores = {count: silhouette_score(distances, np.asarray(cluster(count)), metric="precomputed") for count in counts}
    return max(scores, key=lambda count: scores[count], default=1)


def different(distances: Array) -> int:
    """The number of distinct points."""
    same = distances <= 1e-6 * max(float(distances.max()), 1e-12)
    return len(set(same.argmax(1).tolist()))


def square_of(pairs: Array, num_tasks: int, diagonal: float) -> Array:
    """A symmetric table (K, K) from its upper triangle by rows."""
    table = np.full((num_tasks, num_tasks), diagonal)
    first, second = np.triu_indices(num_tasks, 1)
    table[first, second] = table[second, first] = pairs
    return table
