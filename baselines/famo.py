"""Fast adaptive multi-task optimisation."""

from __future__ import annotations

import numpy as np

from mtl_gym import number
from mtl_gym.baselines.adam import MOST_LR, adam, empty_moments
from mtl_gym.baselines.base import HAS_LABEL, Array, Heuristic, Integers, Observation, State, observes, softmax
from mtl_gym.baselines.quadratic_programs import totals


class FAMO(Heuristic):
    """Fast adaptive multi-task optimisation (FAMO): makes all log losses fall at the same rate.

    ``w_k = (z_k / L_k) / sum_j z_j / L_j`` with ``z = softmax(xi)``. After each step, Adam with weight decay gamma moves xi along
    ``-z (delta - <z, delta>)``, where delta is the decline of the log losses on the same batch: a loss that fell by more than the
    average gets less weight. This costs one more forward pass (``log_loss_after``). Only tasks with labels in that batch have a
    decline; the others are left out of the average, and their xi only decays.

    Liu, Feng, Stone and Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, algorithm 1. Weights sum to 1 and act on
    the whole losses, as in the authors' code, ``torchjd`` and LibMTL. Not followed: the authors' code also clips the shared
    gradient to a norm of 1.

    Args:
        lr: Learning rate of xi, in (0, 10]; 0.025, the authors' in paper and code.
        gamma: Weight decay of xi, in [0, 1]; 0.001, the authors' in their scripts for NYUv2, QM9 and CelebA, and LibMTL's. It is
            searched in the paper (0.01 on Cityscapes); defaults in the authors' code are 0.01 and 1e-5.
    """

    requires = observes("log_loss_after", HAS_LABEL)

    def __init__(self, lr: float = 0.025, gamma: float = 1e-3) -> None:
        self.lr, self.gamma = number("lr", lr, low=0.0, high=MOST_LR, ends="(]"), number("gamma", gamma, low=0.0, high=1.0)

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Logits xi of 0, unknown last log losses (N, K), which of them had labels, and Adam's moments."""
        shape = (len(seeds), num_tasks)
        return {"logits": np.zeros(shape), "before": np.full(shape, np.nan), "labelled": np.zeros(shape), **empty_moments(*shape)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """One step of Adam on the logits for the last batch, then the weights of this one."""
        known = np.isfinite(state["before"])
        shares = softmax(state["logits"])
        decline = np.where(known, state["before"] - obs["log_loss_after"], 0)
        counting = shares * state["labelled"]
        mean = totals(counting * decline) / np.maximum(totals(counting), 1e-300)
        slope = counting * (decline - mean) + self.gamma * state["logits"]
        move, moments = adam(state, slope, self.lr)
        first = ~known.all(axis=1, keepdims=True)
        after = {"logits": state["logits"] + move, **moments}
        after = {name: np.where(first, state[name], value) for name, value in after.items()}
        log_loss = obs["log_loss"].astype(np.float64)
        with np.errstate(divide="ignore"):  # the logarithm of a share of 0, which stays 0
            return softmax(np.log(softmax(after["logits"])) - log_loss), {**after, "before": log_loss, "labelled": obs[HAS_LABEL]}
