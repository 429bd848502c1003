"""Stable-Baselines3's policies over tasks: an actor shared over tasks, a critic that is invariant to their order.

Each class builds SB3's policy and puts the modules of :mod:`mtl_gym.agents.networks` in the places of its dense layers, so that
training, ``predict`` and the state dict stay SB3's. No parameter's shape depends on the number of tasks.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentMultiInputActorCriticPolicy
from sb3_contrib.tqc.policies import TQCPolicy
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy, MultiInputActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from mtl_gym.agents.networks import EntityLSTM, OverEntities, Pool, exchangeable_layers
from mtl_gym.arguments import should
from mtl_gym.envs.observations import OBSERVATIONS

if TYPE_CHECKING:  # what they are mixed into
    _ActorCritic = ActorCriticPolicy
    _OffPolicy = BasePolicy
else:
    _ActorCritic = _OffPolicy = object

WIDTHS = (32, 32)
"""Widths of the layers over tasks, of actors and critics."""
SAMPLE_WIDTH = 16
"""Width of the layers that all samples of all tasks share, before they are pooled to features of their task."""


SHARES = ("last_weights",)
"""Observations that are shares of all tasks: their level is 1 / K, so they are seen relative to an equal share."""


class TaskFeatures(BaseFeaturesExtractor):
    """A flat Dict of observations as features of each task, (N, K F).

    An observation of a task is one feature of it; one of the whole training is a feature of every task; one of pairs gives each
    task its mean and least value over the others. Those of samples pass layers that all samples of all tasks share, and each task
    gets the means and maxima over its samples: whatever their number and order. Which is which says the table of observations.

    Args:
        observation_space: The environment's.
    """

    def __init__(self, observation_space: spaces.Dict) -> None:
        self.kinds = {name: OBSERVATIONS[name].size for name in observation_space}
        self.num_tasks = num_tasks = task_count(observation_space)
        self.of_samples = [name for name, kind in self.kinds.items() if kind == "sample"]
        width = sum({"pair": 2, "sample": 0, "choice": 0}.get(kind, 1) for kind in self.kinds.values())
        super().__init__(observation_space, features_dim=num_tasks * (width + 2 * SAMPLE_WIDTH * bool(self.of_samples)))
        if self.of_samples:
            layers = (nn.Linear(len(self.of_samples), SAMPLE_WIDTH), nn.Tanh(), nn.Linear(SAMPLE_WIDTH, SAMPLE_WIDTH), nn.Tanh())
            self.samples = nn.Sequential(*layers)
        first, second = torch.triu_indices(num_tasks, num_tasks, offset=1)
        pairs = torch.zeros(num_tasks, num_tasks, dtype=torch.long)
        pairs[first, second] = pairs[second, first] = torch.arange(len(first))
        others = ~torch.eye(num_tasks, dtype=torch.bool)
        self.pairs = pairs[others].view(num_tasks, num_tasks - 1)  # (K, K - 1)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Stacks the features, in the order of the names: (N, K F)."""
        parts = []
        for name, kind in self.kinds.items():
            values = observations[name]
            if kind in ("sample", "choice"):
                continue
            if kind == "pair" and self.num_tasks > 1:
                others = values[:, self.pairs]  # (N, K, K - 1)
                parts += [others.mean(-1), others.amin(-1)]
            elif kind == "pair":
                parts += [torch.zeros(len(values), 1, device=values.device)] * 2
            else:
                level = self.num_tasks if name in SHARES else 1
                parts.append(level * values.expand(-1, self.num_tasks))
        features = torch.stack(parts, dim=-1)  # (N, K, F)
        if self.of_samples:
            tables = [observations[name].unflatten(1, (-1, self.num_tasks)) for name in self.of_samples]
            encoded = self.samples(torch.stack(tables, dim=-1))  # (N, B, K, width)
            features = torch.cat([features, encoded.mean(1), encoded.amax(1)], dim=-1)
        return features.flatten(1)


def task_count(observation_space: spaces.Dict) -> int:
    """K, from the length of an observation of each task."""
    return next(int(box.shape[0]) for name, box in observation_space.items() if OBSERVATIONS[name].size == "task")  # type: ignore[index]


def features_of(model: Any) -> TaskFeatures:
    """The features that an actor or a critic sees."""
    found: TaskFeatures = model.features_extractor
    return found


