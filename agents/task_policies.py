"""Stable-Baselines3's policies over tasks: an actor that shares weights across tasks, a critic that is invariant to their order.

Each class builds SB3's policy and replaces its dense layers by the modules of :mod:`mtl_gym.agents.networks`, so that training,
``predict`` and the state dict stay SB3's. No parameter's shape depends on the number of tasks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentMultiInputActorCriticPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from mtl_gym import should
from mtl_gym.agents.networks import EntityLSTM, OverEntities, Pool, exchangeable_layers
from mtl_gym.agents.task_encoding import TaskFeatures, task_count

if TYPE_CHECKING:  # the classes that the mixins below extend
    _ActorCritic = ActorCriticPolicy
    _OffPolicy = BasePolicy
else:
    _ActorCritic = _OffPolicy = object

WIDTHS = (32, 32)
"""Widths of the layers over tasks in actors and critics."""


def features_of(model: Any) -> TaskFeatures:
    """The feature extractor of an actor or critic."""
    found: TaskFeatures = model.features_extractor
    return found


_OVER_TASKS = {"features_extractor_class": TaskFeatures}


def _head(inputs: int, num_tasks: int) -> OverEntities:
    """One number for each task."""
    return OverEntities(nn.Linear(inputs, 1), num_tasks)


def _rule(inputs: int, coefficients: int) -> nn.Sequential:
    """Coefficients of a rule, which do not depend on the order of tasks."""
    return nn.Sequential(Pool(), nn.Linear(2 * inputs, coefficients))


class _RuleAndResiduals(nn.Module):
    """Coefficients of a rule for all tasks, then one number for each task: (N, K, F) to (N, A + K)."""

    def __init__(self, inputs: int, coefficients: int) -> None:
        super().__init__()
        self.rule, self.residual = _rule(inputs, coefficients), nn.Linear(inputs, 1)

    def forward(self, entities: Tensor) -> Tensor:
        return torch.cat([self.rule(entities), self.residual(entities).squeeze(-1)], dim=-1)


def _critic(inputs: int, outputs: int, num_tasks: int, activation: type[nn.Module]) -> OverEntities:
    """Values of a state and an action."""
    layers = exchangeable_layers(inputs + 1, WIDTHS, activation=activation)
    return OverEntities(nn.Sequential(layers, Pool(), nn.Linear(2 * WIDTHS[-1], outputs)), num_tasks, extra=True, flatten=False)


class _Latents(nn.Module):
    """Replaces SB3's ``MlpExtractor``: layers over tasks for the actor, followed by pooling for the critic."""

    latent_dim_pi, latent_dim_vf = WIDTHS[-1], 2 * WIDTHS[-1]

    def __init__(self, inputs: int, num_tasks: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.policy_net = OverEntities(exchangeable_layers(inputs, WIDTHS, activation=activation), num_tasks)
        critic = nn.Sequential(exchangeable_layers(inputs, WIDTHS, activation=activation), Pool())
        self.value_net = OverEntities(critic, num_tasks, flatten=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        return self.policy_net(features)

    def forward_critic(self, features: Tensor) -> Tensor:
        return self.value_net(features)


class _TaskActorCritic(_ActorCritic):
    """Builds actor, critic and one standard deviation for all tasks; mixed into SB3's actor-critic policies."""

    def _latent_inputs(self) -> int:
        return self.features_dim // features_of(self).num_tasks

    def _build_mlp_extractor(self) -> None:
        num_tasks = features_of(self).num_tasks
        self.mlp_extractor = _Latents(self._latent_inputs(), num_tasks, self.activation_fn)  # type: ignore[assignment]

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        features, shared = features_of(self), self._shared_actions()
        num_tasks, width = features.num_tasks, WIDTHS[-1]
        if not shared:
            self.action_net: nn.Module = _head(width, num_tasks)
        else:  # the coefficients of a rule, or a threshold
            rule = _RuleAndResiduals(width, shared) if features.per_task else _rule(width, shared)
            self.action_net = OverEntities(rule, num_tasks, flatten=False)
        self.action_net.apply(partial(self.init_weights, gain=0.01))
        self.log_std = nn.Parameter(torch.full((shared + features.per_task,), float(self.log_std_init)))
        self._make_optimizer(lr_schedule)

    def _shared_actions(self) -> int:
        """How many numbers of an action are not of a task."""
        features, actions = features_of(self), self.action_space.shape[0]  # type: ignore[index]
        return actions - features.num_tasks if features.per_task else actions

    def _get_action_dist_from_latent(self, latent_pi: Tensor) -> Distribution:
        """SB3's, where each coefficient has a deviation, and all residuals of tasks share one."""
        shared, per_task = self._shared_actions(), features_of(self).per_task
        if not (shared and per_task):
            return super()._get_action_dist_from_latent(latent_pi)
        deviations = torch.cat([self.log_std[:shared], self.log_std[shared:].expand(features_of(self).num_tasks)])
        return self.action_dist.proba_distribution(self.action_net(latent_pi), deviations)

    def _make_optimizer(self, lr_schedule: Schedule) -> None:
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]


class TaskActorCriticPolicy(_TaskActorCritic, MultiInputActorCriticPolicy):
    """PPO's policy over tasks: a Gaussian with an invariant critic.

    With one action per task, the mean is equivariant and all tasks share a deviation. With the coefficients of a rule, for tasks or
    samples, the mean is invariant, so that the rule's weights are equivariant, and each coefficient has a deviation. With a rule
    and a residual of each task, it is both.
    """

    def __init__(self, observation_space: spaces.Dict, action_space: spaces.Box, lr_schedule: Schedule, **arguments: Any) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **{**arguments, **_OVER_TASKS})


