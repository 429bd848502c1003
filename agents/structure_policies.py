"""Policies over partitions of any number of tasks: they score pairs.

The score of a partition is the sum of the scores of its pairs. Where actions are pairs, an action has its pair's score. Waiting
scores 0. So permuting the tasks permutes the scores, and the number of tasks may change after training.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import MultiInputPolicy, QNetwork
from torch import Tensor, nn

from mtl_gym import MOST_LISTED, partitions, should, together
from mtl_gym.agents.networks import Pool, exchangeable_layers
from mtl_gym.agents.task_encoding import TaskFeatures
from mtl_gym.agents.task_policies import WIDTHS


class PairFeatures(BaseFeaturesExtractor):
    """A flat Dict of observations as :class:`~mtl_gym.agents.task_encoding.TaskFeatures` of each task, then features of each pair.

    Args:
        observation_space: The environment's.
        kinds: The observations' rows of ``SIZES``, by name.
    """

    def __init__(self, observation_space: spaces.Dict, kinds: Mapping[str, str]) -> None:
        tasks = TaskFeatures(observation_space, kinds)
        self.num_tasks = tasks.num_tasks
        self.of_pairs = [name for name in observation_space if kinds[name] == "pair"]
        self.sizes = tasks.features_dim, len(self.of_pairs) * self.num_tasks * (self.num_tasks - 1) // 2
        super().__init__(observation_space, features_dim=sum(self.sizes))
        self.tasks = tasks

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features (N, K F + pairs G)."""
        pairs = [observations[name][:, :, None] for name in self.of_pairs]
        return torch.cat([self.tasks(observations), *([torch.cat(pairs, dim=2).flatten(1)] if pairs else [])], dim=1)


class _PairEncoder(nn.Module):
    """Maps features (N, K F + pairs G) to latents of each pair (N, pairs * width)."""

    def __init__(self, features: PairFeatures, activation: type[nn.Module]) -> None:
        super().__init__()
        self.num_tasks, self.sizes, self.of_pair = features.num_tasks, list(features.sizes), len(features.of_pairs)
        inputs, width = features.sizes[0] // features.num_tasks, WIDTHS[-1]
        self.first, self.second = torch.triu_indices(features.num_tasks, features.num_tasks, offset=1)
        self.tasks = exchangeable_layers(inputs, WIDTHS, activation=activation)
        self.pairs = nn.Sequential(nn.Linear(2 * width + self.of_pair, width), activation())

    def forward(self, features: Tensor) -> Tensor:
        tasks, pairs = features.split(self.sizes, dim=1)
        entities = self.tasks(tasks.unflatten(1, (self.num_tasks, -1)))
        one, other = entities[:, self.first], entities[:, self.second]
        known = torch.cat([one + other, one * other, pairs.unflatten(1, (len(self.first), self.of_pair))], dim=2)
        latents: Tensor = self.pairs(known).flatten(1)
        return latents


class _PairLatents(nn.Module):
    """Replaces SB3's ``MlpExtractor``: latents of each pair for the actor, pooled latents of the tasks for the critic."""

    def __init__(self, features: PairFeatures, activation: type[nn.Module]) -> None:
        super().__init__()
        self.num_tasks, self.of_tasks = features.num_tasks, features.sizes[0]
        self.actor = _PairEncoder(features, activation)
        self.critic = nn.Sequential(exchangeable_layers(self.of_tasks // self.num_tasks, WIDTHS, activation=activation), Pool())
        self.latent_dim_pi, self.latent_dim_vf = len(self.actor.first) * WIDTHS[-1], 2 * WIDTHS[-1]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        latents: Tensor = self.actor(features)
        return latents

    def forward_critic(self, features: Tensor) -> Tensor:
        values: Tensor = self.critic(features[:, : self.of_tasks].unflatten(1, (self.num_tasks, -1)))
        return values


class _PairScores(nn.Module):
    """Scores (N, actions) of the actions of ``merge``, from latents of the pairs.

    Raises:
        ValueError: If the actions are neither partitions of the tasks nor pairs.
    """

    def __init__(self, width: int, num_tasks: int, actions: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.width = width
        count = num_tasks * (num_tasks - 1) // 2
        first, second = torch.triu_indices(num_tasks, num_tasks, offset=1)
        if num_tasks <= MOST_LISTED:
            self.members = together(partitions(num_tasks))[:, first, second].float().T  # (pairs, actions)
        else:
            self.members = torch.eye(count, count + 1).roll(1, 1)
        if actions != self.members.shape[1]:
            condition = f"have an action for each of the {self.members.shape[1]} ways to merge {num_tasks} tasks, for this policy"
            raise ValueError(should("env", condition, actions))

    def forward(self, latents: Tensor) -> Tensor:
        scores = self.score(latents.unflatten(1, (-1, self.width)))[:, :, 0]
        return scores @ self.members.to(scores)


def _count(actions: spaces.Space[Any]) -> int:
    return int(actions.n)  # type: ignore[attr-defined]  # they are discrete


class ScoringPolicy(MaskableMultiInputActorCriticPolicy):
    """MaskablePPO's policy with scores of pairs or groups as logits, and an invariant critic; subclasses name their modules."""

    features: ClassVar[type[BaseFeaturesExtractor]]
    latents: ClassVar[type[nn.Module]]
    scores: ClassVar[type[nn.Module]]

    def __init__(self, observations: spaces.Dict, actions: spaces.Discrete, lr_schedule: Schedule, **arguments: Any) -> None:
        super().__init__(observations, actions, lr_schedule, **{**arguments, "features_extractor_class": self.features})

    def _build(self, lr_schedule: Schedule) -> None:
        features: Any = self.features_extractor
        self.mlp_extractor = self.latents(features, self.activation_fn)  # type: ignore[assignment]
        self.action_net: nn.Module = self.scores(WIDTHS[-1], features.num_tasks, _count(self.action_space))
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        for module, gain in ((self.mlp_extractor, np.sqrt(2)), (self.action_net, 0.01), (self.value_net, 1.0)):
            module.apply(partial(self.init_weights, gain=gain))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]


class StructurePolicy(ScoringPolicy):
    """MaskablePPO's policy over the actions of ``merge``: scores of pairs, and an invariant critic."""

    features, latents, scores = PairFeatures, _PairLatents, _PairScores


class StructureQPolicy(MultiInputPolicy):
    """DQN's policy over the actions of ``merge``: the value of a partition is the sum of those of its pairs."""

    def __init__(self, observations: spaces.Dict, actions: spaces.Discrete, lr_schedule: Schedule, **arguments: Any) -> None:
        super().__init__(observations, actions, lr_schedule, **{**arguments, "features_extractor_class": PairFeatures})

    def make_q_net(self) -> QNetwork:
        """SB3's Q-network, with the scores of pairs as values."""
        network = super().make_q_net()
        features: Any = network.features_extractor
        scores = _PairScores(WIDTHS[-1], features.num_tasks, _count(self.action_space))
        network.q_net = nn.Sequential(_PairEncoder(features, self.activation_fn), scores)
        return network.to(self.device)
