"""Coefficients of variation."""

from __future__ import annotations

import numpy as np

from mtl_gym.baselines.base import HAS_LABEL, Array, Heuristic, Integers, Observation, State, losses, observes
from mtl_gym.baselines.quadratic_programs import totals


class CoV(Heuristic):
    """Coefficients of variation (CoV-weighting): ``w_k = K c_k / sum_j c_j``, ``c_k`` deviation over mean of task k's loss ratios.

    The ratio at step t is ``L_k(t)`` over the mean of ``L_k`` before t; deviation and mean are over all ratios before t (Welford's
    algorithm). Weights are 1 in the first two steps and do not depend on the losses' scales. Only batches with labels of a task
    count as steps of it; a task with fewer than two has the mean variation of the others.

    Groenendijk, Karaoglu, Gevers and Mensink, "Multi-Loss Weighting with Coefficient of Variations", WACV 2021, section 3, with the
    defaults of the authors' code (mean over the whole past, 1e-8 added to variances). Weights sum to 1 in paper and code, here to
    K, so that the learning rate means the same as for equal weights. Not in LibMTL or ``torchjd``.
    """

    requires = observes(HAS_LABEL)

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Number of steps, mean loss, mean ratio and sum of squared deviations (N, K)."""
        return dict.fromkeys(("count", "loss", "ratio", "squares"), np.zeros((len(seeds), num_tasks)))

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights of the past; then the current losses are added to it."""
        current, count, labelled = losses(obs), state["count"], obs[HAS_LABEL] > 0
        ratio = current / np.where(count > 0, state["loss"], current)
        mean = state["ratio"] + (ratio - state["ratio"]) / (count + 1)
        deviation = np.sqrt(state["squares"] / np.maximum(count, 1) + 1e-8)
        known = count > 1
        variation = np.where(known, deviation / np.where(known, state["ratio"], 1), 0)
        usual = totals(variation) / known.sum(axis=1, keepdims=True).clip(min=1)
        variation = np.where(known, variation, np.where(usual > 0, usual, 1))
        after = {
            "count": count + 1,
            "loss": state["loss"] + (current - state["loss"]) / (count + 1),
            "ratio": mean,
            "squares": state["squares"] + (ratio - state["ratio"]) * (ratio - mean),
        }
        after = {name: np.where(labelled, value, state[name]) for name, value in after.items()}
        return variation / variation.mean(axis=1, keepdims=True), after
