"""Weights that do not change: equal ones and given ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl_gym import WEIGHT_BOUND, number, should
from mtl_gym.baselines.base import Array, Heuristic, Integers, Observation, State


class EW(Heuristic):
    """Equal weights: ``w_k = 1``, the plain sum of the losses, the default of multi-task training."""

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Ones."""
        return np.ones(obs["log_loss"].shape), state


class Constant(Heuristic):
    """Constant weights, given as w: the result of hand-tuning.

    Args:
        w: K weights of at most 1e6, in the order of the tasks; applied unchanged.

    Raises:
        ValueError: If a weight is not finite or too large; in ``initial_state`` if there are not K weights.
    """

    def __init__(self, w: Sequence[float] | float) -> None:
        try:
            weights = [number("w", own) for own in (w if isinstance(w, (Sequence, np.ndarray)) else [w])]
        except (TypeError, ValueError):
            raise ValueError(should("w", "be a list of finite numbers", w)) from None
        self.w = np.array(weights)
        if not len(weights) or np.abs(self.w).max() > WEIGHT_BOUND:
            raise ValueError(should("w", f"be at least one number, and none beyond {WEIGHT_BOUND:g}", w))

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Empty; checks the number of weights."""
        if len(self.w) != num_tasks:
            raise ValueError(should("w", f"hold one weight for each of the {num_tasks} tasks", self.w.tolist()))
        return {}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The given weights."""
        return np.tile(self.w, (len(obs["log_loss"]), 1)), state
