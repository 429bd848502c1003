"""Multi-task training as Gymnasium environments.

``import mtl_gym`` registers the environments without loading torch, SB3, matplotlib, scikit-learn or data; public names are loaded
on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

from mtl_gym.environments import ENVIRONMENTS, find_environments as find_environments, vector_home

if TYPE_CHECKING:
    from mtl_gym import plots as plots
    from mtl_gym.balancing.loss_balancer import LossBalancer as LossBalancer
    from mtl_gym.balancing.sample_balancer import SampleBalancer as SampleBalancer
    from mtl_gym.cache import check_writable as check_writable, locked as locked, write_whole as write_whole
    from mtl_gym.checks import (
        choose as choose,
        number as number,
        path_of as path_of,
        positive_int as positive_int,
        should as should,
    )
    from mtl_gym.context import own_mode as own_mode
    from mtl_gym.decisions.base import Decision as Decision, TrainingDecision as TrainingDecision
    from mtl_gym.decisions.partitions import (
        MOST_LISTED as MOST_LISTED,
        MOST_SEARCHED as MOST_SEARCHED,
        partitions as partitions,
        together as together,
    )
    from mtl_gym.decisions.task_features import (
        DEFAULT_FEATURES as DEFAULT_FEATURES,
        LEVEL_REACH as LEVEL_REACH,
        TASK_FEATURES as TASK_FEATURES,
        TaskFeature as TaskFeature,
    )
    from mtl_gym.environments import (
        LAYER_MERGING as LAYER_MERGING,
        LOSS_WEIGHTING as LOSS_WEIGHTING,
        SAMPLE_WEIGHTING as SAMPLE_WEIGHTING,
        TASK_GROUPING as TASK_GROUPING,
        specification as specification,
    )
    from mtl_gym.envs.arguments import check_argument_names as check_argument_names
    from mtl_gym.envs.infos import row_infos as row_infos
    from mtl_gym.envs.observations import OBSERVATIONS as OBSERVATIONS, SIZES as SIZES, Observation as Observation
    from mtl_gym.envs.rewards import REWARDS as REWARDS, Reward as Reward
    from mtl_gym.envs.scalar import MTLEnv as MTLEnv
    from mtl_gym.envs.spec import (
        Column as Column,
        EnvironmentSpec as EnvironmentSpec,
        PageFigure as PageFigure,
        ScheduleSearch as ScheduleSearch,
    )
    from mtl_gym.envs.vector import MTLVectorEnv as MTLVectorEnv
    from mtl_gym.evaluation.comparison import compare as compare, evaluate as evaluate
    from mtl_gym.evaluation.discrimination import discrimination as discrimination
    from mtl_gym.evaluation.executors import make_executor as make_executor
    from mtl_gym.evaluation.executors.holders import Held as Held, Holder as Holder
    from mtl_gym.evaluation.executors.jobs import Executor as Executor
    from mtl_gym.evaluation.export import report as report
    from mtl_gym.evaluation.fitting import (
        Fit as Fit,
        fit as fit,
        suggest_groups as suggest_groups,
        suggest_sharing as suggest_sharing,
    )
    from mtl_gym.evaluation.leaderboard import leaderboard as leaderboard
    from mtl_gym.evaluation.module_files import load_module as load_module
    from mtl_gym.evaluation.problem_check import check as check
    from mtl_gym.evaluation.rank_correlation import rank_correlation as rank_correlation
    from mtl_gym.evaluation.recording import record as record
    from mtl_gym.evaluation.replays import Replay as Replay, reproduce as reproduce, verify as verify
    from mtl_gym.evaluation.results import plain as plain
    from mtl_gym.evaluation.side_by_side import side_by_side as side_by_side
    from mtl_gym.evaluation.standings import standings as standings
    from mtl_gym.evaluation.suite import Study as Study, Suite as Suite
    from mtl_gym.evaluation.suite_references import suite_references as suite_references
    from mtl_gym.evaluation.suite_runs import compare_suite as compare_suite
    from mtl_gym.evaluation.suites import load_suite as load_suite
    from mtl_gym.evaluation.summary import summarize as summarize
    from mtl_gym.identity import source_digest as source_digest
    from mtl_gym.models.base import Model as Model
    from mtl_gym.policies.functions import policy as policy
    from mtl_gym.policies.grammar import names_and_policies as names_and_policies, split_policies as split_policies
    from mtl_gym.policies.protocol import (
        LOSSES_TO_WEIGHTS as LOSSES_TO_WEIGHTS,
        WEIGHT_BOUND as WEIGHT_BOUND,
        Policy as Policy,
        Requirements as Requirements,
    )
    from mtl_gym.problems import PROBLEMS as PROBLEMS, load_problem as load_problem
    from mtl_gym.problems.base import Pool as Pool, Problem as Problem, Split as Split, Task as Task
    from mtl_gym.problems.families import Family as Family, OwnAxis as OwnAxis
    from mtl_gym.problems.instances import EVALUATION_IDS as EVALUATION_IDS
    from mtl_gym.problems.losses import Loss as Loss
    from mtl_gym.problems.metrics import Metric as Metric
    from mtl_gym.problems.rows import Defaults as Defaults
    from mtl_gym.progress import progress_bar as progress_bar
    from mtl_gym.training.memory import check_bytes as check_bytes, check_memory as check_memory
    from mtl_gym.training.probes import Probe as Probe, Reading as Reading, View as View
    from mtl_gym.training.trainer import Trainer as Trainer

__version__ = "0.1.0"

_NAMES = {
    "balancing.loss_balancer": "LossBalancer",
    "balancing.sample_balancer": "SampleBalancer",
    "cache": "check_writable locked write_whole",
    "checks": "choose number path_of positive_int should",
    "context": "own_mode",
    "decisions.base": "Decision TrainingDecision",
    "decisions.partitions": "MOST_LISTED MOST_SEARCHED partitions together",
    "decisions.task_features": "DEFAULT_FEATURES LEVEL_REACH TASK_FEATURES TaskFeature",
    "environments": "LAYER_MERGING LOSS_WEIGHTING SAMPLE_WEIGHTING TASK_GROUPING find_environments specification",
    "envs.arguments": "check_argument_names",
    "envs.infos": "row_infos",
    "envs.observations": "OBSERVATIONS SIZES Observation",
    "envs.rewards": "REWARDS Reward",
    "envs.scalar": "MTLEnv",
    "envs.spec": "Column EnvironmentSpec PageFigure ScheduleSearch",
    "envs.vector": "MTLVectorEnv",
    "evaluation.comparison": "compare evaluate",
    "evaluation.discrimination": "discrimination",
    "evaluation.executors": "make_executor",
    "evaluation.executors.holders": "Held Holder",
    "evaluation.executors.jobs": "Executor",
    "evaluation.export": "report",
    "evaluation.fitting": "Fit fit suggest_groups suggest_sharing",
    "evaluation.module_files": "load_module",
    "evaluation.leaderboard": "leaderboard",
    "evaluation.problem_check": "check",
    "evaluation.rank_correlation": "rank_correlation",
    "evaluation.recording": "record",
    "evaluation.replays": "Replay reproduce verify",
    "evaluation.results": "plain",
    "evaluation.side_by_side": "side_by_side",
    "evaluation.standings": "standings",
    "evaluation.suite": "Study Suite",
    "evaluation.suite_references": "suite_references",
    "evaluation.suite_runs": "compare_suite",
    "evaluation.suites": "load_suite",
    "evaluation.summary": "summarize",
    "identity": "source_digest",
    "models.base": "Model",
    "policies.functions": "policy",
    "policies.grammar": "names_and_policies split_policies",
    "policies.protocol": "LOSSES_TO_WEIGHTS WEIGHT_BOUND Policy Requirements",
    "problems": "PROBLEMS load_problem",
    "problems.base": "Pool Problem Split Task",
    "problems.families": "Family OwnAxis",
    "problems.instances": "EVALUATION_IDS",
    "problems.losses": "Loss",
    "problems.metrics": "Metric",
    "problems.rows": "Defaults",
    "progress": "progress_bar",
    "training.memory": "check_bytes check_memory",
    "training.probes": "Probe Reading View",
    "training.trainer": "Trainer",
}
_HOMES = {name: f"mtl_gym.{module}" for module, names in _NAMES.items() for name in names.split()}
_MODULES = ("plots",)
__all__ = [*_HOMES, *_MODULES]

for _id, _home in ENVIRONMENTS.items():  # those of other packages register themselves when they are loaded
    register(_id, entry_point=_home, vector_entry_point=vector_home(_home))


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"mtl_gym.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'mtl_gym' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES, *_MODULES])