class TaskRecurrentPolicy(_TaskActorCritic, RecurrentMultiInputActorCriticPolicy):
    """RecurrentPPO's policy over tasks: an LSTM shared by all tasks, with a memory for each, before actor and critic."""

    def __init__(self, observation_space: spaces.Dict, action_space: spaces.Box, lr_schedule: Schedule, **arguments: Any) -> None:
        arguments = {"lstm_hidden_size": 32, **arguments, **_OVER_TASKS}
        super().__init__(observation_space, action_space, lr_schedule, **arguments)
        num_tasks = features_of(self).num_tasks
        inputs = self.features_dim // num_tasks
        actor, critic = (EntityLSTM(inputs, arguments["lstm_hidden_size"], num_tasks) for _ in range(2))
        self.lstm_actor, self.lstm_critic = actor, critic  # type: ignore[assignment]  # has the attributes that SB3 uses
        self.lstm_hidden_state_shape = (1, 1, actor.hidden_size)
        self._make_optimizer(lr_schedule)

    def _latent_inputs(self) -> int:
        return self.lstm_output_dim


class _TaskOffPolicy(_OffPolicy):
    """Features of tasks and invariant critics, mixed into SB3's off-policy policies; actions must be one number per task."""

    def __init__(self, observation_space: spaces.Dict, action_space: spaces.Box, lr_schedule: Schedule, **arguments: Any) -> None:
        given = arguments["features_extractor_kwargs"]
        if not given["per_task"] or action_space.shape != (task_count(observation_space, given["kinds"]),):
            condition = "be ppo or recurrent-ppo, whose actions need not be one number per task"
            raise ValueError(should("algorithm", condition, action_space))
        super().__init__(observation_space, action_space, lr_schedule, **{**arguments, **_OVER_TASKS})

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """SB3's critics, with layers over tasks."""
        critic: Any = super().make_critic(features_extractor)  # type: ignore[misc]
        inputs, num_tasks = features_of(critic).features_dim, features_of(critic).num_tasks
        outputs = getattr(critic, "n_quantiles", 1)
        critic.q_networks = [_critic(inputs // num_tasks, outputs, num_tasks, nn.ReLU).to(self.device) for _ in critic.q_networks]
        for number, network in enumerate(critic.q_networks):
            setattr(critic, f"qf{number}", network)
        return critic


class _TaskGaussian(_TaskOffPolicy):
    """The same, with an equivariant squashed Gaussian."""

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """SB3's actor, with layers over tasks."""
        actor: Any = super().make_actor(features_extractor)  # type: ignore[misc]
        actor.latent_pi, num_tasks = _actor_layers(actor).to(self.device), features_of(actor).num_tasks
        actor.mu, actor.log_std = (_head(WIDTHS[-1], num_tasks).to(self.device) for _ in range(2))
        return actor


class TaskSACPolicy(_TaskGaussian, SACPolicy):
    """SAC's policy over tasks: an equivariant squashed Gaussian, and invariant critics."""


class TaskTQCPolicy(_TaskGaussian, TQCPolicy):
    """TQC's policy over tasks: an equivariant squashed Gaussian, and invariant critics of quantiles."""


class TaskTD3Policy(_TaskOffPolicy, TD3Policy):
    """TD3's policy over tasks: an equivariant action, and invariant critics."""

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """SB3's actor, with layers over tasks."""
        actor: Any = super().make_actor(features_extractor)
        head = _head(WIDTHS[-1], features_of(actor).num_tasks)
        actor.mu = nn.Sequential(_actor_layers(actor), head, nn.Tanh()).to(self.device)
        return actor


def _actor_layers(actor: Any) -> OverEntities:
    num_tasks = features_of(actor).num_tasks
    layers = exchangeable_layers(actor.features_dim // num_tasks, WIDTHS, activation=actor.activation_fn)
    return OverEntities(layers, num_tasks)
