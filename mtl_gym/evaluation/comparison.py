"""Runs policies on the same instances, paired; finished results are kept and reused."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

import mtl_gym
from mtl_gym.checks import positive_int, should
from mtl_gym.context import own_mode
from mtl_gym.environments import LOSS_WEIGHTING, specification
from mtl_gym.envs.arguments import Arguments
from mtl_gym.evaluation.columns import columns_of
from mtl_gym.evaluation.player import Player, initial_memory
from mtl_gym.evaluation.results import Result, Results, plain, spec_key
from mtl_gym.evaluation.rollout import make_env, rollout
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.policies.grammar import names_and_policies
from mtl_gym.policies.protocol import Policy
from mtl_gym.problems.instances import EVALUATION_IDS
from mtl_gym.problems.metrics import METRICS
from mtl_gym.problems.scores import relative_gain

IDS_PER_SEED = 10_000
REFERENCES = "single-task references"


@dataclass(frozen=True)
class Plan:
    """A valid comparison: policies by label, the environment's id, ids of instances, the number of parallel trainings, and the
    environment's arguments, as given and ``checked``, with defaults.
    """

    policies: dict[str, Policy]
    env: str
    ids: list[int]
    num_envs: int
    arguments: dict[str, Any]
    checked: Arguments

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
    **arguments: Any,
) -> Plan:
    """Checks the arguments of :func:`compare` and makes every policy's environment, before anything is run; raises its errors."""
    specification(env)  # which also registers another package's
    chosen = names_and_policies(policies, env)
    ids = instance_ids(instances, seed)
    count = positive_int("num_envs", num_envs)
    given = {name: value if name == "problem" else plain(value) for name, value in arguments.items()}
    checked = [_checked(label, policy, env, given) for label, policy in chosen.items()]
    checked[0].problem.check_labelled("test", checked[0].recipe.tasks)
    for policy in chosen.values():  # which also checks that the policy's options fit the number of tasks
        initial_memory(policy, ids[:1], checked[0].recipe.num_tasks)
    return Plan(chosen, env, ids, count, given, checked[0])


def _checked(label: str, policy: Policy, env: str, arguments: Mapping[str, Any]) -> Arguments:
    """The arguments of a policy's environment, after checking that the policy is for its observations and actions."""
    envs = make_env(policy, env, 1, arguments)
    Player(label, policy, envs)
    return envs.unwrapped.arguments  # type: ignore[attr-defined]


def instance_ids(instances: int | Sequence[int], seed: int) -> list[int]:
    """The ids of n instances of a seed, ``seed * 10^4`` to ``seed * 10^4 + n - 1``; or the given ids.

    Raises:
        ValueError: If there are none or too many, or an id is not one for evaluation.
    """
    if isinstance(instances, Sequence) and not isinstance(instances, str):
        ids = [positive_int("instances", id, least=0) for id in instances]
    else:
        count = positive_int("instances", instances)
        if count > IDS_PER_SEED:
            raise ValueError(should("instances", f"be at most {IDS_PER_SEED}", count))
        first = positive_int("seed", seed, least=0) * IDS_PER_SEED
        ids = list(range(first, first + count))
    if not ids or len(set(ids)) < len(ids) or max(ids) >= EVALUATION_IDS[1]:
        raise ValueError(should("instances", f"be different ids below {EVALUATION_IDS[1]}", instances))
    return ids


OnProgress = Callable[[str, int], None]
"""Called with a label and the number of training steps just done."""


@own_mode()
def run(plan: Plan, *, out: Path | None = None, on_progress: OnProgress | None = None) -> list[Result]:
    """Runs every policy on every instance that ``out/results.sqlite`` does not hold yet; ``None`` stores nothing.

    Returns:
        The results, policy by policy, in the order of the instances.
    """
    on_progress = on_progress or (lambda label, steps: None)
    train_steps, shared = plan.checked.recipe.train_steps, setting(plan)
    specs = {label: _specs(plan, shared, label, policy) for label, policy in plan.policies.items()}
    keys = {label: {id: spec_key(spec) for id, spec in own.items()} for label, own in specs.items()}
    store = None if out is None else Results(out / "results.sqlite", "out")
    if store:
        store.begin(shared)
    references = reference_metrics(plan.checked, plan.ids, lambda count: on_progress(REFERENCES, count * train_steps))
    results = []
    for label, policy in plan.policies.items():
        known = store.read(keys[label].values()) if store else {}
        missing = [id for id in plan.ids if keys[label][id] not in known]
        on_progress(label, (len(plan.ids) - len(missing)) * train_steps)
        for start in range(0, len(missing), plan.num_envs):
            batch = missing[start : start + plan.num_envs]
            done = rollout(
                label, policy, plan.env, batch, arguments=plan.arguments, references=references, advance=partial(on_progress, label)
            )
            if store:
                store.write([specs[label][id] for id in batch], done)
            known |= {keys[label][result.instance]: result for result in done}
        results += [known[keys[label][id]] for id in plan.ids]
    return results


