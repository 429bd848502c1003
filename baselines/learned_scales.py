"""Methods that learn one scale for each task beside the network, by gradient descent on a loss of losses and scales."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import number
from mtl_gym.baselines.adam import adam, empty_moments
from mtl_gym.baselines.base import Array, Heuristic, Observation, State, losses
from mtl_gym.policies import LOSSES_TO_WEIGHTS, Requirements


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
        """Scales of 0 (N, K), and Adam's moments."""
        return {"scales": np.zeros((len(seeds), num_tasks)), **empty_moments(len(seeds), num_tasks)}

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights at the current scales, then one step of Adam on the scales."""
        scales, lr = state["scales"], obs["lr"].astype(np.float64) if self.lr is None else self.lr
        move, moments = adam(state, self.slope(scales, losses(obs)), lr)
        return self.weights(scales), {"scales": scales + move, **moments}
