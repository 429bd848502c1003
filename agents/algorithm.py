"""The base class of the rows of ``AGENTS``: an algorithm of Stable-Baselines3 with its policy and defaults."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from mtl_gym import check_bytes, choose, number, positive_int, should
from mtl_gym.agents import AGENTS
from mtl_gym.agents.defaults import defaults_of

_ELSEWHERE = (
    *("policy", "env", "n_steps", "use_sde", "sde_sample_freq", "seed", "device", "tensorboard_log", "verbose", "action_noise"),
    *("rollout_buffer_class", "rollout_buffer_kwargs", "replay_buffer_class", "replay_buffer_kwargs"),
)
"""SB3's arguments that are set here or cannot be written as JSON."""
_COUNTS = ("episodes", "n_epochs", "batch_size", "buffer_size", "gradient_steps")
_FRACTIONS = ("learning_rate", "gamma", "gae_lambda", "tau")
"""Hyper-parameters that are at most 1."""
_LARGEST_LOG = 20.0  # of a deviation
_PASS_BYTES = 2**14  # of a sample's activations and their gradients, in SB3's networks
_MOST_UNITS = 4096  # of a layer that an option sizes


class Algorithm:
    """One of SB3's algorithms, set up for the environments of this package.

    Attributes:
        home: ``"module:Class"`` of the algorithm.
        actions: The type of action space that its policies over tasks take.
        generic: SB3's name of the policy in environments without a row of defaults.
        generic_actions: Further types of action space that this one takes.
        masked: Whether its policy takes action masks.
        rollouts: Whether it learns from rollouts, here whole episodes, rather than a replay buffer.
        defaults: Hyper-parameters that differ from SB3's. ``learning_rate`` is the initial rate, which decays linearly to zero;
            ``episodes`` the number of episodes in a rollout; ``noise`` the standard deviation of Gaussian exploration.
        policy_defaults: Default options of the policy.
        policy_options: Names of the policy's options, which are numbers.
    """

    home: ClassVar[str]
    actions: ClassVar[type[spaces.Space[Any]]] = spaces.Box
    generic: ClassVar[str] = "MultiInputPolicy"
    generic_actions: ClassVar[tuple[type[spaces.Space[Any]], ...]] = ()
    masked: ClassVar[bool] = False
    rollouts: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}
    policy_defaults: ClassVar[Mapping[str, Any]] = {}
    policy_options: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def check_actions(cls, space: spaces.Space[Any], policy: str | None) -> None:
        """Raises ValueError if the algorithm does not support the action space with a policy of the environment's, or SB3's."""
        taken = (cls.actions, *(cls.generic_actions if policy is None else ()))
        if not isinstance(space, taken):
            condition = f"support the action space; it takes {' or '.join(own.__name__ for own in taken)}"
            raise ValueError(should("algorithm", condition, f"{cls.__name__} for {space}"))

    @classmethod
    def make(
        cls, envs: VecEnv, policy: str | None, *, episode: int, seed: int, options: Mapping[str, Any], features: Mapping[str, Any]
    ) -> BaseAlgorithm:
        """Makes the algorithm.

        Args:
            envs: The environments.
            policy: ``"module:Class"`` of the policy; ``None``: SB3's generic one.
            episode: Number of decisions per episode.
            seed: Seeds the networks, the exploration and the environments.
            options: Hyper-parameters that override the defaults.
            features: Arguments of the policy's feature extractor; see :meth:`features`.

        Raises:
            ValueError, TypeError: If the algorithm does not support the action space or an option.
        """
        cls.check_options(options)
        cls.check_actions(envs.action_space, policy)
        chosen = {**cls.defaults, **options}
        policy_options = {**cls.policy_defaults, **chosen.pop("policy_kwargs", {}), "features_extractor_kwargs": features}
        if cls.rollouts:
            chosen["n_steps"] = episode * chosen.pop("episodes", 1)
            whole = chosen["n_steps"] * envs.num_envs
            size = min(chosen["batch_size"], whole)
            chosen["batch_size"] = size if "batch_size" in options else _divisor(whole, size)
        cls._check_buffer(envs, chosen, episode)
        if "noise" in chosen:
            deviation = np.full(envs.action_space.sample().shape, chosen.pop("noise"))
            chosen["action_noise"] = NormalActionNoise(np.zeros_like(deviation), deviation)
        rate = chosen.pop("learning_rate")
        try:
            model = cls.load(cls.home)(
                cls.policy_class(policy),
                envs,
                learning_rate=lambda remaining: rate * remaining,
                policy_kwargs=policy_options,
                seed=seed,
                device="cpu",
                **chosen,
            )
        except AssertionError as error:  # SB3 asserts valid values
            raise ValueError(should("options", f"be values that {cls.__name__} takes", options, str(error))) from error
        model.set_logger(configure(None, []))
        return model

    @classmethod
    def _check_buffer(cls, envs: VecEnv, chosen: Mapping[str, Any], episode: int) -> None:
        """Raises ValueError if the buffer, or a batch from a replay buffer, would take more than a quarter of the free memory."""
        seen: Any = envs.observation_space
        numbers = sum(math.prod(box.shape) for box in seen.spaces.values()) * (1 if cls.rollouts else 2)  # and the next ones
        row = 4 * (numbers + math.prod(envs.action_space.shape or (1,)) + 8)
        if cls.rollouts:
            check_bytes("episodes", chosen["n_steps"] // episode, row * chosen["n_steps"] * envs.num_envs)
        else:
            check_bytes("buffer_size", chosen["buffer_size"], row * chosen["buffer_size"])
            check_bytes("batch_size", batch := chosen.get("batch_size", 1), (row + _PASS_BYTES) * batch)

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Raises ValueError or TypeError if a hyper-parameter is unknown, invalid or set elsewhere; names the known ones."""
        own = inspect.signature(cls.load(cls.home)).parameters
        known = {name: name for name in [*own, *cls.defaults] if not name.startswith("_") and name not in _ELSEWHERE}
        if cls.rollouts:
            known["episodes"] = "episodes"
        for name in options:
            choose("options", name, known)
            default = own[name].default if name in own else 1.0
            if name in _COUNTS or (isinstance(default, int) and not isinstance(default, bool)):
                positive_int(name, options[name], least=int(name in _COUNTS))
            elif isinstance(default, float):
                most = 1.0 if name in _FRACTIONS else math.inf
                number(name, options[name], low=0.0, high=most, ends="(]" if name == "learning_rate" else "[]")
        cls.check_policy_options(options.get("policy_kwargs", {}))

    @classmethod
    def check_policy_options(cls, options: Mapping[str, Any]) -> None:
        """Raises ValueError or TypeError if an option of the policy is unknown or invalid; names the known ones."""
        if not isinstance(options, Mapping):
            raise TypeError(should("policy_kwargs", "be a mapping of the policy's options", options))
        for name, value in options.items():
            if name not in cls.policy_options:
                known = ", ".join(cls.policy_options) or "none"
                raise ValueError(should("policy_kwargs", f"hold the options of the policy ({known})", {name: value}))
            if name.endswith("_size"):
                positive_int(f"policy_kwargs[{name!r}]", value, most=_MOST_UNITS)
            else:
                number(f"policy_kwargs[{name!r}]", value, low=-_LARGEST_LOG, high=_LARGEST_LOG)

    @classmethod
    def policy_class(cls, policy: str | None) -> Any:
        """The class that ``"module:Class"`` refers to; SB3's generic one for ``None``."""
        return cls.load(cls.home).policy_aliases[cls.generic] if policy is None else cls.load(policy)

    @staticmethod
    def load(home: str) -> Any:
        """The object that ``"module:name"`` refers to."""
        module, name = home.split(":")
        return getattr(importlib.import_module(module), name)

    @classmethod
    def features(cls, policy: str | None, kinds: Mapping[str, str], per_task: bool) -> dict[str, Any]:
        """Arguments of a policy's feature extractor: the observations' rows of ``SIZES``, and whether it acts on each task.

        SB3's generic policy, ``None``, has none.
        """
        return {} if policy is None else {"kinds": kinds, **({"per_task": per_task} if cls.actions is spaces.Box else {})}

    @classmethod
    def empty_policy(
        cls,
        policy: str | None,
        observations: spaces.Dict,
        actions: spaces.Space[Any],
        options: Mapping[str, Any],
        features: Mapping[str, Any],
    ) -> BasePolicy:
        """A policy for these spaces, before its parameters are loaded."""
        given = {**cls.policy_defaults, **options, "features_extractor_kwargs": features}
        return cls.policy_class(policy)(observations, actions, lambda remaining: 0.0, **given)


def _divisor(whole: int, most: int) -> int:
    """The largest divisor of a rollout's size up to ``most``, so that all batches are equal; ``most`` if none is above its half."""
    found = next(size for size in range(most, 0, -1) if whole % size == 0)
    return found if 2 * found >= most else most


def algorithm(name: str) -> type[Algorithm]:
    """The algorithm of that name in ``AGENTS``; raises ValueError if there is none."""
    found: type[Algorithm] = Algorithm.load(choose("algorithm", name, AGENTS))
    return found


def policy_of(env: str, name: str) -> str | None:
    """The policy of a row of ``AGENTS``; ``None``, SB3's generic one, in an environment without a row; else raises ValueError."""
    policies, home = defaults_of(env).policies, algorithm(name).home
    if policies and home not in policies:
        known = ", ".join(other for other in AGENTS if algorithm(other).home in policies)
        raise ValueError(should("algorithm", f"be one that has a policy for {env}: {known}", name))
    return policies.get(home)
