"""The rows of an agent's training: the environments of all its problems, in this process or in workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from mtl_gym import Holder, should
from mtl_gym.agents.algorithm import algorithm, policy_of
from mtl_gym.agents.compatibility import check_observations
from mtl_gym.agents.leave_one_out import LeaveOneOut
from mtl_gym.agents.mixture import Mixture, Standardised
from mtl_gym.agents.remote import remote_rows, shares
from mtl_gym.agents.settings import Settings
from mtl_gym.agents.vec_env import VectorEnvAdapter


def make_envs(settings: Settings, holders: Sequence[Holder] = ()) -> tuple[VecEnv, int]:
    """The environments as a VecEnv of SB3, and the number of decisions per episode, which all sources share.

    Args:
        settings: The training's settings.
        holders: The workers that step the rows; none: this process does.
    """
    made = {name: _make_source(settings, source, holders) for source, name in enumerate(settings.sources)}
    envs, lengths = {name: own for name, (own, _) in made.items()}, {name: length for name, (_, length) in made.items()}
    if len({*lengths.values()}) > 1:
        remedy = "Give `decisions` to all, and to each problem `train_steps` of which that number is a divisor."
        raise ValueError(should("problem", "have as many decisions in an episode everywhere", lengths, remedy))
    return next(iter(envs.values())) if len(envs) == 1 else Mixture(envs), lengths[next(iter(lengths))]


def _make_source(settings: Settings, source: int, holders: Sequence[Holder]) -> tuple[VecEnv, int]:
    """The rows of one problem, and the number of decisions per episode."""
    named, size = settings.sources, settings.rollouts_per_instance
    (name, arguments), rows = [*named.items()][source], settings.num_envs // len(named)
    vector = _vector_env(settings, arguments, 1 if holders else rows)
    if holders:
        families = shares(source, len(named), rows // size, len(holders))
        parts = [(holders[worker], size * count) for worker, count in families.items()]
        envs: VecEnv = remote_rows(name, gymnasium.spec(settings.env), arguments, vector, parts)
    else:
        envs = VectorEnvAdapter(vector)
    if size > 1:
        envs = LeaveOneOut(envs, size)
    if settings.reward_floor is not None:
        envs = Standardised(envs, settings.reward_floor)
    return envs, vector.unwrapped.decision.length  # type: ignore[attr-defined]


def _vector_env(settings: Settings, arguments: Mapping[str, Any], rows: int) -> VectorEnv[Any, Any, Any]:
    """The vector environment; raises what agents do not support."""
    vector = gymnasium.make_vec(settings.env, num_envs=rows, vectorization_mode="vector_entry_point", **arguments)
    own: Any = vector.unwrapped
    if own.specification.actions is not None:
        own.specification.actions(arguments, own.arguments.recipe.num_tasks, None)
    algorithm(settings.algorithm).check_actions(own.single_action_space, policy_of(settings.env, settings.algorithm))
    check_observations({name: own.specification.observations[name].size for name in own.arguments.observe}, settings.algorithm)
    return vector
