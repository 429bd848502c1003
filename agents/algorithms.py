"""What ``train`` offers: Stable-Baselines3's algorithms with policies over tasks and defaults for these environments.

The docstring of each class has the story of its tuning; ``benchmarks/tuning.py`` is the search, and
``benchmarks/results/tuning.json`` what it found.
"""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from mtl_gym.agents.algorithm import Algorithm
from mtl_gym.arguments import should


class PPO(Algorithm):
    """Proximal policy optimisation.

    Schulman et al., "Proximal Policy Optimization Algorithms", 2017. Its tuning (scores are mean delta_m on the *reward* split of
    32 held-out instances of digits; all trials are in ``benchmarks/results/tuning.json``): the usual handful of epochs at 1e-3
    wastes the data, since 64 episodes give only some hundred decisions, and each costs a training. Of the first search's five
    trials, after 12,800 decisions of 30 steps, one with a learning rate of 8e-3, 20 epochs and lambda .8 reached 4.75, the others
    3.12 to 3.50; the same rate with a first deviation of e^-2.4 instead of e^-1.2 and lambda .95 was the 3.12. In the second
    search, after 19,200 decisions of 20 steps, the defaults reached 3.54, and a rate of 2e-3 with 3 epochs 1.91, where both began
    at 1.80. Episodes have a fixed length and progress is observed, so gamma is 1. Decisions take 20 optimiser steps, which divides
    every shipped problem's `train_steps`.
    """

    home = "stable_baselines3:PPO"
    policy = "mtl_gym.agents.task_policies:TaskActorCriticPolicy"
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
    policy = "mtl_gym.agents.task_policies:TaskRecurrentPolicy"
    rollouts = True
    defaults = PPO.defaults
    policy_defaults = PPO.policy_defaults
    policy_options = ("log_std_init", "lstm_hidden_size")


class SAC(Algorithm):
    """Soft actor-critic.

    Haarnoja et al., "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic Actor",
    ICML 2018. Its tuning (three trials of 9,600 decisions, scored as PPO's, in ``benchmarks/results/tuning.json``): 8 updates a
    decision with gamma .99 and a learned temperature reached 2.58 from 2.01, 4 updates with gamma .9 3.34, and 32 updates with
    gamma .9 and a small fixed temperature 4.06. That search paid relative rewards of eight rollouts per instance. A review found
    that these bias a replay buffer, since an old baseline is an older policy's; so now it is paid the environment's rewards, for
    which it was not searched again.
    """

    home = "stable_baselines3:SAC"
    policy = "mtl_gym.agents.task_policies:TaskSACPolicy"
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
    policy = "mtl_gym.agents.task_policies:TaskTD3Policy"
    defaults = {**{name: value for name, value in SAC.defaults.items() if name != "ent_coef"}, "noise": 0.1}


class TQC(Algorithm):
    """Truncated quantile critics.

    Kuznetsov et al., "Controlling Overestimation Bias with Truncated Mixture of Continuous Distributional Quantile Critics",
    ICML 2020. It takes SAC's defaults; with those that SAC had before its search it reached 2.36
    (``benchmarks/results/tuning.json``).
    """

    home = "sb3_contrib:TQC"
    policy = "mtl_gym.agents.task_policies:TaskTQCPolicy"
    defaults = SAC.defaults


class DQN(Algorithm):
    """Deep Q-learning, for discrete decisions without masks.

    Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015. It knows no masks: what is forbidden in
    ``mtl_gym/LayerMerging-v0`` waits, and it learns so. Its defaults are untuned.
    """

    home = "stable_baselines3:DQN"
    policy = "mtl_gym.agents.structure_policies:StructureQPolicy"
    actions = spaces.Discrete
    defaults = {"learning_rate": 1e-3, "buffer_size": 100_000, "learning_starts": 1000, "gamma": 1.0, "target_update_interval": 500}

    @classmethod
    def policy_for(cls, observations: spaces.Space[Any]) -> str:
        """One that scores pairs.

        Raises:
            ValueError: If tasks are placed in groups.
        """
        if _places_tasks(observations):
            raise ValueError(should("algorithm", "be 'maskable-ppo', where tasks are placed in groups", "dqn"))
        return cls.policy


class MaskablePPO(Algorithm):
    """Proximal policy optimisation for discrete decisions of which some are not allowed.

    Huang and Ontañón, "A Closer Look at Invalid Action Masking in Policy Gradient Algorithms", 2020, for the partitions and
    pairs of ``mtl_gym/LayerMerging-v0`` and the groups of ``mtl_gym/TaskGrouping-v0``. Its defaults are PPO's but for a smaller
    rate and a bonus for entropy, without which it settles on one structure before it has seen the others; it was not searched.
    """

    home = "sb3_contrib:MaskablePPO"
    policy = "mtl_gym.agents.structure_policies:StructurePolicy"
    actions = spaces.Discrete
    rollouts = True
    masked = True
    defaults = {**PPO.defaults, "learning_rate": 3e-3, "ent_coef": 0.003}

    @classmethod
    def policy_for(cls, observations: spaces.Space[Any]) -> str:
        """One that scores groups where tasks are placed in them, else one that scores pairs."""
        return "mtl_gym.agents.grouping_policies:GroupingPolicy" if _places_tasks(observations) else cls.policy


def _places_tasks(observations: spaces.Space[Any]) -> bool:
    """Whether tasks are placed in groups: ``next_task`` is observed."""
    return isinstance(observations, spaces.Dict) and "next_task" in observations.spaces
