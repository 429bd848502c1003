"""The defaults of agents in each environment: a table, and fallbacks for environments without a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtl_gym import LAYER_MERGING, LOSS_WEIGHTING, SAMPLE_WEIGHTING, TASK_GROUPING, specification

_DELTA_M, _QUALITY = "terminal_delta_m", "quality"


@dataclass(frozen=True)
class AgentDefaults:
    """A row of ``DEFAULTS``.

    Attributes:
        arguments: Arguments of the environment for training, unless overridden.
        references: Policies plotted along with the agent, unless others are named.
        score: The reward whose return selects the best agent (:func:`score_of`). ``None``: ``terminal_delta_m`` where the
            environment has it, else its default reward.
        pretrained: The pretrained agents, from the argument ``action`` to the name of their file and card; the best one first.
        policies: The policy of each algorithm, ``"module:Class"``, by SB3's class; other algorithms are refused.
        forgotten: Arguments that are not saved with an agent, since they belong to this machine.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    score: str | None = None
    pretrained: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    forgotten: tuple[str, ...] = ()


_OVER_TASKS = {
    "stable_baselines3:PPO": "mtl_gym.agents.task_policies:TaskActorCriticPolicy",
    "sb3_contrib:RecurrentPPO": "mtl_gym.agents.task_policies:TaskRecurrentPolicy",
    "stable_baselines3:SAC": "mtl_gym.agents.task_policies:TaskSACPolicy",
    "stable_baselines3:TD3": "mtl_gym.agents.task_policies:TaskTD3Policy",
    "sb3_contrib:TQC": "mtl_gym.agents.task_policies:TaskTQCPolicy",
}
_OVER_PAIRS = {
    "stable_baselines3:DQN": "mtl_gym.agents.structure_policies:StructureQPolicy",
    "sb3_contrib:MaskablePPO": "mtl_gym.agents.structure_policies:StructurePolicy",
}

DEFAULTS = {
    LOSS_WEIGHTING: AgentDefaults(
        arguments={"distribution": "varied", "reward": "gain", "action": "residual", "weight_range": 1e3, "steps_per_action": 20},
        references=("ew", "init", "si"),
        pretrained={"residual": "ppo", "rule": "ppo_rule"},
        policies=_OVER_TASKS,
    ),
    SAMPLE_WEIGHTING: AgentDefaults(
        arguments={
            "distribution": "noisy",
            "reward": "gain",
            "steps_per_action": 25,
            "observe": [
                *("sample_loss", "sample_mean", "rank_feature", "mean_feature", "alignment_feature", "main_feature"),
                *("log_loss_mean", "slope", "meta_log_loss", "meta_slope", "last_weights", "log_epoch"),
            ],
        },
        references=("uniform", "slgrad", "oracle"),
        pretrained={"rule": "ppo_samples"},
        policies=_OVER_TASKS,
    ),
    LAYER_MERGING: AgentDefaults(
        arguments={"distribution": "varied", "reward": "gain_change", "steps_per_action": 20},
        references=("single-task", "shared", "mtsl"),
        score="gain_change",
        pretrained={"merge": "ppo_merging", "threshold": "ppo_threshold"},
        policies=_OVER_TASKS | _OVER_PAIRS,
    ),
    TASK_GROUPING: AgentDefaults(
        arguments={"reward": "gain_over_joint"},
        references=("joint", "single-task", "stg-mtl"),
        score="gain_over_joint",
        pretrained={"place": "ppo_groups"},
        policies={"sb3_contrib:MaskablePPO": "mtl_gym.agents.grouping_policies:GroupingPolicy"},
        forgotten=("group_table",),
    ),
}
"""By the environment's id."""


def defaults_of(env: str) -> AgentDefaults:
    """The environment's row, or an empty one."""
    return DEFAULTS.get(env, AgentDefaults())


def with_defaults(env: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The environment's arguments for training: these, and the defaults of the others.

    ``decisions`` replace the default ``steps_per_action``, since both say how long a decision is.
    """
    left_out = ("steps_per_action",) if arguments.get("decisions") is not None else ()
    return {**{name: value for name, value in defaults_of(env).arguments.items() if name not in left_out}, **arguments}


def score_of(env: str, arguments: Mapping[str, Any]) -> str:
    """The reward whose return selects the best agent of a training with these arguments.

    It is ``quality``, where that is the reward: it is a score itself, and needs no references.
    """
    spec = specification(env)
    if arguments.get("reward") == _QUALITY:
        return _QUALITY
    return defaults_of(env).score or (_DELTA_M if _DELTA_M in spec.rewards else spec.reward)


def required_of(env: str) -> tuple[str, ...]:
    """The environment's arguments that must be the same as in training; the others may differ."""
    spec = specification(env)
    return ("observe", "steps_per_action", "decisions", *(name for name in spec.own_arguments if name not in spec.free))
