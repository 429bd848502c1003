"""The interface of policies and their requirements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from mtl_gym.checks import should
from mtl_gym.environments import LOSS_WEIGHTING

WEIGHT_BOUND = 1e6
"""Largest absolute weight of ``action="weights"``."""

Array = npt.NDArray[Any]
Observation = Mapping[str, Array]


@dataclass(frozen=True)
class Requirements:
    """What a policy requires from its environment; ``None`` keeps the environment's default.

    Attributes:
        observe: Observations that it reads.
        action: Action mode that it uses.
        steps_per_action: Optimiser steps between its decisions.
        env: Id of its environment.
        env_kwargs: Other arguments of the environment, such as ``rule`` and ``weight_range``.
        decisions: About how many decisions it takes in an episode, in place of ``steps_per_action``.

    Raises:
        ValueError: If both ``steps_per_action`` and ``decisions`` are given.
    """

    observe: tuple[str, ...] | None = None
    action: str | None = None
    steps_per_action: int | None = None
    env: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    decisions: int | None = None

    def __post_init__(self) -> None:
        if self.decisions is not None and self.steps_per_action is not None:
            raise ValueError(should("decisions", "be left out with `steps_per_action`", self.decisions))

    def arguments(self) -> dict[str, Any]:
        """The required arguments of the environment."""
        lengths = {"steps_per_action": self.steps_per_action, "decisions": self.decisions}
        given = {"observe": self.observe and list(self.observe), "action": self.action, **lengths}
        return {**self.env_kwargs, **{name: value for name, value in given.items() if value is not None}}


LOSSES_TO_WEIGHTS = Requirements(observe=("log_loss",), action="weights", steps_per_action=1, env=LOSS_WEIGHTING)
"""For policies that map the losses of the batch about to be trained on to its weights, at every step."""


@runtime_checkable
class Policy(Protocol):
    """Anything with Stable-Baselines3's ``predict``. Optional: ``requires`` (:class:`Requirements`; without it, the policy
    receives the environment's default observations and actions), ``initial_state(seeds, num_tasks)``, its initial memory, and
    ``spec``, its JSON-plain identity, without which results are not reused. If it has an
    ``observation_space`` or ``action_space``, as Stable-Baselines3's models do, they have to be those of a single environment. A
    ``predict`` with ``action_masks``, as in sb3_contrib, receives the valid actions, (N, A) bool, if the environment has masks.

    Example:
        >>> import numpy as np, torch, mtl_gym
        >>> class Inverse:
        ...     "Weights losses (N, K) of the batch about to be trained on by their inverse."
        ...     requires = mtl_gym.LOSSES_TO_WEIGHTS
        ...     def predict(self, observation, state=None, episode_start=None, deterministic=False):
        ...         return np.exp(-observation["log_loss"]), state
        >>> balancer = mtl_gym.LossBalancer(Inverse(), ["seg", "depth"])
        >>> balancer(torch.tensor([4.0, 0.5], requires_grad=True)).item()
        2.0
        >>> class MergeAll:
        ...     "Merges as much as possible: takes the last valid action of ``mtl_gym/LayerMerging-v0``."
        ...     requires = mtl_gym.Requirements(env="mtl_gym/LayerMerging-v0", observe=("action_mask",))
        ...     def predict(self, observation, state=None, episode_start=None, deterministic=False):
        ...         action_mask = observation["action_mask"]
        ...         return action_mask.shape[1] - 1 - action_mask[:, ::-1].argmax(1), state
        >>> frame = mtl_gym.compare({"mine": MergeAll(), "shared": "shared"}, "mtl_gym/LayerMerging-v0", instances=2,
        ...                         num_tasks=3, train_steps=60)
        >>> frame.groupby("policy")["parameter_fraction"].mean().diff().iloc[1] == 0
        np.True_
    """

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """Returns actions and the policy's memory.

        Args:
            observation: Arrays (N, length) by name, or without N for a single environment.
            state: The memory that the last call returned; ``None`` at first.
            episode_start: (N,) bool, the rows whose memory is reset.
            deterministic: Whether to act without exploration noise.
        """
        ...
