"""``relations``: twelve binary tasks in three planted blocks; it is best to train neither all together nor each alone.

The tasks of a block are nearly the same function of two directions of the inputs, so that labels of one are worth labels of the
others; tasks of different blocks depend on different directions of the same inputs and compete for a narrow trunk. With
``distribution={"labels": (.25, .25)}``, each task has labels of a quarter of the samples, its own ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtl_gym.problems.base import Pool, Split, Task

NUM_BLOCKS, PER_BLOCK = 3, 4
_INPUTS, _DIRECTIONS = 16, 2  # directions of a block
_COMMON = 0.95  # fraction of the variance of a task's read-out that is common to its block
_FREQUENCY = 1.5
_SIZES = {"train": 600, "meta": 600, "reward": 1_000, "test": 1_000}


def load() -> tuple[tuple[Task, ...], dict[str, Split], Pool]:
    """Returns twelve tasks in three blocks of four, splits of 600, 600, 1,000 and 1,000 samples, and the pool.

    Inputs are 16 standard normal numbers x. Each block has two orthogonal unit directions p and features
    ``h_j = sin(1.5 p_j x + s_j)`` with random s_j, standardised. Task ``b1_t2`` is the third of block 1: whether ``v_t h`` is above
    its median, with unit vectors ``v_t = sqrt(.95) v + sqrt(.05) u_t`` and u_t orthogonal to v.
    """
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(sum(_SIZES.values()), _INPUTS))
    tasks, labels = [], []
    for block in range(NUM_BLOCKS):
        features = _features(rng, inputs)
        for place, read_out in enumerate(_read_outs(rng)):
            values = features @ read_out
            tasks.append(Task(f"b{block}_t{place}", "bce", ("accuracy",)))
            labels.append(values > np.median(values))
    pool = Pool.in_order(Split.of(inputs, labels), _SIZES)
    return tuple(tasks), pool.splits(pool.rows), pool


def planted_blocks(names: Sequence[str]) -> list[int]:
    """The block of each task, read from its name."""
    return [int(name.removeprefix("b").partition("_")[0]) for name in names]


def _features(rng: np.random.Generator, inputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A block's standardised features (n, directions)."""
    directions = np.linalg.qr(rng.normal(size=(_INPUTS, _DIRECTIONS)))[0]
    features = np.sin(_FREQUENCY * inputs @ directions + rng.uniform(0, 2 * np.pi, _DIRECTIONS))
    return np.asarray((features - features.mean(0)) / features.std(0))


def _read_outs(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Unit vectors v_t (tasks of a block, directions) near a common one."""
    common = rng.normal(size=_DIRECTIONS)
    common /= np.linalg.norm(common)
    own = rng.normal(size=(PER_BLOCK, _DIRECTIONS))
    own -= (own @ common)[:, None] * common
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    return np.asarray(_COMMON**0.5 * common + (1 - _COMMON) ** 0.5 * own)
