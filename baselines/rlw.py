"""Random loss weighting."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from mtl_gym.baselines.base import Array, Heuristic, Integers, Observation, State, softmax

_INCREMENT, _FIRST, _SECOND = (np.uint64(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


class Seeded(Heuristic):
    """A heuristic whose random numbers in a row depend only on its seed and step, not on batching or resuming: :func:`normals`."""

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Seeds and counters (N,)."""
        return {"seed": np.asarray(seeds, dtype=np.int64), "step": np.zeros(len(seeds), dtype=np.int64)}


class RLW(Seeded):
    """Random loss weighting: ``w = K softmax(z)``, z standard normal, redrawn at every step.

    Lin, Ye, Zhang and Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning", TMLR 2022.
    Weights sum to 1 in the paper and ``torchjd``, here to K, so that the learning rate means the same as for equal weights.
    """

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """K times the softmax of normals."""
        num_tasks = obs["log_loss"].shape[1]
        weights = num_tasks * softmax(normals(state["seed"], state["step"], num_tasks))
        return weights, {"seed": state["seed"], "step": state["step"] + 1}


def normals(seeds: Integers, steps: Integers, count: int) -> Array:
    """Standard normal numbers (N, count): a pure function of seed (N,) and step (N,).

    Counters go through SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014) and the
    inverse normal distribution.
    """
    positions = (steps[:, None] * count + np.arange(1, count + 1)).astype(np.uint64)
    words = _mix(_mix(seeds.astype(np.uint64))[:, None] + positions * _INCREMENT)
    return np.asarray(ndtri((words >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54))


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))
