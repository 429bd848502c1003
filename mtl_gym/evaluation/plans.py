"""What a comparison will run: policies, instances and arguments, checked before anything is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mtl_gym
from mtl_gym.checks import number, positive_int, sequence, should
from mtl_gym.context import own_mode
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import Arguments, check_argument_names
from mtl_gym.evaluation.player import Player, initial_memory, warn_of_raw_observations
from mtl_gym.evaluation.rehearsal import rehearse
from mtl_gym.evaluation.results import plain
from mtl_gym.evaluation.rollout import make_env
from mtl_gym.evaluation.single_task import check_reference_memory
from mtl_gym.policies.grammar import names_and_policies
from mtl_gym.policies.protocol import Policy
from mtl_gym.problems.instances import EVALUATION_IDS
from mtl_gym.problems.metrics import own_metrics

IDS_PER_SEED = 10_000


@dataclass(frozen=True)
class Plan:
    """A valid comparison: policies by label, the environment's id, ids of instances and the seed of which they are, the number of
    parallel trainings, the smallest difference that matters, the environment's arguments, as given and ``checked``, with defaults,
    the memory that a batch takes at most, and the study of a suite that it is, if it is one
    (:meth:`mtl_gym.evaluation.suite.Suite.origin`).
    """

    policies: dict[str, Policy]
    env: str
    ids: list[int]
    seed: int
    num_envs: int
    smallest_difference: float
    arguments: dict[str, Any]
    checked: Arguments
    bytes: float = 0.0
    suite: dict[str, str] | None = None

    @property
    def steps(self) -> int:
        """Training steps of :func:`run`, over all policies, the references, and all instances."""
        return (len(self.policies) + 1) * len(self.ids) * self.checked.recipe.train_steps


@own_mode()
def plan(
    policies: str | Sequence[str | Policy] | Mapping[str, str | Policy],
    env: str = LOSS_WEIGHTING,
    *,
    instances: int | Sequence[int] = 20,
    seed: int = 0,
    num_envs: int = 16,
    smallest_difference: float = 0.0,
    **arguments: Any,
) -> Plan:
    """Checks the arguments of :func:`compare` and makes every policy's environment, before anything is run; raises its errors."""
    check_argument_names(specification(env), arguments)
    chosen = names_and_policies(policies, env)
    ids = instance_ids(instances, seed)
    count = positive_int("num_envs", num_envs)
    smallest = number("smallest_difference", smallest_difference, low=0)
    given = {name: value if name == "problem" else plain(value) for name, value in arguments.items()}
    rows = min(count, len(ids))
    made = [_checked(label, policy, env, rows, given) for label, policy in chosen.items()]
    checked = made[0][0]
    checked.problem.check_labelled("test", checked.recipe.tasks)
    most = max(check_reference_memory(checked, len(ids)), *(bytes for _, bytes in made))
    for policy in chosen.values():  # which also checks that the policy's options fit the number of tasks
        initial_memory(policy, ids[:1], checked.recipe.num_tasks)
    return Plan(chosen, env, ids, positive_int("seed", seed, least=0), count, smallest, given, checked, most)


def _checked(label: str, policy: Policy, env: str, rows: int, arguments: Mapping[str, Any]) -> tuple[Arguments, float]:
    """The arguments of a policy's environment and the bytes that it takes at most; checks that the policy is for its observations
    and actions.

    It is made as large as it will run: this takes no longer, and checks its memory.
    """
    envs = make_env(policy, env, rows, arguments, label)
    Player(label, policy, envs)
    rehearse(label, policy, envs.unwrapped.single_observation_space, specification(env).observations)  # type: ignore[arg-type]
    warn_of_raw_observations(label, policy)
    return envs.unwrapped.arguments, envs.unwrapped.estimated_bytes  # type: ignore[attr-defined]


def instance_ids(instances: int | Sequence[int], seed: int) -> list[int]:
    """The ids of n instances of a seed, ``seed * 10^4`` to ``seed * 10^4 + n - 1``; or the given ids.

    Raises:
        ValueError: If there are none or too many, or an id is not one for evaluation.
    """
    if isinstance(instances, Sequence) and not isinstance(instances, (str, bytes)):
        ids = [positive_int("instances", id, least=0) for id in sequence("instances", instances, most=IDS_PER_SEED)]
        if not ids:
            raise ValueError(should("instances", "have at least one id", instances))
    else:
        first = positive_int("seed", seed, least=0, most=EVALUATION_IDS[1] // IDS_PER_SEED - 1) * IDS_PER_SEED
        ids = list(range(first, first + positive_int("instances", instances, most=IDS_PER_SEED)))
    if len(set(ids)) < len(ids) or max(ids) >= EVALUATION_IDS[1]:
        raise ValueError(should("instances", f"be different ids below {EVALUATION_IDS[1]}", instances))
    return ids


def setting(plan: Plan) -> dict[str, Any]:
    """The settings that all results of a comparison share, JSON-plain."""
    return setting_of(plan.env, plan.checked, plan.arguments)


def arguments_of(setting: Mapping[str, Any]) -> dict[str, Any]:
    """The environment's arguments that give a setting, but for the problem."""
    own = ("network", *specification(setting["env"]).excluded)  # the problem's own, and what the environment does not take
    return {name: value for name, value in setting["arguments"].items() if name not in own}


def setting_of(env: str, checked: Arguments, given: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the environment's id and its arguments, as given and ``checked``."""
    # Given arguments come last, except `tasks`, which the recipe has sorted, and `distribution`, whose ranges it has.
    of_recipe = ("problem", "tasks", "distribution")
    arguments = {name: value for name, value in given.items() if name not in of_recipe}
    problem = checked.problem
    own = own_metrics(metric for task in problem.tasks for metric in task.metrics)
    return {
        "env": env,
        "problem": problem.name,
        "identity": problem.identity,
        "arguments": {**checked.recipe.plain(problem), **arguments},
        "version": mtl_gym.__version__,
        **({"metrics": own} if own else {}),
    }
