"""Every policy on the same instances, paired; what is finished is kept, and is not done again."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import pandas as pd

import mtl_gym
from mtl_gym.arguments import choose, positive_int, should
from mtl_gym.envs.arguments import Arguments
from mtl_gym.evaluation.results import Result, Results, plain, spec_key
from mtl_gym.evaluation.rollout import initial_memory, make_env, rollout
from mtl_gym.evaluation.single_task import reference_metrics
from mtl_gym.policies import Policy, names_and_policies
from mtl_gym.problems.instances import EVALUATION_IDS
from mtl_gym.problems.metrics import METRICS, relative_gain

IDS_PER_SEED = 10_000
_OF_STRUCTURES = {"parameter_fraction": "parameter_fraction", "corrupted": "corrupted", "invalid_actions": "invalid_actions"}
_OF_GROUPINGS = {"num_groups": "num_groups", "regret": "regret", "invalid_actions": "invalid_actions"}
REFERENCES = "single-task references"


@dataclass(frozen=True)
class Plan:
    """A comparison that has been checked and can be run.

    Attributes:
        policies: The policies by their labels.
        env: The environment's id.
        ids: The instances.
        num_envs: Trainings that run side by side.
        arguments: The environment's arguments, as given.
        checked: The same, with defaults.
    """

    policies: dict[str, Policy]
    env: str
    ids: list[int]
    num_envs: int
    arguments: dict[str, Any]
    checked: Arguments

    @property
    def steps(self) -> int:
        """Training steps that :func:`run` tells of: of all policies, and of the references, on all instances."""
        return (len(self.policies) + 1) * len(self.ids) * self.checked.recipe.train_steps


def plan(
    policies: str | Sequence[str | Policy] | Mapping[str, str | Policy],
    env: str = "mtl_gym/LossWeighting-v0",
    *,
    instances: int | Sequence[int] = 20,
    seed: int = 0,
    num_envs: int = 16,
    **arguments: Any,
) -> Plan:
    """Checks all arguments of a comparison, and that every policy's environment can be made, before anything is run.

    Raises:
        ValueError, TypeError, gymnasium.error.Error: If one of them is wrong.
    """
    choose("env", env, {id: id for id in gymnasium.registry if id.startswith("mtl_gym/")})
    chosen = names_and_policies(policies, env)
    ids = instance_ids(instances, seed)
    count = positive_int("num_envs", num_envs)
    given = {name: value if name == "problem" else plain(value) for name, value in arguments.items()}
    checked = [make_env(policy, env, 1, given).unwrapped.arguments for policy in chosen.values()]  # type: ignore[attr-defined]
    for policy in chosen.values():  # which also checks that the policy's options fit the number of tasks
        initial_memory(policy, ids[:1], checked[0].recipe.num_tasks)
    return Plan(chosen, env, ids, count, given, checked[0])


def instance_ids(instances: int | Sequence[int], seed: int) -> list[int]:
    """The ids of n instances of a seed, ``seed * 10^4`` to ``seed * 10^4 + n - 1``; or those given.

    Raises:
        ValueError: If there are none, too many, or an id is not one for evaluation.
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
"""Is told what is being done, and how many training steps of it have just been done."""


def run(plan: Plan, *, out: Path | None = None, on_progress: OnProgress | None = None) -> list[Result]:
    """Runs a plan: every policy on every instance that ``out/results.sqlite`` does not hold yet.

    Args:
        plan: The plan.
        out: Folder of the results; ``None`` keeps nothing.
        on_progress: Is told of the progress.

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
            own = {id: references[id] for id in batch}
            done = rollout(
                label, policy, plan.env, batch, arguments=plan.arguments, references=own, advance=partial(on_progress, label)
            )
            if store:
                store.write([specs[label][id] for id in batch], done)
            known |= {keys[label][result.instance]: result for result in done}
        results += [known[keys[label][id]] for id in plan.ids]
    return results


def compare(
    policies: str | Sequence[str | Policy] | Mapping[str, str | Policy],
    env: str = "mtl_gym/LossWeighting-v0",
    *,
    instances: int | Sequence[int] = 20,
    seed: int = 0,
    num_envs: int = 16,
    out: str | Path | None = None,
    **arguments: Any,
) -> pd.DataFrame:
    """Plays every policy on the same instances and holds each against single-task learning.

    Args:
        policies: Names with options (``"ew,si,constant:w=1,2,3"`` or a list), policies, or a mapping of labels to either.
        env: The environment's id.
        instances: Their number, or their ids.
        seed: With a number n: ids ``seed * 10^4`` to ``seed * 10^4 + n - 1``.
        num_envs: Trainings that run side by side.
        out: Folder with ``results.sqlite``, where finished results are kept and found again; ``None`` keeps nothing.
        arguments: The environment's arguments (``problem``, ``distribution``, ``lr`` ...), the same for all policies.

    Returns:
        A tidy frame with a row for each policy, instance, task and metric: ``value`` on the test split, single-task ``reference``,
        ``gain`` in percent (positive is better), the instance's ``delta_m`` in percent, ``forward`` and ``backward`` passes,
        ``return`` (of ``reward``, which is ``"none"`` here unless given) and ``diverged``; where layers are merged also
        ``parameter_fraction`` and ``corrupted``, where tasks are grouped ``num_groups`` and, where the best grouping is known,
        ``regret``. There ``invalid_actions`` is the share of the policy's decisions that were masked, so that others were taken in
        their place; none of an agent's whose ``predict`` takes ``action_masks``, as sb3_contrib's do. ``frame.attrs["about"]`` says
        how it was made; :func:`mtl_gym.summarize` has the statistics.

    Raises:
        ValueError, TypeError, gymnasium.error.Error: If an argument is wrong; before anything is run.
    """
    checked = plan(policies, env, instances=instances, seed=seed, num_envs=num_envs, **arguments)
    results = run(checked, out=None if out is None else Path(out))
    return to_frame(results, about(setting(checked), results, seed=seed))


def to_frame(results: Sequence[Result], about: Mapping[str, Any]) -> pd.DataFrame:
    """The tidy frame of results; see :func:`compare`."""
    rows = []
    for result in results:
        common: dict[str, Any] = {
            "delta_m": result.delta_m,
            **result.cost,
            "return": result.episode_return,
            "diverged": result.diverged,
            **{name: result.structure[own] for name, own in _OF_STRUCTURES.items() if own in result.structure},
            **{name: result.grouping[own] for name, own in _OF_GROUPINGS.items() if own in result.grouping},
        }
        for name, value in result.metrics.items():
            task, metric = name.rsplit("/", 1)
            reference = result.references[name]
            gain = relative_gain(value, reference, metric)
            head = {"policy": result.policy, "instance": result.instance, "task": task, "metric": metric}
            rows.append({**head, "value": value, "reference": reference, "gain": gain, **common})
    frame = pd.DataFrame(rows)
    frame.attrs["about"] = dict(about)
    return frame


def setting(plan: Plan) -> dict[str, Any]:
    """What all results of a comparison share, JSON-plain."""
    # What is given comes last, but for `tasks`, which the recipe has in one order.
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
    """All that each result depends on, by its instance. A policy that cannot be identified is never found again."""
    identity = plain(getattr(policy, "spec", None) or {"unknown": uuid.uuid4().hex})
    shared = {"setting": setting, "label": label, "policy": identity}
    return {id: {**shared, "instance": id} for id in plan.ids}
