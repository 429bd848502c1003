"""The base class of heuristics that balance the tasks' gradients: they read the gradients' Gram matrix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np

from mtl_gym import Policy, Requirements
from mtl_gym.baselines.base import NOT_FINITE, ZERO, Array, Heuristic, Observation, State, observes
from mtl_gym.baselines.composition import Composition
from mtl_gym.baselines.solvers import solve


def balances_gradients(gradient_ema: float = 0.0, gradient_ema_decay: float = 0.0) -> Requirements:
    """Requirements of a heuristic that reads the Gram matrix; of moving averages of the gradients if ``gradient_ema`` is not 0.

    At step t the averages keep ``gradient_ema / t**gradient_ema_decay`` of their past.
    """
    average = {"gradient_ema": gradient_ema, "gradient_ema_decay": gradient_ema_decay} if gradient_ema else {}
    return replace(observes("cosines", "log_norms"), env_kwargs={"scope": "shared", **average})


class GradientHeuristic(Heuristic):
    """A heuristic for ``scope="shared"``: K weights of the shared parameters' gradients, then K weights of the heads.

    Unless a method's docstring says otherwise, weights act on the shared parameters while each head has its own loss, and weights
    are equal (1) where all gradients are 0 or one is not finite. A task whose gradient is 0, such as one without labels in the
    batch, has the weight 0, and the others have the weights that they would have without it. Weighting the whole losses uses the
    same K weights twice and costs no more: the K gradients of the Gram matrix also give the step of the heads.
    """

    requires = balances_gradients()

    @abstractmethod
    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """Returns weights (N, K) of the gradients with inner products ``gramian`` (N, K, K), and the next memory."""

    def of_heads(self, shared: Array, obs: Observation) -> Array:
        """Weights (N, K) of the losses in the heads, given those of the shared parameters: ones."""
        return np.ones_like(shared)

    def after(self, first: Policy) -> Policy:
        """This policy after one that weights the losses; ``igb+cagrad`` on the command line."""
        return Composition(first, self)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights of the shared parameters, then of the heads (N, 2 K)."""
        shared, state = self.balance(observed_gramian(obs), obs, state)
        return np.concatenate([shared, self.of_heads(shared, obs)], axis=1), state


class WholeLossHeuristic(GradientHeuristic):
    """A heuristic that balances gradients and weights the whole losses, in the heads too."""

    def of_heads(self, shared: Array, obs: Observation) -> Array:
        """The same weights."""
        return shared


class SolvedHeuristic(GradientHeuristic):
    """A heuristic whose weights solve a problem that only the Gram matrix determines."""

    solver: ClassVar[Callable[..., Array]]
    means: ClassVar[bool] = False
    """See :func:`mtl_gym.baselines.solvers.solve`."""

    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """The solver's weights."""
        return solve(type(self).solver, gramian, means=self.means), state


def observed_gramian(obs: Observation) -> Array:
    """The float64 Gram matrix (N, K, K) of the gradients; NaN in rows with a norm that is not finite."""
    norms = observed_norms(obs)
    count = norms.shape[1]
    cosines = np.tile(np.eye(count), (len(norms), 1, 1))
    first, second = np.triu_indices(count, 1)
    cosines[:, first, second] = cosines[:, second, first] = obs["cosines"]
    gramian = cosines * norms[:, :, None] * norms[:, None]
    gramian[~(obs["log_norms"] < NOT_FINITE).all(axis=1)] = np.nan
    return gramian


def observed_norms(obs: Observation) -> Array:
    """The norms (N, K) of the gradients; one that is not finite is set to the observation's bound.

    A gradient of zero has no logarithm: it is observed on the lower bound, as are norms below exp(-30), about 1e-13. All are 0.
    """
    logs = np.nan_to_num(obs["log_norms"].astype(np.float64), nan=NOT_FINITE, posinf=NOT_FINITE, neginf=ZERO)
    return np.where(logs <= ZERO, 0, np.exp(logs))
