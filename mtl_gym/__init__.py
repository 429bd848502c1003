"""The training of multi-task networks as Gymnasium environments.

``import mtl_gym`` registers the environments and loads neither torch, SB3, matplotlib, scikit-learn nor data; public names
are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from mtl_gym.evaluation.comparison import compare as compare
    from mtl_gym.evaluation.rollout import evaluate as evaluate
    from mtl_gym.evaluation.statistics import summarize as summarize
    from mtl_gym.policies import Policy as Policy
    from mtl_gym.policies import Requirements as Requirements
    from mtl_gym.policies import policy as policy
    from mtl_gym.problems import PROBLEMS as PROBLEMS
    from mtl_gym.problems.base import Problem as Problem
    from mtl_gym.problems.base import Split as Split
    from mtl_gym.problems.base import Task as Task

__version__ = "0.1.0"

_HOMES = {
    "compare": "mtl_gym.evaluation.comparison",
    "evaluate": "mtl_gym.evaluation.rollout",
    "summarize": "mtl_gym.evaluation.statistics",
    "Policy": "mtl_gym.policies",
    "Requirements": "mtl_gym.policies",
    "policy": "mtl_gym.policies",
    "PROBLEMS": "mtl_gym.problems",
    "Problem": "mtl_gym.problems.base",
    "Split": "mtl_gym.problems.base",
    "Task": "mtl_gym.problems.base",
}
__all__ = [*_HOMES]

register(
    "mtl_gym/LossWeighting-v0",
    entry_point="mtl_gym.envs.loss_weighting:LossWeightingEnv",
    vector_entry_point="mtl_gym.envs.loss_weighting:LossWeightingVectorEnv",
)
register(
    "mtl_gym/SampleWeighting-v0",
    entry_point="mtl_gym.envs.sample_weighting:SampleWeightingEnv",
    vector_entry_point="mtl_gym.envs.sample_weighting:SampleWeightingVectorEnv",
)
register(
    "mtl_gym/LayerMerging-v0",
    entry_point="mtl_gym.envs.layer_merging:LayerMergingEnv",
    vector_entry_point="mtl_gym.envs.layer_merging:LayerMergingVectorEnv",
)
register(
    "mtl_gym/TaskGrouping-v0",
    entry_point="mtl_gym.envs.task_grouping:TaskGroupingEnv",
    vector_entry_point="mtl_gym.envs.task_grouping:TaskGroupingVectorEnv",
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mtl_gym' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
