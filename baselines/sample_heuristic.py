"""The base class of heuristics that weight samples. N rows, B samples of a batch, K tasks, the main one first."""

from __future__ import annotations

import numpy as np

from mtl_gym import SAMPLE_WEIGHTING, Requirements
from mtl_gym.baselines.base import Array, Heuristic, Observation

LABELLED = "sample_labelled"
"""The observation that tells which samples have a label, for heuristics that rank, count or average samples."""
_FLOOR = -27.62
"""Log losses below are those of missing labels, log(1e-12) = -27.63, where nothing else tells which labels are missing."""


def weighs_samples(*observe: str) -> Requirements:
    """Requirements of a heuristic that weights every sample of every batch; ``log_loss`` determines K."""
    return Requirements(observe=("log_loss", *observe), action="weights", steps_per_action=1, env=SAMPLE_WEIGHTING)


class SampleHeuristic(Heuristic):
    """A heuristic whose ``act`` returns weights (N, B, K) for ``mtl_gym/SampleWeighting-v0``.

    Samples without a label of a task have weight 0 there and do not count. If ``sample_labelled`` is required, but not observed,
    those with a log loss of log(1e-12) are unlabelled; without ``sample_log_loss`` either, none is.
    """

    requires = weighs_samples("sample_log_loss")

    def completed(self, observation: Observation) -> Observation:
        """Adds ``sample_labelled``, if it is required but was not observed."""
        if LABELLED in (self.requires.observe or ()) and LABELLED not in observation:
            return {**observation, **_guessed(observation)}
        return observation


def _guessed(observation: Observation) -> dict[str, Array]:
    """``sample_labelled``, from other observations of samples; empty if there are none."""
    if "sample_log_loss" in observation:
        return {LABELLED: (np.asarray(observation["sample_log_loss"]) > _FLOOR).astype(float)}
    shown = [np.ones(np.shape(observation[name])) for name in ("alignment", "label_right") if name in observation]
    return {LABELLED: shown[0]} if shown else {}


def table(obs: Observation, name: str) -> Array:
    """An observation of samples as (N, B, K)."""
    values = obs[name].astype(float)
    return values.reshape(len(values), -1, obs["log_loss"].shape[1])


def averaging_one(weights: Array, labelled: Array) -> Array:
    """Weights (N, B, K) over their mean over the ``labelled`` (N, B, K) samples of all tasks; zeros stay zeros."""
    weights = weights * labelled
    mean, fraction = (values.mean((1, 2), keepdims=True) for values in (weights, labelled))
    return weights * fraction / (mean + (mean == 0))
