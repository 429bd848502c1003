"""The base class of methods that learn one scale per task along with the network, by gradient descent on a joint loss."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from mtl_gym import number
from mtl_gym.baselines.adam import MOST_LR, adam, empty_moments
from mtl_gym.baselines.base import Array, Heuristic, Integers, Observation, State, losses, observes

_REACH = 30.0
"""Largest scale: the observed log losses, and with them the best scales, lie within it."""


class LearnedScales(Heuristic):
    """Scales s_k trained by Adam (0.9, 0.999), as if they were parameters of the network.

    Subclasses give the weights and the derivative of their loss with respect to s. As in a joint step, the scales are updated with
    the losses of the same batch after its weights have been computed.

    Args:
        lr: Learning rate of the scales, in (0, 10]; ``None`` takes that of the training, as in LibMTL, where they are parameters of
            the network. The papers give none. Adam moves a scale by at most about this much a step: in T steps, weights change by a
            factor of ``exp(T lr)`` at most.
    """

    requires = observes("lr")

    def __init__(self, lr: float | None = None) -> None:
        self.lr = None if lr is None else number("lr", lr, low=0.0, high=MOST_LR, ends="(]")

    @abstractmethod
    def weights(self, scales: Array) -> Array:
        """Weights (N, K) at scales (N, K)."""

    @abstractmethod
    def slope(self, scales: Array, current: Array) -> Array:
        """Derivative (N, K) of the method's loss with respect to the scales, at losses ``current`` (N, K)."""

    def initial_state(self, seeds: Integers, num_tasks: int) -> State:
        """Scales of 0 (N, K), and Adam's moments."""
        return {"scales": np.zeros((len(seeds), num_tasks)), **empty_moments(len(seeds), num_tasks)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights at the current scales, then one step of Adam on the scales."""
        scales, lr = state["scales"], obs["lr"].astype(np.float64) if self.lr is None else self.lr
        move, moments = adam(state, self.slope(scales, losses(obs)), lr)
        return self.weights(scales), {"scales": (scales + move).clip(-_REACH, _REACH), **moments}
