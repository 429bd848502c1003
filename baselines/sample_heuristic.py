"""The base class of heuristics that weight samples. N rows, B samples of a batch, K tasks, the main one first."""

from __future__ import annotations

from mtl_gym import SAMPLE_WEIGHTING, Requirements
from mtl_gym.baselines.base import Array, Heuristic, Observation


def weighs_samples(*observe: str) -> Requirements:
    """Requirements of a heuristic that weights every sample of every batch; ``log_loss`` determines K."""
    return Requirements(observe=("log_loss", *observe), action="weights", steps_per_action=1, env=SAMPLE_WEIGHTING)


class SampleHeuristic(Heuristic):
    """A heuristic whose ``act`` returns weights (N, B, K) for ``mtl_gym/SampleWeighting-v0``."""

    requires = weighs_samples("sample_log_loss")


def table(obs: Observation, name: str) -> Array:
    """An observation of samples as (N, B, K)."""
    values = obs[name].astype(float)
    return values.reshape(len(values), -1, obs["log_loss"].shape[1])


def averaging_one(weights: Array) -> Array:
    """Weights (N, B, K) over their mean over all samples and tasks; zeros stay zeros."""
    mean = weights.mean((1, 2), keepdims=True)
    return weights / (mean + (mean == 0))
