"""Stable-Baselines3's policies over tasks: an actor that shares weights across tasks, a critic that is invariant to their order.

Each class builds SB3's policy and replaces its dense layers by the modules of :mod:`mtl_gym.agents.networks`, so that training,
``predict`` and the state dict stay SB3's. No parameter's shape depends on the number of tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
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

from mtl_gym import should
from mtl_gym.agents.networks import EntityLSTM, OverEntities, Pool, exchangeable_layers

if TYPE_CHECKING:  # the classes that the mixins below extend
    _ActorCritic = ActorCriticPolicy
    _OffPolicy = BasePolicy
else:
    _ActorCritic = _OffPolicy = object

WIDTHS = (32, 32)
"""Widths of the layers over tasks in actors and critics."""
SAMPLE_WIDTH = 16
"""Width of the layers shared by all samples of all tasks, before samples are pooled to features of their task."""
_KINDS = ("task", "one", "pooled", "pair", "sample", "choice")
POOLED = 4
"""Numbers in an observation that is pooled over tasks."""
SHARES = ("last_weights",)
"""Observations that sum to 1 over tasks: they are multiplied by K, so that an equal fraction is 1."""


class TaskFeatures(BaseFeaturesExtractor):
    """A flat Dict of observations as features of each task, (N, K F).

    An observation of tasks gives each task one feature; those of the whole training, and those pooled over tasks, are features of
    every task; one of pairs gives each task its mean and minimum over the other tasks. Where nothing is observed of single tasks,
    the features are those of one task that stands for all (K = 1). Observations of samples pass through layers shared by all
    samples of all tasks, and each task gets the means and maxima over its samples, in any number and order.

    Args:
        observation_space: The environment's.
        kinds: The observations' rows of ``SIZES``, by name.
        per_task: Whether an action is one number for each task.

    Raises:
        ValueError: If an observation is of something else, or none is per task.
    """

    def __init__(self, observation_space: spaces.Dict, kinds: Mapping[str, str], per_task: bool = True) -> None:
        self.kinds, self.per_task = {name: kinds[name] for name in observation_space}, per_task
        if not set(self.kinds.values()) <= set(_KINDS):
            raise ValueError(should("observe", f"hold observations of {', '.join(_KINDS)}", self.kinds))
        self.num_tasks = num_tasks = task_count(observation_space, self.kinds, per_task)
        if "task" not in self.kinds.values() and (
            wrong := [name for name, kind in self.kinds.items() if kind in ("pair", "sample")]
        ):
            remedy = "Observe something of each task too, or pooled_cosine in place of cosines."
            raise ValueError(should("observe", f"not hold {', '.join(wrong)} where all else is pooled over tasks", wrong, remedy))
        self.of_samples = [name for name, kind in self.kinds.items() if kind == "sample"]
        width = sum({"pair": 2, "sample": 0, "choice": 0, "pooled": POOLED}.get(kind, 1) for kind in self.kinds.values())
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
        """Stacks the features in the order of the names: (N, K F)."""
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
            elif kind == "pooled":
                parts += [own[:, None].expand(-1, self.num_tasks) for own in values.unbind(1)]
            else:
                level = self.num_tasks if name in SHARES else 1
                parts.append(level * values.expand(-1, self.num_tasks))
        features = torch.stack(parts, dim=-1)  # (N, K, F)
        if self.of_samples:
            tables = [observations[name].unflatten(1, (-1, self.num_tasks)) for name in self.of_samples]
            encoded = self.samples(torch.stack(tables, dim=-1))  # (N, B, K, width)
            features = torch.cat([features, encoded.mean(1), encoded.amax(1)], dim=-1)
        return features.flatten(1)


def task_count(observation_space: spaces.Dict, kinds: Mapping[str, str], per_task: bool = True) -> int:
    """K, the length of an observation of each task; 1 if some are pooled over tasks, or if neither these nor actions are of tasks.

    Raises:
        ValueError: If K cannot be known.
    """
    counts = [int(box.shape[0]) for name, box in observation_space.items() if kinds[name] == "task"]  # type: ignore[index]
    if not counts and ("pooled" in kinds.values() or (not per_task and {*kinds.values()} == {"one"})):
        return 1
    if not counts:
        raise ValueError(should("observe", "hold at least one observation of each task", list(observation_space)))
    return counts[0]


def features_of(model: Any) -> TaskFeatures:
    """The feature extractor of an actor or critic."""
    found: TaskFeatures = model.features_extractor
    return found


_OVER_TASKS = {"features_extractor_class": TaskFeatures}


def _head(inputs: int, num_tasks: int) -> OverEntities:
    """One number for each task."""
    return OverEntities(nn.Linear(inputs, 1), num_tasks)


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
        features = features_of(self)
        actions: int = self.action_space.shape[0]  # type: ignore[index]
        if not features.per_task:  # the coefficients of a rule for all samples, or a threshold
            rule = nn.Sequential(Pool(), nn.Linear(2 * WIDTHS[-1], actions))
            self.action_net: nn.Module = OverEntities(rule, features.num_tasks, flatten=False)
        else:
            self.action_net = _head(WIDTHS[-1], features.num_tasks)
        self.action_net.apply(partial(self.init_weights, gain=0.01))
        deviations = 1 if features.per_task else actions
        self.log_std = nn.Parameter(torch.full((deviations,), float(self.log_std_init)))
        self._make_optimizer(lr_schedule)

    def _make_optimizer(self, lr_schedule: Schedule) -> None:
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]


class TaskActorCriticPolicy(_TaskActorCritic, MultiInputActorCriticPolicy):
    """PPO's policy over tasks: a Gaussian with an invariant critic.

    With one action per task, the mean is equivariant and all tasks share a deviation. With the coefficients of a rule for samples,
    the mean is invariant, so that the rule's weights are equivariant over samples and tasks, and each coefficient has a deviation.
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
        if not arguments["features_extractor_kwargs"]["per_task"]:
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
