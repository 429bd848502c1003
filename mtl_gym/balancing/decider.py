"""A policy with its memory of one training: what it reads, and what it decides on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from mtl_gym.checks import choose, positive_int, should
from mtl_gym.environments import specification
from mtl_gym.envs.decision_lengths import check_decisions, steps_of
from mtl_gym.envs.inputs import check_actions
from mtl_gym.envs.observations import Observation, observe, space
from mtl_gym.evaluation.player import check_spaces, initial_memory, normalization
from mtl_gym.policies.answers import array_of
from mtl_gym.policies.functions import policy as policy_of
from mtl_gym.policies.grammar import make_policy
from mtl_gym.policies.protocol import Policy, Requirements
from mtl_gym.training.probes import View

_VERSIONS = ("source", "stable_baselines3")
"""Parts of a policy's ``spec`` that differ between versions of its code."""


class Decider:
    """A policy that decides for one training, as in the environment with what the policy requires of it.

    Args:
        policy: A policy, its name with options, an agent's file, or a function that maps K losses to K weights.
        env: Id of the environment.
        num_tasks: K.
        seed: Seeds a random policy, as an instance's id does.
        train_steps: Optimiser steps of the whole training, if they are known.

    Attributes:
        label: The policy's name.
        arguments: The environment's own arguments that it requires, or their defaults.
        observe: Names of the observations that it reads.
        named: Whether it has named them itself.
        steps: Steps between decisions.
        needs: Names of the measurements that it reads.
        memory: The policy's.

    Raises:
        ValueError, TypeError: If there is no such policy, it is one for another environment, or it takes a number of decisions in
            a training of unknown length.
    """

    def __init__(
        self, policy: str | Policy | Callable[[Any], Any], env: str, num_tasks: int, seed: int, train_steps: int | None = None
    ) -> None:
        self.label, self.policy = _resolved(policy, env)
        spec, requires = specification(env), getattr(self.policy, "requires", Requirements())
        if requires.env not in (None, env):
            raise ValueError(should("policy", f"be one for {env}, not for {requires.env}", self.label))
        required = requires.arguments()
        self.arguments = {name: required.get(name, default) for name, default in spec.own_arguments.items()}
        self._env, self._num_tasks, self.observe = env, num_tasks, tuple(required.get("observe", spec.observe))
        self.named = requires.observe is not None
        self._rows = self._table()
        self.needs = {need for row in self._rows.values() for need in row.needs}
        self.steps = int(required.get("steps_per_action", spec.steps_per_action))
        if "decisions" in required:
            self.steps = self._steps_of(check_decisions(required["decisions"]), train_steps)
        self._normalized = normalization(self.policy)
        self.memory = initial_memory(self.policy, [positive_int("seed", seed, least=0)], num_tasks)

    def _steps_of(self, decisions: int, train_steps: int | None) -> int:
        """The environment's steps per decision, or the nearest number for a length that the environment refuses."""
        if train_steps is None:
            condition = f"be given, since the policy {self.label!r} takes about {decisions} decisions in a training"
            raise ValueError(should("train_steps", condition, None))
        length = positive_int("train_steps", train_steps)
        return steps_of(decisions, length) or max(1, round(length / decisions))

    def check(self, actions: Box, batch_size: int) -> None:
        """Raises ``ValueError`` if the policy has spaces of its own, as SB3's models do, that are not those of K tasks."""
        check_spaces(self.label, self.policy, space(self._rows, self._num_tasks, batch_size, {}), actions)

    def _table(self) -> dict[str, Observation]:
        known = specification(self._env).observations
        return {name: choose("observe", name, known) for name in self.observe}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_rows", "_normalized")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rows, self._normalized = self._table(), normalization(self.policy)

    @property
    def identity(self) -> str:
        """The policy's options, for a check when a memory is loaded; the version of its code is left out."""
        return json.dumps(_without_versions(getattr(self.policy, "spec", None) or self.label), sort_keys=True)

    def ask(self, view: View, actions: Box) -> Tensor:
        """The policy's action (1, A), clipped to its space.

        Raises:
            ValueError, TypeError: If its answer is no array of finite numbers of the right shape.
        """
        observations = self._normalized(observe(self._rows.items(), view))
        answer, memory = self.policy.predict(observations, state=self.memory, episode_start=None, deterministic=True)
        values = array_of(answer)
        if values.shape != (1, *actions.shape) or not np.isfinite(values).all():
            try:
                check_actions(values, actions, 1)  # says what is wrong
            except ValueError as error:
                raise ValueError(f"{error} They are those of the policy {self.label!r}.") from None
        self.memory = memory
        return torch.from_numpy(values.astype(np.float32).clip(actions.low, actions.high))


def _resolved(policy: Any, env: str) -> tuple[str, Policy]:
    if isinstance(policy, str):
        return policy, make_policy(policy, env)
    if isinstance(policy, type):
        raise TypeError(should("policy", "be an object, not a class", policy, f"Call it: {policy.__name__}()."))
    if not callable(policy) and not isinstance(policy, Policy):
        raise TypeError(should("policy", "be a name, an agent's file, an object with `predict`, or a function", policy))
    if isinstance(policy, Policy):
        return type(policy).__name__, policy
    return getattr(policy, "__name__", "function"), policy_of(policy)


def _without_versions(spec: Any) -> Any:
    if not isinstance(spec, Mapping):
        return spec
    return {name: _without_versions(own) for name, own in spec.items() if name not in _VERSIONS}
