"""Selects labelled samples by their loss, task by task: small losses, more and more of them, or large losses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym import number, positive_int
from mtl_gym.baselines.base import Array, Integers, Observation, State
from mtl_gym.baselines.sample_heuristic import LABELLED, SampleHeuristic, table, weighs_samples

Mask = npt.NDArray[np.bool_]


class SmallLoss(SampleHeuristic):
    """Small-loss selection: a task's samples with small losses have equal weights, others 0; networks learn correct labels first.

    A fraction ``1 - rate min(epoch / ramp, 1)`` of each batch's labelled samples is kept. Han et al., "Co-teaching: Robust Training
    of Deep Neural Networks with Extremely Noisy Labels", NeurIPS 2018, section 3, with one network that teaches itself.

    Args:
        rate: Fraction of the samples that are dropped in the end, in [0, 1); 0.4 is ours: the paper takes the true fraction of
            wrong labels, which is unknown here.
        ramp: Epochs until then, at least 1; the paper's 10.
    """

    requires = weighs_samples("sample_log_loss", LABELLED, "epoch")

    def __init__(self, rate: float = 0.4, ramp: int = 10) -> None:
        self.rate = number("rate", rate, low=0.0, high=1.0, ends="[)")
        self.ramp = positive_int("ramp", ramp)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Keeps the smallest losses."""
        kept = 1 - self.rate * np.minimum(obs["epoch"].astype(float) / self.ramp, 1)  # (N, 1)
        losses, labelled = table(obs, "sample_log_loss"), table(obs, LABELLED) > 0
        return _alike(ranks(losses, labelled) < np.ceil(kept[:, :, None] * _counts(labelled)), labelled), state


class SelfPaced(SampleHeuristic):
    """Self-paced learning: samples with losses below a threshold have equal weights, others 0; the threshold grows every epoch.

    ``v_i = 1`` if ``l_i < lambda``, else 0. For each task, lambda starts at the median loss of the first batch with labels, so that
    half of them are easy enough. Where no sample of a task is easy enough, the easiest one is taken. Kumar, Packer and Koller,
    "Self-Paced Learning for Latent Variable Models", NeurIPS 2010, equation 3 and section 4.

    Args:
        growth: Factor of the threshold in every epoch, at least 1; the paper's 1.3.
    """

    requires = weighs_samples("sample_log_loss", LABELLED, "epoch")

    def __init__(self, growth: float = 1.3) -> None:
        self.growth = number("growth", growth, low=1.0)

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """The log of the first threshold (N, K), unknown (NaN) before the first batch with labels."""
        return {"threshold": np.full((len(seeds), num_tasks), np.nan)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Keeps the losses below the threshold."""
        losses, labelled = table(obs, "sample_log_loss"), table(obs, LABELLED) > 0
        first = np.where(np.isnan(state["threshold"]), _medians(losses, labelled), state["threshold"])
        threshold = first + obs["epoch"].astype(float) * np.log(self.growth)
        easy = (losses < threshold[:, None]) | (ranks(losses, labelled) == 0)
        return _alike(easy, labelled), {"threshold": first}


class OHEM(SampleHeuristic):
    """Online hard example mining: a task's samples with the largest losses have equal weights, the others 0.

    Shrivastava, Gupta and Girshick, "Training Region-Based Object Detectors with Online Hard Example Mining", CVPR 2016.

    Args:
        keep: Fraction of the labelled samples that are kept, in (0, 1]; 0.25 is ours: the paper keeps 128 of about 2,000 regions of
            two images.
    """

    requires = weighs_samples("sample_log_loss", LABELLED)

    def __init__(self, keep: float = 0.25) -> None:
        self.keep = number("keep", keep, low=0.0, high=1.0, ends="(]")

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Keeps the largest losses."""
        losses, labelled = table(obs, "sample_log_loss"), table(obs, LABELLED) > 0
        return _alike(ranks(-losses, labelled) < np.ceil(self.keep * _counts(labelled)), labelled), state


def ranks(values: Array, labelled: Mask) -> Integers:
    """Rank of each sample among the labelled ones of its task, 0 for the smallest value; unlabelled ones come last: (N, B, K)."""
    return np.where(labelled, values, np.inf).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")


def _counts(labelled: Mask) -> Integers:
    """Number of labelled samples of each task, (N, 1, K)."""
    return np.asarray(labelled.sum(1, keepdims=True))


def _medians(values: Array, labelled: Mask) -> Array:
    """Median over the labelled samples of each task (N, K); NaN where there is none."""
    ordered, counts = np.sort(np.where(labelled, values, np.inf), axis=1), _counts(labelled)
    low, high = (np.take_along_axis(ordered, place.clip(min=0), axis=1) for place in ((counts - 1) // 2, counts // 2))
    return np.where(counts > 0, (low + high) / 2, np.nan)[:, 0]


def _alike(chosen: Mask, labelled: Mask) -> Array:
    """Weights (N, B, K) that average 1 over the labelled samples of a task: equal for the chosen ones among them, 0 for others."""
    taken = chosen & labelled
    return taken * _counts(labelled) / taken.sum(1, keepdims=True).clip(min=1)
