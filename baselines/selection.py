"""Selects samples by their loss, task by task: small losses, more and more of them, or large losses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym import number, positive_int
from mtl_gym.baselines.base import Array, Integers, Observation, State
from mtl_gym.baselines.sample_heuristic import SampleHeuristic, table, weighs_samples


class SmallLoss(SampleHeuristic):
    """Small-loss selection: a task's samples with small losses have equal weights, others 0; networks learn correct labels first.

    A fraction ``1 - rate min(epoch / ramp, 1)`` of each batch is kept. Han et al., "Co-teaching: Robust Training of Deep Neural
    Networks with Extremely Noisy Labels", NeurIPS 2018, section 3, with one network that teaches itself. The paper's rate is the
    true fraction of wrong labels, which is unknown here: .4 is our choice. The ramp of 10 epochs is the paper's.

    Args:
        rate: Fraction of the samples that are dropped in the end, in [0, 1).
        ramp: Epochs until then, at least 1.
    """

    requires = weighs_samples("sample_log_loss", "epoch")

    def __init__(self, rate: float = 0.4, ramp: int = 10) -> None:
        self.rate = number("rate", rate, low=0.0, high=1.0, ends="[)")
        self.ramp = positive_int("ramp", ramp)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Keeps the smallest losses."""
        kept = 1 - self.rate * np.minimum(obs["epoch"].astype(float) / self.ramp, 1)  # (N, 1)
        losses = table(obs, "sample_log_loss")
        return _alike(ranks(losses) < np.ceil(kept * losses.shape[1])[:, :, None]), state


class SelfPaced(SampleHeuristic):
    """Self-paced learning: samples with losses below a threshold have equal weights, others 0; the threshold grows every epoch.

    ``v_i = 1`` if ``l_i < lambda``, else 0. For each task, lambda starts at the median loss of the first batch, so that half of the
    samples are easy enough. Where no sample of a task is easy enough, the easiest one is taken. Kumar, Packer and Koller,
    "Self-Paced Learning for Latent Variable Models", NeurIPS 2010, equation 3 and section 4, with its factor of 1.3.

    Args:
        growth: Factor of the threshold in every epoch, at least 1.
    """

    requires = weighs_samples("sample_log_loss", "epoch")

    def __init__(self, growth: float = 1.3) -> None:
        self.growth = number("growth", growth, low=1.0)

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """The log of the first threshold (N, K), unknown (NaN) before the first batch."""
        return {"threshold": np.full((len(seeds), num_tasks), np.nan)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Keeps the losses below the threshold."""
        losses = table(obs, "sample_log_loss")
        first = np.where(np.isnan(state["threshold"]), np.median(losses, axis=1), state["threshold"])
        threshold = first + obs["epoch"].astype(float) * np.log(self.growth)
        easy = (losses < threshold[:, None]) | (ranks(losses) == 0)
        return _alike(easy), {"threshold": first}


class OHEM(SampleHeuristic):
    """Online hard example mining: a task's samples with the largest losses have equal weights, the others 0.

    Shrivastava, Gupta and Girshick, "Training Region-Based Object Detectors with Online Hard Example Mining", CVPR 2016. The paper
    keeps 128 of about 2,000 regions of two images; a quarter of a mini-batch is our choice.

    Args:
        keep: Fraction of the samples that are kept, in (0, 1].
    """

    def __init__(self, keep: float = 0.25) -> None:
        self.keep = number("keep", keep, low=0.0, high=1.0, ends="(]")

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Keeps the largest losses."""
        losses = table(obs, "sample_log_loss")
        return _alike(ranks(-losses) < np.ceil(self.keep * losses.shape[1])), state


def ranks(values: Array) -> Integers:
    """Rank of each sample within its task, 0 for the smallest value: (N, B, K)."""
    return values.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")


def _alike(chosen: npt.NDArray[np.bool_]) -> Array:
    """Weights (N, B, K) that average 1 over the samples of a task: equal for the chosen samples, 0 for the others."""
    return chosen * chosen.shape[1] / chosen.sum(1, keepdims=True).clip(min=1)
