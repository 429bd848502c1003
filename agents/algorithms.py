"""What ``train`` offers: Stable-Baselines3's algorithms with policies over tasks and defaults for these environments.

The docstring of each class has the story of its tuning; ``benchmarks/tuning.py`` is the search, and
``benchmarks/results/tuning.json`` what it found.
"""

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
        rollouts: Whether it learns from rollouts, which are a number of whole episodes then, or from a replay buffer.
        defaults: Its hyper-parameters, where they are not SB3's own. ``learning_rate`` is the first one, which falls linearly to
            zero; ``episodes`` is the length of a rollout; ``noise`` the deviation of Gaussian exploration.
        policy_defaults: Its policy's.
        policy_options: Names of the policy's options, which are numbers.
    """

    home: ClassVar[str]
    policy: ClassVar[str] = "stable_baselines3.common.policies:MultiInputActorCriticPolicy"
    actions: ClassVar[type[spaces.Space[Any]]] = spaces.Box
    rollouts: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}
    policy_defaults: ClassVar[Mapping[str, Any]] = {}
    policy_options: ClassVar[tuple[str, ...]] = ()

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
        if not isinstance(envs.action_space, cls.actions):
            kind = cls.actions.__name__
            raise ValueError(should("algorithm", f"fit the actions; it takes {kind}", f"{cls.__name__} for {envs.action_space}"))
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
                cls.load(cls.policy),
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
        for name, value in options.items():
            if name not in cls.policy_options:
                known = ", ".join(cls.policy_options) or "none"
                raise ValueError(should("policy_kwargs", f"hold the options of the policy ({known})", {name: value}))
            number(f"policy_kwargs[{name!r}]", value)

    @staticmethod
    def load(home: str) -> Any:
        """What ``"module:name"`` stands for."""
        module, name = home.split(":")
        return getattr(importlib.import_module(module), name)

    @classmethod
    def empty_policy(cls, observations: spaces.Dict, actions: spaces.Space[Any], options: Mapping[str, Any]) -> BasePolicy:
        """A policy for these spaces, whose parameters are still to be loaded."""
        policy: BasePolicy = cls.load(cls.policy)(
            observations, actions, lambda remaining: 0.0, **{**cls.policy_defaults, **options}
        )
        return policy


class PPO(Algorithm):
    """Proximal policy optimisation.

    Schulman et al., "Proximal Policy Optimization Algorithms", 2017. Its tuning (scores are mean delta_m on the *reward* split of
    32 held-out instances of digits; all trials are in ``benchmarks/results/tuning.json``): the usual handful of epochs at 1e-3
    wastes the data, since 64 episodes give only some hundred decisions, and each costs a training. Of the first search's five
    trials, after 12,800 decisions of 30 steps, one with a learning rate of 8e-3, 20 epochs and lambda .8 reached 4.75, the others
    3.12 to 3.50; the same rate with a first deviation of e^-2.4 instead of e^-1.2 and lambda .95 was the 3.12. In the second
    search, after 19,200 decisions of 20 steps, the defaults reached 3.54, and a rate of 2e-3 with 3 epochs 1.91, where both began
    at 1.80. Episodes have a fixed length and progress is observed, so gamma is 1. Decisions take 20 optimiser steps, which divides
    every shipped problem's horizon.
    """

    home = "stable_baselines3:PPO"
    policy = "agents.policies:TaskActorCriticPolicy"
    rollouts = True
    defaults = {"learning_rate": 8e-3, "batch_size": 480, "n_epochs": 20, "gamma": 1.0, "gae_lambda": 0.8}
    policy_defaults = {"log_std_init": -1.2}
    policy_options = ("log_std_init",)


class RecurrentPPO(Algorithm):
    """Proximal policy optimisation with an LSTM for each task.

    Pleines et al.'s recurrent PPO as sb3-contrib has it. It takes PPO's defaults and was not searched by itself: an update goes
    through whole episodes, and twenty epochs of them cost more than the trainings that they learn from.
    """

    home = "sb3_contrib:RecurrentPPO"
    policy = "agents.policies:TaskRecurrentPolicy"
    rollouts = True
    defaults = PPO.defaults
    policy_defaults = PPO.policy_defaults
    policy_options = ("log_std_init", "lstm_hidden_size")


class SAC(Algorithm):
    """Soft actor-critic.

    Haarnoja et al., "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic Actor",
    ICML 2018. Its tuning (three trials of 9,600 decisions, scored as PPO's, in ``benchmarks/results/tuning.json``): 8 updates a
    decision with gamma .99 and a learned temperature reached 2.58 from 2.01, 4 updates with gamma .9 3.34, and 32 updates with
    gamma .9 and a small fixed temperature 4.06. That search paid relative rewards of eight siblings. A review found that these bias
    a replay buffer, since an old baseline is an older policy's; so now it is paid the environment's rewards, for which it was not
    searched again.
    """

    home = "stable_baselines3:SAC"
    policy = "agents.policies:TaskSACPolicy"
    defaults = {
        "learning_rate": 1.5e-3,
        "buffer_size": 100_000,
        "batch_size": 256,
        "gamma": 0.9,
        "gradient_steps": 32,
        "ent_coef": 0.001,
    }


class TD3(Algorithm):
    """Twin delayed deep deterministic policy gradient.

    Fujimoto et al., "Addressing Function Approximation Error in Actor-Critic Methods", ICML 2018. It takes SAC's defaults, with
    Gaussian exploration of .1, without which it has none; it was not searched by itself.
    """

    home = "stable_baselines3:TD3"
    policy = "agents.policies:TaskTD3Policy"
    defaults = {**{name: value for name, value in SAC.defaults.items() if name != "ent_coef"}, "noise": 0.1}


class TQC(Algorithm):
    """Truncated quantile critics.

    Kuznetsov et al., "Controlling Overestimation Bias with Truncated Mixture of Continuous Distributional Quantile Critics",
    ICML 2020. It takes SAC's defaults; with those that SAC had before its search it reached 2.36
    (``benchmarks/results/tuning.json``).
    """

    home = "sb3_contrib:TQC"
    policy = "agents.policies:TaskTQCPolicy"
    defaults = SAC.defaults


class DQN(Algorithm):
    """Deep Q-learning, for discrete decisions without masks.

    Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015. No environment of this version has discrete
    decisions, so its defaults are untuned, and the others refuse it.
    """

    home = "stable_baselines3:DQN"
    policy = "stable_baselines3.dqn.policies:MultiInputPolicy"
    actions = spaces.Discrete
    defaults = {"learning_rate": 1e-3, "buffer_size": 100_000, "learning_starts": 1000, "gamma": 1.0, "target_update_interval": 500}


class MaskablePPO(Algorithm):
    """Proximal policy optimisation for discrete decisions of which some are not allowed.

    Huang and Ontañón, "A Closer Look at Invalid Action Masking in Policy Gradient Algorithms", 2020. No environment of this version
    has such decisions, so its defaults are PPO's, untuned, and the others refuse it.
    """

    home = "sb3_contrib:MaskablePPO"
    policy = "sb3_contrib.common.maskable.policies:MaskableMultiInputActorCriticPolicy"
    actions = spaces.Discrete
    rollouts = True
    defaults = PPO.defaults
