"""``clusters`` and ``clusters_equal``: a hundred binary tasks in three planted, and therefore known, clusters.

Each cluster has its own inputs and random features of them; each task is a different read-out of its cluster's features. Tasks in
one cluster therefore inform each other about relevant inputs and features, and tasks in different clusters have nothing in common.
In ``clusters`` the features of the three vary at different rates, so the tasks differ in difficulty; in ``clusters_equal`` the
clusters differ only in their inputs. Mean accuracy on *reward* of 6 tasks of each cluster, over 3 instances with the default
training:

| trained with | clusters 0, 1, 2 | of ``clusters_equal`` |
|---|---|---|
| its whole cluster | .947, .839, .610 | .836, .835, .839 |
| no other task | .927, .806, .588 | .794, .807, .803 |
| one task of its cluster | .928, .807, .587 | .798, .809, .810 |
| one task of another cluster | .923, .802, .590 | .796, .802, .798 |
| all tasks | .915, .763, .553 | .750, .744, .760 |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtl_gym.problems.base import Pool, Split, Task

NUM_TASKS, NUM_CLUSTERS = 100, 3
FREQUENCIES = (0.1, 1.2, 2.5)
"""Of each cluster's features: nearly linear, curved, and hard to learn. ``clusters_equal`` uses the second for all three."""
_INPUTS, _FEATURES = 6, 256  # per cluster
_COMMON = 0.3  # fraction of the variance of a task's read-out that is common to its cluster
_SIZES = {"train": 600, "meta": 500, "reward": 1_000, "test": 1_000}


def load() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """Returns a hundred tasks in three clusters of different difficulty, splits of 600, 500, 1,000 and 1,000 samples, and the pool.

    Inputs are 18 standard normal numbers; cluster c has those from 6c to 6c + 5, x_c. Its features are
    ``h_j = sin(f_c w_j x_c + b_j)``, for 256 random w_j and b_j that all clusters share, standardised. Task ``c1_t07`` is the
    eighth of cluster 1: whether ``v_t h`` is above its median, with ``v_t = sqrt(.3) v + sqrt(.7) u_t`` and a separate u_t
    orthogonal to v.
    """
    return _planted(FREQUENCIES)


def load_equal() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """The same with a single frequency, so that the clusters differ only in their inputs; see :func:`load`."""
    return _planted((FREQUENCIES[1],) * NUM_CLUSTERS)


def planted_clusters(names: Sequence[str]) -> list[int]:
    """The cluster of each task, read from its name."""
    return [int(name.removeprefix("c").partition("_")[0]) for name in names]


def _planted(frequencies: Sequence[float]) -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    rng = np.random.default_rng(0)
    projections = rng.normal(size=(_INPUTS, _FEATURES)) / _INPUTS**0.5
    phases = rng.uniform(0, 2 * np.pi, _FEATURES)
    read_outs = _read_outs(rng, -(-NUM_TASKS // NUM_CLUSTERS))
    inputs = rng.normal(size=(sum(_SIZES.values()), NUM_CLUSTERS * _INPUTS))
    features = [
        np.sin(frequency * own @ projections + phases)
        for frequency, own in zip(frequencies, np.split(inputs, NUM_CLUSTERS, axis=1), strict=True)
    ]
    features = [(own - own.mean(0)) / own.std(0) for own in features]
    tasks, labels = [], []
    for number in range(NUM_TASKS):
        place, cluster = divmod(number, NUM_CLUSTERS)
        values = features[cluster] @ read_outs[place]
        tasks.append(Task(f"c{cluster}_t{place:02}", "bce", ("accuracy",)))
        labels.append(values > np.median(values))
    pool = Pool.in_order(Split.of(inputs, labels), _SIZES)
    return tuple(tasks), pool.splits(pool.rows), pool


def _read_outs(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Unit vectors v_t (count, features) whose cosines are near the common fraction."""
    common = rng.normal(size=_FEATURES)
    common /= np.linalg.norm(common)
    own = rng.normal(size=(count, _FEATURES))
    own -= (own @ common)[:, None] * common
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    return _COMMON**0.5 * common + (1 - _COMMON) ** 0.5 * own