_OVER_TASKS = {"features_extractor_class": TaskFeatures}
"""The arguments of SB3's policies that make them see features of tasks."""


def _of_tasks(observation_space: spaces.Dict, action_space: spaces.Box) -> dict[str, Any]:
    """The same, for policies whose actions are one number for each task.

    Raises:
        ValueError: If they are not.
    """
    if any(OBSERVATIONS[name].size == "sample" for name in observation_space) or action_space.shape != (
        task_count(observation_space),
    ):
        raise ValueError(should("algorithm", "be ppo or recurrent-ppo, whose actions need not be one for each task", action_space))
    return _OVER_TASKS


def _head(inputs: int, num_tasks: int) -> OverEntities:
    """One number for each task."""
    return OverEntities(nn.Linear(inputs, 1), num_tasks)


def _critic(inputs: int, outputs: int, num_tasks: int, activation: type[nn.Module]) -> OverEntities:
    """Values of a state and an action."""
    layers = exchangeable_layers(inputs + 1, WIDTHS, activation=activation)
    return OverEntities(nn.Sequential(layers, Pool(), nn.Linear(2 * WIDTHS[-1], outputs)), num_tasks, extra=True, flatten=False)


class _Latents(nn.Module):
    """In the place of SB3's ``MlpExtractor``: layers over tasks for the actor, and pooled ones for the critic."""

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
        self.mlp_extractor = _Latents(  # type: ignore[assignment]
            self._latent_inputs(), features_of(self).num_tasks, self.activation_fn
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        features = features_of(self)
        actions: int = self.action_space.shape[0]  # type: ignore[index]
        pooled = bool(features.of_samples) or actions != features.num_tasks
        if pooled:  # the coefficients of a rule, which is the same for all samples, or a threshold
            rule = nn.Sequential(Pool(), nn.Linear(2 * WIDTHS[-1], actions))
            self.action_net: nn.Module = OverEntities(rule, features.num_tasks, flatten=False)
        else:
            self.action_net = _head(WIDTHS[-1], features.num_tasks)
        self.action_net.apply(partial(self.init_weights, gain=0.01))
        deviations = actions if pooled else 1
        self.log_std = nn.Parameter(torch.full((deviations,), float(self.log_std_init)))
        self._make_optimizer(lr_schedule)

    def _make_optimizer(self, lr_schedule: Schedule) -> None:
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]


class TaskActorCriticPolicy(_TaskActorCritic, MultiInputActorCriticPolicy):
    """PPO's policy over tasks: a Gaussian with an invariant critic.

    One action for each task: an equivariant mean, and a deviation that all tasks share. The coefficients of a rule for samples: an
    invariant mean, so that the rule's weights are equivariant over samples and tasks, and a deviation for each coefficient.
    """

    def __init__(self, observation_space: spaces.Dict, action_space: spaces.Box, lr_schedule: Schedule, **arguments: Any) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **{**arguments, **_OVER_TASKS})


class TaskRecurrentPolicy(_TaskActorCritic, RecurrentMultiInputActorCriticPolicy):
    """RecurrentPPO's policy over tasks: an LSTM that all tasks share, with a memory for each, before actor and critic."""

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        lstm_hidden_size: int = 32,
        **arguments: Any,
    ) -> None:
        arguments = {**arguments, **_OVER_TASKS, "lstm_hidden_size": lstm_hidden_size}
        super().__init__(observation_space, action_space, lr_schedule, **arguments)
        num_tasks = task_count(observation_space)
        inputs = self.features_dim // num_tasks
        actor, critic = (EntityLSTM(inputs, lstm_hidden_size, num_tasks) for _ in range(2))
        self.lstm_actor, self.lstm_critic = actor, critic  # type: ignore[assignment]  # has what SB3 asks of an LSTM
        self.lstm_hidden_state_shape = (1, 1, actor.hidden_size)
        self._make_optimizer(lr_schedule)

    def _latent_inputs(self) -> int:
        return self.lstm_output_dim


class _TaskOffPolicy(_OffPolicy):
    """Features of tasks, and invariant critics; mixed into SB3's policies with an actor and critics of its actions."""

    def __init__(self, observation_space: spaces.Dict, action_space: spaces.Box, lr_schedule: Schedule, **arguments: Any) -> None:
        arguments = {**arguments, **_of_tasks(observation_space, action_space)}
        super().__init__(observation_space, action_space, lr_schedule, **arguments)

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
