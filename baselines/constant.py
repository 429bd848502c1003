"""Weights that do not change: equal ones and given ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtl_gym.baselines.base import Array, Heuristic, Observation, State


class EW(Heuristic):
    """Equal weights: ``w_k = 1``, the plain sum of the losses; what a training does when nobody decides."""

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """Ones."""
        return np.ones(obs["log_loss"].shape), state


class Constant(Heuristic):
    """Constant weights, given as w: what hand-tuning ends with.

    Args:
        w: K weights, in the order of the tasks; applied as they are.

    Raises:
        ValueError: If there is no weight or one is not finite; from ``initial_state`` if their number is not K.
    """

    def __init__(self, w: Sequence[float] | float) -> None:
        try:
            self.w = np.atleast_1d(np.asarray(w, dtype=np.float64))
        except (TypeError, ValueError):
            raise ValueError(f"`w` should be a list of numbers. Received w={w!r}.") from None
        if self.w.ndim != 1 or not np.isfinite(self.w).all():
            raise ValueError(f"`w` should be a list of finite numbers. Received w={w!r}.")

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """None; checks the number of weights."""
        if len(self.w) != num_tasks:
            raise ValueError(f"`w` should hold one weight for each of the {num_tasks} tasks. Received w={self.w.tolist()}.")
        return {}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The given weights."""
        return np.tile(self.w, (len(obs["log_loss"]), 1)), state
