"""``quadratic``: K quadratic objectives of one point with a known optimum and Pareto set, the ground truth for tests.

Objective k is ``f_k(x) = mean_d (s_kd (x_d - c_kd))^2`` with curvatures ``s_kd^2`` and centres ``c_k``. As a problem it is a
network without input whose output for task k is ``s_k * x``, with labels ``s_k * c_k`` and a squared error. Training labels
have noise that averages to zero over the split, so that the full-batch objective is exact and mini-batches are noisy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.problems.base import Split, Task

NUM_TASKS, DIMENSIONS = 3, 4
_SAMPLES = {"train": 128, "meta": 16, "reward": 16, "test": 16}
_NOISE = 0.1

_rng = np.random.default_rng(0)
CENTRES: npt.NDArray[np.float64] = _rng.normal(size=(NUM_TASKS, DIMENSIONS))
"""(K, D) the optimum of each objective."""
CURVATURES: npt.NDArray[np.float64] = _rng.uniform(0.5, 2.0, size=(NUM_TASKS, DIMENSIONS))
"""(K, D) second derivatives, up to the factor 2 / D."""


def load() -> tuple[tuple[Task, ...], dict[str, Split]]:
    """Returns 3 tasks of 4 dimensions; each sample's input holds the square roots of the curvatures, (K, D) flattened."""
    scales = np.sqrt(CURVATURES)
    tasks = tuple(Task(f"objective_{number}", "mse", ("rmse",), outputs=DIMENSIONS) for number in range(1, NUM_TASKS + 1))
    rng = np.random.default_rng(1)
    splits = {}
    for name, count in _SAMPLES.items():
        noise = rng.normal(scale=_NOISE, size=(count, NUM_TASKS, DIMENSIONS)) if name == "train" else np.zeros((count, 1, 1))
        labels = scales * CENTRES + noise - noise.mean(0)
        splits[name] = Split.of(np.repeat(scales.reshape(1, -1), count, axis=0), list(labels.transpose(1, 0, 2)))
    return tasks, splits


def optimum(weights: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The minimiser (..., D) of ``sum_k w_k f_k`` for positive weights (..., K); all weights together give the Pareto set."""
    pull = np.asarray(weights, dtype=np.float64)[..., None] * CURVATURES  # (..., K, D)
    return np.asarray((pull * CENTRES).sum(-2) / pull.sum(-2))


def objectives(point: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The values (..., K) of the objectives at points (..., D)."""
    distance = np.asarray(point, dtype=np.float64)[..., None, :] - CENTRES
    return np.asarray((CURVATURES * distance**2).mean(-1))
