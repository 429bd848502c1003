"""Multi-objective gradient correction."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mtl_gym.arguments import number
from mtl_gym.baselines.base import Array, Observation, State
from mtl_gym.baselines.gradient_heuristic import GradientHeuristic, balances_gradients
from mtl_gym.baselines.solvers import simplex
from mtl_gym.policies import Requirements


class MoCo(GradientHeuristic):
    """Multi-objective gradient correction (MoCo): ``lambda = P(lambda - gamma (G + rho I) lambda)`` of averaged gradients.

    P projects onto the simplex. G is the Gram matrix of moving averages of the gradients, along which the step is taken too
    (``gradient_ema``); lambda follows MGDA's least norm slowly, so that noise has less of a say.

    Fernando, Shen, Liu, Chaudhury, Murugesan and Chen, "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent
    Approach", ICLR 2023, algorithm 1, for shared parameters; heads have their own loss. Averages keep half of their past, LibMTL's
    beta; there beta and gamma also decay with the step, each gradient is first scaled to the norm L_k, and a softmax stands for the
    projection. Paper and this do none of it; so gamma depends on the losses' scales. Weights sum to 1.

    Args:
        gamma: Step size of lambda; LibMTL's 0.1.
        rho: Regularisation; LibMTL's 0.

    Raises:
        ValueError, TypeError: If gamma is not positive, rho negative, or one of them no number.
    """

    requires: ClassVar[Requirements] = balances_gradients(gradient_ema=0.5)

    def __init__(self, gamma: float = 0.1, rho: float = 0.0) -> None:
        self.gamma, self.rho = number("gamma", gamma, low=0.0, ends="(]"), number("rho", rho, low=0.0)

    def initial_state(self, seeds: npt.NDArray[np.int64], num_tasks: int) -> State:
        """Equal weights (N, K) that sum to 1."""
        return {"weights": np.full((len(seeds), num_tasks), 1 / num_tasks)}

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The next lambda; the last one where the matrix is not finite."""
        weights = state["weights"]
        slope = np.einsum("nij,nj->ni", gramian, weights) + self.rho * weights
        known = np.isfinite(slope).all(axis=1, keepdims=True)
        moved = np.where(known, simplex(weights - self.gamma * np.where(known, slope, 0)), weights)
        return moved, {"weights": moved}
