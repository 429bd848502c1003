"""What heuristics that balance the tasks' gradients have in common: they read the Gram matrix of the gradients."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np

from mtl_gym.baselines.base import Array, Heuristic, Observation, State
from mtl_gym.baselines.composition import Composition
from mtl_gym.policies import LOSSES_TO_WEIGHTS, Policy, Requirements

_NOT_FINITE = 30.0


def balances_gradients(gradient_ema: float = 0.0) -> Requirements:
    """What a policy of the Gram matrix requires, of moving averages of the gradients if the share of their past is not 0."""
    env_kwargs = {"scope": "shared", **({"gradient_ema": gradient_ema} if gradient_ema else {})}
    return replace(LOSSES_TO_WEIGHTS, observe=("log_loss", "cosines", "log_norms"), env_kwargs=env_kwargs)


class GradientHeuristic(Heuristic):
    """A heuristic for ``scope="shared"``: K weights of the shared parameters' gradients, then K weights of the heads.

    Its two halves are equal where a method weighs the whole losses, which costs no more: the K gradients of the Gram matrix make
    the step, of heads too.
    """

    requires: ClassVar[Requirements] = balances_gradients()

    @abstractmethod
    def balance(self, gramian: Array, obs: Observation, state: State) -> tuple[Array, State]:
        """Returns weights (N, K) of the gradients whose inner products ``gramian`` (N, K, K) holds, and the next memory."""

    def of_heads(self, shared: Array, obs: Observation) -> Array:
        """Weights (N, K) of the losses in the heads, for those of the shared parameters: ones, so that each has its own loss."""
        return np.ones_like(shared)

    def after(self, first: Policy) -> Policy:
        """This policy after one that weighs the losses; ``igb+cagrad`` on the command line."""
        return Composition(first, self)

    def act(self, obs: Observation, state: State) -> tuple[Array, State]:
        """The weights of the shared parameters, then of the heads (N, 2 K)."""
        shared, state = self.balance(observed_gramian(obs), obs, state)
        return np.concatenate([shared, self.of_heads(shared, obs)], axis=1), state


class WholeLossHeuristic(GradientHeuristic):
    """A heuristic that balances gradients and weighs the whole losses, in the heads too."""

    def of_heads(self, shared: Array, obs: Observation) -> Array:
        """The same weights."""
        return shared


def observed_gramian(obs: Observation) -> Array:
    """The Gram matrix (N, K, K), in float64, of observed cosines (the upper triangle by rows) and log norms.

    NaN in the rows with a norm on the upper bound, which stands for one that is not finite.
    """
    norms = observed_norms(obs)
    count = norms.shape[1]
    cosines = np.tile(np.eye(count), (len(norms), 1, 1))
    first, second = np.triu_indices(count, 1)
    cosines[:, first, second] = cosines[:, second, first] = obs["cosines"]
    gramian = cosines * norms[:, :, None] * norms[:, None]
    gramian[~(obs["log_norms"] < _NOT_FINITE).all(axis=1)] = np.nan
    return gramian


def observed_norms(obs: Observation) -> Array:
    """The norms (N, K) of the gradients; one that is not finite is as on the observation's bound."""
    logs = np.nan_to_num(obs["log_norms"].astype(np.float64), nan=_NOT_FINITE, posinf=_NOT_FINITE, neginf=-_NOT_FINITE)
    return np.asarray(np.exp(logs))
