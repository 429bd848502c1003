"""Methods that learn one scale for each task beside the network, by gradient descent on a loss of losses and scales."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from baselines.base import Array, Heuristic, Observation, State, losses
from mtl_gym.arguments import number
from mtl_gym.policies import LOSSES_TO_WEIGHTS, Requirements

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class LearnedScales(Heuristic):
    """Scales s_k that follow Adam (0.9, 0.999) at the training's own learning rate, as if they were parameters of an Adam training.

    Subclasses give the weights and the derivative of their loss with respect to s. The scales are updated with the losses
    of the same batch, after its weights have been taken, as in a joint step.

    Args:
        lr: Learning rate of the scales; the training's own if ``None``.
    """

    requires: ClassVar[Requirements] = replace(LOSSES_TO_WEIGHTS, observe=("log_loss", "lr"))

    def __init__(self, lr: float | None = None) -> None:
        self.lr = None if lr is None else number("lr", lr, low=0.0, ends="(]")

    @abstractmethod
    def weights(self, scales: Array) -> Array:
        """Weights (N, K) at scales (N, K)."""

    @abstractmethod
    def slope(self, scales: Array, current: Array) -> Array:
        """Derivative (N, K) of the method's loss with respect to the scales, at losses ``current`` (N, K)."""

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """Scales of 0, Adam's moments (N, K) and the number of updates (N, 1)."""
        zeros = np.zeros((len(seeds), num_tasks))
        return {"scales": zeros, "first": zeros, "second": zeros, "updates": np.zeros((len(seeds), 1))}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights at the current scales, then one step of Adam on the scales."""
        scales, updates = state["scales"], state["updates"] + 1
        slope = self.slope(scales, losses(obs))
        first = _BETA1 * state["first"] + (1 - _BETA1) * slope
        second = _BETA2 * state["second"] + (1 - _BETA2) * slope**2
        move = first / (1 - _BETA1**updates) / (np.sqrt(second / (1 - _BETA2**updates)) + _EPSILON)
        lr = obs["lr"].astype(np.float64) if self.lr is None else self.lr
        return self.weights(scales), {"scales": scales - lr * move, "first": first, "second": second, "updates": updates}
