"""What an algorithm of Stable-Baselines3 is here: its class, policy and defaults. ``AGENTS`` is the table of them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from mtl_gym.agents import AGENTS
from mtl_gym.arguments import choose, number, positive_int, should

_ELSEWHERE = (
    *("policy", "env", "n_steps", "use_sde", "sde_sample_freq", "seed", "device", "tensorboard_log", "verbose", "action_noise"),
    *("rollout_buffer_class", "rollout_buffer_kwargs", "replay_buffer_class", "replay_buffer_kwargs"),
)
"""SB3's arguments that are set here, or that JSON cannot hold."""
_COUNTS = ("episodes", "n_epochs", "batch_size", "buffer_size", "gradient_steps")


class Algorithm:
    """One of SB3's algorithms, as the environments of this package want it.

    Attributes:
        home: ``"module:Class"`` of the algorithm.
        policy: ``"module:Class"`` of its policy.
        actions: The kind of action space that it takes.
        masked: Whether its policy takes masks of actions.
        rollouts: Whether it learns from rollouts, which are a number of whole episodes then, or from a replay buffer.
        defaults: Its hyper-parameters, where they are not SB3's own. ``learning_rate`` is the first one, which falls linearly to
            zero; ``episodes`` is the length of a rollout; ``noise`` the deviation of Gaussian exploration.
        policy_defaults: Its policy's.
        policy_options: Names of the policy's options, which are numbers.
    """

    home: ClassVar[str]
    policy: ClassVar[str] = "stable_baselines3.common.policies:MultiInputActorCriticPolicy"
    actions: ClassVar[type[spaces.Space[Any]]] = spaces.Box
    masked: ClassVar[bool] = False
    rollouts: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}
    policy_defaults: ClassVar[Mapping[str, Any]] = {}
    policy_options: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def check_actions(cls, space: spaces.Space[Any]) -> None:
        """Refuses actions of a kind that the algorithm does not take.

        Raises:
            ValueError: With the space.
        """
        if not isinstance(space, cls.actions):
            condition = f"fit the actions; it takes {cls.actions.__name__}"
            raise ValueError(should("algorithm", condition, f"{cls.__name__} for {space}"))

    @classmethod
    def make(cls, envs: VecEnv, *, episode: int, seed: int, options: Mapping[str, Any]) -> BaseAlgorithm:
        """Makes the algorithm.

        Args:
            envs: The environments.
            episode: Decisions of an episode.
            seed: Seeds the networks, the exploration and the environments.
            options: Hyper-parameters that replace the defaults.

        Raises:
            ValueError, TypeError: If the environments' actions are of another kind, or an option is unknown to the algorithm.
        """
        cls.check_options(options)
        cls.check_actions(envs.action_space)
        chosen = {**cls.defaults, **options}
        policy_options = {**cls.policy_defaults, **chosen.pop("policy_kwargs", {})}
        if cls.rollouts:
            chosen["n_steps"] = episode * chosen.pop("episodes", 1)
            chosen["batch_size"] = min(chosen["batch_size"], chosen["n_steps"] * envs.num_envs)
        if "noise" in chosen:
            deviation = np.full(envs.action_space.sample().shape, chosen.pop("noise"))
            chosen["action_noise"] = NormalActionNoise(np.zeros_like(deviation), deviation)
        rate = chosen.pop("learning_rate")
        try:
            model = cls.load(cls.home)(
                cls.load(cls.policy_for(envs.observation_space)),
                envs,
                learning_rate=lambda remaining: rate * remaining,
                policy_kwargs=policy_options,
                seed=seed,
                device="cpu",
                **chosen,
            )
        except AssertionError as error:  # SB3's form of wrong values
            raise ValueError(should("options", f"be values that {cls.__name__} takes", options, str(error))) from error
        model.set_logger(configure(None, []))
        return model

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Refuses hyper-parameters that the algorithm does not have, or that are set elsewhere.

        Raises:
            ValueError, TypeError: With the name, and those that are known.
        """
        own = inspect.signature(cls.load(cls.home)).parameters
        known = {name: name for name in [*own, *cls.defaults] if not name.startswith("_") and name not in _ELSEWHERE}
        if cls.rollouts:
            known["episodes"] = "episodes"
        for name in options:
            choose("options", name, known)
            default = own[name].default if name in own else 1
            if isinstance(default, (int, float)) and not isinstance(default, bool):
                number(name, options[name], low=0.0, ends="(]" if name == "learning_rate" else "[]")
            if name in _COUNTS:
                positive_int(name, options[name])
        cls.check_policy_options(options.get("policy_kwargs", {}))

    @classmethod
    def check_policy_options(cls, options: Mapping[str, Any]) -> None:
        """Refuses a policy's options that it does not have.

        Raises:
            ValueError, TypeError: With the name, and those that are known.
        """
        if not isinstance(options, Mapping):
            raise TypeError(should("policy_kwargs", "be a mapping of the policy's options", options))
        for name, value in options.items():
            if name not in cls.policy_options:
                known = ", ".join(cls.policy_options) or "none"
                raise ValueError(should("policy_kwargs", f"hold the options of the policy ({known})", {name: value}))
            number(f"policy_kwargs[{name!r}]", value)

    @classmethod
    def policy_for(cls, observations: spaces.Space[Any]) -> str:
        """``"module:Class"`` of its policy over these observations.

        Raises:
            ValueError: If it has none.
        """
        return cls.policy

    @staticmethod
    def load(home: str) -> Any:
        """What ``"module:name"`` stands for."""
        module, name = home.split(":")
        return getattr(importlib.import_module(module), name)

    @classmethod
    def empty_policy(cls, observations: spaces.Dict, actions: spaces.Space[Any], options: Mapping[str, Any]) -> BasePolicy:
        """A policy for these spaces, whose parameters are still to be loaded."""
        policy: BasePolicy = cls.load(cls.policy_for(observations))(
            observations, actions, lambda remaining: 0.0, **{**cls.policy_defaults, **options}
        )
        return policy


def algorithm(name: str) -> type[Algorithm]:
    """The algorithm of that name in ``AGENTS``.

    Raises:
        ValueError: If the table has no such name.
    """
    found: type[Algorithm] = Algorithm.load(choose("algorithm", name, AGENTS))
    return found