def compare(
    policies: str | Sequence[str | Policy] | Mapping[str, str | Policy],
    env: str = LOSS_WEIGHTING,
    *,
    instances: int | Sequence[int] = 20,
    seed: int = 0,
    num_envs: int = 16,
    out: str | Path | None = None,
    **arguments: Any,
) -> pd.DataFrame:
    """Runs every policy on the same instances and compares each with single-task learning.

    Args:
        policies: Names with options (``"ew,si,constant:w=1,2,3"`` or a list), policies, or a mapping of labels to either. A
            Stable-Baselines3 model is a policy; if it has an environment with ``VecNormalize``, observations are normalised with
            its statistics. After loading a model, this takes ``PPO.load(path, env=VecNormalize.load(statistics, venv))``.
        env: The environment's id.
        instances: Number of instances, or their ids.
        seed: Selects the ids of a number n of instances: ``seed * 10^4`` to ``seed * 10^4 + n - 1``.
        num_envs: Number of parallel trainings.
        out: Folder with ``results.sqlite``, where finished results are kept and reused; ``None`` stores nothing.
        arguments: The environment's arguments (``problem``, ``distribution``, ``lr`` ...), the same for all policies.

    Returns:
        A tidy frame with a row for each policy, instance, task and metric: ``value`` on the test split, single-task ``reference``,
        ``gain`` in percent (positive is better), the instance's ``delta_m`` in percent, ``forward`` and ``backward`` passes,
        ``return`` (of ``reward``, which is ``"none"`` here unless given) and ``diverged``. Then come the environment's columns:
        ``parameter_fraction`` and ``corrupted`` of LayerMerging; ``num_groups`` and, where the best grouping is known, ``regret``
        of TaskGrouping; and with action masks ``invalid_actions``, the fraction of the policy's decisions that were masked and
        replaced: 0 if its ``predict`` takes ``action_masks``, as sb3_contrib's do. ``frame.attrs["about"]`` records how the frame
        was made; :func:`mtl_gym.summarize` computes the statistics.

    Raises:
        ValueError, TypeError, gymnasium.error.Error: If an argument is wrong, or a policy is for other observations or actions,
            before anything is run; or if an answer of a policy is wrong.

    Warns:
        RuntimeWarning: If a policy's actions are clipped to the action space, if its weights were never above 0, or if a function
            mixes trainings, see :func:`mtl_gym.policy`.
    """
    checked = plan(policies, env, instances=instances, seed=seed, num_envs=num_envs, **arguments)
    results = run(checked, out=None if out is None else Path(out))
    return to_frame(results, about(setting(checked), results, seed=seed))


def evaluate(
    policy: str | Policy,
    env: str = LOSS_WEIGHTING,
    *,
    instances: int | Sequence[int] = 20,
    seed: int = 0,
    num_envs: int = 16,
    **arguments: Any,
) -> pd.DataFrame:
    """Evaluates one policy: :func:`compare`, with the same arguments and frame, for one policy, given by name or as an object."""
    return compare([policy], env, instances=instances, seed=seed, num_envs=num_envs, **arguments)


def to_frame(results: Sequence[Result], about: Mapping[str, Any]) -> pd.DataFrame:
    """The tidy frame of results; see :func:`compare`. Adds ``columns``, the names of the environment's columns, to ``about``."""
    own = {column.name: column.key or column.name for column in columns_of(about["env"])}
    known = {name: key for name, key in own.items() if any(key in result.outcome for result in results)}
    rows = []
    for result in results:
        common: dict[str, Any] = {
            "delta_m": result.delta_m,
            **result.cost,
            "return": result.episode_return,
            "diverged": result.diverged,
            **{name: result.outcome[key] for name, key in known.items() if key in result.outcome},
        }
        for name, value in result.metrics.items():
            task, metric = name.rsplit("/", 1)
            reference = result.references[name]
            head = {"policy": result.policy, "instance": result.instance, "task": task, "metric": metric}
            rows.append({**head, "value": value, "reference": reference, "gain": relative_gain(value, reference, metric), **common})
    frame = pd.DataFrame(rows)
    frame.attrs["about"] = {**about, "columns": [*known]}
    return frame


def setting(plan: Plan) -> dict[str, Any]:
    """The settings that all results of a comparison share, JSON-plain."""
    # Given arguments come last, except `tasks`, which the recipe has sorted.
    arguments = {name: value for name, value in plan.arguments.items() if name not in ("problem", "tasks")}
    problem = plan.checked.problem
    return {
        "env": plan.env,
        "problem": problem.name,
        "identity": problem.identity,
        "arguments": {**plan.checked.recipe.plain(problem), **arguments},
        "version": mtl_gym.__version__,
    }


def about(
    setting: Mapping[str, Any], results: Sequence[Result], *, seed: int | None = None, command: str | None = None
) -> dict[str, Any]:
    """How results were made, JSON-plain: the setting, the instances, the versions and each metric's direction."""
    metrics = {name: METRICS[name.rsplit("/", 1)[1]].higher_is_better for result in results for name in result.metrics}
    return {
        "env": setting["env"],
        "problem": setting["problem"],
        "instances": sorted({result.instance for result in results}),
        "seed": seed,
        "arguments": setting["arguments"],
        "command": command,
        "versions": {
            "python": platform.python_version(),
            "mtl-gym": setting["version"],
            **{name: version(name) for name in ("torch", "numpy", "gymnasium", "stable-baselines3")},
        },
        "metrics": {name: {"higher_is_better": higher} for name, higher in metrics.items()},
    }


def _specs(plan: Plan, setting: Mapping[str, Any], label: str, policy: Policy) -> dict[int, dict[str, Any]]:
    """All that each result depends on, by instance. Results of a policy that cannot be identified are never reused."""
    identity = plain(getattr(policy, "spec", None) or {"unknown": uuid.uuid4().hex})
    shared = {"setting": setting, "label": label, "policy": identity}
    return {id: {**shared, "instance": id} for id in plan.ids}
