"""Samples that are chosen by their loss: the small ones, more and more of them, or the large ones; task by task."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import number, positive_int
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.sample_heuristic import SampleHeuristic, table, weighs_samples


class SmallLoss(SampleHeuristic):
    """Small-loss selection: a task's samples with small losses weigh alike, others 0; in the end ``rate`` are dropped.

    ``1 - rate min(epoch / ramp, 1)`` of each batch is kept: networks learn right labels first.

    Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels", NeurIPS 2018, section 3, with
    one network that teaches itself. The paper's rate is the true share of wrong labels, which is not known here: .4 is ours. Its
    ramp of 10 epochs is kept.

    Args:
        rate: Share of the samples that are dropped in the end.
        ramp: Epochs until then.

    Raises:
        ValueError, TypeError: If the rate is not in [0, 1), or the ramp not a positive whole number.
    """

    requires = weighs_samples("sample_log_loss", "epoch")

    def __init__(self, rate: float = 0.4, ramp: int = 10) -> None:
        self.rate = number("rate", rate, low=0.0, high=1.0, ends="[)")
        self.ramp = positive_int("ramp", ramp)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Keeps the smallest losses."""
        kept = 1 - self.rate * np.minimum(obs["epoch"].astype(float) / self.ramp, 1)  # (N, 1)
        losses = table(obs, "sample_log_loss")
        return _alike(places(losses) < np.ceil(kept * losses.shape[1])[:, :, None]), state


class SelfPaced(SampleHeuristic):
    """Self-paced learning: samples with losses below a threshold weigh alike, others 0; it grows with every epoch.

    ``v_i = 1`` if ``l_i < lambda``, else 0. Lambda begins, for each task, at the median of the first batch's losses, so that half
    of the samples are easy enough, and grows by ``growth`` in every epoch.

    Kumar, Packer and Koller, "Self-Paced Learning for Latent Variable Models", NeurIPS 2010, equation 3 and section 4, which begins
    with half of the data and has a factor of 1.3. Where no sample of a task is easy enough, the easiest one is taken.

    Args:
        growth: Factor of the threshold in every epoch.

    Raises:
        ValueError, TypeError: If it is below 1.
    """

    requires = weighs_samples("sample_log_loss", "epoch")

    def __init__(self, growth: float = 1.3) -> None:
        self.growth = number("growth", growth, low=1.0)

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """The log of the first threshold (N, K), unknown (NaN) before the first batch."""
        return {"threshold": np.full((len(seeds), num_tasks), np.nan)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Keeps the losses below the threshold."""
        losses = table(obs, "sample_log_loss")
        first = np.where(np.isnan(state["threshold"]), np.median(losses, axis=1), state["threshold"])
        threshold = first + obs["epoch"].astype(float) * np.log(self.growth)
        easy = (losses < threshold[:, None]) | (places(losses) == 0)
        return _alike(easy), {"threshold": first}


class OHEM(SampleHeuristic):
    """Online hard example mining: a task's samples with the largest losses weigh alike, the others 0.

    Shrivastava, Gupta and Girshick, "Training Region-Based Object Detectors with Online Hard Example Mining", CVPR 2016. The paper
    keeps 128 of about 2,000 regions of two images; for mini-batches a quarter is ours.

    Args:
        keep: Share of the samples that are kept.

    Raises:
        ValueError, TypeError: If it is not in (0, 1].
    """

    def __init__(self, keep: float = 0.25) -> None:
        self.keep = number("keep", keep, low=0.0, high=1.0, ends="(]")

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Keeps the largest losses."""
        losses = table(obs, "sample_log_loss")
        return _alike(places(-losses) < np.ceil(self.keep * losses.shape[1])), state


def places(values: Array) -> npt.NDArray[np.int64]:
    """Place of each sample in its task's order, 0 for the least: (N, B, K)."""
    return values.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")


def _alike(chosen: npt.NDArray[np.bool_]) -> Array:
    """Weights (N, B, K) that average 1 over the samples of a task: alike for those chosen, 0 for the others."""
    return chosen * chosen.shape[1] / chosen.sum(1, keepdims=True).clip(min=1)
