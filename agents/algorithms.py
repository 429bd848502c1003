"""The algorithms that ``train`` offers: Stable-Baselines3's, with defaults for these environments.

The docstring of each class explains how its defaults were found, by ``benchmarks/tuning.py``; all trials are in
``benchmarks/results/tuning.json``. Scores are mean delta_m on the *reward* split of 32 held-out instances of digits.
"""

from __future__ import annotations

from gymnasium import spaces

from mtl_gym.agents.algorithm import Algorithm


class PPO(Algorithm):
    """Proximal policy optimisation.

    Schulman et al., "Proximal Policy Optimization Algorithms", 2017. How the defaults were found: the usual few epochs at 1e-3
    waste the data, since 64 episodes give only some hundred decisions and each costs a training. After 12,800 decisions of 30
    steps, the best of the first search's five trials (learning rate 8e-3, 20 epochs, lambda .8) reached 4.75, the others 3.12 to
    3.50; the 3.12 had the same rate with lambda .95 and an initial deviation of e^-2.4 instead of e^-1.2. In the second search,
    after 19,200 decisions of 20 steps, the defaults reached 3.54 and a rate of 2e-3 with 3 epochs 1.91, both from 1.80. Gamma is 1,
    since episodes have a fixed length and progress is observed. A decision lasts 20 optimiser steps, which divides the
    `train_steps` of every built-in problem.
    """

    home = "stable_baselines3:PPO"
    generic_actions = (spaces.Discrete,)
    rollouts = True
    defaults = {"learning_rate": 8e-3, "batch_size": 480, "n_epochs": 20, "gamma": 1.0, "gae_lambda": 0.8}
    policy_defaults = {"log_std_init": -1.2}
    policy_options = ("log_std_init",)


class RecurrentPPO(Algorithm):
    """Proximal policy optimisation with an LSTM for each task.

    Pleines et al.'s recurrent PPO, from sb3-contrib. It takes PPO's defaults and was not tuned: an update replays whole episodes,
    and twenty epochs of them cost more than the trainings that they learn from.
    """

    home = "sb3_contrib:RecurrentPPO"
    generic, generic_actions = "MultiInputLstmPolicy", PPO.generic_actions
    rollouts = True
    defaults = PPO.defaults
    policy_defaults = PPO.policy_defaults
    policy_options = ("log_std_init", "lstm_hidden_size")


class SAC(Algorithm):
    """Soft actor-critic.

    Haarnoja et al., "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning with a Stochastic Actor",
    ICML 2018. How the defaults were found (three trials of 9,600 decisions): 8 updates per decision with gamma .99 and a learned
    temperature improved the score from 2.01 to 2.58, 4 updates with gamma .9 to 3.34, and 32 updates with gamma .9 and a small
    fixed temperature to 4.06. That search used rewards relative to eight rollouts per instance, which turned out to bias a replay
    buffer, since old baselines are stale; SAC now receives the environment's rewards, for which it was not tuned again.
    """

    home = "stable_baselines3:SAC"
    _off_policy = {"learning_rate": 1.5e-3, "buffer_size": 100_000, "batch_size": 256, "gamma": 0.9, "gradient_steps": 32}
    defaults = {**_off_policy, "ent_coef": 0.001}


class TD3(Algorithm):
    """Twin delayed deep deterministic policy gradient.

    Fujimoto et al., "Addressing Function Approximation Error in Actor-Critic Methods", ICML 2018. It takes SAC's defaults, plus
    Gaussian exploration of .1 (SB3's default is none); it was not tuned.
    """

    home = "stable_baselines3:TD3"
    defaults = {**SAC._off_policy, "noise": 0.1}


class TQC(Algorithm):
    """Truncated quantile critics.

    Kuznetsov et al., "Controlling Overestimation Bias with Truncated Mixture of Continuous Distributional Quantile Critics",
    ICML 2020. It takes SAC's defaults; with those of SAC before tuning it reached 2.36.
    """

    home = "sb3_contrib:TQC"
    defaults = SAC.defaults


class DQN(Algorithm):
    """Deep Q-learning, for discrete decisions without masks.

    Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015. It ignores masks: an invalid action in
    ``mtl_gym/LayerMerging-v0`` waits, which it learns. Its defaults are untuned.
    """

    home = "stable_baselines3:DQN"
    actions = spaces.Discrete
    defaults = {"learning_rate": 1e-3, "buffer_size": 100_000, "learning_starts": 1000, "gamma": 1.0, "target_update_interval": 500}


class MaskablePPO(Algorithm):
    """Proximal policy optimisation for discrete decisions of which some are not allowed.

    Huang and Ontañón, "A Closer Look at Invalid Action Masking in Policy Gradient Algorithms", 2020, for the partitions and pairs
    of ``mtl_gym/LayerMerging-v0`` and the groups of ``mtl_gym/TaskGrouping-v0``. Its defaults are PPO's with a smaller rate and an
    entropy bonus, without which it settles on one structure before it has tried the others; it was not tuned.
    """

    home = "sb3_contrib:MaskablePPO"
    actions = spaces.Discrete
    rollouts = True
    masked = True
    defaults = {**PPO.defaults, "learning_rate": 3e-3, "ent_coef": 0.003}
